// Package serialtest is the conformance suite of the serial contract. The same
// suite serves a backend over a model of a device, its in-process round trip, a
// client behind a wire, and a port on a bench whose TX and RX are joined.
package serialtest

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/serial"
)

// Line is a line under test and what is known of it.
type Line struct {
	serial.Interface

	// Far is the device at the far end of the line that was connected last. Nil
	// says that what is sent comes back.
	Far func(t *testing.T) io.ReadWriter

	Loop    bool // a loop in memory: Close has no effect, finishing writing ends the stream
	Many    bool // several clients may connect at once
	NoLines bool // there are no modem lines, and setting one fails

	// Lines tells the state of DTR and RTS, when the test can see that.
	Lines func(t *testing.T) (dtr, rts bool)

	// Unplug and Replug take the device away and bring it back, when the test
	// can do that.
	Unplug, Replug func(t *testing.T)

	// Bulk is how many bytes each way the test of long transfers sends; 1 MiB
	// when it is 0.
	Bulk int
}

// patience bounds every wait. A slow line has to move Bulk bytes in it.
const patience = 60 * time.Second

// Test runs the suite. Open makes a fresh line and registers its cleanup.
func Test(t *testing.T, open func(t *testing.T) Line) {
	t.Run("bytes", func(t *testing.T) {
		l := open(t)
		s := connect(t, l)
		exchange(t, l, s, []byte("x"))
		every := make([]byte, 256) // what a terminal would edit or take for a signal
		for i := range every {
			every[i] = byte(i)
		}
		exchange(t, l, s, every)
		exchange(t, l, s, []byte("\r\n\x03\x04\x11\x13\x1a\x1c\xff\xff\x00\r\n"))
		closing(t, s)
	})
	t.Run("bulk", func(t *testing.T) {
		l := open(t)
		if l.Bulk == 0 {
			l.Bulk = 1 << 20
		}
		s := connect(t, l)
		down, up := noise(l.Bulk, 1), noise(l.Bulk, 2)
		writing := start(t, "write", func() error { return write(s, up) })
		if l.Far == nil {
			await(t, "read", func() error { return expect(s, up) })
		} else {
			far := l.Far(t)
			sending := start(t, "send from the far end", func() error { return write(far, down) })
			receiving := start(t, "receive at the far end", func() error { return expect(far, up) })
			await(t, "read", func() error { return expect(s, down) })
			sending()
			receiving()
		}
		writing()
		closing(t, s)
	})
	t.Run("again", func(t *testing.T) {
		l := open(t)
		for range 20 {
			s := connect(t, l)
			exchange(t, l, s, []byte("once more"))
			closing(t, s)
		}
	})
	t.Run("finish writing", func(t *testing.T) {
		l := open(t)
		s := connect(t, l)
		exchange(t, l, s, []byte("hello"))
		if l.Loop {
			await(t, "write", func() error { return write(s, []byte("the end")) })
		}
		half, ok := s.(interface{ CloseWrite() error })
		if ok {
			if err := half.CloseWrite(); err != nil {
				t.Fatalf("CloseWrite() = %v; want nil", err)
			}
		}
		switch {
		case l.Loop:
			await(t, "read", func() error { return expect(s, []byte("the end")) })
			await(t, "read", func() error {
				return wantError(s, "EOF", func(err error) bool { return err == io.EOF })
			})
		case l.Far != nil:
			far := l.Far(t)
			await(t, "send from the far end", func() error { return write(far, []byte("still there")) })
			await(t, "read", func() error { return expect(s, []byte("still there")) })
		}
		if ok && !l.Loop && !l.Many { // gives way
			next := connect(t, l)
			await(t, "read", func() error {
				return wantError(s, "EOF", func(err error) bool { return err == io.EOF })
			})
			exchange(t, l, next, []byte("next"))
			closing(t, s)
			exchange(t, l, next, []byte("undisturbed"))
			closing(t, next)
		}
		closing(t, s)
	})
	t.Run("close", func(t *testing.T) {
		l := open(t)
		drop := func() {
			t.Helper()
			if err := l.Close(t.Context()); err != nil {
				t.Fatalf("Close() = %v; want nil", err)
			}
		}
		drop() // nobody is connected
		s := connect(t, l)
		exchange(t, l, s, []byte("hello"))
		if l.Loop {
			drop()
			exchange(t, l, s, []byte("unmoved"))
			closing(t, s)
			return
		}
		reading := start(t, "read", func() error {
			return wantError(s, "EOF", func(err error) bool { return err == io.EOF })
		})
		drop()
		reading()
		drop() // once more
		next := connect(t, l)
		closing(t, s) // has no effect on the next client
		exchange(t, l, next, []byte("hello again"))
		closing(t, next)
	})
	t.Run("close while reading", func(t *testing.T) {
		l := open(t)
		s := connect(t, l)
		exchange(t, l, s, []byte("hello"))
		reading := start(t, "read", func() error {
			return wantError(s, "an error", func(error) bool { return true })
		})
		closing(t, s)
		reading()
		if n, err := s.Write([]byte("x")); err == nil {
			t.Errorf("Write() to a closed stream = %d, nil; want an error", n)
		}
	})
	t.Run("two clients", func(t *testing.T) {
		l := open(t)
		a := connect(t, l)
		if l.Loop || l.Many {
			exchange(t, l, a, []byte("first"))
			b := connect(t, l)
			exchange(t, l, b, []byte("second"))
			closing(t, b)
			closing(t, a)
			return
		}
		await(t, "connect", func() error {
			b, err := l.Connect(t.Context())
			if err == nil { // behind a wire the refusal may come with the first Read
				_, err = b.Read(make([]byte, 1))
				b.Close()
			}
			if err == nil || err == io.EOF {
				return fmt.Errorf("Connect() of a second client = %v; want an error", err)
			}
			return nil
		})
		exchange(t, l, a, []byte("undisturbed"))
		closing(t, a)
	})
	t.Run("lines", func(t *testing.T) {
		l := open(t)
		lines(t, l, nil)
		s := connect(t, l)
		exchange(t, l, s, []byte("before"))
		lines(t, l, l.Lines)
		exchange(t, l, s, []byte("after"))
		closing(t, s)
		lines(t, l, nil)
	})
	t.Run("unplug", func(t *testing.T) {
		l := open(t)
		if l.Unplug == nil {
			t.Skip("the device cannot be unplugged by a test")
		}
		for range 2 {
			s := connect(t, l)
			exchange(t, l, s, []byte("hello"))
			reading := start(t, "read", func() error {
				return wantError(s, "an error that says that the device is gone", gone)
			})
			l.Unplug(t)
			reading()
			if n, err := s.Write([]byte("x")); err == nil {
				t.Errorf("Write() to an unplugged device = %d, nil; want an error", n)
			}
			s.Close() // may say once more that the device is gone
			await(t, "connect", func() error {
				s, err := l.Connect(t.Context())
				if err == nil {
					s.Close()
				}
				if !gone(err) {
					return fmt.Errorf("Connect() to an unplugged device = %v; want an error of class %v", err, driver.Unavailable)
				}
				return nil
			})
			if err := l.Close(t.Context()); err != nil {
				t.Errorf("Close() with the device unplugged = %v; want nil", err)
			}
			l.Replug(t)
		}
		s := connect(t, l)
		exchange(t, l, s, []byte("back again"))
		closing(t, s)
	})
}

// lines sets each line both ways and compares what the test can see of it.
func lines(t *testing.T, l Line, state func(*testing.T) (dtr, rts bool)) {
	t.Helper()
	for _, want := range [][2]bool{{false, true}, {true, false}, {false, false}, {true, true}} {
		for _, err := range []error{l.SetDTR(t.Context(), want[0]), l.SetRTS(t.Context(), want[1])} {
			if l.NoLines != (err != nil) || l.NoLines && driver.Classify(err) != driver.Device {
				t.Fatalf("SetDTR or SetRTS = %v; want an error = %t, of class %v", err, l.NoLines, driver.Device)
			}
		}
		if state == nil {
			continue
		}
		if dtr, rts := state(t); dtr != want[0] || rts != want[1] {
			t.Fatalf("DTR, RTS = %t, %t; want %t, %t", dtr, rts, want[0], want[1])
		}
	}
}

func gone(err error) bool { return driver.Classify(err) == driver.Unavailable }

// connect connects. What a test leaves open is closed at its end.
func connect(t *testing.T, l Line) io.ReadWriteCloser {
	t.Helper()
	s, err := l.Connect(t.Context())
	if err != nil {
		t.Fatalf("Connect() = %v; want a stream", err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func closing(t *testing.T, s io.Closer) {
	t.Helper()
	await(t, "close", func() error {
		if err := s.Close(); err != nil {
			return fmt.Errorf("Close() of the stream = %v; want nil", err)
		}
		return nil
	})
}

// exchange sends p each way, or to and fro where what is sent comes back.
func exchange(t *testing.T, l Line, s io.ReadWriter, p []byte) {
	t.Helper()
	if l.Far == nil {
		writing := start(t, "write", func() error { return write(s, p) })
		await(t, "read", func() error { return expect(s, p) })
		writing()
		return
	}
	far := l.Far(t)
	await(t, "write", func() error { return write(s, p) })
	await(t, "receive at the far end", func() error { return expect(far, p) })
	await(t, "send from the far end", func() error { return write(far, p) })
	await(t, "read", func() error { return expect(s, p) })
}

func write(w io.Writer, p []byte) error {
	if n, err := w.Write(p); n != len(p) || err != nil {
		return fmt.Errorf("Write(%d bytes) = %d, %v; want %d, nil", len(p), n, err, len(p))
	}
	return nil
}

// expect reads as much as p holds and compares.
func expect(r io.Reader, p []byte) error {
	got := make([]byte, len(p))
	if n, err := io.ReadFull(r, got); err != nil {
		return fmt.Errorf("Read() = %d of %d bytes, %v; want all", n, len(p), err)
	}
	if !bytes.Equal(got, p) {
		i := 0
		for got[i] == p[i] {
			i++
		}
		return fmt.Errorf("Read() differs at byte %d of %d: %q; want %q", i, len(p), got[i:min(i+16, len(p))], p[i:min(i+16, len(p))])
	}
	return nil
}

// wantError reads until the stream ends.
func wantError(r io.Reader, what string, ok func(error) bool) error {
	for buf := make([]byte, 64); ; {
		n, err := r.Read(buf)
		if err != nil {
			if !ok(err) {
				return fmt.Errorf("Read() = %d, %v; want %s", n, err, what)
			}
			return nil
		}
		if n > 0 {
			return fmt.Errorf("Read() = %q; want %s", buf[:n], what)
		}
	}
}

// noise is random bytes, so that no part of them looks like another.
func noise(n int, seed byte) []byte {
	p := make([]byte, n)
	r := rand.NewChaCha8([32]byte{seed})
	r.Read(p)
	return p
}

// start runs f beside the test; the function that it returns waits for it.
func start(t *testing.T, what string, f func() error) (wait func()) {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return func() {
		t.Helper()
		late := time.NewTimer(patience)
		defer late.Stop()
		var err error
		select {
		case err = <-done:
		case <-late.C:
			err = fmt.Errorf("not done after %v", patience)
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// await runs f and waits for it.
func await(t *testing.T, what string, f func() error) {
	t.Helper()
	start(t, what, f)()
}
