package serial

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
)

// slow is a port that takes one byte a second and has room for ten. Nothing
// comes in.
type slow struct {
	mu       sync.Mutex
	empty    time.Time // when the last byte will have left
	sent     int       // bytes that left or will
	closed   bool
	readEnd  chan struct{} // closed by a deadline
	writeEnd chan struct{}
	discard  chan struct{} // closed by DiscardOutput
	setting  func() error  // SetDTR and SetRTS
}

var _ Port = (*slow)(nil)

func newSlow() *slow {
	return &slow{readEnd: make(chan struct{}), writeEnd: make(chan struct{}), discard: make(chan struct{}),
		setting: func() error { return nil }}
}

func (p *slow) Read([]byte) (int, error) {
	<-p.readEnd
	return 0, os.ErrDeadlineExceeded
}

func (p *slow) Write(b []byte) (n int, err error) {
	for range b {
		p.mu.Lock()
		p.empty = later(p.empty, time.Now()).Add(time.Second)
		room := time.After(time.Until(p.empty) - 10*time.Second)
		p.mu.Unlock()
		select {
		case <-room:
			p.mu.Lock()
			p.sent++
			p.mu.Unlock()
			n++
		case <-p.writeEnd:
			p.mu.Lock()
			p.empty = p.empty.Add(-time.Second)
			p.mu.Unlock()
			return n, os.ErrDeadlineExceeded
		}
	}
	return n, nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (p *slow) SetReadDeadline(time.Time) error  { close(p.readEnd); return nil }
func (p *slow) SetWriteDeadline(time.Time) error { close(p.writeEnd); return nil }
func (p *slow) SetDTR(bool) error                { return p.setting() }
func (p *slow) SetRTS(bool) error                { return p.setting() }

func (p *slow) Drain(ctx context.Context) error {
	p.mu.Lock()
	left := time.After(time.Until(p.empty))
	p.mu.Unlock()
	select {
	case <-left:
		return nil
	case <-p.discard:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *slow) DiscardOutput() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if left := time.Until(p.empty); left > 0 {
		p.sent -= int(left / time.Second)
		p.empty = time.Time{}
		close(p.discard)
	}
	return nil
}

func (p *slow) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return os.ErrClosed
	}
	p.closed = true
	return nil
}

// bench is a line of slow ports.
type bench struct {
	*Line
	ports []*slow
	log   strings.Builder
}

func newBench(linger time.Duration) *bench {
	b := &bench{}
	b.Line = NewLine(func(context.Context) (Port, error) {
		b.ports = append(b.ports, newSlow())
		return b.ports[len(b.ports)-1], nil
	}, Options{Linger: linger, Log: slog.New(slog.NewTextHandler(&b.log, nil))})
	return b
}

func (b *bench) connect(t *testing.T) io.ReadWriteCloser {
	t.Helper()
	s, err := b.Connect(t.Context())
	if err != nil {
		t.Fatalf("Connect() = %v; want a stream", err)
	}
	return s
}

// took runs f and compares how long it takes.
func took(t *testing.T, what string, want time.Duration, f func()) {
	t.Helper()
	began := time.Now()
	f()
	if got := time.Since(began); got != want {
		t.Errorf("%s took %v; want %v", what, got, want)
	}
}

func TestCloseLetsOutputLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(time.Minute)
		s := b.connect(t)
		io.WriteString(s, "12345")
		ended := make(chan error, 1)
		took(t, "Close()", 5*time.Second, func() {
			began := time.Now()
			go func() {
				_, err := s.Read(make([]byte, 1))
				if d := time.Since(began); d != 0 {
					err = errors.New("Read ended after " + d.String())
				}
				ended <- err
			}()
			if err := s.Close(); err != nil {
				t.Errorf("Close() = %v; want nil", err)
			}
		})
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read() = %v; want %v at once", err, net.ErrClosed)
		}
		if p := b.ports[0]; !p.closed || p.sent != 5 {
			t.Errorf("port: closed = %t after %d bytes; want true after 5", p.closed, p.sent)
		}
		if err := s.Close(); err != nil {
			t.Errorf("second Close() = %v; want nil", err)
		}
	})
}

func TestCloseGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(3 * time.Second)
		s := b.connect(t)
		io.WriteString(s, "12345")
		took(t, "Close()", 3*time.Second, func() { s.Close() })
		if p := b.ports[0]; !p.closed || p.sent != 3 {
			t.Errorf("port: closed = %t after %d bytes; want true after 3", p.closed, p.sent)
		}
		if !strings.Contains(b.log.String(), "output that the device did not take is lost") {
			t.Errorf("log = %q; want a warning about lost output", b.log.String())
		}
	})
}

// The session's end does not wait for a slow device, nor for a Close that does.
func TestReleaseDoesNotWait(t *testing.T) {
	for _, closing := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(time.Minute)
			s := b.connect(t)
			io.WriteString(s, "12345")
			closed := make(chan error, 1)
			if closing {
				go func() { closed <- s.Close() }()
				synctest.Wait()
			}
			took(t, "Release()", 0, func() {
				if err := b.Release(); err != nil {
					t.Errorf("Release() = %v; want nil", err)
				}
				if closing {
					if err := <-closed; err != nil {
						t.Errorf("Close() = %v; want nil", err)
					}
				}
			})
			if p := b.ports[0]; !p.closed || p.sent != 0 {
				t.Errorf("port: closed = %t after %d bytes; want true after none", p.closed, p.sent)
			}
			for what, err := range map[string]error{"SetDTR": b.SetDTR(t.Context(), true), "Connect": second(b.Connect(t.Context()))} {
				if driver.Classify(err) != driver.Unavailable {
					t.Errorf("%s after Release = %v; want class %v", what, err, driver.Unavailable)
				}
			}
		})
	}
}

func second(_ io.ReadWriteCloser, err error) error { return err }

// A write that waits for room ends when its connection is dropped.
func TestDropEndsWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(0)
		s := b.connect(t)
		ended := make(chan error, 1)
		go func() {
			n, err := s.Write(make([]byte, 100))
			if n != 10 {
				t.Errorf("Write() = %d, %v; want 10", n, err)
			}
			ended <- err
		}()
		synctest.Wait()
		if err := b.Close(t.Context()); err != nil {
			t.Errorf("Close() = %v; want nil", err)
		}
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write() = %v; want %v", err, net.ErrClosed)
		}
		if n, err := s.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("Read() = %d, %v; want 0, EOF", n, err)
		}
	})
}

// A client that ended is waited for: for a moment if it still has to notice, and
// longer if only its output has to leave.
func TestConnectAfterAnother(t *testing.T) {
	tests := []struct {
		name   string
		output string        // of the first client
		writes time.Duration // until when the first client writes; 0: forever
		ends   time.Duration // when the first client closes; 0: never
		limit  time.Duration // of the second client's context; 0: none
		want   error
		after  time.Duration
	}{
		{"soon", "", 0, patience / 2, 0, nil, patience / 2},
		{"never", "", 0, 0, 0, driver.ErrBusy, patience},
		{"impatient", "", 0, 0, patience / 4, context.DeadlineExceeded, patience / 4},
		{"output", "12345", 0, patience / 2, 0, nil, 5 * time.Second},
		{"output, impatient", "12345", 0, patience / 2, 2 * time.Second, context.DeadlineExceeded, 2 * time.Second},
		{"finished", "", patience / 2, 0, 0, nil, patience / 2},
		{"finished, output", "12345", patience / 2, 0, 0, nil, 5 * time.Second},
	}
	for _, test := range tests {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(time.Minute)
			s := b.connect(t)
			io.WriteString(s, test.output)
			if test.ends > 0 {
				time.AfterFunc(test.ends, func() { s.Close() })
			}
			if test.writes > 0 {
				time.AfterFunc(test.writes, func() { s.(*conn).CloseWrite() })
			}
			ctx := t.Context()
			if test.limit > 0 {
				var cancel func()
				ctx, cancel = context.WithTimeout(ctx, test.limit)
				defer cancel()
			}
			took(t, test.name+": Connect()", test.after, func() {
				next, err := b.Connect(ctx)
				if !errors.Is(err, test.want) {
					t.Errorf("%s: Connect() = %v; want %v", test.name, err, test.want)
				}
				if err == nil {
					next.Close()
				}
			})
			s.Close()
			synctest.Wait()
			for i, p := range b.ports {
				if !p.closed {
					t.Errorf("%s: port %d is open; want all closed", test.name, i)
				}
			}
		})
	}
}

// A call of close waits for output no longer than its caller.
func TestDropGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(time.Minute)
		s := b.connect(t)
		io.WriteString(s, "12345")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		took(t, "Close()", time.Second, func() {
			if err := b.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Close() = %v; want %v", err, context.DeadlineExceeded)
			}
		})
		took(t, "Close() of the stream", 4*time.Second, func() { s.Close() })
		if p := b.ports[0]; !p.closed || p.sent != 5 {
			t.Errorf("port: closed = %t after %d bytes; want true after 5", p.closed, p.sent)
		}
	})
}

// An open that hangs holds up who waits for it no longer than they want, and
// does no harm when it comes back after the session's end.
func TestOpenHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		port, hang := newSlow(), make(chan struct{})
		l := NewLine(func(context.Context) (Port, error) {
			<-hang
			return port, nil
		}, Options{Log: slog.New(slog.DiscardHandler)})
		first := make(chan error, 1)
		go func() { first <- second(l.Connect(t.Context())) }()
		synctest.Wait()
		for what, call := range map[string]func(context.Context) error{
			"Connect": func(ctx context.Context) error { return second(l.Connect(ctx)) },
			"SetDTR":  func(ctx context.Context) error { return l.SetDTR(ctx, true) },
		} {
			took(t, what, 2*time.Second, func() {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s = %v; want %v", what, err, context.DeadlineExceeded)
				}
			})
		}
		took(t, "Release", 0, func() { l.Release() })
		close(hang)
		if err := <-first; driver.Classify(err) != driver.Unavailable || !port.closed {
			t.Errorf("Connect() = %v, port closed = %t; want class %v, true", err, port.closed, driver.Unavailable)
		}
	})
}

func TestOpenFails(t *testing.T) {
	want := errors.New("no such port")
	l := NewLine(func(context.Context) (Port, error) { return nil, want }, Options{Log: slog.New(slog.DiscardHandler)})
	for what, err := range map[string]error{"Connect": second(l.Connect(t.Context())), "SetRTS": l.SetRTS(t.Context(), true)} {
		if !errors.Is(err, want) {
			t.Errorf("%s = %v; want %v", what, err, want)
		}
	}
}

// A modem line is set on the port that is open. When its client goes just then,
// the port is opened again.
func TestSetWhileClosing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(time.Minute)
		s := b.connect(t)
		io.WriteString(s, "12345")
		b.ports[0].setting = func() error {
			go s.Close()
			synctest.Wait()
			return os.ErrClosed
		}
		took(t, "SetDTR()", 5*time.Second, func() {
			if err := b.SetDTR(t.Context(), true); err != nil {
				t.Errorf("SetDTR() = %v; want nil", err)
			}
		})
		if len(b.ports) != 2 || !b.ports[1].closed {
			t.Errorf("%d ports were opened; want 2, both closed", len(b.ports))
		}

		s = b.connect(t)
		want := errors.New("no such line")
		b.ports[2].setting = func() error { return want }
		if err := b.SetRTS(t.Context(), true); !errors.Is(err, want) || len(b.ports) != 3 {
			t.Errorf("SetRTS() = %v with %d ports opened; want %v with 3", err, len(b.ports), want)
		}
		s.Close()
	})
}
