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

// Output is an output that is held for long.
//
// It begins with the Active of its options. When its chip was gone and has come back, the line begins anew: with the value
// that is being set, or, when it is read first, with the Active of its options, as whatever was behind it has lost its
// state, too.
type Output struct {
	request func(context.Context, hw.LineOptions) (hw.Line, error)
	opt     hw.LineOptions
	release bool // to inactive, before the line is let go
	log     *slog.Logger
	done    chan struct{} // closed by Close

	mu     sync.Mutex
	line   hw.Line // nil: to be requested at the next use
	lost   bool    // there was a line, and its chip has gone
	closed bool
	turn   int  // counts what was asked of the line, so that a pulse knows whether it is still wanted
	pulse  bool // the last thing that was asked is a pulse, which is not over
}

// NewOutput makes an output; nothing is requested before its first use, for which there is Open. With inactive, Close makes
// the line inactive before it lets it go. Otherwise it is let go as it is, but that a pulse ends.
func NewOutput(h hw.Host, at hw.LineRef, o hw.LineOptions, inactive bool, log *slog.Logger) *Output {
	o.Output = true
	return &Output{
		request: func(ctx context.Context, o hw.LineOptions) (hw.Line, error) { return h.RequestLine(ctx, at, o) },
		opt:     o, release: inactive, log: log, done: make(chan struct{}),
	}
}

// Open requests the line, unless it is there.
func (x *Output) Open(ctx context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.begin(ctx, x.opt.Active)
}

// begin requests the line with a first value, unless it is there.
func (x *Output) begin(ctx context.Context, active bool) error {
	if x.closed {
		return os.ErrClosed
	}
	if x.line != nil {
		return nil
	}
	o := x.opt
	o.Active = active
	line, err := x.request(ctx, o)
	if err != nil {
		return err
	}
	if x.line = line; x.lost {
		x.log.Warn("the chip is back; the line began anew", "line", line.Info(), "active", active)
	}
	x.lost = false
	return nil
}

// use calls f with the line, and once more if it turns out that the chip is another by now.
func (x *Output) use(ctx context.Context, first bool, f func(hw.Line) error) error {
	for again := true; ; again = false {
		if err := x.begin(ctx, first); err != nil {
			return err
		}
		err := f(x.line)
		if !errors.Is(err, hw.ErrAbsent) {
			return err
		}
		x.line.Close()
		x.line, x.lost = nil, true
		if !again {
			return err
		}
	}
}

func (x *Output) set(ctx context.Context, active bool) error {
	return x.use(ctx, active, func(l hw.Line) error { return l.SetValue(active) })
}

// Set drives the line. It ends a pulse.
func (x *Output) Set(ctx context.Context, active bool) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.turn++
	x.pulse = false
	return x.set(ctx, active)
}

// Get reads what is on the wire.
func (x *Output) Get(ctx context.Context) (active bool, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	err = x.use(ctx, x.opt.Active, func(l hw.Line) (err error) {
		active, err = l.Value()
		return err
	})
	return active, err
}

// Pulse makes the line active for at least d and then inactive, whatever it was before. A Set or another Pulse meanwhile
// takes over; when ctx is done or the output is closed the line becomes inactive at once.
func (x *Output) Pulse(ctx context.Context, d time.Duration) error {
	x.mu.Lock()
	x.turn++
	turn := x.turn
	x.pulse = true
	err := x.set(ctx, true)
	if err != nil {
		x.pulse = false
	}
	x.mu.Unlock()
	if err != nil {
		return err
	}
	t := time.NewTimer(d)
	defer t.Stop()
	var cut error
	select {
	case <-t.C:
	case <-ctx.Done():
		cut = ctx.Err()
	case <-x.done:
		return os.ErrClosed // Close has seen to the line
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return os.ErrClosed
	}
	if x.turn != turn {
		return cut
	}
	x.pulse = false
	if err := x.set(context.WithoutCancel(ctx), false); err != nil {
		return fmt.Errorf("end of a pulse: %w", err)
	}
	return cut
}

// Info is where the line is; false if it is not requested.
func (x *Output) Info() (hw.LineInfo, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.line == nil {
		return hw.LineInfo{}, false
	}
	return x.line.Info(), true
}

// Close lets the line go.
func (x *Output) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return nil
	}
	x.closed = true
	close(x.done)
	if x.line == nil {
		return nil
	}
	var err error
	if x.release || x.pulse {
		if err = x.line.SetValue(false); errors.Is(err, hw.ErrAbsent) {
			err = nil
		}
	}
	return errors.Join(err, x.line.Close())
}
