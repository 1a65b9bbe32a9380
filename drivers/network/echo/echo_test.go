package echo_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/network"
	"github.com/jumplead/jumplead/drivers/network/echo"
	"github.com/jumplead/jumplead/drivers/network/networktest"
)

func open(t *testing.T) *network.Client {
	t.Helper()
	return network.NewClient(drivertest.Open(t, "", echo.Network))
}

func connect(t *testing.T) io.ReadWriteCloser {
	t.Helper()
	c, err := open(t).Connect(t.Context())
	if err != nil {
		t.Fatalf("Connect() = %v; want a stream", err)
	}
	return c
}

func TestConformance(t *testing.T) {
	networktest.Test(t, func(t *testing.T) networktest.Service {
		return networktest.Service{Interface: open(t), Packets: true, HalfClose: true}
	})
}

func TestSpec(t *testing.T) {
	drivertest.Spec(t, echo.Network, "")
	d, err := drivertest.Bench{}.Tree(t, "", echo.Network).Root.Driver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	drivertest.Rows(t, d)
	_, problems := drivertest.Bench{}.Plan(t, "{port: 1}", echo.Network)
	if err := problems.Err(); err != nil || len(problems.Warnings()) != 1 {
		t.Errorf("Plan({port: 1}) = %v; want one warning and no error", problems)
	}
	if got, err := open(t).Address(t.Context()); driver.Classify(err) != driver.NoMethod {
		t.Errorf("Address() = %q, %v; want %v", got, err, driver.ErrNoMethod)
	}
	if c := connect(t); !isPacketStream(c) {
		t.Errorf("Connect() = %T; want a driver.PacketStream", c)
	}
}

func isPacketStream(c any) bool { _, ok := c.(driver.PacketStream); return ok }

func TestBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := connect(t)
		wrote := 0
		done := make(chan error)
		go func() {
			var err error
			for ; wrote < 100 && err == nil; wrote++ {
				_, err = fmt.Fprintf(c, "%d", wrote)
			}
			done <- err
		}()
		buf := make([]byte, 10)
		for i := range 100 {
			synctest.Wait()
			if want := min(i+32, 100); wrote != want {
				t.Fatalf("after %d reads %d packets are written; want %d", i, wrote, want)
			}
			if n, err := c.Read(buf); string(buf[:n]) != fmt.Sprint(i) || err != nil {
				t.Fatalf("Read() = %q, %v; want %d", buf[:n], err, i)
			}
			if i == 99-31 { // the last Write returns now
				if err := <-done; err != nil {
					t.Errorf("Write() = %v; want nil", err)
				}
			}
		}
	})
}

// A writer that waits for its reader is released when either half ends.
func TestBlockedWrite(t *testing.T) {
	for name, end := range map[string]func(io.ReadWriteCloser) error{
		"close":       io.ReadWriteCloser.Close,
		"close write": func(c io.ReadWriteCloser) error { return c.(interface{ CloseWrite() error }).CloseWrite() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := connect(t)
				for range 32 {
					io.WriteString(c, "x")
				}
				done := make(chan error)
				go func() { _, err := io.WriteString(c, "y"); done <- err }()
				synctest.Wait()
				select {
				case err := <-done:
					t.Fatalf("Write() to a full stream = %v; want it to wait", err)
				default:
				}
				if err := end(c); err != nil {
					t.Fatal(err)
				}
				if err := <-done; err == nil || name == "close" && !errors.Is(err, net.ErrClosed) {
					t.Errorf("Write() = %v; want an error", err)
				}
			})
		})
	}
}

// A small buffer costs boundaries, not data; and a packet is a copy, so that
// its writer may use its buffer again.
func TestParts(t *testing.T) {
	c := connect(t)
	packet := []byte("hello, world")
	c.Write(packet)
	clear(packet)
	io.WriteString(c, "!")
	var got []string
	buf := make([]byte, 5)
	for range 4 {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(buf[:n]))
	}
	if want := "hello|, wor|ld|!"; strings.Join(got, "|") != want {
		t.Errorf("Read() = %q; want %s", got, want)
	}
}

func TestLargePacketIsOne(t *testing.T) {
	c := connect(t)
	want := bytes.Repeat([]byte("x"), 3<<20)
	c.Write(want)
	got := make([]byte, 4<<20)
	if n, err := c.Read(got); n != len(want) || err != nil {
		t.Errorf("Read() = %d, %v; want %d, nil", n, err, len(want))
	}
}
