package serialtest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/hwtest"
	"github.com/jumplead/jumplead/hw/serial/serialtest"
)

const path = "/dev/ttyACM0"

func open(t *testing.T, bus hw.SerialBus, o hw.SerialOptions) hw.SerialPort {
	t.Helper()
	o.Baud = 115200
	p, err := bus.OpenSerial(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func wantEdges(t *testing.T, u *serialtest.UART, want string) {
	t.Helper()
	if got := fmt.Sprint(u.Edges()); got != want {
		t.Errorf("Edges() = %s; want %s", got, want)
	}
}

func TestUARTRemembersEdges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, u := &serialtest.Bus{}, &serialtest.UART{}
		bus.Plug(path, u)
		start := time.Now()
		p := open(t, bus, hw.SerialOptions{})
		wantEdges(t, u, "[DTR+ RTS+]")
		if err := p.SetDTR(true); err != nil { // no edge
			t.Fatal(err)
		}
		if err := p.SetRTS(false); err != nil {
			t.Fatal(err)
		}
		if err := p.SendBreak(t.Context(), 250*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		p.Close()
		wantEdges(t, u, "[DTR+ RTS+ RTS- break+ break- DTR-]")
		if e := u.Edges(); e[4].At.Sub(start) != 250*time.Millisecond {
			t.Errorf("the break ended after %v; want 250ms", e[4].At.Sub(start))
		}
	})
}

func TestUARTHangUpOnLastClose(t *testing.T) {
	bus, u := &serialtest.Bus{}, &serialtest.UART{}
	bus.Plug(path, u)
	a := open(t, bus, hw.SerialOptions{Shared: true})
	b := open(t, bus, hw.SerialOptions{Shared: true})
	a.Close()
	wantEdges(t, u, "[DTR+ RTS+]")
	b.Close()
	wantEdges(t, u, "[DTR+ RTS+ DTR- RTS-]")
	open(t, bus, hw.SerialOptions{DisableHUPCL: true}).Close()
	wantEdges(t, u, "[DTR+ RTS+ DTR- RTS- DTR+ RTS+]")
	if n := u.Open(); n != 0 {
		t.Errorf("Open() = %d after all were closed; want 0", n)
	}
}

func TestUARTLines(t *testing.T) {
	bus, u := &serialtest.Bus{}, &serialtest.UART{}
	bus.Plug(path, u)
	p := open(t, bus, hw.SerialOptions{})
	u.SetInputs(hw.SerialLines{CTS: true, RI: true})
	want := hw.SerialLines{DTR: true, RTS: true, CTS: true, RI: true}
	if got, err := p.Lines(); got != want || err != nil {
		t.Errorf("Lines() = %+v, %v; want %+v, nil", got, err, want)
	}
	bus.Unplug(path)
	if got := u.Lines(); got != (hw.SerialLines{}) {
		t.Errorf("Lines() of an unplugged device = %+v; want all released", got)
	}
	bus.Unplug(path) // twice is harmless
}

func TestUARTUnpluggedDuringBreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, u := &serialtest.Bus{}, &serialtest.UART{}
		bus.Plug(path, u)
		p := open(t, bus, hw.SerialOptions{})
		go func() { time.Sleep(time.Second); bus.Unplug(path) }()
		if err := p.SendBreak(t.Context(), time.Hour); !errors.Is(err, hw.ErrAbsent) {
			t.Errorf("SendBreak on a device that goes away = %v; want an error of kind %q", err, hw.ErrAbsent)
		}
	})
}

// A model may answer what it hears: here it echoes.
func TestUARTAsEcho(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, u := &serialtest.Bus{}, &serialtest.UART{}
		bus.Plug(path, u)
		go io.Copy(u, &u.Received)
		defer u.Received.Close()
		p := open(t, bus, hw.SerialOptions{})
		p.Write([]byte("hello"))
		got := make([]byte, 5)
		if _, err := io.ReadFull(p, got); err != nil || string(got) != "hello" {
			t.Errorf("Read = %q, %v; want %q, nil", got, err, "hello")
		}
	})
}

func TestRecorderAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r serialtest.Recorder
		go func() {
			for _, s := range []string{"log", "in", ": "} {
				time.Sleep(time.Second)
				r.Write([]byte(s))
			}
		}()
		if err := r.Await(t.Context(), "login:"); err != nil {
			t.Errorf("Await across writes = %v; want nil", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := r.Await(ctx, "root")
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), `"login: "`) {
			t.Errorf("Await of what never comes = %v; want a deadline, and what came", err)
		}
		r.Close()
		if err := r.Await(t.Context(), "root"); err == nil {
			t.Error("Await after Close = nil; want an error")
		}
		if _, err := r.Write([]byte("x")); err == nil {
			t.Error("Write after Close = nil error; want one")
		}
		if got, err := io.ReadAll(&r); string(got) != "login: " || err != nil {
			t.Errorf("ReadAll after Close = %q, %v; want %q, nil", got, err, "login: ")
		}
	})
}

func TestPTYUnplugAndReplug(t *testing.T) {
	hwtest.Need(t, hwtest.PTY)
	link := filepath.Join(t.TempDir(), "tty")
	p, err := serialtest.OpenPTY(link)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := serialtest.OpenPTY(link); err == nil {
		t.Error("OpenPTY where there is one = nil error; want one")
	}
	if err := p.Replug(); err == nil {
		t.Error("Replug of what is plugged in = nil; want an error")
	}
	if err := p.Unplug(); err != nil {
		t.Errorf("Unplug() = %v; want nil", err)
	}
	if _, err := os.Lstat(link); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Lstat after Unplug = %v; want no such file", err)
	}
	if _, err := p.Read(make([]byte, 1)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Read of an unplugged PTY = %v; want %v", err, os.ErrClosed)
	}
	if _, err := p.Write([]byte("x")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write to an unplugged PTY = %v; want %v", err, os.ErrClosed)
	}
	if _, err := p.Settings(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Settings of an unplugged PTY = %v; want %v", err, os.ErrClosed)
	}
	if err := p.Replug(); err != nil {
		t.Errorf("Replug() = %v; want nil", err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("Close() = %v; want nil", err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("Close() again = %v; want nil", err)
	}
	if _, err := os.Lstat(link); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Lstat after Close = %v; want no such file", err)
	}
}
