package vsock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/network"
	"github.com/jumplead/jumplead/drivers/network/networktest"
	"github.com/jumplead/jumplead/hw/hwtest"
	"golang.org/x/sys/unix"
)

// listener accepts connections on a vsock port of this machine.
type listener struct {
	f  *os.File
	at Config
}

func (l *listener) Accept() (net.Conn, error) {
	raw, err := l.f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var failed error
	if raw.Read(func(ln uintptr) bool {
		fd, _, failed = unix.Accept4(int(ln), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		return failed != unix.EAGAIN
	}) != nil {
		return nil, net.ErrClosed
	}
	if failed != nil {
		return nil, failed
	}
	return &conn{stream: &stream{os.NewFile(uintptr(fd), "peer")}}, nil
}

func (l *listener) Close() error   { return l.f.Close() }
func (l *listener) Addr() net.Addr { return nil }

// conn is a stream that passes for a net.Conn, of which peers in tests use no
// more.
type conn struct {
	net.Conn
	*stream
}

func (c *conn) Read(p []byte) (int, error)  { return c.stream.Read(p) }
func (c *conn) Write(p []byte) (int, error) { return c.stream.Write(p) }
func (c *conn) Close() error                { return c.stream.Close() }

// listen listens on a free port of this machine.
func listen() (*listener, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	l := &listener{f: os.NewFile(uintptr(fd), "listener")}
	if err = unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_LOCAL, Port: unix.VMADDR_PORT_ANY}); err == nil {
		err = unix.Listen(fd, 128)
	}
	var sa unix.Sockaddr
	if err == nil {
		sa, err = unix.Getsockname(fd)
	}
	if err != nil {
		l.f.Close()
		return nil, fmt.Errorf("vsock on this machine: %w (is the kernel's module vsock_loopback loaded?)", err)
	}
	l.at = Config{unix.VMADDR_CID_LOCAL, sa.(*unix.SockaddrVM).Port}
	return l, nil
}

func TestConformance(t *testing.T) {
	hwtest.NeedFunc(t, hwtest.VSock, func() error {
		l, err := listen()
		if err != nil {
			return err
		}
		return l.Close()
	})
	networktest.Test(t, func(t *testing.T) networktest.Service {
		open := func(at Config) network.Interface {
			return network.NewClient(drivertest.Open(t, fmt.Sprintf("{cid: %d, port: %d}", at.CID, at.Port), Network))
		}
		var at [2]Config
		for i := range at {
			l, err := listen()
			if err != nil {
				t.Fatal(err)
			}
			if at[i] = l.at; i == 0 {
				networktest.Serve(t, l, networktest.Echo)
			} else {
				l.Close()
			}
		}
		return networktest.Service{Interface: open(at[0]), HalfClose: true, Absent: open(at[1])}
	})
}

// dialer connects to a TCP address as if package net did not know TCP: what is
// ours in connecting does not depend on the family.
type dialer struct{ netip.AddrPort }

func (d dialer) Connect(ctx context.Context) (io.ReadWriteCloser, error) {
	return connect(ctx, unix.AF_INET, &unix.SockaddrInet4{Addr: d.Addr().As4(), Port: int(d.Port())}, d.String())
}

func to(ln net.Listener) dialer { return dialer{ln.Addr().(*net.TCPAddr).AddrPort()} }

func TestConformanceOverTCP(t *testing.T) {
	networktest.Test(t, func(t *testing.T) networktest.Service {
		echo, reset, gone := networktest.Listen(t, "tcp4", "127.0.0.1:0"), networktest.Listen(t, "tcp4", "127.0.0.1:0"), networktest.Listen(t, "tcp4", "127.0.0.1:0")
		networktest.Serve(t, echo, networktest.Echo)
		networktest.Serve(t, reset, networktest.Reset)
		gone.Close()
		return networktest.Service{Interface: to(echo), HalfClose: true, Absent: to(gone), Resetting: to(reset)}
	})
}

// silent is an address that does not answer: its queue of connections is full,
// and Linux drops what comes then.
func silent(t *testing.T) dialer {
	t.Helper()
	ln := networktest.Listen(t, "tcp4", "127.0.0.1:0")
	raw, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if e := raw.Control(func(fd uintptr) { err = unix.Listen(int(fd), 0) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
	for range 8 {
		c, err := net.DialTimeout("tcp4", ln.Addr().String(), 200*time.Millisecond)
		if err != nil {
			return to(ln)
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Skip("the kernel's queue of connections does not fill")
	return dialer{}
}

// Whoever waits for a connection can leave, and nothing is left behind.
func TestLeave(t *testing.T) {
	at := silent(t)
	drivertest.NoLeaks(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	time.AfterFunc(50*time.Millisecond, cancel)
	if c, err := at.Connect(ctx); driver.Classify(err) != driver.Canceled {
		t.Errorf("Connect() that is cancelled = %v, %v; want %v", c, err, driver.Canceled)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if c, err := at.Connect(ctx); driver.Classify(err) != driver.Timeout {
		t.Errorf("Connect() with a deadline = %v, %v; want %v", c, err, driver.Timeout)
	}
}

func TestClosed(t *testing.T) {
	ln := networktest.Listen(t, "tcp4", "127.0.0.1:0")
	networktest.Serve(t, ln, networktest.Echo)
	c, err := to(ln).Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("Close() = %v; want nil", err)
	}
	_, rerr := c.Read(make([]byte, 1))
	_, werr := c.Write([]byte("x"))
	herr := c.(*stream).CloseWrite()
	for what, err := range map[string]error{"Read": rerr, "Write": werr, "CloseWrite": herr, "Close": c.Close()} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s() of a closed stream = %v; want %v", what, err, net.ErrClosed)
		}
	}
}

func TestExplain(t *testing.T) {
	for err, want := range map[error]driver.Class{
		unix.ENODEV:       driver.Unavailable, // no such machine
		unix.ECONNRESET:   driver.Unavailable, // nobody listens
		unix.EAFNOSUPPORT: driver.Unavailable, // no vsock, yet
		unix.ETIMEDOUT:    driver.Timeout,
		unix.EINVAL:       driver.Device,
	} {
		if got := driver.Classify(explain(os.NewSyscallError("connect", err))); got != want {
			t.Errorf("explain(%v) is %v; want %v", err, got, want)
		}
	}
}
