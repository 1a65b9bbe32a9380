package hw

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// GPIO is the lines of the host's GPIO chips.
type GPIO interface {
	// RequestLine takes a line for the caller alone, as an input or as an output that shows its first value from the
	// moment on at which it is one. The line is the caller's until it is closed. It gives up when ctx is done; afterwards
	// ctx has no part in the line's life.
	RequestLine(ctx context.Context, at LineRef, o LineOptions) (Line, error)
}

// LineRef says which line is meant: by its offset on a chip, or by its name.
type LineRef struct {
	// Chip is a device file ("/dev/gpiochip0"), its name ("gpiochip0") or the chip's label ("pinctrl-bcm2711"). The number
	// in a device's name depends on the order in which chips were found; the label is the hardware's. "" is gpiochip0,
	// or, for a line with a name, any chip.
	Chip   string
	Name   string // as the kernel calls the line; "" if Offset counts
	Offset int    // of the line on its chip, from 0
}

func (r LineRef) String() string {
	line := strconv.Quote(r.Name)
	if r.Name == "" {
		line = strconv.Itoa(r.Offset)
	}
	if r.Chip == "" {
		return "line " + line
	}
	return "line " + line + " of " + r.Chip
}

// LineOptions say how a line is to be used. The zero value is an input without edges.
type LineOptions struct {
	Consumer  string // who uses the line, for others to see; at most 31 bytes count
	ActiveLow bool   // a low level is active

	Output bool  // else an input
	Active bool  // the first value of an output
	Drive  Drive // of an output

	Bias     Bias
	Edges    bool          // report the edges of an input
	Debounce time.Duration // how long an input must be stable to count, in microseconds; 0 for no filter
}

// Drive is how an output makes its two levels.
type Drive uint8

const (
	PushPull   Drive = iota // drives both
	OpenDrain               // drives low, and lets go for high
	OpenSource              // drives high, and lets go for low
)

// Bias is the pull resistor inside the chip.
type Bias uint8

const (
	BiasAsIs Bias = iota // as it was found
	BiasOff
	PullUp
	PullDown
)

// Line is a GPIO line that was requested. Its methods may be called from several goroutines at once; Close ends them.
// When the chip is gone they answer [ErrAbsent], and the line is of no more use.
type Line interface {
	Info() LineInfo

	// Value reads whether the line is active: what is on the wire, which for an output need not be what was set. An
	// output stays one.
	Value() (active bool, err error)

	// SetValue drives an output.
	SetValue(active bool) error

	// ReadEdges waits for at least one edge and returns how many it stored. One goroutine at a time may call it.
	ReadEdges(buf []Edge) (int, error)

	Close() error
}

// LineInfo is where a line is.
type LineInfo struct {
	Chip   string // "gpiochip0"
	Label  string // of the chip: "pinctrl-bcm2711"
	Offset int
	Name   string // of the line, or ""
}

func (i LineInfo) String() string {
	name := ""
	if i.Name != "" {
		name = " (" + i.Name + ")"
	}
	return "line " + strconv.Itoa(i.Offset) + name + " of " + i.Chip + " (" + i.Label + ")"
}

// Edge is a change of a line's value, as the kernel saw it.
type Edge struct {
	Rising bool          // from inactive to active
	Time   time.Duration // on the kernel's monotonic clock
	Seqno  uint32        // counts the edges of the line since it was requested, from 1, also those that were lost
}

// LineProber is a [GPIO] that can tell of a line without taking it.
type LineProber interface {
	// ProbeLine finds a line. The error is what RequestLine would say, as far as that can be told without taking the line.
	ProbeLine(ctx context.Context, at LineRef) (LineInfo, error)
}

// ProbeLine looks at a line without taking it, if the host's GPIO is a [LineProber].
func (h Host) ProbeLine(ctx context.Context, at LineRef) (LineInfo, error) {
	p, ok := h.GPIO.(LineProber)
	switch {
	case ok:
		return p.ProbeLine(ctx, at)
	case h.GPIO == nil:
		return LineInfo{}, fmt.Errorf("request %v: this host has no GPIO lines: %w", at, errors.ErrUnsupported)
	}
	return LineInfo{}, fmt.Errorf("request %v: it cannot be looked at here without being taken: %w", at, errors.ErrUnsupported)
}

// RequestLine takes a line of the host's GPIO chips.
func (h Host) RequestLine(ctx context.Context, at LineRef, o LineOptions) (Line, error) {
	if h.GPIO == nil {
		return nil, fmt.Errorf("request %v: this host has no GPIO lines: %w", at, errors.ErrUnsupported)
	}
	return h.GPIO.RequestLine(ctx, at, o)
}
