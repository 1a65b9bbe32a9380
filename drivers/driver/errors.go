package driver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"

	"github.com/jumplead/jumplead/hw"
)

var (
	// ErrUnavailable says that what the node stands for is not there at the
	// moment: a device that is unplugged, a peer that refuses. It may come back.
	ErrUnavailable = errors.New("unavailable")

	// ErrBusy says that somebody else holds the device.
	ErrBusy = errors.New("busy")

	// ErrNoMethod says that the driver has no such exported method.
	ErrNoMethod = errors.New("no such method")

	// ErrNotReady says that the session does not serve driver calls now.
	ErrNotReady = errors.New("not ready")
)

// ArgError says that a caller's argument cannot be used. Nothing was done.
type ArgError struct {
	Arg  string // its name in the export table, or "" when the call as a whole is wrong
	Text string
}

func (e *ArgError) Error() string {
	if e.Arg == "" {
		return e.Text
	}
	return e.Arg + ": " + e.Text
}

// BadArg makes an [ArgError].
func BadArg(arg, format string, args ...any) error {
	return &ArgError{Arg: arg, Text: fmt.Sprintf(format, args...)}
}

// Class is the kind of an error as a remote caller sees it. It is the common
// ground of a backend's errors and a client's: both classify alike.
type Class uint8

const (
	OK          Class = iota
	Internal          // anything that has no class of its own
	Unsupported       // errors.ErrUnsupported: this backend cannot do that
	Invalid           // ArgError
	Timeout           // a deadline, the driver's own or the caller's
	Unavailable       // ErrUnavailable, a device that is absent or another one, a connection that failed
	Device            // the operating system refused: files, ports, disks
	Canceled          // the caller went away
	NoMethod          // ErrNoMethod
	NotReady          // ErrNotReady
)

// String names the class in words that log records carry as error_type.
func (c Class) String() string {
	switch c {
	case OK:
		return "ok"
	case Unsupported, NoMethod:
		return "not_implemented"
	case Invalid:
		return "validation_error"
	case Timeout:
		return "timeout"
	case Unavailable:
		return "connection_error"
	case Device:
		return "device_error"
	default:
		return "internal_error"
	}
}

// RemoteError is an error that crossed the wire: its text and its class.
type RemoteError struct {
	Class Class
	Text  string
}

func (e *RemoteError) Error() string { return e.Text }

// Is lets errors.Is find the local error of the same class.
func (e *RemoteError) Is(target error) bool {
	switch e.Class {
	case Unsupported:
		return target == errors.ErrUnsupported
	case Timeout:
		return target == context.DeadlineExceeded || target == os.ErrDeadlineExceeded
	case Unavailable:
		return target == ErrUnavailable
	case Canceled:
		return target == context.Canceled
	case NoMethod:
		return target == ErrNoMethod
	case NotReady:
		return target == ErrNotReady
	}
	return false
}

// Classify finds the class of an error. What was said on purpose comes first:
// the kinds of this package and of hw, and errors from beyond a wire. Then come
// the system's errors, in the order and with the classes that the Python
// exporter gives to its exceptions: time-outs, the connections that Python calls
// ConnectionError, and all else that it calls OSError.
func Classify(err error) Class {
	var (
		remote  *RemoteError
		arg     *ArgError
		path    *fs.PathError
		link    *os.LinkError
		sys     *os.SyscallError
		errno   syscall.Errno
		dns     *net.DNSError
		op      *net.OpError
		timeout interface{ Timeout() bool }
	)
	switch {
	case err == nil:
		return OK
	case errors.As(err, &remote):
		return remote.Class
	case errors.Is(err, ErrNoMethod):
		return NoMethod
	case errors.Is(err, ErrNotReady):
		return NotReady
	case errors.As(err, &arg):
		return Invalid
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, ErrUnavailable), errors.Is(err, hw.ErrAbsent), errors.Is(err, hw.ErrWrong):
		return Unavailable
	case errors.Is(err, ErrBusy), errors.Is(err, hw.ErrBusy),
		errors.Is(err, syscall.EAGAIN): // says of itself that it is a time-out
		return Device
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &timeout) && timeout.Timeout():
		return Timeout
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.ECONNABORTED), errors.Is(err, syscall.EPIPE),
		errors.Is(err, syscall.ESHUTDOWN), errors.Is(err, net.ErrClosed):
		return Unavailable
	// ENOTSUP answers errors.ErrUnsupported, but it is the kernel's word about
	// a device, not the driver's about its method.
	case errors.As(err, &path), errors.As(err, &link), errors.As(err, &sys),
		errors.As(err, &errno), errors.As(err, &dns), errors.As(err, &op),
		errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrExist),
		errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrClosed):
		return Device
	case errors.Is(err, errors.ErrUnsupported):
		return Unsupported
	}
	return Internal
}
