// Package hw is the lowest floor of the house: what a board has. Serial ports live here, and lines, buses and disks.
//
// # What a driver sees
//
// A driver never names a device file's system calls, a USB library or an SBC. It asks a [Host] for what its configuration
// mentions and gets an interface. In the program the host is the board itself; in a test it is a model from one of the
// ...test packages, such as hw/serial/serialtest, or all of them at once from hw/hwtest. This package holds those
// interfaces and the few kinds of error that they share. It has no code that touches hardware.
//
// # What may live on this floor
//
// Knowledge of Linux, of wires and of bus protocols. Nothing here knows what a lease, a driver or an exporter is, so
// the floor imports nothing of this module but itself. Each bus has one folder: hw/serial talks to terminals. A C library
// may be bound only in hw/usb/libusb, so that everything else builds without a C compiler.
//
// # Kinds of failure
//
// Hardware on a bench comes and goes, and a caller must be able to tell "not there" from "broken". An error of this
// floor says what was attempted and on what; [errors.Is] tells its kind:
//
//   - [ErrAbsent]: the device is not plugged in, or was unplugged while in use. It may come back: try again later.
//     Where a file is missing, the error is [io/fs.ErrNotExist] too.
//   - [ErrBusy]: it is there, and somebody else has it.
//   - [ErrWrong]: something is there, and it is not what was asked for.
//   - [io/fs.ErrPermission]: it is there, and this user may not have it. The text says what to change.
//   - [errors.ErrUnsupported]: it is there and open, and cannot do this: a pseudo-terminal has no DTR line.
//   - [os.ErrClosed] and [os.ErrDeadlineExceeded]: as for any file. A context's error is passed on as it is.
package hw

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// ErrAbsent is the kind of an error that says: the device is not there (any more).
var ErrAbsent = errors.New("device absent")

// ErrBusy is the kind of an error that says: the device is there, and in use by somebody else.
var ErrBusy = errors.New("device busy")

// ErrWrong is the kind of an error that says: there is a device, and it is another one than was asked for, or cannot do what
// it is there for. Who changes the wiring or the configuration may put that right.
var ErrWrong = errors.New("wrong device")

// Mark gives err a kind, such as [ErrAbsent], which [errors.Is] then finds. The text remains that of err: the kind is for
// programs, and the text of err already says it to people. Mark(kind, nil) is nil.
func Mark(kind, err error) error {
	if err == nil {
		return nil
	}
	return &marked{err, kind}
}

type marked struct{ err, kind error }

func (m *marked) Error() string   { return m.err.Error() }
func (m *marked) Unwrap() []error { return []error{m.err, m.kind} }

// Host is the bundle of buses that a driver may ask for, and what the board calls them. A bus that the board lacks is nil;
// ask through the methods of Host, which then answer [errors.ErrUnsupported].
type Host struct {
	Serial SerialBus
	GPIO   GPIO
	I2C    I2C
	Names  Names
}

// OpenSerial opens the serial port at path through the host's serial bus.
func (h Host) OpenSerial(ctx context.Context, path string, o SerialOptions) (SerialPort, error) {
	if h.Serial == nil {
		return nil, fmt.Errorf("open serial port %s: this host has no serial ports: %w", path, errors.ErrUnsupported)
	}
	return h.Serial.OpenSerial(ctx, path, o)
}

// ProbeSerial looks at the serial port at path without opening it, if the host's serial bus is a [SerialProber].
func (h Host) ProbeSerial(ctx context.Context, path string) (SerialInfo, error) {
	p, ok := h.Serial.(SerialProber)
	switch {
	case ok:
		return p.ProbeSerial(ctx, path)
	case h.Serial == nil:
		return SerialInfo{}, fmt.Errorf("open serial port %s: this host has no serial ports: %w", path, errors.ErrUnsupported)
	}
	return SerialInfo{}, fmt.Errorf("open serial port %s: it cannot be looked at here without being opened: %w", path, errors.ErrUnsupported)
}

// SerialProber is a [SerialBus] that can tell of a port without opening it: opening moves DTR and RTS, which resets many
// boards.
type SerialProber interface {
	// ProbeSerial tells of the port at path. The error is what OpenSerial would say, and besides [ErrBusy] when somebody has
	// the port open who would not keep OpenSerial from it: the two would take the bytes away from each other. What it cannot
	// know without opening the port, and without the right to look at the processes of others, it does not tell.
	ProbeSerial(ctx context.Context, path string) (SerialInfo, error)
}

// SerialInfo is what is known of a serial port that is not open.
type SerialInfo struct {
	Name   string // "ttyUSB0"
	ID     string // of its adapter, as in /dev/serial/by-id, or ""
	Driver string // the kernel's, or ""
}

func (i SerialInfo) String() string {
	var of []string
	if i.ID != "" {
		of = append(of, i.ID)
	}
	if i.Driver != "" {
		of = append(of, "driver "+i.Driver)
	}
	if len(of) == 0 {
		return i.Name
	}
	return i.Name + " (" + strings.Join(of, ", ") + ")"
}

// SerialBus opens serial ports.
type SerialBus interface {
	// OpenSerial opens the port at path, a device file such as /dev/ttyUSB0 or /dev/serial/by-id/..., as raw 8N1 without
	// flow control, with DTR and RTS asserted and without old input. It does not wait for a carrier. It gives up when ctx
	// is done; afterwards ctx has no part in the port's life.
	OpenSerial(ctx context.Context, path string, o SerialOptions) (SerialPort, error)
}

// SerialOptions says how to open a serial port. Only Baud is required.
type SerialOptions struct {
	// Baud is the rate in bits per second, both ways. Any positive number; not only the customary ones.
	Baud int

	// Shared opens the port without claiming it. The zero value claims it: a second open that claims gets ErrBusy, because
	// two readers of one port each get a part of the bytes. To a port that is claimed already, a Shared open may get
	// ErrBusy as well.
	Shared bool

	// DisableHUPCL clears the terminal's "hang up on close" flag, so that closing the port leaves DTR and RTS asserted. A
	// microcontroller board that is wired to reset on DTR then keeps running. False leaves the flag as it is found. The
	// kernel remembers the flag from one open to the next, until the device is unplugged.
	DisableHUPCL bool
}

// SerialPort is an open serial port. Its methods may be called from several goroutines at once; Close ends them all.
//
// Read waits for at least one byte. When the device is gone, Read and Write answer [ErrAbsent], never [io.EOF]: a
// serial line has no end of file. The methods about lines answer [errors.ErrUnsupported] on a port that has no such
// lines: pseudo-terminals, and some USB adapters.
type SerialPort interface {
	io.ReadWriteCloser

	// SetReadDeadline and SetWriteDeadline are those of [os.File]: they end what waits, too. The zero time means none.
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error

	// SetDTR and SetRTS assert (true) or release (false) one of the two lines that this side drives.
	SetDTR(asserted bool) error
	SetRTS(asserted bool) error

	// Lines reads the modem lines.
	Lines() (SerialLines, error)

	// SendBreak holds the line in the break state for d. It comes back early, with the line released, when ctx is done or
	// the port is closed.
	SendBreak(ctx context.Context, d time.Duration) error

	// Drain waits until all that was written has left for the wire.
	Drain(ctx context.Context) error

	// DiscardInput drops what came in and was not read; DiscardOutput what was written and is not yet on the wire.
	DiscardInput() error
	DiscardOutput() error

	// Baud is the rate that the port runs at, as far as its device tells. It differs from the rate asked for where the
	// device rounded or refused that, and on devices without a bit rate.
	Baud() (int, error)
}

// SerialLines is the state of a port's modem lines; true means asserted. DTR and RTS are outputs, the rest are inputs.
type SerialLines struct {
	DTR, RTS          bool
	CTS, DSR, DCD, RI bool
}
