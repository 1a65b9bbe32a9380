package dut

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// DefaultBootTime is how long the device takes to boot unless it is told otherwise.
const DefaultBootTime = time.Second

// Options are what a device is made with. Only Dir is required.
type Options struct {
	Dir      string        // where its places are; made if it is not there
	TCP      string        // host and port of its web page, which must be loopback; "" is 127.0.0.1 and a free port
	BootTime time.Duration // from power on to the prompt; 0 is as fast as the console can show it
	Log      *slog.Logger  // of what happens to the device; nil for no log
}

// DUT is a running device. Its rail is off at first.
type DUT struct {
	board   *board
	uart    *uart
	control *control
	web     *web
	paths   paths
	undo    []func() error // of Start, in its order
	once    sync.Once
	closed  error
}

// paths are the places of a device in its directory.
type paths struct{ control, uart, card string }

const controlName = "control.sock"

// Start makes a device and takes its places. It fails when another one runs in the directory.
func Start(o Options) (*DUT, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.TCP == "" {
		o.TCP = "127.0.0.1:0"
	}
	d := &DUT{paths: paths{filepath.Join(o.Dir, controlName), filepath.Join(o.Dir, "uart"), filepath.Join(o.Dir, "card")}}
	if err := d.start(o); err != nil {
		return nil, fmt.Errorf("start virtual DUT: %w", errors.Join(err, d.Close()))
	}
	return d, nil
}

func (d *DUT) start(o Options) (err error) {
	if o.Dir == "" {
		return errors.New("no directory")
	}
	if o.BootTime < 0 {
		return fmt.Errorf("boot time %v: must not be negative", o.BootTime)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return err
	}
	dir, err := lock(o.Dir)
	if err != nil {
		return err
	}
	d.undo = append(d.undo, dir.Close)

	if d.web, err = newWeb(o.TCP, o.Log); err != nil {
		return err
	}
	d.undo = append(d.undo, d.web.Close)
	card, err := newCard(d.paths.card)
	if err != nil {
		return err
	}
	d.undo = append(d.undo, card.Close)
	d.uart = &uart{link: d.paths.uart, log: o.Log}
	d.board = &board{bootTime: o.BootTime, wire: d.uart, site: d.web, load: card.load, card: SideDUT, log: o.Log}
	d.uart.receive = d.board.Receive
	if err := d.uart.Plug(); err != nil {
		return err
	}
	d.undo = append(d.undo, d.uart.Close)
	d.undo = append(d.undo, func() error { d.board.Off(); return nil })

	if err := vacate(d.paths.control, fs.ModeSocket); err != nil {
		return err
	}
	l, err := net.Listen("unix", d.paths.control)
	if err != nil {
		const sunPath = 107 // see unix(7)
		if len(d.paths.control) > sunPath {
			err = fmt.Errorf("%w: the path has %d bytes, and a socket's can have %d: choose a shorter directory",
				err, len(d.paths.control), sunPath)
		}
		return err
	}
	d.control = newControl(l, d, o.Log)
	d.undo = append(d.undo, d.control.Close)
	return nil
}

// vacate removes what a device left at path. What is not of its kind is somebody else's.
func vacate(path string, kind fs.FileMode) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.Mode().Type() != kind {
		return fmt.Errorf("%s is in the way: not made by a virtual DUT", path)
	}
	return os.Remove(path)
}

// Close switches the rail off, removes the device's files from the directory and gives its port back. When it returns,
// no goroutine of the device runs any more.
func (d *DUT) Close() error {
	d.once.Do(func() {
		for i := len(d.undo) - 1; i >= 0; i-- {
			d.closed = errors.Join(d.closed, d.undo[i]())
		}
	})
	return d.closed
}

// Control is the path of the control socket.
func (d *DUT) Control() string { return d.paths.control }

// UART is the path of the serial console.
func (d *DUT) UART() string { return d.paths.uart }

// TCP is the host and port of the web page.
func (d *DUT) TCP() string { return d.web.Addr() }

// Card is the path of what is on the SD card.
func (d *DUT) Card() string { return d.paths.card }

// On switches the rail on.
func (d *DUT) On() { d.board.On() }

// Off switches the rail off. When it returns, the device is silent.
func (d *DUT) Off() { d.board.Off() }

// Turn turns the mux of the SD card.
func (d *DUT) Turn(card Side) { d.board.Turn(card) }

// Unplug pulls the console's cable, for so long if that is not 0.
func (d *DUT) Unplug(long time.Duration) { d.uart.Unplug(long) }

// Plug puts the console's cable back.
func (d *DUT) Plug() error { return d.uart.Plug() }

// State measures the rail, and looks at the rest.
func (d *DUT) State() State { return d.board.State() }
