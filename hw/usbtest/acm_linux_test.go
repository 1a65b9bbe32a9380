package usbtest_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/hwtest"
	"github.com/jumplead/jumplead/hw/serial"
	"github.com/jumplead/jumplead/hw/usbtest"
)

// patience bounds every wait: a guest whose processor is emulated is slow.
const patience = 30 * time.Second

// await polls until ok, or fails the test.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	end := time.After(patience)
	for tick := time.Tick(time.Millisecond); !ok(); {
		select {
		case <-tick:
		case <-end:
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

func plug(t *testing.T, m usbtest.Model) *usbtest.Port {
	t.Helper()
	hwtest.Need(t, hwtest.USB)
	p, err := usbtest.Plug(m)
	if err != nil {
		t.Fatalf("Plug() = %v; want nil", err)
	}
	t.Cleanup(func() {
		if err := p.Unplug(); err != nil {
			t.Errorf("Unplug() = %v; want nil", err)
		}
	})
	return p
}

// find waits for what a driver makes of a device, and returns its name.
func find(t *testing.T, p *usbtest.Port, pattern string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	path, err := p.Await(ctx, pattern)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Base(path)
}

// tty waits for a device's terminal.
func tty(t *testing.T, p *usbtest.Port) string { t.Helper(); return "/dev/" + find(t, p, "*/tty/tty*") }

func open(t *testing.T, path string) hw.SerialPort {
	t.Helper()
	s, err := serial.Open(t.Context(), path, hw.SerialOptions{Baud: 250000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func attribute(t *testing.T, p *usbtest.Port, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(p.Dir(), name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func TestACM(t *testing.T) {
	a := &usbtest.ACM{Serial: "0001"}
	p := plug(t, a)
	path := tty(t, p)
	for name, want := range map[string]string{"idVendor": "1d6b", "idProduct": "0104", "serial": "0001", "manufacturer": "jumplead", "speed": "480"} {
		if got := attribute(t, p, name); got != want {
			t.Errorf("%s of the device = %q; want %q", name, got, want)
		}
	}
	s := open(t, path)
	await(t, "the rate", func() bool { return a.Baud() == 250000 })
	if _, err := s.Write([]byte("to the device")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := a.Received.Await(ctx, "to the device"); err != nil {
		t.Error(err)
	}
	await(t, "reading", a.Listening)
	a.Write([]byte("to the host"))
	got := make([]byte, len("to the host"))
	if _, err := io.ReadFull(s, got); err != nil || string(got) != "to the host" {
		t.Errorf("Read() = %q, %v; want %q, nil", got, err, "to the host")
	}
}

// The lines of ACM are seen by the kernel's driver, and the other way round.
func TestACMLines(t *testing.T) {
	a := &usbtest.ACM{}
	s := open(t, tty(t, plug(t, a)))
	lines := func() hw.SerialLines {
		t.Helper()
		l, err := s.Lines()
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	if l := a.Lines(); !l.DTR || !l.RTS {
		t.Errorf("Lines() of the device when it is opened = %+v; want DTR and RTS", l)
	}
	if err := errors.Join(s.SetDTR(false), s.SetRTS(false), s.SetRTS(true), s.SendBreak(t.Context(), time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range a.Edges() {
		got = append(got, e.String())
	}
	want := []string{"DTR+", "RTS+", "DTR-", "RTS-", "RTS+", "break+", "break-"}
	if !slices.Equal(got, want) {
		t.Errorf("Edges() = %q; want %q", got, want)
	}
	if l := lines(); l.DTR || !l.RTS || l.DCD || l.DSR || l.RI {
		t.Errorf("Lines() = %+v; want only RTS, and CTS as the class has it", l)
	}
	for _, in := range []hw.SerialLines{{DCD: true}, {DSR: true, RI: true}, {}} {
		a.SetInputs(in)
		await(t, "the inputs", func() bool { l := lines(); return l.DCD == in.DCD && l.DSR == in.DSR && l.RI == in.RI })
	}
	s.Close()
	await(t, "hang-up", func() bool { l := a.Lines(); return !l.DTR && !l.RTS })
}

func TestUnplugAndReplug(t *testing.T) {
	a := &usbtest.ACM{}
	p := plug(t, a)
	for range 5 {
		s := open(t, tty(t, p))
		failed := make(chan error, 1)
		go func() { _, err := s.Read(make([]byte, 1)); failed <- err }()
		await(t, "reading", a.Listening)
		if err := p.Unplug(); err != nil {
			t.Fatalf("Unplug() = %v; want nil", err)
		}
		if err := <-failed; !errors.Is(err, hw.ErrAbsent) {
			t.Errorf("Read() of an unplugged device = %v; want %v", err, hw.ErrAbsent)
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close() = %v; want nil", err)
		}
		if l := a.Lines(); l != (hw.SerialLines{}) {
			t.Errorf("Lines() of an unplugged device = %+v; want none", l)
		}
		if err := p.Replug(); err != nil {
			t.Fatalf("Replug() = %v; want nil", err)
		}
	}
}

// A cable that is pulled while the host sends.
func TestPullInMidTransfer(t *testing.T) {
	a := &usbtest.ACM{}
	p := plug(t, a)
	s := open(t, tty(t, p))
	p.Fail(usbtest.ACMSend, usbtest.Pull, 1)
	if _, err := s.Write([]byte("12345678")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, hw.ErrAbsent) {
		t.Errorf("Read() after the cable was pulled = %v; want %v", err, hw.ErrAbsent)
	}
	if err := p.Unplug(); err != nil { // it is out already; this waits for the kernel
		t.Fatalf("Unplug() = %v; want nil", err)
	}
	if got := string(a.Received.Bytes()); got != "1234" {
		t.Errorf("the device received %q; want half, %q", got, "1234")
	}
	if err := p.Replug(); err != nil {
		t.Fatalf("Replug() = %v; want nil", err)
	}
	s = open(t, tty(t, p))
	if _, err := s.Write([]byte("again")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := a.Received.Await(ctx, "again"); err != nil {
		t.Error(err)
	}
}

func TestFaults(t *testing.T) {
	a := &usbtest.ACM{}
	p := plug(t, a)
	s := open(t, tty(t, p))
	// cdc-acm believes that a request which failed was done, and skips one that would change nothing. So each must be
	// another one.
	dtr := false
	for f, name := range []string{usbtest.Stall: "stall", usbtest.Noise: "noise", usbtest.Mute: "silence, for the kernel's five seconds"} {
		p.Fail(0, usbtest.Fault(f), 1)
		if err := s.SetDTR(dtr); err == nil {
			t.Errorf("SetDTR(%v) and %s = nil; want an error", dtr, name)
		}
		if l := a.Lines(); !l.DTR {
			t.Errorf("Lines() after %s = %+v; want DTR as before", name, l)
		}
		dtr = !dtr
	}
	for _, dtr := range []bool{true, false} {
		if err := s.SetDTR(dtr); err != nil {
			t.Errorf("SetDTR(%v) of a device that recovered = %v; want nil", dtr, err)
		}
		if l := a.Lines(); l.DTR != dtr {
			t.Errorf("Lines() = %+v; want DTR %v", l, dtr)
		}
	}
}

// A device that is not what it says: the kernel refuses to drive it, and survives.
func TestWrongDescriptors(t *testing.T) {
	for name, alter := range map[string]func(*usbtest.Descriptors){
		"a lying length":       func(d *usbtest.Descriptors) { d.Body[0] = 200 },
		"no data interface":    func(d *usbtest.Descriptors) { d.Interfaces, d.Body = 1, d.Body[:9+5+5+4+5+7] },
		"half a configuration": func(d *usbtest.Descriptors) { d.Raw = map[uint16][]byte{0x0200: {9, 2, 67}} },
		"no device descriptor": func(d *usbtest.Descriptors) { d.Raw = map[uint16][]byte{0x0100: {}} },
	} {
		wrong(t, name, usbtest.Altered{Model: &usbtest.ACM{}, Alter: alter}, "*/tty/tty*", &usbtest.ACM{Serial: "good"})
	}
}

// Who looks for a port that the kernel has not made learns which ones there are.
func TestWrongIsAbsent(t *testing.T) {
	plug(t, usbtest.Altered{Model: &usbtest.ACM{}, Alter: func(d *usbtest.Descriptors) { d.Interfaces, d.Body = 1, d.Body[:9+5+5+4+5+7] }})
	there := tty(t, plug(t, &usbtest.ACM{}))
	_, err := serial.Open(t.Context(), "/dev/ttyACM9", hw.SerialOptions{Baud: 9600})
	if !errors.Is(err, hw.ErrAbsent) || !strings.Contains(err.Error(), there) {
		t.Errorf("Open(/dev/ttyACM9) = %v; want %v, with what is there: %s", err, hw.ErrAbsent, there)
	}
}

func TestTwoAlike(t *testing.T) {
	one, two := &usbtest.ACM{Serial: "same"}, &usbtest.ACM{Serial: "same"}
	p1, p2 := plug(t, one), plug(t, two)
	s1, s2 := open(t, tty(t, p1)), open(t, tty(t, p2))
	if p1.Dir() == p2.Dir() {
		t.Fatalf("both are at %s", p1.Dir())
	}
	if _, err := s1.Write([]byte("first")); err != nil {
		t.Fatal(err)
	}
	if _, err := s2.Write([]byte("second")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := errors.Join(one.Received.Await(ctx, "first"), two.Received.Await(ctx, "second")); err != nil {
		t.Error(err)
	}
}
