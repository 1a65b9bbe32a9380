package vsock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"golang.org/x/sys/unix"
)

func dial(ctx context.Context, at Config) (io.ReadWriteCloser, error) {
	return connect(ctx, unix.AF_VSOCK, &unix.SockaddrVM{CID: at.CID, Port: at.Port}, at.String())
}

// connect connects a stream socket of a family that package net does not know.
// The runtime's poller waits for it, so that neither connecting nor the
// connection keeps a thread.
func connect(ctx context.Context, family int, to unix.Sockaddr, name string) (io.ReadWriteCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, explain(os.NewSyscallError("socket", err))
	}
	// Connecting comes first: a socket that has not begun to looks to the poller
	// like one that was hung up.
	err = unix.Connect(fd, to)
	s := &stream{os.NewFile(uintptr(fd), name)}
	switch {
	case err == nil:
	case err == unix.EINPROGRESS, err == unix.EINTR, err == unix.EALREADY:
		err = s.connected(ctx)
	}
	if err != nil {
		s.f.Close()
		return nil, explain(err)
	}
	return s, nil
}

// connected waits until the connection is there, or is known to fail.
func (s *stream) connected(ctx context.Context) error {
	raw, err := s.f.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { s.f.SetWriteDeadline(time.Unix(1, 0)) })
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		var code int
		if code, failed = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); failed == nil && code != 0 {
			failed = unix.Errno(code)
		}
		if failed == nil {
			_, failed = unix.Getpeername(int(fd))
		}
		return failed != unix.ENOTCONN // not yet: wait for the next event
	})
	switch {
	case !stop():
		return ctx.Err()
	case err != nil:
		return err
	case failed != nil:
		return os.NewSyscallError("connect", failed)
	}
	return nil
}

// explain tells errors that are about the peer from those about the exporter.
func explain(err error) error {
	if slices.ContainsFunc([]error{unix.ENODEV, unix.EAFNOSUPPORT, unix.EHOSTUNREACH, unix.ENETUNREACH},
		func(e error) bool { return errors.Is(err, e) }) {
		return fmt.Errorf("%w: %w", driver.ErrUnavailable, err)
	}
	return err
}

// stream is a connection. It hides the file's other methods: what is done to it
// besides is not the caller's business.
type stream struct{ f *os.File }

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.f.Read(p)
	return n, closed(err)
}

func (s *stream) Write(p []byte) (int, error) {
	n, err := s.f.Write(p)
	return n, closed(err)
}

func (s *stream) Close() error { return closed(s.f.Close()) }

// CloseWrite ends the sending half.
func (s *stream) CloseWrite() error {
	raw, err := s.f.SyscallConn()
	if err != nil {
		return err
	}
	if raw.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_WR) }) != nil {
		return net.ErrClosed // nothing else keeps Control from it
	}
	return os.NewSyscallError("shutdown", err)
}

// closed makes a connection's error of a file's.
func closed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return net.ErrClosed
	}
	return err
}
