package gpiotest

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/gpio"
)

// Loop checks an output and an input that are joined: on a bench, by a wire. It changes nothing else.
func Loop(t *testing.T, bus hw.GPIO, out, in hw.LineRef) {
	host := hw.Host{GPIO: bus}
	request := func(t *testing.T, at hw.LineRef, o hw.LineOptions) hw.Line {
		t.Helper()
		o.Consumer = "jumplead test"
		l, err := host.RequestLine(t.Context(), at, o)
		if err != nil {
			t.Fatalf("RequestLine(%v) = %v; want a line", at, err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	t.Run("levels", func(t *testing.T) {
		for _, activeLow := range []bool{false, true} {
			for _, first := range []bool{false, true} {
				x := request(t, out, hw.LineOptions{Output: true, Active: first, ActiveLow: activeLow})
				y := request(t, in, hw.LineOptions{})
				for _, set := range []bool{first, !first, first} {
					if err := x.SetValue(set); err != nil {
						t.Fatalf("SetValue(%t) = %v; want nil", set, err)
					}
					follows(t, y, set != activeLow)
					value(t, x, set)
				}
				x.Close()
				y.Close()
			}
		}
	})
	t.Run("edges", func(t *testing.T) {
		x := request(t, out, hw.LineOptions{Output: true})
		y, err := host.RequestLine(t.Context(), in, hw.LineOptions{Edges: true})
		if errors.Is(err, errors.ErrUnsupported) {
			t.Skipf("needs a line that reports edges: %v", err)
		} else if err != nil {
			t.Fatalf("RequestLine(%v) with edges = %v; want a line", in, err)
		}
		defer y.Close()
		follows(t, y, false)
		for i := range 10 {
			rising := i%2 == 0
			if err := x.SetValue(rising); err != nil {
				t.Fatalf("SetValue(%t) = %v; want nil", rising, err)
			}
			if got := reader(t, y, 1)[0]; got.Rising != rising || got.Seqno != uint32(i+1) {
				t.Errorf("edge %d = %+v; want rising %t, seqno %d", i+1, got, rising, i+1)
			}
		}
	})
	t.Run("held", func(t *testing.T) {
		x := gpio.NewOutput(host, out, hw.LineOptions{}, true, slog.New(slog.DiscardHandler))
		defer x.Close()
		y := gpio.NewInput(host, in, hw.LineOptions{}, slog.New(slog.DiscardHandler))
		defer y.Close()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := errors.Join(x.Open(ctx), y.Open(ctx)); err != nil {
			t.Fatalf("Open() = %v; want nil", err)
		}
		rose := make(chan error, 1)
		go func() { rose <- y.Wait(ctx, true) }()
		if err := x.Pulse(ctx, 20*time.Millisecond); err != nil {
			t.Errorf("Pulse() = %v; want nil", err)
		}
		if err := <-rose; err != nil {
			t.Errorf("Wait() for the pulse = %v; want nil", err)
		}
	})
}

// follows waits until an input has a level: a wire is fast, and a resistor with a long wire less so.
func follows(t *testing.T, l hw.Line, high bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		got, err := l.Value()
		if err != nil {
			t.Fatalf("Value() = %v; want a value", err)
		}
		if got == high {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v is high = %t after %v; want %t: is it joined to the output?", l.Info(), got, patience, high)
		}
	}
}
