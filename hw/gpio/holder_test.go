package gpio_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/gpio"
)

// hung is a kernel whose requests do not come back before they are let.
type hung struct {
	gpio.Chips
	let      chan struct{} // closed to let them
	requests atomic.Int32
}

type hungChip struct {
	gpio.Chip
	of *hung
}

func (h *hung) Open(path string) (gpio.Chip, error) {
	c, err := h.Chips.Open(path)
	if err != nil {
		return nil, err
	}
	return hungChip{c, h}, nil
}

func (c hungChip) Request(offset int, o hw.LineOptions) (hw.Line, error) {
	c.of.requests.Add(1)
	<-c.of.let
	return c.Chip.Request(offset, o)
}

// A kernel that does not answer holds up nobody for long, and is asked once only.
func TestStuck(t *testing.T) {
	const why = "request line 1: the kernel does not answer, for more than 5s now; its log (dmesg) may tell why"
	for _, test := range []struct {
		name string
		o    hw.LineOptions
		call func(context.Context, *gpio.Output) error
		late string // what the wire becomes when the kernel answers after all
		next string // and then, by an Off
	}{
		{"on", hw.LineOptions{}, func(ctx context.Context, x *gpio.Output) error { return x.Set(ctx, true) }, "out-high out-low", "out-high out-low"},
		{"off", hw.LineOptions{Active: true}, func(ctx context.Context, x *gpio.Output) error { return x.Set(ctx, false) }, "out-low out-high", "out-low out-high out-low"},
		{"pulse", hw.LineOptions{}, func(ctx context.Context, x *gpio.Output) error { return x.Pulse(ctx, time.Hour) }, "out-high out-low", "out-high out-low"},
		{"read", hw.LineOptions{Active: true}, func(ctx context.Context, x *gpio.Output) error { _, err := x.Get(ctx); return err }, "out-high", "out-high out-low"},
		{"open", hw.LineOptions{}, func(ctx context.Context, x *gpio.Output) error { return x.Open(ctx) }, "out-low", "out-low"},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench()
			kernel := &hung{Chips: b.board, let: make(chan struct{})}
			x := gpio.NewOutput(hw.Host{GPIO: gpio.Bus{Chips: kernel}}, hw.LineRef{Offset: 1}, test.o, false, b.logger())
			defer x.Close()
			for i, want := range []time.Duration{5 * time.Second, 0, 0} {
				start := time.Now()
				err := test.call(t.Context(), x)
				if took := time.Since(start); took != want || fmt.Sprint(err) != why || !errors.Is(err, gpio.ErrStuck) || !errors.Is(err, hw.ErrAbsent) {
					t.Errorf("%s: call %d = %v after %v; want %s after %v", test.name, i+1, err, took, why, want)
				}
			}
			if info, ok := x.Info(); ok {
				t.Errorf("%s: Info() = %v, true; want no line yet", test.name, info)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := test.call(ctx, x); !errors.Is(err, context.Canceled) && !errors.Is(err, gpio.ErrStuck) {
				t.Errorf("%s: a call that is over = %v; want context.Canceled", test.name, err)
			}
			if n := kernel.requests.Load(); n != 1 {
				t.Errorf("%s: the kernel was asked %d times; want once", test.name, n)
			}
			close(kernel.let)
			synctest.Wait()
			if got := b.history(); got != test.late {
				t.Errorf("%s: the wire was %s; want %s: who asked has gone", test.name, got, test.late)
			}
			if err := x.Set(t.Context(), false); err != nil {
				t.Errorf("%s: Set(false) = %v; want nil", test.name, err)
			}
			if got := b.history(); got != test.next {
				t.Errorf("%s: then the wire was %s; want %s", test.name, got, test.next)
			}
		})
	}
}

// So does the end of a session, and nothing is held when the kernel answers after it.
func TestStuckClose(t *testing.T) {
	for name, open := range map[string]func(h hw.Host, at hw.LineRef) (call func(context.Context) error, end func() error){
		"output": func(h hw.Host, at hw.LineRef) (func(context.Context) error, func() error) {
			x := gpio.NewOutput(h, at, hw.LineOptions{}, true, slog.New(slog.DiscardHandler))
			return func(ctx context.Context) error { return x.Set(ctx, true) }, x.Close
		},
		"input": func(h hw.Host, at hw.LineRef) (func(context.Context) error, func() error) {
			x := gpio.NewInput(h, at, hw.LineOptions{}, slog.New(slog.DiscardHandler))
			return func(ctx context.Context) error { return x.Wait(ctx, true) }, x.Close
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench()
			kernel := &hung{Chips: b.board, let: make(chan struct{})}
			call, end := open(hw.Host{GPIO: gpio.Bus{Chips: kernel}}, hw.LineRef{Offset: 1})
			called := make(chan error)
			go func() { called <- call(t.Context()) }()
			synctest.Wait()
			start := time.Now()
			go func() {
				if err := <-called; !errors.Is(err, os.ErrClosed) || time.Since(start) != 0 {
					t.Errorf("%s: the call at Close = %v after %v; want os.ErrClosed at once", name, err, time.Since(start))
				}
			}()
			if err := end(); err != nil || time.Since(start) > time.Second {
				t.Errorf("%s: Close() = %v after %v; want nil within a second", name, err, time.Since(start))
			}
			close(kernel.let)
			synctest.Wait()
			if b.chip.Used(1) || b.chip.Level(1) {
				t.Errorf("%s: the line is held = %t and high = %t after all; want neither", name, b.chip.Used(1), b.chip.Level(1))
			}
		})
	}
}

// Callers who wait for the same request all get the line, and each what it asked for.
func TestStuckForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		kernel := &hung{Chips: b.board, let: make(chan struct{})}
		x := gpio.NewOutput(hw.Host{GPIO: gpio.Bus{Chips: kernel}}, hw.LineRef{Offset: 1}, hw.LineOptions{}, false, b.logger())
		defer x.Close()
		read, gone := make(chan error), make(chan error)
		go func() { _, err := x.Get(t.Context()); read <- err }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() { gone <- x.Set(ctx, false) }()
		const late = "request line 1: no answer from the kernel: context deadline exceeded"
		if err := <-gone; fmt.Sprint(err) != late || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Set() with a second's time = %v; want %s", err, late)
		}
		set := make(chan error)
		go func() { set <- x.Set(t.Context(), true) }()
		synctest.Wait()
		close(kernel.let)
		if err := errors.Join(<-read, <-set); err != nil || b.history() != "out-low out-high" || kernel.requests.Load() != 1 {
			t.Errorf("Get() and Set(true) = %v, with %d requests, and the wire was %s; want nil, 1, out-low out-high", err, kernel.requests.Load(), b.history())
		}
	})
}

// Who requests a line without a holder can leave, too; what comes then is let go.
func TestStuckBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		kernel := &hung{Chips: b.board, let: make(chan struct{})}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := (gpio.Bus{Chips: kernel}).RequestLine(ctx, hw.LineRef{Offset: 1}, hw.LineOptions{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("RequestLine() = %v; want context.DeadlineExceeded", err)
		}
		close(kernel.let)
		synctest.Wait()
		if b.chip.Used(1) {
			t.Error("the line is held by nobody")
		}
	})
}
