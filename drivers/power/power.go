// Package power switches the supply of a device under test.
//
// The contract is upstream's: on, off, and read, a sequence of readings of the
// supply's output. Cycling is the client's: off, a pause, on. Not every supply
// can measure; one that cannot answers read with errors.ErrUnsupported.
package power

import (
	"context"
	"iter"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
)

// Contract is upstream's power interface.
var Contract = driver.Contract{
	Name:   "power",
	Client: "jumpstarter_driver_power.client.PowerClient",
	Kind:   "power",

	Exports: func() []driver.Export { return Exports((*Client)(nil)) },
}

// Interface is a supply. Switching to the state it is in already does no harm.
type Interface interface {
	On(context.Context) error
	Off(context.Context) error
	// Read yields readings until the source has no more or the caller stops.
	Read(context.Context) iter.Seq2[Reading, error]
}

// Reading is one measurement of the supply's output.
type Reading struct {
	Voltage float64 `json:"voltage"` // volts
	Current float64 `json:"current"` // amperes
}

// Exports is the contract on the wire.
func Exports(p Interface) []driver.Export {
	return []driver.Export{
		driver.Do("on", p.On).Help("Switch the supply on"),
		driver.Do("off", p.Off).Help("Switch the supply off"),
		driver.Feed("read", p.Read).Help("Measure voltage and current"),
	}
}

// Driver offers a supply to remote callers.
func Driver(p Interface) driver.Driver { return driver.Driver{Exports: Exports(p), Impl: p} }

// Client is a supply behind a [driver.Caller].
type Client struct{ c driver.Caller }

var _ Interface = (*Client)(nil)

// NewClient makes a client of a power node.
func NewClient(c driver.Caller) *Client { return &Client{c} }

func (c *Client) On(ctx context.Context) error  { return driver.Run(ctx, c.c, "on") }
func (c *Client) Off(ctx context.Context) error { return driver.Run(ctx, c.c, "off") }

func (c *Client) Read(ctx context.Context) iter.Seq2[Reading, error] {
	return driver.Iterate[Reading](ctx, c.c, "read")
}

// CycleWait is how long upstream's client leaves the supply off when it cycles.
const CycleWait = 2 * time.Second

// Cycle switches off, waits, and switches on. It leaves the supply off when the
// context ends during the pause.
func Cycle(ctx context.Context, p Interface, wait time.Duration) error {
	if err := p.Off(ctx); err != nil {
		return err
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return p.On(ctx)
}
