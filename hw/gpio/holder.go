package gpio

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/jumplead/jumplead/hw"
)

// ErrStuck is the kind of an error that says: the kernel has the request of a line and does not answer it. It is of kind
// [hw.ErrAbsent] as well.
var ErrStuck = errors.New("the kernel does not answer")

// How long the kernel has for a request, which takes it microseconds, and on a slow bus milliseconds.
const (
	patience      = 5 * time.Second // until whoever waits is told
	closePatience = time.Second     // until Close leaves it behind
)

// holder holds a line: it requests it at its first use, and anew when its chip was gone.
//
// The request is a system call that nothing can interrupt, and a driver may keep it for ever: Linux 7.2 does so when a line
// of gpio-sim is requested with edges while the chip is being removed. So it runs in a goroutine of its own, without the
// lock, and there is one at most, however many callers there are.
type holder struct {
	request func(context.Context, hw.LineOptions) (hw.Line, error)
	at      hw.LineRef
	opt     hw.LineOptions
	log     *slog.Logger
	done    chan struct{}       // closed by Close
	begun   func(hw.Line)       // what to do with a new line
	release func(hw.Line) error // and at last

	mu     sync.Mutex // held when begun and release are called
	line   hw.Line    // nil: to be requested at the next use
	lost   bool       // there was a line, and its chip has gone
	closed bool
	asking *asking // nil: the kernel has no request
}

// asking is a request that the kernel has.
type asking struct {
	since time.Time
	over  chan struct{} // closed when the kernel has answered
	err   error         // set before that
	left  bool          // who wanted it does not wait any more
}

func hold(h hw.Host, at hw.LineRef, o hw.LineOptions, log *slog.Logger) holder {
	return holder{
		request: func(ctx context.Context, o hw.LineOptions) (hw.Line, error) { return h.RequestLine(ctx, at, o) },
		at:      at, opt: o, log: log, done: make(chan struct{}),
	}
}

// get makes sure that there is a line; one that it has to request begins with a value. x.mu is held, but not while it waits.
func (x *holder) get(ctx context.Context, active bool) error {
	for x.line == nil {
		if x.closed {
			return os.ErrClosed
		}
		a, mine := x.asking, false
		if a == nil {
			a, mine = x.ask(active), true
		}
		x.mu.Unlock()
		err := x.await(ctx, a)
		x.mu.Lock()
		select {
		case <-a.over:
			// The error of a request that began before may be an old one.
			if mine && a.err != nil {
				return a.err
			}
		default:
			a.left = a.left || mine
			return err
		}
	}
	return nil
}

// ask gives the kernel a request. x.mu is held.
func (x *holder) ask(active bool) *asking {
	a := &asking{since: time.Now(), over: make(chan struct{})}
	x.asking = a
	o := x.opt
	o.Active = active
	go func() {
		line, err := x.request(context.Background(), o)
		x.mu.Lock()
		defer x.mu.Unlock()
		defer close(a.over)
		x.asking = nil
		if err != nil {
			a.err = err
			return
		}
		if a.left && o.Output {
			o.Active = x.opt.Active // nobody answers for another value
			line.SetValue(o.Active) // if that fails, the next use will, too
		}
		if x.closed {
			x.release(line)
			return
		}
		if x.line = line; x.lost {
			about := []any{"line", line.Info()}
			if o.Output {
				about = append(about, "active", o.Active)
			}
			x.log.Warn("the chip is back; the line began anew", about...)
		}
		x.lost = false
		x.begun(line)
	}()
	return a
}

// await waits for the end of a request, but not for ever.
func (x *holder) await(ctx context.Context, a *asking) error {
	late := time.NewTimer(time.Until(a.since.Add(patience)))
	defer late.Stop()
	select {
	case <-a.over:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("request %v: no answer from the kernel: %w", x.at, ctx.Err())
	case <-x.done:
		return os.ErrClosed
	case <-late.C:
		return hw.Mark(hw.ErrAbsent, fmt.Errorf("request %v: %w, for more than %v now; its log (dmesg) may tell why", x.at, ErrStuck, patience))
	}
}

// use calls f with the line, and once more if it turns out that the chip is another by now. x.mu is held meanwhile.
func (x *holder) use(ctx context.Context, active bool, f func(hw.Line) error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for again := true; ; again = false {
		if err := x.get(ctx, active); err != nil {
			return err
		}
		line := x.line
		err := f(line)
		if !errors.Is(err, hw.ErrAbsent) {
			return err
		}
		if x.drop(line); !again {
			return err
		}
	}
}

// drop forgets a line of which there is nothing more to be had. x.mu is held.
func (x *holder) drop(line hw.Line) {
	line.Close()
	if x.line == line {
		x.line, x.lost = nil, true
	}
}

// Open requests the line, unless it is there.
func (x *holder) Open(ctx context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.get(ctx, x.opt.Active)
}

// Info is where the line is; false if it is not requested.
func (x *holder) Info() (hw.LineInfo, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.line == nil {
		return hw.LineInfo{}, false
	}
	return x.line.Info(), true
}

// Close lets the line go, and ends who waits. A request that the kernel does not answer is left behind; when it is
// answered, its line is let go.
func (x *holder) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return nil
	}
	x.closed = true
	close(x.done)
	if a := x.asking; a != nil {
		x.mu.Unlock()
		late := time.NewTimer(closePatience)
		select {
		case <-a.over:
		case <-late.C:
		}
		late.Stop()
		x.mu.Lock()
	}
	line := x.line
	if x.line = nil; line == nil {
		return nil
	}
	return x.release(line)
}

// requestUntil runs request, which cannot be interrupted, and leaves it behind when ctx is done.
func (b Bus) requestUntil(ctx context.Context, at hw.LineRef, o hw.LineOptions) (hw.Line, error) {
	if ctx.Done() == nil {
		return b.request(ctx, at, o)
	}
	type result struct {
		line hw.Line
		err  error
	}
	got := make(chan result)
	go func() {
		line, err := b.request(ctx, at, o)
		select {
		case got <- result{line, err}:
		case <-ctx.Done():
			if err == nil {
				line.Close()
			}
		}
	}()
	select {
	case r := <-got:
		return r.line, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("no answer from the kernel: %w", ctx.Err())
	}
}
