//go:build !ppc64 && !ppc64le

package dut

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/jumplead/jumplead/hw/serial/pty"
)

// lock makes the directory ours until the file is closed, however this process ends.
func lock(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errors.New("another virtual DUT is running there: stop it, or choose another directory")
	}
	return nil, fmt.Errorf("%s: %w", dir, err)
}

// place is a TCP port of ours on which nobody listens.
type place struct {
	fd   int
	addr *net.TCPAddr
}

// reserve takes an address without listening there. Connections are refused, no other program gets the port, and
// the kernel does not use it as the near end of an outgoing connection. Listening there works meanwhile, because Go's
// listeners and this socket both allow the address to be reused.
func reserve(a *net.TCPAddr) (*place, error) {
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: a.Port, Addr: [16]byte(a.IP.To16())})
	if ip := a.IP.To4(); ip != nil {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: a.Port, Addr: [4]byte(ip)}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	p := &place{fd: fd}
	if p.addr, err = p.bind(a.IP, sa); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *place) bind(ip net.IP, sa unix.Sockaddr) (*net.TCPAddr, error) {
	if err := unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Bind(p.fd, sa); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	got, err := unix.Getsockname(p.fd)
	switch got := got.(type) {
	case *unix.SockaddrInet4:
		return &net.TCPAddr{IP: ip, Port: got.Port}, nil
	case *unix.SockaddrInet6:
		return &net.TCPAddr{IP: ip, Port: got.Port}, nil
	}
	return nil, os.NewSyscallError("getsockname", err)
}

func (p *place) Close() error { return unix.Close(p.fd) }

// terminal is the device's end of a pseudo-terminal, the wire of the UART. We do not keep the host's end open, and so
// know whether anybody has: a serial port that nobody has open takes no bytes.
type terminal struct {
	master *os.File
	conn   syscall.RawConn
	path   string      // of the host's end
	told   atomic.Bool // something was sent that the host may have left unread
}

func openTerminal() (*terminal, error) {
	master, slave, err := pty.Open()
	if err != nil {
		return nil, err
	}
	t := &terminal{master: master, path: slave.Name()}
	if t.conn, err = master.SyscallConn(); err != nil {
		return nil, errors.Join(err, slave.Close(), master.Close())
	}
	if err := slave.Close(); err != nil {
		return nil, errors.Join(err, master.Close())
	}
	return t, nil
}

// Close hangs up.
func (t *terminal) Close() error { return t.master.Close() }

// Read waits for bytes of the host, over the times when nobody has the terminal open.
func (t *terminal) Read(p []byte) (n int, err error) {
	for {
		closed := t.conn.Read(func(fd uintptr) (done bool) {
			for n, err = unix.Read(int(fd), p); errors.Is(err, unix.EINTR); {
				n, err = unix.Read(int(fd), p)
			}
			if errors.Is(err, unix.EIO) { // the last host has closed it
				return t.told.Swap(false)
			}
			return !errors.Is(err, unix.EAGAIN)
		})
		switch {
		case closed != nil:
			return 0, closed
		case !errors.Is(err, unix.EIO):
			return max(n, 0), err
		}
		t.forget()
	}
}

// forget drops what the last host left unread, so that it does not greet the next, as a serial port does when it is
// closed. It opens the terminal for that: a flush from our end would not reach the terminal's input buffer.
func (t *terminal) forget() {
	slave, err := unix.Open(t.path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(slave)
	unix.IoctlSetInt(slave, unix.TCFLSH, unix.TCIFLUSH)
}

// Send writes what the kernel has room for, if anybody listens.
func (t *terminal) Send(p []byte) {
	t.conn.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if _, err := unix.Poll(poll, 0); err != nil || poll[0].Revents&unix.POLLHUP != 0 {
			return
		}
		t.told.Store(true)
		unix.Write(int(fd), p)
	})
}
