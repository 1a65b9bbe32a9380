package serial_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/hwtest"
	"github.com/jumplead/jumplead/hw/serial"
	"github.com/jumplead/jumplead/hw/serial/serialtest"
	"github.com/jumplead/jumplead/hw/usbtest"
)

// rig is a serial bus with one device plugged in.
type rig struct {
	bus      hw.SerialBus
	path     string
	device   io.Writer // what the device sends
	received *serialtest.Recorder
	settings func() serialtest.Settings
	unplug   func()
	replug   func()
	// arrived waits until n bytes from the device are ready for the host; a terminal takes a moment.
	arrived func(n int)
	// read is the function in which a Read that waits is found, and how its goroutine is said to wait.
	read, state string
}

func ptyRig(t *testing.T) *rig {
	hwtest.Need(t, hwtest.PTY)
	pty, err := serialtest.OpenPTY(filepath.Join(t.TempDir(), "ttyUSB0"))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{
		bus:      serial.Bus{},
		path:     pty.Path(),
		device:   pty,
		received: &serialtest.Recorder{},
		settings: func() serialtest.Settings {
			s, err := pty.Settings()
			if err != nil {
				t.Error(err)
			}
			return s
		},
		arrived: func(n int) { awaitInput(t, pty.Path(), n) },
		read:    "serial.(*port).Read", state: "[IO wait",
	}
	var copied chan struct{}
	record := func() {
		done := make(chan struct{})
		copied = done
		go func() { defer close(done); io.Copy(r.received, pty) }()
	}
	record()
	r.unplug = func() {
		if err := pty.Unplug(); err != nil {
			t.Error(err)
		}
		<-copied
	}
	r.replug = func() {
		if err := pty.Replug(); err != nil {
			t.Error(err)
		}
		record()
	}
	t.Cleanup(func() { pty.Close(); <-copied })
	return r
}

func uartRig(noLines bool) *rig {
	const path = "/dev/ttyUSB0"
	bus := &serialtest.Bus{}
	u := &serialtest.UART{NoLines: noLines}
	bus.Plug(path, u)
	return &rig{
		bus: bus, path: path, device: u, received: &u.Received, settings: u.Settings,
		unplug:  func() { bus.Unplug(path) },
		replug:  func() { bus.Plug(path, u) },
		arrived: func(int) {},
		read:    "serialtest.(*port).Read", state: "[select",
	}
}

// acmRig is a USB adapter on the kernel's own driver, found by a link as udev makes them: a device that comes back while
// its old port is open gets another number.
func acmRig(t *testing.T) *rig {
	hwtest.Need(t, hwtest.USB)
	path := filepath.Join(t.TempDir(), "usb-adapter")
	a := &usbtest.ACM{}
	p, err := usbtest.Plug(a)
	if err != nil {
		t.Fatal(err)
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { check(p.Unplug()) })
	link := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		tty, err := p.Await(ctx, "*/tty/tty*")
		check(err)
		check(os.Symlink("/dev/"+filepath.Base(tty), path))
	}
	link()
	return &rig{
		bus: serial.Bus{}, path: path, device: a, received: &a.Received,
		settings: func() serialtest.Settings {
			f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0) // root may, also when it is claimed
			check(err)
			defer f.Close()
			s, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS2)
			check(err)
			return serialtest.Settings{Baud: a.Baud(), HUPCL: s.Cflag&unix.HUPCL != 0}
		},
		unplug: func() { check(os.Remove(path)); check(p.Unplug()) },
		replug: func() { check(p.Replug()); link() },
		arrived: func(n int) {
			if a.Lines().DTR { // somebody has it open; otherwise nothing arrives
				awaitInput(t, path, n)
			}
		},
		read: "serial.(*port).Read", state: "[IO wait",
	}
}

// both runs a test against the kernel's terminals and against the model in memory, which claims to be like them.
func both(t *testing.T, test func(*testing.T, *rig)) {
	t.Run("pty", func(t *testing.T) { test(t, ptyRig(t)) })
	t.Run("usb adapter", func(t *testing.T) { test(t, acmRig(t)) })
	t.Run("uart", func(t *testing.T) { test(t, uartRig(false)) })
	t.Run("uart without lines", func(t *testing.T) { test(t, uartRig(true)) })
}

func (r *rig) open(t *testing.T, o hw.SerialOptions) hw.SerialPort {
	t.Helper()
	if o.Baud == 0 {
		o.Baud = 115200
	}
	p, err := r.bus.OpenSerial(t.Context(), r.path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// awaitBlocked waits until a goroutine waits in r's Read, so that a test interrupts the wait and not its approach.
func (r *rig) awaitBlocked(t *testing.T) { t.Helper(); awaitGoroutine(t, r.read, r.state) }

func awaitGoroutine(t *testing.T, function, state string) {
	t.Helper()
	stacks := make([]byte, 1<<20)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); runtime.Gosched() {
		for g := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
			if strings.Contains(g, function) && strings.Contains(g, state) {
				return
			}
		}
	}
	t.Fatalf("no goroutine came to wait in %s", function)
}

func awaitInput(t *testing.T, path string, n int) {
	t.Helper()
	tty, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); runtime.Gosched() {
		if queued, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCINQ); err != nil {
			t.Fatal(err)
		} else if queued >= n {
			return
		}
	}
	t.Fatalf("%d bytes did not arrive at %s", n, path)
}

// result is what a Read in the background came to.
type result struct {
	data string
	err  error
}

func readInBackground(p hw.SerialPort) <-chan result {
	c := make(chan result, 1)
	go func() {
		b := make([]byte, 64)
		n, err := p.Read(b)
		c <- result{string(b[:n]), err}
	}()
	return c
}

func within[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatalf("%s did not end", what)
		panic("not reached")
	}
}

func wantKind(t *testing.T, call string, err error, kinds ...error) {
	t.Helper()
	for _, k := range kinds {
		if !errors.Is(err, k) {
			t.Errorf("%s = %v; want an error of kind %q", call, err, k)
		}
	}
}

func TestBytesPassUnchanged(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		p := r.open(t, hw.SerialOptions{})
		all := make([]byte, 256) // every value: controls, XON and XOFF, CR and LF, 0xff
		for i := range all {
			all[i] = byte(i)
		}
		if n, err := p.Write(all); n != len(all) || err != nil {
			t.Fatalf("Write(256 bytes) = %d, %v; want 256, nil", n, err)
		}
		if err := r.received.Await(t.Context(), string(all)); err != nil {
			t.Error(err)
		}
		if _, err := r.device.Write(all); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 256)
		if _, err := io.ReadFull(p, got); err != nil || !bytes.Equal(got, all) {
			t.Errorf("Read = %q, %v; want %q, nil", got, err, all)
		}
	})
}

// pattern is n bytes in which a lost, doubled or moved byte shows.
func pattern(n int) []byte {
	b := make([]byte, 0, n+8)
	for i := 0; len(b) < n; i++ {
		b = fmt.Appendf(b, "%07x\n", i)
	}
	return b[:n]
}

func TestMegabyteBothWaysAtOnce(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		p := r.open(t, hw.SerialOptions{})
		want := pattern(1 << 20)
		wrote := make(chan error, 2)
		go func() { _, err := p.Write(want); wrote <- err }()
		go func() { _, err := r.device.Write(want); wrote <- err }()
		got := make([]byte, len(want))
		if n, err := io.ReadFull(p, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("host read %d bytes, %v; want the %d that the device sent", n, err, len(want))
		}
		for range 2 {
			if err := within(t, "Write", wrote); err != nil {
				t.Error(err)
			}
		}
		if err := p.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		if err := r.received.Await(t.Context(), string(want[len(want)-64:])); err != nil {
			t.Error(err)
		}
		if got := r.received.Bytes(); !bytes.Equal(got, want) {
			t.Errorf("device received %d bytes; want the %d that the host sent", len(got), len(want))
		}
	})
}

func TestAnyBaudRate(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		for _, baud := range []int{300, 9600, 115200, 250000, 74880, 1500000, 3333333} {
			p := r.open(t, hw.SerialOptions{Baud: baud})
			if got := r.settings().Baud; got != baud {
				t.Errorf("after OpenSerial(%d baud) the terminal has %d", baud, got)
			}
			if got, err := p.Baud(); got != baud || err != nil {
				t.Errorf("Baud() = %d, %v; want %d, nil", got, err, baud)
			}
			p.Close()
		}
		for _, baud := range []int{0, -1} {
			if _, err := r.bus.OpenSerial(t.Context(), r.path, hw.SerialOptions{Baud: baud}); err == nil {
				t.Errorf("OpenSerial(%d baud) = nil error; want one", baud)
			}
		}
	})
}

func TestHUPCL(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		for _, c := range []struct {
			disable, want bool
		}{{false, true}, {true, false}, {false, false}} { // the third finds what the second left
			p := r.open(t, hw.SerialOptions{DisableHUPCL: c.disable})
			if got := r.settings().HUPCL; got != c.want {
				t.Errorf("after OpenSerial(DisableHUPCL: %v) the terminal's HUPCL = %v; want %v", c.disable, got, c.want)
			}
			p.Close()
		}
		r.unplug()
		r.replug()
		r.open(t, hw.SerialOptions{})
		if got := r.settings().HUPCL; !got {
			t.Errorf("HUPCL of a device that was plugged in again = %v; want true", got)
		}
	})
}

func TestClaim(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		p := r.open(t, hw.SerialOptions{Baud: 9600})
		if _, err := r.device.Write([]byte("kept")); err != nil {
			t.Fatal(err)
		}
		_, err := r.bus.OpenSerial(t.Context(), r.path, hw.SerialOptions{Baud: 115200})
		wantKind(t, "OpenSerial of a claimed port", err, hw.ErrBusy)
		if got := r.settings().Baud; got != 9600 {
			t.Errorf("the loser changed the baud rate to %d", got)
		}
		got := make([]byte, 4)
		if _, err := io.ReadFull(p, got); err != nil || string(got) != "kept" {
			t.Errorf("Read after a refused open = %q, %v; want %q, nil", got, err, "kept")
		}
		if err := p.Close(); err != nil {
			t.Errorf("Close() = %v; want nil", err)
		}
		r.open(t, hw.SerialOptions{}).Close()

		// Two that share agree on it.
		r.open(t, hw.SerialOptions{Shared: true})
		r.open(t, hw.SerialOptions{Shared: true})
	})
}

func TestAbsent(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.unplug()
		_, err := r.bus.OpenSerial(t.Context(), r.path, hw.SerialOptions{Baud: 9600})
		wantKind(t, "OpenSerial of an absent device", err, hw.ErrAbsent, fs.ErrNotExist)
		if err != nil && !strings.Contains(err.Error(), r.path) {
			t.Errorf("OpenSerial error %q does not name %s", err, r.path)
		}
	})
}

func TestOpenWithContextDone(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := r.bus.OpenSerial(ctx, r.path, hw.SerialOptions{Baud: 9600})
		wantKind(t, "OpenSerial with a cancelled context", err, context.Canceled)
		r.open(t, hw.SerialOptions{}) // and nobody holds it
	})
}

func TestUnplugMidRead(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		p := r.open(t, hw.SerialOptions{})
		read := readInBackground(p)
		r.awaitBlocked(t)
		r.unplug()
		got := within(t, "Read", read)
		wantKind(t, "Read of an unplugged port", got.err, hw.ErrAbsent)
		if errors.Is(got.err, io.EOF) {
			t.Errorf("Read of an unplugged port = %v; want no io.EOF", got.err)
		}
		for range 2 { // it stays so
			_, err := p.Read(make([]byte, 1))
			wantKind(t, "Read of an unplugged port", err, hw.ErrAbsent)
		}
		_, err := p.Write([]byte("x"))
		wantKind(t, "Write to an unplugged port", err, hw.ErrAbsent)
		wantKind(t, "Drain of an unplugged port", p.Drain(t.Context()), hw.ErrAbsent)
		wantKind(t, "SendBreak on an unplugged port", p.SendBreak(t.Context(), time.Millisecond), hw.ErrAbsent)
		wantKind(t, "DiscardInput of an unplugged port", p.DiscardInput(), hw.ErrAbsent)
		wantKind(t, "SetDTR of an unplugged port", p.SetDTR(true), hw.ErrAbsent)
		_, err = p.Lines()
		wantKind(t, "Lines of an unplugged port", err, hw.ErrAbsent)

		// The device comes back: the old port does not, the path does, claimed or not.
		r.replug()
		_, err = p.Read(make([]byte, 1))
		wantKind(t, "Read of a port that was unplugged", err, hw.ErrAbsent)
		p2 := r.open(t, hw.SerialOptions{})
		if err := p.Close(); err != nil {
			t.Errorf("Close() of an unplugged port = %v; want nil", err)
		}
		if _, err := p2.Write([]byte("again")); err != nil {
			t.Errorf("Write after the device came back = %v; want nil", err)
		}
		if err := r.received.Await(t.Context(), "again"); err != nil {
			t.Error(err)
		}
	})
}

func TestCloseEndsAll(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		p := r.open(t, hw.SerialOptions{})
		read := readInBackground(p)
		r.awaitBlocked(t)
		broke := make(chan error, 1)
		go func() { broke <- p.SendBreak(context.Background(), time.Hour) }()
		awaitGoroutine(t, "(*port).SendBreak", "[select")
		if err := p.Close(); err != nil {
			t.Errorf("Close() = %v; want nil", err)
		}
		wantKind(t, "Read of a port that is closed", within(t, "Read", read).err, os.ErrClosed)
		wantKind(t, "SendBreak on a port that is closed", within(t, "SendBreak", broke), os.ErrClosed)

		_, err := p.Read(make([]byte, 1))
		wantKind(t, "Read after Close", err, os.ErrClosed)
		_, err = p.Write([]byte("x"))
		wantKind(t, "Write after Close", err, os.ErrClosed)
		wantKind(t, "SendBreak after Close", p.SendBreak(t.Context(), time.Hour), os.ErrClosed)
		wantKind(t, "Drain after Close", p.Drain(t.Context()), os.ErrClosed)
		wantKind(t, "SetDTR after Close", p.SetDTR(true), os.ErrClosed)
		wantKind(t, "SetReadDeadline after Close", p.SetReadDeadline(time.Now()), os.ErrClosed)
		_, err = p.Baud()
		wantKind(t, "Baud after Close", err, os.ErrClosed)
		wantKind(t, "Close after Close", p.Close(), os.ErrClosed)
	})
}

// A device that does not take what it is sent, which the models above do at once.
func TestStuckWriteEnds(t *testing.T) {
	hwtest.Need(t, hwtest.PTY)
	pty, err := serialtest.OpenPTY(filepath.Join(t.TempDir(), "tty"))
	if err != nil {
		t.Fatal(err)
	}
	defer pty.Close()
	for _, c := range []struct {
		name string
		end  func(hw.SerialPort) error
		want error
	}{
		{"deadline", func(p hw.SerialPort) error { return p.SetWriteDeadline(time.Now()) }, os.ErrDeadlineExceeded},
		{"Close", func(p hw.SerialPort) error { return p.Close() }, os.ErrClosed},
		{"unplugging", func(hw.SerialPort) error { return pty.Unplug() }, hw.ErrAbsent},
	} {
		p, err := serial.Open(t.Context(), pty.Path(), hw.SerialOptions{Baud: 9600})
		if err != nil {
			t.Fatal(err)
		}
		wrote := make(chan error, 1)
		go func() { _, err := p.Write(make([]byte, 1<<20)); wrote <- err }()
		awaitGoroutine(t, "serial.(*port).Write", "[IO wait")
		if err := c.end(p); err != nil {
			t.Errorf("%s = %v; want nil", c.name, err)
		}
		wantKind(t, "Write ended by "+c.name, within(t, "Write", wrote), c.want)
		p.Close()
	}
}

func TestNoFileIsLeftOpen(t *testing.T) {
	r := ptyRig(t)
	files := func() int {
		t.Helper()
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := files()
	for range 20 {
		p := r.open(t, hw.SerialOptions{})
		for _, path := range []string{r.path, os.DevNull, r.path + "-absent"} {
			if _, err := serial.Open(t.Context(), path, hw.SerialOptions{Baud: 9600}); err == nil {
				t.Errorf("Open(%s) = nil error; want one", path)
			}
		}
		p.Close()
	}
	if after := files(); after != before {
		t.Errorf("%d files are open after all were closed; want %d as before", after, before)
	}
}

func TestDeadlines(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		p := r.open(t, hw.SerialOptions{})
		read := readInBackground(p)
		r.awaitBlocked(t)
		if err := p.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		wantKind(t, "Read past its deadline", within(t, "Read", read).err, os.ErrDeadlineExceeded)

		if err := p.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		read = readInBackground(p)
		r.awaitBlocked(t)
		if _, err := r.device.Write([]byte("late")); err != nil {
			t.Fatal(err)
		}
		if got := within(t, "Read", read); got != (result{"late", nil}) {
			t.Errorf("Read after the deadline was lifted = %v; want %v", got, result{"late", nil})
		}

		if err := p.SetWriteDeadline(time.Now().Add(-time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err := p.Write([]byte("x"))
		wantKind(t, "Write past its deadline", err, os.ErrDeadlineExceeded)
	})
}

func TestOldInputIsDropped(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		send := func(s string) {
			t.Helper()
			if _, err := r.device.Write([]byte(s)); err != nil {
				t.Fatal(err)
			}
		}
		read := func(p hw.SerialPort, want string) {
			t.Helper()
			got := make([]byte, len(want))
			if _, err := io.ReadFull(p, got); err != nil || string(got) != want {
				t.Errorf("Read = %q, %v; want %q, nil", got, err, want)
			}
		}
		send("before open")
		r.arrived(len("before open"))
		p := r.open(t, hw.SerialOptions{})
		send("one")
		read(p, "one")
		send("dropped")
		r.arrived(len("dropped"))
		if err := p.DiscardInput(); err != nil {
			t.Fatal(err)
		}
		send("two")
		read(p, "two")
		if err := p.DiscardOutput(); err != nil {
			t.Errorf("DiscardOutput() = %v; want nil", err)
		}
	})
}

func TestSendBreak(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		p := r.open(t, hw.SerialOptions{})
		const d = 20 * time.Millisecond
		start := time.Now()
		if err := p.SendBreak(t.Context(), d); err != nil {
			t.Errorf("SendBreak(%v) = %v; want nil", d, err)
		}
		if took := time.Since(start); took < d {
			t.Errorf("SendBreak(%v) took %v", d, took)
		}

		// Both a break on the line and one that waits for its turn end with their contexts.
		ctx, cancel := context.WithCancel(t.Context())
		broke := make(chan error, 2)
		for range 2 {
			go func() { broke <- p.SendBreak(ctx, time.Hour) }()
		}
		awaitGoroutine(t, "(*port).SendBreak", "[select")
		cancel()
		for range 2 {
			wantKind(t, "SendBreak with a cancelled context", within(t, "SendBreak", broke), context.Canceled)
		}
	})
}

func TestPortWithoutLines(t *testing.T) {
	for name, r := range map[string]func(*testing.T) *rig{
		"pty":                ptyRig,
		"uart without lines": func(*testing.T) *rig { return uartRig(true) },
	} {
		t.Run(name, func(t *testing.T) {
			p := r(t).open(t, hw.SerialOptions{})
			wantKind(t, "SetDTR(true) without lines", p.SetDTR(true), errors.ErrUnsupported)
			wantKind(t, "SetRTS(false) without lines", p.SetRTS(false), errors.ErrUnsupported)
			_, err := p.Lines()
			wantKind(t, "Lines() without lines", err, errors.ErrUnsupported)
		})
	}
}

// TestLines runs on the model, and on a real port where the machine lends one.
func TestLines(t *testing.T) {
	test := func(t *testing.T, r *rig) {
		p := r.open(t, hw.SerialOptions{DisableHUPCL: true})
		check := func(dtr, rts bool) {
			t.Helper()
			got, err := p.Lines()
			if err != nil || got.DTR != dtr || got.RTS != rts {
				t.Errorf("Lines() = %+v, %v; want DTR %v, RTS %v, nil", got, err, dtr, rts)
			}
		}
		check(true, true)
		for _, c := range []struct{ dtr, rts bool }{{false, true}, {false, false}, {true, false}, {true, true}} {
			if err := errors.Join(p.SetDTR(c.dtr), p.SetRTS(c.rts)); err != nil {
				t.Fatal(err)
			}
			check(c.dtr, c.rts)
		}
		if err := p.SetDTR(false); err != nil {
			t.Fatal(err)
		}
		p.Close()
		p = r.open(t, hw.SerialOptions{})
		check(true, true)
		_, err := r.bus.OpenSerial(t.Context(), r.path, hw.SerialOptions{Baud: 9600})
		wantKind(t, "OpenSerial of a claimed port", err, hw.ErrBusy)
	}
	t.Run("uart", func(t *testing.T) { test(t, uartRig(false)) })
	t.Run("usb adapter", func(t *testing.T) { test(t, acmRig(t)) })
	t.Run("real", func(t *testing.T) {
		hwtest.Need(t, hwtest.UART)
		test(t, &rig{bus: serial.Bus{}, path: hwtest.UARTPath()})
	})
}
