package driver_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/hw"
)

func TestClassify(t *testing.T) {
	_, missing := os.Open("/nonexistent/file")
	_, notDir := os.ReadDir(os.DevNull)
	link := os.Link("/nonexistent/a", "/nonexistent/b")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.(*net.TCPListener).SetDeadline(time.Unix(1, 0))
	_, late := l.Accept()
	l.Close()
	_, closed := l.Accept()
	_, refused := net.Dial("tcp", l.Addr().String())
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, canceledDial := new(net.Dialer).DialContext(gone, "tcp", l.Addr().String())
	past, cancel := context.WithTimeout(t.Context(), -1)
	defer cancel()
	_, lateDial := new(net.Dialer).DialContext(past, "tcp", l.Addr().String())
	_, badAddress := net.Dial("tcp", "127.0.0.1")

	tests := []struct {
		err   error
		class driver.Class
		word  string
	}{
		{nil, driver.OK, "ok"},

		// NotImplementedError
		{errors.ErrUnsupported, driver.Unsupported, "not_implemented"},
		{driver.ErrNoMethod, driver.NoMethod, "not_implemented"},

		// ValueError
		{driver.BadArg("port", "wants 1 to %d", 3), driver.Invalid, "validation_error"},

		// TimeoutError
		{context.DeadlineExceeded, driver.Timeout, "timeout"},
		{os.ErrDeadlineExceeded, driver.Timeout, "timeout"},
		{syscall.ETIMEDOUT, driver.Timeout, "timeout"},
		{late, driver.Timeout, "timeout"},
		{lateDial, driver.Timeout, "timeout"},
		{&net.DNSError{Err: "i/o timeout", IsTimeout: true}, driver.Timeout, "timeout"},

		// ConnectionError and its kin
		{driver.ErrUnavailable, driver.Unavailable, "connection_error"},
		{hw.ErrAbsent, driver.Unavailable, "connection_error"},
		{hw.Mark(hw.ErrWrong, errors.ErrUnsupported), driver.Unavailable, "connection_error"},
		{hw.Mark(hw.ErrAbsent, missing), driver.Unavailable, "connection_error"},
		{refused, driver.Unavailable, "connection_error"},
		{closed, driver.Unavailable, "connection_error"},
		{net.ErrClosed, driver.Unavailable, "connection_error"},
		{syscall.ECONNREFUSED, driver.Unavailable, "connection_error"},
		{syscall.ECONNRESET, driver.Unavailable, "connection_error"},
		{syscall.ECONNABORTED, driver.Unavailable, "connection_error"},
		{syscall.EPIPE, driver.Unavailable, "connection_error"},
		{syscall.ESHUTDOWN, driver.Unavailable, "connection_error"},
		{&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, driver.Unavailable, "connection_error"},

		// other kinds of OSError
		{driver.ErrBusy, driver.Device, "device_error"},
		{hw.ErrBusy, driver.Device, "device_error"},
		{missing, driver.Device, "device_error"},
		{notDir, driver.Device, "device_error"},
		{link, driver.Device, "device_error"},
		{fs.ErrNotExist, driver.Device, "device_error"},
		{fs.ErrExist, driver.Device, "device_error"},
		{fs.ErrPermission, driver.Device, "device_error"},
		{fs.ErrClosed, driver.Device, "device_error"},
		{os.NewSyscallError("ioctl", syscall.ENOTTY), driver.Device, "device_error"},
		{syscall.EIO, driver.Device, "device_error"},
		{syscall.EAGAIN, driver.Device, "device_error"},
		{syscall.EHOSTUNREACH, driver.Device, "device_error"},
		{&net.DNSError{Err: "no such host", IsNotFound: true}, driver.Device, "device_error"},
		{&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host"}}, driver.Device, "device_error"},
		{badAddress, driver.Device, "device_error"},
		{&fs.PathError{Op: "ioctl", Err: syscall.ENOTSUP}, driver.Device, "device_error"},
		{hw.Mark(errors.ErrUnsupported, os.NewSyscallError("TIOCMSET", syscall.ENOTTY)), driver.Device, "device_error"},

		// the rest
		{errors.New("oops"), driver.Internal, "internal_error"},
		{io.ErrUnexpectedEOF, driver.Internal, "internal_error"},
		{io.EOF, driver.Internal, "internal_error"},

		// what Python has no exception for
		{context.Canceled, driver.Canceled, "internal_error"},
		{canceledDial, driver.Canceled, "internal_error"},
		{driver.ErrNotReady, driver.NotReady, "internal_error"},

		// said on purpose, about what the system said
		{fmt.Errorf("%w: %w", driver.ErrUnavailable, context.DeadlineExceeded), driver.Unavailable, "connection_error"},
		{fmt.Errorf("%w: %w", driver.ErrBusy, refused), driver.Device, "device_error"},
		{fmt.Errorf("%w: %w", context.DeadlineExceeded, missing), driver.Timeout, "timeout"},
	}
	for _, test := range tests {
		wraps := []error{test.err}
		if test.err != nil {
			wraps = append(wraps, fmt.Errorf("dut.power: on: %w", test.err), errors.Join(errors.New("also"), test.err))
		}
		for _, err := range wraps {
			if got := driver.Classify(err); got != test.class || got.String() != test.word {
				t.Errorf("Classify(%v) = %d %s; want %d %s", err, got, got, test.class, test.word)
			}
		}
	}
}

func TestRemoteError(t *testing.T) {
	is := map[driver.Class][]error{
		driver.Unsupported: {errors.ErrUnsupported},
		driver.Timeout:     {context.DeadlineExceeded, os.ErrDeadlineExceeded},
		driver.Unavailable: {driver.ErrUnavailable},
		driver.Canceled:    {context.Canceled},
		driver.NoMethod:    {driver.ErrNoMethod},
		driver.NotReady:    {driver.ErrNotReady},
	}
	var all []error
	for _, list := range is {
		all = append(all, list...)
	}
	for c := driver.Internal; c <= driver.NotReady; c++ {
		err := error(&driver.RemoteError{Class: c, Text: "said so"})
		if got := driver.Classify(fmt.Errorf("on: %w", err)); got != c {
			t.Errorf("Classify(remote %s) = %s; want the same", c, got)
		}
		if got := err.Error(); got != "said so" {
			t.Errorf("Error() = %q; want said so", got)
		}
		for _, target := range all {
			want := false
			for _, e := range is[c] {
				want = want || e == target
			}
			if got := errors.Is(err, target); got != want {
				t.Errorf("Is(remote %s, %v) = %t; want %t", c, target, got, want)
			}
		}
	}
}

func TestArgError(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{driver.BadArg("pos", "wants %d", 1), "pos: wants 1"},
		{driver.BadArg("", "seek(): wants nothing"), "seek(): wants nothing"},
	} {
		if got := test.err.Error(); got != test.want {
			t.Errorf("BadArg() = %q; want %q", got, test.want)
		}
	}
}
