package local

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
)

const (
	termGrace = 5 * time.Second // to end after SIGTERM, as upstream
	killGrace = 1 * time.Second // after SIGKILL: what is in the kernel's hands may take for ever
)

var (
	errTimeout = errors.New("the script took too long")
	errOver    = fmt.Errorf("the session is over: %w", driver.ErrUnavailable)
)

// keeper looks after the processes of one call, whatever its caller does.
type keeper struct {
	timeout time.Duration
	exited  <-chan struct{} // the script's shell has ended
	taken   <-chan struct{} // and all its output was taken
	closing <-chan struct{} // the session is at its end

	// hit sends a signal to all processes and returns how many there are. Signal
	// 0 only counts.
	hit func(syscall.Signal) int

	// strike sends a signal to as many as can be reached at once.
	strike func(syscall.Signal)
}

// keep returns when the call is through, or the script had to be ended: then the
// error says why, and no process is left that can be ended, except at the end of
// the session, which sees to them all.
func (k keeper) keep(ctx context.Context) (cause error) {
	t := time.NewTimer(k.timeout)
	defer t.Stop()
	exited, expired := k.exited, t.C
	for cause == nil {
		select {
		case <-exited: // what is left to be read takes as long as its reader does
			exited, expired = nil, nil
		case <-k.taken:
			return nil
		case <-expired:
			cause = errTimeout
		case <-ctx.Done():
			cause = ctx.Err()
		case <-k.closing:
			cause = errOver
		}
	}
	if cause != errOver {
		k.hit(syscall.SIGTERM)
		if await(termGrace, k.closing, func() bool { return k.hit(0) == 0 }) ||
			await(killGrace, k.closing, func() bool { return k.hit(syscall.SIGKILL) == 0 }) {
			return cause
		}
	}
	k.strike(syscall.SIGKILL)
	return cause
}

// await polls a condition, quickly at first, until it holds, or the time is over,
// or stop is closed. It reports whether the condition held.
func await(limit time.Duration, stop <-chan struct{}, cond func() bool) bool {
	end := time.NewTimer(limit)
	defer end.Stop()
	for wait := time.Millisecond; !cond(); wait = min(2*wait, 50*time.Millisecond) {
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-end.C:
			t.Stop()
			return cond()
		case <-stop:
			t.Stop()
			return false
		}
	}
	return true
}
