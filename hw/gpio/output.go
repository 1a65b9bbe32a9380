package gpio

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/jumplead/jumplead/hw"
)

// Output is an output that is held for long.
//
// It begins with the Active of its options. When its chip was gone and has come back, the line begins anew: with the value
// that is being set, or, when it is read first, with the Active of its options, as whatever was behind it has lost its
// state, too.
type Output struct {
	holder
	inactive bool // before the line is let go

	turn  int  // counts what was done to the line, so that a pulse knows whether it is still wanted
	pulse bool // the last thing that was done is a pulse, which is not over
}

// NewOutput makes an output; nothing is requested before its first use, for which there is Open. With inactive, Close makes
// the line inactive before it lets it go. Otherwise it is let go as it is, but that a pulse ends.
func NewOutput(h hw.Host, at hw.LineRef, o hw.LineOptions, inactive bool, log *slog.Logger) *Output {
	o.Output = true
	x := &Output{holder: hold(h, at, o, log), inactive: inactive}
	x.begun = func(hw.Line) { x.pulse = false }
	x.release = x.letGo
	return x
}

// set drives the line. x.mu is held.
func (x *Output) set(line hw.Line, active, pulse bool) error {
	err := line.SetValue(active)
	if err == nil {
		x.turn++
		x.pulse = pulse
	}
	return err
}

// Set drives the line. It ends a pulse.
func (x *Output) Set(ctx context.Context, active bool) error {
	return x.use(ctx, active, func(l hw.Line) error { return x.set(l, active, false) })
}

// Get reads what is on the wire.
func (x *Output) Get(ctx context.Context) (active bool, err error) {
	err = x.use(ctx, x.opt.Active, func(l hw.Line) (err error) {
		active, err = l.Value()
		return err
	})
	return active, err
}

// Pulse makes the line active for at least d and then inactive, whatever it was before. A Set or another Pulse meanwhile
// takes over; when ctx is done or the output is closed the line becomes inactive at once.
func (x *Output) Pulse(ctx context.Context, d time.Duration) error {
	turn := 0
	err := x.use(ctx, true, func(l hw.Line) error {
		err := x.set(l, true, true)
		turn = x.turn
		return err
	})
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
	over := func() bool { return !x.pulse || x.turn != turn }
	x.mu.Lock()
	closed, is := x.closed, over()
	x.mu.Unlock()
	switch {
	case closed:
		return os.ErrClosed
	case is:
		return cut
	}
	if err := x.use(context.WithoutCancel(ctx), false, func(l hw.Line) error {
		if over() {
			return nil
		}
		return x.set(l, false, false)
	}); err != nil {
		return fmt.Errorf("end of a pulse: %w", err)
	}
	return cut
}

// letGo is the end of the line. x.mu is held.
func (x *Output) letGo(line hw.Line) error {
	var err error
	if x.inactive || x.pulse {
		if err = line.SetValue(false); errors.Is(err, hw.ErrAbsent) {
			err = nil
		}
	}
	return errors.Join(err, line.Close())
}
