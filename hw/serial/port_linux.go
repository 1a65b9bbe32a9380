//go:build !ppc64 && !ppc64le

// The two excluded architectures have no termios2: there the ordinary termios carries any speed.

package serial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/devfile"
)

// port is an open terminal. The file is in non-blocking mode and served by Go's poller, so that a Close or a deadline
// ends a Read that waits.
type port struct {
	file *os.File
	conn syscall.RawConn
	excl bool // TIOCEXCL is set and Close must clear it

	breaking chan struct{} // holds one token while a break is on the line
	closing  chan struct{} // closed when Close begins: ends SendBreak and Drain
	once     sync.Once     // closes closing
}

var _ hw.SerialPort = (*port)(nil)

func open(path string, o hw.SerialOptions) (hw.SerialPort, error) {
	// O_NONBLOCK: do not wait for a carrier; the port is then also fit for the poller. O_NOCTTY: the DUT must not be able
	// to send us signals.
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, refused(path, classify(err))
	}
	conn, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	p := &port{file: f, conn: conn, breaking: make(chan struct{}, 1), closing: make(chan struct{})}
	if err := p.ioctl("open", func(fd int) error { return p.prepare(fd, o) }); err != nil {
		p.Close()
		return nil, refused(path, err)
	}
	return p, nil
}

// refused is why a port could not be opened, in the words of somebody who looks at it from outside.
func refused(path string, err error) error {
	if errors.Is(err, hw.ErrBusy) {
		return busy("open", path, err, devfile.Holders(context.Background(), path))
	}
	if _, why := look(path); why != nil {
		return why
	}
	return err
}

// prepare claims the port before it changes anything, so that losing the race for a port leaves the winner undisturbed.
func (p *port) prepare(fd int, o hw.SerialOptions) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS2)
	if errors.Is(err, unix.ENOTTY) {
		return hw.Mark(hw.ErrWrong, fmt.Errorf("not a serial port: %w", err))
	}
	if err != nil {
		return err
	}
	if !o.Shared {
		if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
			return err
		}
		if !isPTY(fd) {
			if err := unix.IoctlSetInt(fd, unix.TIOCEXCL, 0); err != nil {
				return err
			}
			p.excl = true
		}
	}
	raw8N1(t)
	t.Cflag = t.Cflag&^(unix.CBAUD|unix.CIBAUD) | unix.BOTHER // CIBAUD 0: the input rate is the output rate
	t.Ospeed = uint32(o.Baud)
	t.Ispeed = t.Ospeed
	if o.DisableHUPCL {
		t.Cflag &^= unix.HUPCL
	}
	if err := unix.IoctlSetTermios(fd, unix.TCSETS2, t); err != nil {
		return err
	}
	err = unix.IoctlSetPointerInt(fd, unix.TIOCMBIS, unix.TIOCM_DTR|unix.TIOCM_RTS)
	if err != nil && !isNoLines(err) {
		return err
	}
	return unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIFLUSH)
}

// raw8N1 takes the line discipline out of the way. It is cfmakeraw(3) and a bit: neither flow control nor parity, and the
// carrier is ignored.
func raw8N1(t *unix.Termios) {
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.INPCK | unix.ISTRIP | unix.INLCR | unix.IGNCR |
		unix.ICRNL | unix.IUCLC | unix.IXON | unix.IXOFF | unix.IXANY | unix.IMAXBEL
	t.Oflag &^= unix.OPOST | unix.ONLCR | unix.OCRNL
	t.Lflag &^= unix.ECHO | unix.ECHOE | unix.ECHOK | unix.ECHONL | unix.ECHOCTL | unix.ECHOKE | unix.ICANON |
		unix.ISIG | unix.IEXTEN
	t.Cflag &^= unix.CSIZE | unix.CSTOPB | unix.PARENB | unix.PARODD | unix.CMSPAR | unix.CRTSCTS
	t.Cflag |= unix.CS8 | unix.CREAD | unix.CLOCAL
	// With VMIN 0 an idle port would read as 0 bytes, which is what a vanished one does.
	t.Cc[unix.VMIN] = 1
	t.Cc[unix.VTIME] = 0
}

// isPTY reports whether fd is the slave side of a pseudo-terminal: major numbers 136 to 143 (kernel, admin-guide/devices.txt).
func isPTY(fd int) bool {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false
	}
	major := unix.Major(uint64(st.Rdev))
	return 136 <= major && major <= 143
}

// isNoLines reports whether err, from an ioctl about modem lines or breaks, says that the terminal has none. Kernels and
// drivers do not agree on one number.
func isNoLines(err error) bool {
	return errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) || errors.Is(err, errors.ErrUnsupported)
}

// ioctl runs f on the file descriptor, which stays open meanwhile, and again when a signal interrupts it. f must not wait.
func (p *port) ioctl(op string, f func(fd int) error) error {
	var err error
	if p.conn.Control(func(fd uintptr) {
		for {
			if err = f(int(fd)); !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}) != nil {
		err = os.ErrClosed // the only reason for Control to fail
	}
	if err == nil {
		return nil
	}
	return classify(&fs.PathError{Op: op, Path: p.file.Name(), Err: err})
}

// lineIoctl is ioctl for what not every port has.
func (p *port) lineIoctl(op string, f func(fd int) error) error {
	return p.ioctl(op, func(fd int) error {
		err := f(fd)
		if isNoLines(err) {
			return fmt.Errorf("the port cannot do that (%w): %w", err, errors.ErrUnsupported)
		}
		return err
	})
}

// classify gives a file error its kind, and says what to do about it.
func classify(err error) error {
	var pe *fs.PathError
	if !errors.As(err, &pe) {
		return err
	}
	explain := func(err error) error { return &fs.PathError{Op: pe.Op, Path: pe.Path, Err: err} }
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return hw.Mark(hw.ErrAbsent, explain(fmt.Errorf("%w: is the device plugged in?", pe.Err)))
	case errors.Is(err, io.EOF):
		return hw.Mark(hw.ErrAbsent, explain(errors.New("hung up: the device is gone")))
	case errors.Is(err, unix.EIO), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return hw.Mark(hw.ErrAbsent, explain(fmt.Errorf("the device is gone: %w", pe.Err)))
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EWOULDBLOCK):
		return busy(pe.Op, pe.Path, pe.Err, nil)
	case errors.Is(err, fs.ErrPermission):
		return explain(devfile.Explain(pe.Err, pe.Path, `SUBSYSTEM=="tty"`))
	}
	return err
}

func (p *port) Read(b []byte) (int, error) {
	n, err := p.file.Read(b)
	if err == io.EOF {
		err = &fs.PathError{Op: "read", Path: p.file.Name(), Err: io.EOF}
	}
	return n, classify(err)
}

func (p *port) Write(b []byte) (int, error) {
	n, err := p.file.Write(b)
	return n, classify(err)
}

func (p *port) SetReadDeadline(t time.Time) error {
	return p.deadline("set read deadline", p.file.SetReadDeadline(t))
}

func (p *port) SetWriteDeadline(t time.Time) error {
	return p.deadline("set write deadline", p.file.SetWriteDeadline(t))
}

// deadline gives err from package os its kind: on a closed file it is an internal one.
func (p *port) deadline(op string, err error) error {
	if err == nil {
		return nil
	}
	if !errors.Is(err, os.ErrNoDeadline) {
		err = os.ErrClosed
	}
	return &fs.PathError{Op: op, Path: p.file.Name(), Err: err}
}

// Close ends every call that waits, a break included, and closes the file. Like any last close of a terminal it gives
// the kernel the chance to send what was written, for at most 30 s; to close at once, discard the output first.
func (p *port) Close() error {
	p.once.Do(func() { close(p.closing) })
	p.breaking <- struct{}{} // a break that is on the line is taken off first
	defer func() { <-p.breaking }()
	if p.excl {
		// The mark stays on the terminal as long as anybody has it open. If clearing it fails, the device is gone.
		p.ioctl("release", func(fd int) error { return unix.IoctlSetInt(fd, unix.TIOCNXCL, 0) })
	}
	return p.file.Close()
}

func (p *port) SetDTR(asserted bool) error { return p.setLine("set dtr", unix.TIOCM_DTR, asserted) }
func (p *port) SetRTS(asserted bool) error { return p.setLine("set rts", unix.TIOCM_RTS, asserted) }

func (p *port) setLine(op string, line int, asserted bool) error {
	var req uint = unix.TIOCMBIC
	if asserted {
		req = unix.TIOCMBIS
	}
	return p.lineIoctl(op, func(fd int) error { return unix.IoctlSetPointerInt(fd, req, line) })
}

func (p *port) Lines() (hw.SerialLines, error) {
	var bits int
	err := p.lineIoctl("read lines", func(fd int) (err error) {
		bits, err = unix.IoctlGetInt(fd, unix.TIOCMGET)
		return err
	})
	if err != nil {
		return hw.SerialLines{}, err
	}
	return hw.SerialLines{
		DTR: bits&unix.TIOCM_DTR != 0,
		RTS: bits&unix.TIOCM_RTS != 0,
		CTS: bits&unix.TIOCM_CTS != 0,
		DSR: bits&unix.TIOCM_DSR != 0,
		DCD: bits&unix.TIOCM_CAR != 0,
		RI:  bits&unix.TIOCM_RNG != 0,
	}, nil
}

func (p *port) SendBreak(ctx context.Context, d time.Duration) error {
	select {
	case p.breaking <- struct{}{}:
		defer func() { <-p.breaking }()
	case <-ctx.Done():
	}
	if err := ctx.Err(); err != nil {
		return &fs.PathError{Op: "send break", Path: p.file.Name(), Err: err}
	}
	set := func(req uint) error {
		return p.lineIoctl("send break", func(fd int) error { return unix.IoctlSetInt(fd, req, 0) })
	}
	if err := set(unix.TIOCSBRK); err != nil {
		return err
	}
	waitErr := p.wait(ctx, "send break", d)
	return errors.Join(waitErr, set(unix.TIOCCBRK))
}

// Drain first waits for the kernel's buffer to empty, then for what the hardware holds. Only the latter wait cannot be
// interrupted, and it is short: a FIFO holds a few hundred bytes.
func (p *port) Drain(ctx context.Context) error {
	const interval = 5 * time.Millisecond // 57 bytes at 115200 baud
	for {
		var left int
		err := p.ioctl("drain", func(fd int) (err error) {
			left, err = unix.IoctlGetInt(fd, unix.TIOCOUTQ)
			return err
		})
		if err != nil {
			return err
		}
		if left == 0 {
			break
		}
		if err := p.wait(ctx, "drain", interval); err != nil {
			return err
		}
	}
	return p.ioctl("drain", func(fd int) error { return unix.IoctlSetInt(fd, unix.TCSBRK, 1) }) // as tcdrain(3)
}

// wait waits for d, or until ctx is done or the port is closed.
func (p *port) wait(ctx context.Context, op string, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	var err error
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-p.closing:
		err = os.ErrClosed
	}
	return &fs.PathError{Op: op, Path: p.file.Name(), Err: err}
}

func (p *port) DiscardInput() error  { return p.discard("discard input", unix.TCIFLUSH) }
func (p *port) DiscardOutput() error { return p.discard("discard output", unix.TCOFLUSH) }

func (p *port) discard(op string, queue int) error {
	return p.ioctl(op, func(fd int) error { return unix.IoctlSetInt(fd, unix.TCFLSH, queue) })
}

func (p *port) Baud() (int, error) {
	var baud int
	err := p.ioctl("read baud rate", func(fd int) error {
		t, err := unix.IoctlGetTermios(fd, unix.TCGETS2)
		if err == nil {
			baud = int(t.Ospeed)
		}
		return err
	})
	return baud, err
}
