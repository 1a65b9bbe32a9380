package exporter

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jumplead/jumplead/exporter/scratch"
)

// Address is where an exporter listens.
type Address struct {
	Network string // "tcp" or "unix"
	Address string
}

func (a Address) String() string {
	if a.Network == "unix" {
		return "unix:" + a.Address
	}
	return a.Address
}

func (a Address) listen() (net.Listener, error) {
	if a.Network == "unix" {
		return listenUnix(a.Address)
	}
	ln, err := net.Listen(a.Network, a.Address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("listen on %s: another program has this port; stop it or choose another port: %w", a, err)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", a, err)
	}
	return ln, nil
}

// placeLimit is how long others may take to find out whether they can have a
// socket's path, which is a moment.
const placeLimit = 2 * time.Second

// listenUnix takes a socket path over when nobody listens on it any more, and
// leaves it to its owner when somebody does. The socket is for the exporter's own
// user: who can open it can drive the harness. A lock makes that one step: of two
// exporters that find the socket of one that was killed, the second would else
// remove what the first has just made.
func listenUnix(path string) (net.Listener, error) {
	fail := func(err error) (net.Listener, error) { return nil, fmt.Errorf("listen on unix:%s: %w", path, err) }
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fail(err)
	}
	unlock, err := scratch.LockFile(path+".lock", placeLimit)
	switch {
	case errors.Is(err, scratch.ErrHeld):
		return fail(fmt.Errorf("another exporter is about to: %w: %w", err, syscall.EADDRINUSE))
	case errors.Is(err, errors.ErrUnsupported): // without it, starting two at once is at the user's own risk
	case err != nil:
		return fail(err)
	default:
		defer unlock()
	}
	if err := vacate(path); err != nil {
		return fail(err)
	}
	umask.Lock()
	old := setUmask(0o177)
	ln, err := net.Listen("unix", path)
	setUmask(old)
	umask.Unlock()
	if err != nil {
		if strings.Contains(err.Error(), "invalid argument") {
			err = fmt.Errorf("%w (the path may be longer than the 107 bytes that a socket's name may have)", err)
		}
		return fail(err)
	}
	return ln, nil
}

// vacate removes a socket that nobody listens on.
func vacate(path string) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return nil // what else it is will show when it is made
	}
	if fi.Mode()&os.ModeSocket == 0 {
		return errors.New("the path exists and is no socket")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		defer c.Close()
		return fmt.Errorf("%s listens there: %w", listener(c), syscall.EADDRINUSE)
	case errors.Is(err, syscall.EAGAIN): // it has more to accept than it can remember
		return fmt.Errorf("another program listens there: %w", syscall.EADDRINUSE)
	case !errors.Is(err, syscall.ECONNREFUSED):
		return err
	}
	return os.Remove(path)
}

var umask sync.Mutex // the umask belongs to the process

// connections is a listener that can cut what it accepted. gRPC's server waits
// for connections whose client has not said anything yet, up to two minutes, and
// for handlers that do not return, for ever; an exporter that is to end does not.
type connections struct {
	net.Listener

	mu   sync.Mutex
	cut  bool
	open map[*connection]struct{}
	left chan struct{} // gets a token when the last of them is closed
}

type connection struct {
	net.Conn
	of *connections
}

func track(ln net.Listener) *connections {
	return &connections{Listener: ln, open: map[*connection]struct{}{}, left: make(chan struct{}, 1)}
}

// wait waits until no client is connected, but not longer than a while, nor when
// now is closed.
func (l *connections) wait(d time.Duration, now <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		l.mu.Lock()
		n := len(l.open)
		l.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-l.left:
		case <-t.C:
			return
		case <-now:
			return
		}
	}
}

func (l *connections) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &connection{conn, l}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		conn.Close()
	}
	l.open[c] = struct{}{}
	return c, nil
}

func (c *connection) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	if len(c.of.open) == 0 {
		select {
		case c.of.left <- struct{}{}:
		default:
		}
	}
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// closeAll closes the connections, now and in future.
func (l *connections) closeAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for c := range l.open {
		c.Conn.Close()
	}
}
