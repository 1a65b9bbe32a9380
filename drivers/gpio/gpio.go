// Package gpio drives and watches single lines of a harness.
//
// The contracts are upstream's. An output is switched on and off, and read; an
// input is read and waited for. Ours are pulse, edges and what an output does when
// the session ends. On is active, off is inactive; whether that is high or low on
// the wire is the configuration's affair.
package gpio

import (
	"context"
	"iter"
	"math"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
)

// OutputContract is upstream's digital output.
var OutputContract = driver.Contract{
	Name:   "gpio",
	Client: "jumpstarter_driver_gpiod.client.DigitalOutputClient",
	Kind:   "gpio",

	Exports: func() []driver.Export { return OutputExports((*OutputClient)(nil)) },
}

// InputContract is upstream's digital input.
var InputContract = driver.Contract{
	Name:   "gpio",
	Client: "jumpstarter_driver_gpiod.client.DigitalInputClient",
	Kind:   "gpio",

	Exports: func() []driver.Export { return InputExports((*InputClient)(nil)) },
}

// Pin is a line that can be read.
type Pin interface {
	// ReadPin tells whether the line is active: what is on the wire, which for an
	// output need not be what was asked for.
	ReadPin(context.Context) (active bool, err error)
}

// Output is a line that is driven.
type Output interface {
	Pin
	On(context.Context) error
	Off(context.Context) error

	// Pulse makes the line active for at least d and then inactive. On, Off or
	// another Pulse meanwhile takes over. When the caller goes away the line
	// becomes inactive at once.
	Pulse(ctx context.Context, d time.Duration) error
}

// Input is a line that is watched. The waits give up after the timeout, with
// [context.DeadlineExceeded]; none is forever.
//
// An edge that came after the end of the last wait counts for the next one, as
// far as the last 16 go: a test may switch something on and then wait for what it
// does.
type Input interface {
	Pin
	// WaitForActive returns at once if the line is active.
	WaitForActive(ctx context.Context, timeout time.Duration) error
	// WaitForInactive returns at once if the line is inactive.
	WaitForInactive(ctx context.Context, timeout time.Duration) error
	// WaitForEdge waits for a change: Rising or Falling.
	WaitForEdge(ctx context.Context, edge string, timeout time.Duration) error
	// Edges yields the line's value and then its edges, until the caller stops.
	Edges(context.Context) iter.Seq2[Edge, error]
}

// The edges.
const (
	Rising  = "rising"  // from inactive to active
	Falling = "falling" // from active to inactive
)

// Edge is a change of a line. The first that Edges yields is none, but the value
// that the line has: its Seqno is 0, and no edge after it is missed.
type Edge struct {
	Active    bool    `json:"active"`    // from now on
	Timestamp float64 `json:"timestamp"` // seconds on the kernel's monotonic clock; 0 for the first
	Seqno     uint32  `json:"seqno"`     // the kernel's count of the line's edges
	Lost      int     `json:"lost"`      // edges before this one that nobody could keep
}

// maxPulse is a bound for mistakes.
const maxPulse = time.Hour

// PinExports are the rows that all outputs have besides on and off.
func PinExports(p Output) []driver.Export {
	return []driver.Export{
		readPin(p),
		driver.Do1("pulse", func(ctx context.Context, ms float64) error {
			d := time.Duration(ms * float64(time.Millisecond))
			if !(ms > 0 && ms <= float64(maxPulse/time.Millisecond)) {
				return driver.BadArg("ms", "%v is not a length of more than 0 and at most %v", ms, maxPulse)
			}
			return p.Pulse(ctx, d)
		}).Args("ms").Help("Make the line active for some milliseconds, and then inactive"),
	}
}

// OutputExports is the contract of outputs on the wire.
func OutputExports(p Output) []driver.Export {
	return append([]driver.Export{
		driver.Do("on", p.On).Help("Make the line active"),
		driver.Do("off", p.Off).Help("Make the line inactive"),
	}, PinExports(p)...)
}

// InputExports is the contract of inputs on the wire.
func InputExports(p Input) []driver.Export {
	wait := func(name string, f func(context.Context, time.Duration) error) driver.Export {
		return driver.Do1(name, func(ctx context.Context, timeout *float64) error {
			return f(ctx, seconds(timeout))
		}).Args("timeout")
	}
	return []driver.Export{
		readPin(p),
		wait("wait_for_active", p.WaitForActive).Help("Wait until the line is active, so many seconds at most"),
		wait("wait_for_inactive", p.WaitForInactive).Help("Wait until the line is inactive, so many seconds at most"),
		driver.Do2("wait_for_edge", func(ctx context.Context, edge string, timeout *float64) error {
			if edge != Rising && edge != Falling {
				return driver.BadArg("edge_type", "invalid edge type: %q, must be one of: %s, %s", edge, Rising, Falling)
			}
			return p.WaitForEdge(ctx, edge, seconds(timeout))
		}).Args("edge_type", "timeout").Help("Wait for a rising or a falling edge, so many seconds at most"),
		driver.Feed("edges", p.Edges).Help("Tell of the line's value, and then of each edge"),
	}
}

func readPin(p Pin) driver.Export {
	return driver.Call("read_pin", func(ctx context.Context) (int, error) {
		active, err := p.ReadPin(ctx)
		if active {
			return 1, err
		}
		return 0, err
	}).Help("Read the line: 1 is active, 0 inactive")
}

// forever is as good as no timeout.
const forever = 1e9 // seconds

// seconds is a timeout: null and 0 are none.
func seconds(t *float64) time.Duration {
	if t == nil || *t == 0 {
		return 0
	}
	return time.Duration(min(*t, forever) * float64(time.Second))
}

// OutputDriver offers an output to remote callers.
func OutputDriver(p Output) driver.Driver {
	return driver.Driver{Exports: OutputExports(p), Impl: p}
}

// InputDriver offers an input to remote callers.
func InputDriver(p Input) driver.Driver { return driver.Driver{Exports: InputExports(p), Impl: p} }

// OutputClient is an output behind a [driver.Caller].
type OutputClient struct{ c driver.Caller }

var _ Output = (*OutputClient)(nil)

// NewOutput makes a client of an output, or of a supply that is one.
func NewOutput(c driver.Caller) *OutputClient { return &OutputClient{c} }

func (c *OutputClient) On(ctx context.Context) error  { return driver.Run(ctx, c.c, "on") }
func (c *OutputClient) Off(ctx context.Context) error { return driver.Run(ctx, c.c, "off") }

func (c *OutputClient) ReadPin(ctx context.Context) (bool, error) { return read(ctx, c.c) }

func (c *OutputClient) Pulse(ctx context.Context, d time.Duration) error {
	return driver.Run(ctx, c.c, "pulse", float64(d)/float64(time.Millisecond))
}

func read(ctx context.Context, c driver.Caller) (bool, error) {
	v, err := driver.Invoke[float64](ctx, c, "read_pin")
	return math.Abs(v) >= 1, err
}

// InputClient is an input behind a [driver.Caller].
type InputClient struct{ c driver.Caller }

var _ Input = (*InputClient)(nil)

// NewInput makes a client of an input.
func NewInput(c driver.Caller) *InputClient { return &InputClient{c} }

func (c *InputClient) ReadPin(ctx context.Context) (bool, error) { return read(ctx, c.c) }

func (c *InputClient) WaitForActive(ctx context.Context, timeout time.Duration) error {
	return driver.Run(ctx, c.c, "wait_for_active", timeout.Seconds())
}

func (c *InputClient) WaitForInactive(ctx context.Context, timeout time.Duration) error {
	return driver.Run(ctx, c.c, "wait_for_inactive", timeout.Seconds())
}

func (c *InputClient) WaitForEdge(ctx context.Context, edge string, timeout time.Duration) error {
	return driver.Run(ctx, c.c, "wait_for_edge", edge, timeout.Seconds())
}

func (c *InputClient) Edges(ctx context.Context) iter.Seq2[Edge, error] {
	return driver.Iterate[Edge](ctx, c.c, "edges")
}
