// Package serial opens the kernel's terminals as plain serial lines: raw 8N1, any baud rate, with the modem lines.
//
// # A serial port on Linux
//
// A UART, a USB adapter and a pseudo-terminal look alike: a character device with a "line discipline" between the wire
// and the program, which was made for people at typewriters. It echoes, it turns CR into NL, it waits for whole lines.
// Open switches all of that off, so that bytes pass both ways as they are: eight data bits, no parity, one stop bit, no
// flow control of either kind. These are also pySerial's defaults.
//
// The baud rate is set through the kernel's termios2 interface, which takes a number. The older interface knows only a
// fixed list, in which 250000, a common rate of 3D printers and motor controllers, does not appear.
//
// # DTR, RTS and hang-up
//
// Two of the modem lines are outputs, and on development boards they rarely control a modem: DTR often resets the
// microcontroller, RTS often selects its boot loader. Two edges are the kernel's own doing and cannot be avoided from
// here:
//
//   - The first open of a port asserts DTR and RTS before open(2) returns.
//   - The last close releases both if the terminal's HUPCL flag is set (termios(3): "Lower modem control lines after
//     last process closes the device"), which it is from boot. [hw.SerialOptions] can clear it.
//
// Open itself only asserts both lines again, in one step, in case somebody who shares the port has released one. To
// set a line while a stream is running, use the port that the stream runs on: a second open would discard the
// stream's input, and closing it again would pulse the lines if it is the last.
//
// A pseudo-terminal has no such lines. Open does not mind, but SetDTR, SetRTS and Lines answer [errors.ErrUnsupported].
// So does pySerial: it ignores the refusal when it opens a port, and raises OSError where a program sets a line itself.
// A break on a pseudo-terminal is accepted and does nothing.
//
// # Who owns a port
//
// Linux lets any number of programs open a terminal, and hands each byte to whoever reads first. Open therefore claims
// the port, unless [hw.SerialOptions] says Shared. It uses two locks, because each has a hole. flock(2) is what pySerial
// (exclusive=True), tio and others respect, and it also holds between two opens of one process, but programs that know
// nothing of it pass. TIOCEXCL (tty_ioctl(4)) makes the kernel itself refuse further opens, but not those of root. On
// pseudo-terminals, where TIOCEXCL outlives its owner and would lock out everybody until the far end is restarted, flock
// is the only one.
//
// # Unplugging
//
// The kernel tells of a removed adapter, or a pseudo-terminal whose far end closed, by what looks like end of file on
// Read, and EIO elsewhere. A serial line has no end of file, so both are turned into an error of kind [hw.ErrAbsent].
// The port is of no more use then; open the path again when the device is back.
package serial

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/jumplead/jumplead/hw"
)

// Bus is the serial bus of this machine.
type Bus struct{}

var (
	_ hw.SerialBus    = Bus{}
	_ hw.SerialProber = Bus{}
)

// OpenSerial is [Open].
func (Bus) OpenSerial(ctx context.Context, path string, o hw.SerialOptions) (hw.SerialPort, error) {
	return Open(ctx, path, o)
}

// ProbeSerial looks at a port from outside, as [hw.SerialProber] says: at its file, at what sysfs tells of it, and in /proc at
// who has it open or locked.
func (Bus) ProbeSerial(ctx context.Context, path string) (hw.SerialInfo, error) {
	return probe(ctx, path)
}

// Open opens the port at path, as [hw.SerialBus] says. It does not wait for a carrier, but the kernel may wait: for
// another program's last close, which takes up to 30 s while output is stuck, or for a USB adapter that is slow to
// answer. Open returns as soon as ctx is done; the system call that is still running then finishes on its own, and what
// it opened is closed at once.
//
// Errors are of the kinds [hw.ErrAbsent], [hw.ErrBusy], [hw.ErrWrong], [fs.ErrPermission], [errors.ErrUnsupported] on a system that is not
// Linux, or ctx's own.
func Open(ctx context.Context, path string, o hw.SerialOptions) (hw.SerialPort, error) {
	if o.Baud <= 0 {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("baud rate %d: must be positive", o.Baud)}
	}
	if err := ctx.Err(); err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return openContext(ctx, path, func() (hw.SerialPort, error) { return open(path, o) })
}

// openContext runs open, which cannot be interrupted, and leaves it behind when ctx is done.
func openContext(ctx context.Context, path string, open func() (hw.SerialPort, error)) (hw.SerialPort, error) {
	type result struct {
		port hw.SerialPort
		err  error
	}
	opened := make(chan result)
	go func() {
		p, err := open()
		select {
		case opened <- result{p, err}:
		case <-ctx.Done():
			if err == nil {
				p.Close()
			}
		}
	}()
	select {
	case r := <-opened:
		return r.port, r.err
	case <-ctx.Done():
		return nil, &fs.PathError{Op: "open", Path: path, Err: ctx.Err()}
	}
}
