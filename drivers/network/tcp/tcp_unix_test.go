//go:build unix

package tcp_test

import (
	"net"
	"syscall"
	"testing"

	"github.com/jumplead/jumplead/drivers/network/networktest"
)

// What the socket is like matters to those who type, to those whose device
// loses its power, and to the pump, which knows faster ways for a real socket.
func TestSocket(t *testing.T) {
	ln := networktest.Listen(t, "tcp", "127.0.0.1:0")
	networktest.Serve(t, ln, networktest.Echo)
	c, err := open(t, config(t, ln.Addr())).Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	conn, ok := c.(*net.TCPConn)
	if !ok {
		t.Fatalf("Connect() = %T; want *net.TCPConn", c)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []struct {
		name              string
		level, opt, least int
	}{
		{"TCP_NODELAY", syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1},
		{"SO_KEEPALIVE", syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
	} {
		var got int
		if err := raw.Control(func(fd uintptr) { got, err = syscall.GetsockoptInt(int(fd), o.level, o.opt) }); err != nil {
			t.Fatal(err)
		}
		if err != nil || got < o.least {
			t.Errorf("%s = %d, %v; want %d", o.name, got, err, o.least)
		}
	}
}
