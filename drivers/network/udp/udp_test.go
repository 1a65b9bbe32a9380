package udp_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/network"
	"github.com/jumplead/jumplead/drivers/network/networktest"
	"github.com/jumplead/jumplead/drivers/network/udp"
)

// echo serves at an address until the test ends or the socket is closed.
func echo(t *testing.T, address string) net.PacketConn {
	t.Helper()
	c, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatalf("ListenPacket(%s) = %v; want nil", address, err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				c.WriteTo(buf[:n], from)
			}
		}
	}()
	t.Cleanup(func() {
		c.Close()
		<-done
	})
	return c
}

func open(t *testing.T, b drivertest.Bench, addr net.Addr) *network.Client {
	t.Helper()
	a := addr.(*net.UDPAddr)
	return network.NewClient(b.Open(t, fmt.Sprintf("{host: %q, port: %d}", a.IP, a.Port), udp.Network))
}

func TestConformance(t *testing.T) {
	networktest.Test(t, func(t *testing.T) networktest.Service {
		return networktest.Service{
			Interface: open(t, drivertest.Bench{}, echo(t, "127.0.0.1:0").LocalAddr()),
			Packets:   true,
			Largest:   udp.MaxDatagram,
		}
	})
}

func TestSpec(t *testing.T) {
	const config = "{host: 192.0.2.1, port: 69}"
	drivertest.Spec(t, udp.Network, config)
	d, err := drivertest.Bench{}.Tree(t, config, udp.Network).Root.Driver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	drivertest.Rows(t, d)
	_, problems := drivertest.Bench{}.Plan(t, "{host: a, port: 1, path: x}", udp.Network)
	if err := problems.Err(); err == nil || !strings.Contains(err.Error(), `unknown key "path"`) {
		t.Errorf("Plan() with a path = %v; want an unknown key", err)
	}
}

func TestAddress(t *testing.T) {
	for config, want := range map[string]string{
		"{host: 127.0.0.1, port: 5201}":    "udp://127.0.0.1:5201",
		`{host: "2001:db8::1", port: 443}`: "udp://[2001:db8::1]:443",
	} {
		got, err := network.NewClient(drivertest.Open(t, config, udp.Network)).Address(t.Context())
		if got != want || err != nil {
			t.Errorf("Address() of %s = %q, %v; want %q", config, got, err, want)
		}
	}
	got, err := network.NewClient(drivertest.Open(t, "{host: a, port: 1, enable_address: no}", udp.Network)).Address(t.Context())
	if driver.Classify(err) != driver.Invalid {
		t.Errorf("Address() when it is disabled = %q, %v; want an ArgError", got, err)
	}
}

func connect(t *testing.T, c *network.Client) io.ReadWriteCloser {
	t.Helper()
	s, err := c.Connect(t.Context())
	if err != nil {
		t.Fatalf("Connect() = %v; want a stream", err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// A device that boots refuses datagrams until its service listens. The stream
// lives through that, and says once that something was lost; and once again the
// next time.
func TestPeerComesAndGoes(t *testing.T) {
	peer := echo(t, "127.0.0.1:0")
	addr := peer.LocalAddr()
	peer.Close()

	log := &drivertest.Log{}
	losses := func() int { return strings.Count(log.String(), "datagrams are lost") }
	s := connect(t, open(t, drivertest.Bench{Log: log}, addr))
	got := make(chan string)
	go func() {
		defer close(got)
		buf := make([]byte, 100)
		for {
			n, err := s.Read(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				t.Errorf("Read() = %v; want nil", err)
				return
			}
			got <- string(buf[:n])
		}
	}()
	knock := func() {
		t.Helper()
		if n, err := io.WriteString(s, "knock"); n != 5 || err != nil {
			t.Fatalf("Write() to a closed port = %d, %v; want 5, nil", n, err)
		}
	}
	knock()
	wait(t, func() bool { return losses() == 1 }) // it was the reader that met the refusal
	for range 20 {
		knock() // and now it is either
	}
	if n := losses(); n != 1 {
		t.Errorf("losses are logged %d times; want once for all in a row:\n%s", n, log)
	}

	peer = echo(t, addr.String())
	wait(t, func() bool {
		knock()
		select {
		case text, ok := <-got:
			if text != "knock" {
				t.Fatalf("Read() = %q, %t; want knock", text, ok)
			}
			return true
		case <-time.After(50 * time.Millisecond): // that one was lost
			return false
		}
	})
	peer.Close()
	wait(t, func() bool {
		knock()
		return losses() == 2
	})
	s.Close()
	for range got { // what was still under way
	}
}

func TestTooLarge(t *testing.T) {
	log := &drivertest.Log{}
	s := connect(t, open(t, drivertest.Bench{Log: log}, echo(t, "127.0.0.1:0").LocalAddr()))
	n, err := s.Write(make([]byte, udp.MaxDatagram+1))
	if n != 0 || !errors.Is(err, syscall.EMSGSIZE) || !strings.Contains(fmt.Sprint(err), "65508 bytes are too many, at most 65507 fit") {
		t.Errorf("Write(65508 bytes) = %d, %v; want 0 and both sizes", n, err)
	}
	if got := drivertest.Exchange(t, s, "hello"); got != "hello" {
		t.Errorf("Exchange(hello) afterwards = %q; want hello", got)
	}
	if text := log.String(); strings.Contains(text, "lost") {
		t.Errorf("log = %s; want nothing lost", text)
	}
}

// A buffer that is too small must not pass a part for the whole.
func TestShortBuffer(t *testing.T) {
	s := connect(t, open(t, drivertest.Bench{}, echo(t, "127.0.0.1:0").LocalAddr()))
	for _, text := range []string{"0123456789", "next"} {
		if _, err := io.WriteString(s, text); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 4)
	if n, err := s.Read(buf); n != 4 || !errors.Is(err, io.ErrShortBuffer) {
		t.Errorf("Read() of 10 bytes into 4 = %d, %v; want 4, ErrShortBuffer", n, err)
	}
	if n, err := s.Read(buf); err != nil || !bytes.Equal(buf[:n], []byte("next")) {
		t.Errorf("Read() = %q, %v; want next", buf[:n], err)
	}
}

func TestStreamKind(t *testing.T) {
	var s any = connect(t, open(t, drivertest.Bench{}, echo(t, "127.0.0.1:0").LocalAddr()))
	if _, ok := s.(driver.PacketStream); !ok {
		t.Errorf("Connect() = %T; want a driver.PacketStream", s)
	}
	if _, ok := s.(interface{ CloseWrite() error }); ok {
		t.Errorf("Connect() = %T with CloseWrite; want none: UDP has no end of sending", s)
	}
}

func wait(t *testing.T, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); {
		if time.Now().After(deadline) {
			t.Fatal("condition does not come true")
		}
		<-time.After(time.Millisecond)
	}
}
