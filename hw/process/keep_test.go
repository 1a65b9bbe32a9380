package process

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestKeeper lets scripts of a model take their time.
func TestKeeper(t *testing.T) {
	const never = time.Hour
	type times struct{ exit, taken, cancel, closing time.Duration }
	for _, test := range []struct {
		name    string
		timeout time.Duration
		times
		yields time.Duration // from SIGTERM to the end of the processes
		stays  bool          // not even SIGKILL ends them
		want   error
		after  time.Duration
		hits   string
	}{
		{"ends by itself", 300 * time.Second, times{exit: 10 * time.Second, taken: 10 * time.Second}, 0, false, nil, 10 * time.Second, "[]"},
		{"its reader is slow", 3 * time.Second, times{exit: time.Second, taken: time.Minute}, 0, false, nil, time.Minute, "[]"},
		{"time is over", 3 * time.Second, times{exit: never}, time.Second, false, ErrTimeout, 4 * time.Second, "[terminated 3s]"},
		{"no time at all", 0, times{exit: never}, 0, false, ErrTimeout, 0, "[terminated 0s]"},
		{"ignores SIGTERM", 3 * time.Second, times{exit: never}, never, false, ErrTimeout, 8 * time.Second, "[terminated 3s killed 8s]"},
		{"cannot be killed", 3 * time.Second, times{exit: never}, never, true, ErrTimeout, 9 * time.Second, "[terminated 3s killed 8s]"},
		{"caller goes", 300 * time.Second, times{exit: never, cancel: 2 * time.Second}, time.Second, false, context.Canceled, 3 * time.Second, "[terminated 2s]"},
		{"caller goes after the exit", 300 * time.Second, times{exit: time.Second, taken: never, cancel: 2 * time.Second}, never, false, context.Canceled, 7 * time.Second, "[terminated 2s killed 7s]"},
		{"session ends", 300 * time.Second, times{exit: never, closing: 2 * time.Second}, never, false, ErrClosing, 2 * time.Second, "[killed 2s]"},
		{"session ends in the grace", 3 * time.Second, times{exit: never, closing: 4 * time.Second}, never, false, ErrTimeout, 4 * time.Second, "[terminated 3s killed 4s]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				exited, taken, closing := make(chan struct{}), make(chan struct{}), make(chan struct{})
				ctx, cancel := context.WithCancel(t.Context())
				for d, do := range map[*time.Duration]func(){
					&test.exit: func() { close(exited) }, &test.taken: func() { close(taken) },
					&test.cancel: cancel, &test.closing: func() { close(closing) },
				} {
					if *d > 0 && *d < never {
						defer time.AfterFunc(*d, do).Stop()
					}
				}
				defer cancel()
				var hits []string
				var last syscall.Signal
				gone := time.Time{} // when the processes have ended
				hit := func(sig syscall.Signal) int {
					now := time.Now()
					if sig != 0 && sig != last { // SIGKILL comes until nobody is left
						hits = append(hits, fmt.Sprintf("%v %v", sig, now.Sub(start)))
						last = sig
					}
					switch {
					case sig == syscall.SIGTERM:
						gone = now.Add(test.yields)
					case sig == syscall.SIGKILL && !test.stays:
						gone = now
					}
					if !gone.IsZero() && !now.Before(gone) {
						return 0
					}
					return 1
				}
				strike := func(sig syscall.Signal) { hit(sig) }
				err := Keeper{test.timeout, TermGrace, exited, taken, closing, hit, strike}.Keep(ctx)
				took := time.Since(start)
				if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
					t.Errorf("Keep() = %v; want %v", err, test.want)
				}
				if took < test.after || took > test.after+50*time.Millisecond {
					t.Errorf("Keep() takes %v; want %v", took, test.after)
				}
				if got := fmt.Sprint(hits); got != test.hits {
					t.Errorf("signals = %v; want %v", got, test.hits)
				}
			})
		})
	}
}
