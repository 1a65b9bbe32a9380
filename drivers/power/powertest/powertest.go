// Package powertest is the conformance suite of the power contract. The same
// suite serves a backend, its in-process round trip, a client behind a wire and
// a supply on a bench.
package powertest

import (
	"errors"
	"math"
	"sync"
	"testing"

	"github.com/jumplead/jumplead/drivers/power"
)

// Supply is a supply under test and what is known of it.
type Supply struct {
	power.Interface

	// State tells whether the output is on, when the test can see that.
	State func(t *testing.T) bool
	// Measures says that Read is expected to work.
	Measures bool
}

// Test runs the suite. Open makes a fresh supply and registers its cleanup.
func Test(t *testing.T, open func(t *testing.T) Supply) {
	check := func(t *testing.T, s Supply, want bool) {
		t.Helper()
		if s.State == nil {
			return
		}
		if got := s.State(t); got != want {
			t.Errorf("output is on = %t; want %t", got, want)
		}
	}
	t.Run("switch", func(t *testing.T) {
		s, ctx := open(t), t.Context()
		for i, on := range []bool{true, true, false, false, true, false} {
			op, name := s.Off, "Off"
			if on {
				op, name = s.On, "On"
			}
			if err := op(ctx); err != nil {
				t.Fatalf("step %d: %s() = %v; want nil", i, name, err)
			}
			check(t, s, on)
		}
	})
	t.Run("cycle", func(t *testing.T) {
		s := open(t)
		if err := power.Cycle(t.Context(), s, 0); err != nil {
			t.Fatalf("Cycle() = %v; want nil", err)
		}
		check(t, s, true)
		if err := s.Off(t.Context()); err != nil {
			t.Fatalf("Off() = %v; want nil", err)
		}
	})
	t.Run("overlap", func(t *testing.T) {
		s, ctx := open(t), t.Context()
		var calls sync.WaitGroup
		for range 4 {
			calls.Go(func() {
				if err := s.On(ctx); err != nil {
					t.Errorf("On() beside others = %v; want nil", err)
				}
				for _, err := range s.Read(ctx) {
					if err != nil && s.Measures {
						t.Errorf("Read() beside others = %v; want a reading", err)
					}
					break
				}
			})
		}
		calls.Wait()
		check(t, s, true)
		if err := s.Off(ctx); err != nil {
			t.Fatalf("Off() = %v; want nil", err)
		}
		check(t, s, false)
	})
	t.Run("read", func(t *testing.T) {
		s := open(t)
		n := 0
		for r, err := range s.Read(t.Context()) {
			if !s.Measures {
				if !errors.Is(err, errors.ErrUnsupported) {
					t.Fatalf("Read() = %v, %v; want ErrUnsupported", r, err)
				}
				return
			}
			if err != nil {
				t.Fatalf("Read() = %v; want a reading", err)
			}
			if math.IsNaN(r.Voltage) || math.IsNaN(r.Current) {
				t.Errorf("Read() = %+v; want numbers", r)
			}
			if n++; n == 2 {
				break
			}
		}
		if s.Measures && n == 0 {
			t.Error("Read() yielded nothing; want at least one reading")
		}
	})
}
