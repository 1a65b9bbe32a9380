package process

import (
	"context"
	"errors"
	"syscall"
	"time"
)

// Grace periods of a [Keeper].
const (
	TermGrace = 5 * time.Second // to end after SIGTERM, as upstream
	KillGrace = 1 * time.Second // after SIGKILL: what is in the kernel's hands may take for ever
)

// Why a [Keeper] ended a program.
var (
	ErrTimeout = errors.New("it took too long")
	ErrClosing = errors.New("everything ends")
)

// Keeper looks after the processes of one program, whatever its caller does.
type Keeper struct {
	Timeout time.Duration
	Grace   time.Duration   // after SIGTERM, when the context is done
	Exited  <-chan struct{} // closed when the program has ended
	Taken   <-chan struct{} // and all its output was taken
	Closing <-chan struct{} // closed when there is no time for anything

	// Hit sends a signal to all processes and returns how many there are. Signal
	// 0 only counts.
	Hit func(syscall.Signal) int

	// Strike sends a signal to as many as can be reached at once.
	Strike func(syscall.Signal)
}

// Keep returns when the program is through, or had to be ended: then the error
// says why, [ErrTimeout], [ErrClosing] or the context's, and no process is left
// that can be ended. Only after Closing there may be some, which whoever closed
// it sees to.
func (k Keeper) Keep(ctx context.Context) (cause error) {
	t := time.NewTimer(k.Timeout)
	defer t.Stop()
	exited, expired, grace := k.Exited, t.C, TermGrace
	for cause == nil {
		select {
		case <-exited: // what is left to be read takes as long as its reader does
			exited, expired = nil, nil
		case <-k.Taken:
			return nil
		case <-expired:
			cause = ErrTimeout
		case <-ctx.Done():
			cause, grace = ctx.Err(), k.Grace
		case <-k.Closing:
			cause = ErrClosing
		}
	}
	if cause != ErrClosing {
		k.Hit(syscall.SIGTERM)
		if Await(grace, k.Closing, func() bool { return k.Hit(0) == 0 }) ||
			Await(KillGrace, k.Closing, func() bool { return k.Hit(syscall.SIGKILL) == 0 }) {
			return cause
		}
	}
	k.Strike(syscall.SIGKILL)
	return cause
}

// Await polls a condition, quickly at first, until it holds, or the time is over,
// or stop is closed. It reports whether the condition held.
func Await(limit time.Duration, stop <-chan struct{}, cond func() bool) bool {
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
