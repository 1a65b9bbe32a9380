package cdev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/warthog618/go-gpiocdev/uapi"
	"golang.org/x/sys/unix"

	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/gpio"
)

// List names the devices in /dev. Links are left out: Raspberry Pi OS keeps the old number of the Pi 5's chip as one.
func (Kernel) List() ([]string, error) {
	entries, err := os.ReadDir("/dev")
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), "gpiochip")
		if n, err := strconv.Atoi(digits); ok && err == nil && e.Type()&fs.ModeCharDevice != 0 {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	names := make([]string, len(numbers))
	for i, n := range numbers {
		names[i] = "gpiochip" + strconv.Itoa(n)
	}
	return names, nil
}

// Open opens the chip at path.
func (Kernel) Open(path string) (gpio.Chip, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	conn, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	c := &chip{file: f, conn: conn}
	err = control(conn, func(fd uintptr) (err error) {
		c.info, err = uapi.GetChipInfo(fd)
		return err
	})
	if err == nil {
		return c, nil
	}
	f.Close()
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) {
		err = fmt.Errorf("not a GPIO chip: %w", err)
	}
	return nil, &fs.PathError{Op: "open", Path: path, Err: err}
}

// control runs an ioctl on a file, which stays open meanwhile, and again when a signal interrupts it.
func control(conn syscall.RawConn, f func(fd uintptr) error) error {
	var err error
	if conn.Control(func(fd uintptr) {
		for {
			if err = f(fd); !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}) != nil {
		return os.ErrClosed // the only reason for Control to fail
	}
	return err
}

type chip struct {
	file *os.File
	conn syscall.RawConn
	info uapi.ChipInfo
}

func (c *chip) Name() string  { return uapi.BytesToString(c.info.Name[:]) }
func (c *chip) Label() string { return uapi.BytesToString(c.info.Label[:]) }
func (c *chip) Lines() int    { return int(c.info.Lines) }
func (c *chip) Close() error  { return c.file.Close() }

func (c *chip) Line(offset int) (s gpio.Status, err error) {
	err = control(c.conn, func(fd uintptr) error {
		i, err := uapi.GetLineInfoV2(fd, offset)
		s = gpio.Status{Name: uapi.BytesToString(i.Name[:]), Used: i.Flags.IsUsed(), Consumer: uapi.BytesToString(i.Consumer[:])}
		return err
	})
	return s, err
}

// eventBuffer is how many edges the kernel keeps for us: its maximum for one line.
const eventBuffer = 1024

func (c *chip) Request(offset int, o hw.LineOptions) (hw.Line, error) {
	r := uapi.LineRequest{Lines: 1}
	r.Offsets[0] = uint32(offset)
	copy(r.Consumer[:len(r.Consumer)-1], o.Consumer)
	r.Config = config(o)
	if o.Edges {
		r.EventBufferSize = eventBuffer
	}
	status, err := c.Line(offset)
	if err != nil {
		return nil, err
	}
	if err := control(c.conn, func(fd uintptr) error { return uapi.GetLine(fd, &r) }); err != nil {
		return nil, err
	}
	l := &line{info: hw.LineInfo{Chip: c.Name(), Label: c.Label(), Offset: offset, Name: status.Name}}
	if err := unix.SetNonblock(int(r.Fd), true); err != nil {
		unix.Close(int(r.Fd))
		return nil, err
	}
	l.file = os.NewFile(uintptr(r.Fd), l.info.String())
	if l.conn, err = l.file.SyscallConn(); err != nil {
		l.file.Close()
		return nil, err
	}
	return l, nil
}

// config is the options in the kernel's words.
func config(o hw.LineOptions) uapi.LineConfig {
	var c uapi.LineConfig
	if o.ActiveLow {
		c.Flags |= uapi.LineFlagV2ActiveLow
	}
	switch o.Bias {
	case hw.BiasOff:
		c.Flags |= uapi.LineFlagV2BiasDisabled
	case hw.PullUp:
		c.Flags |= uapi.LineFlagV2BiasPullUp
	case hw.PullDown:
		c.Flags |= uapi.LineFlagV2BiasPullDown
	}
	attribute := func(a uapi.LineAttribute) { c.AddAttribute(uapi.LineConfigAttribute{Attr: a, Mask: 1}) }
	if o.Output {
		c.Flags |= uapi.LineFlagV2Output
		if o.Active {
			attribute(uapi.OutputValues(1).Encode())
		} else {
			attribute(uapi.OutputValues(0).Encode())
		}
	} else {
		c.Flags |= uapi.LineFlagV2Input
	}
	switch o.Drive {
	case hw.OpenDrain:
		c.Flags |= uapi.LineFlagV2OpenDrain
	case hw.OpenSource:
		c.Flags |= uapi.LineFlagV2OpenSource
	}
	if o.Edges {
		c.Flags |= uapi.LineFlagV2EdgeBoth
	}
	if o.Debounce > 0 {
		attribute(uapi.DebouncePeriod(o.Debounce).Encode())
	}
	return c
}

// line is the file of a requested line.
type line struct {
	info hw.LineInfo
	file *os.File
	conn syscall.RawConn

	reading sync.Mutex
	events  []byte
}

func (l *line) Info() hw.LineInfo { return l.info }

func (l *line) Value() (bool, error) {
	v := uapi.LineValues{Mask: 1}
	err := control(l.conn, func(fd uintptr) error { return uapi.GetLineValuesV2(fd, &v) })
	return v.Bits&1 != 0, l.explain("read", err)
}

func (l *line) SetValue(active bool) error {
	v := uapi.LineValues{Mask: 1}
	if active {
		v.Bits = 1
	}
	return l.explain("set", control(l.conn, func(fd uintptr) error { return uapi.SetLineValuesV2(fd, v) }))
}

// eventSize is that of the kernel's struct gpio_v2_line_event.
const eventSize = 48

func (l *line) ReadEdges(buf []hw.Edge) (int, error) {
	if len(buf) == 0 {
		return 0, io.ErrShortBuffer
	}
	l.reading.Lock()
	defer l.reading.Unlock()
	if need := len(buf) * eventSize; len(l.events) < need {
		l.events = make([]byte, need)
	}
	n, err := l.file.Read(l.events[:len(buf)*eventSize])
	if err != nil {
		return 0, l.explain("wait for edges", err)
	}
	n /= eventSize
	for i := range buf[:n] {
		b := l.events[i*eventSize:]
		buf[i] = hw.Edge{
			Time:   time.Duration(binary.NativeEndian.Uint64(b)),
			Rising: uapi.LineEventID(binary.NativeEndian.Uint32(b[8:])) == uapi.LineEventRisingEdge,
			Seqno:  binary.NativeEndian.Uint32(b[20:]),
		}
	}
	return n, nil
}

func (l *line) Close() error {
	if err := l.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// explain gives an error its kind.
func (l *line) explain(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO), errors.Is(err, io.EOF):
		return hw.Mark(hw.ErrAbsent, fmt.Errorf("%s %v: the chip is gone: %w", op, l.info, unix.ENODEV))
	case errors.Is(err, os.ErrClosed):
		return fmt.Errorf("%s %v: %w", op, l.info, os.ErrClosed)
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return fmt.Errorf("%s %v: %w", op, l.info, err)
}
