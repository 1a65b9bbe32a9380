// relay.go

package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/power"
)

// Relay is a supply behind a relay that the kernel shows as an LED.
var Relay = driver.Define(driver.Spec{
	Type:     "lab.power.Relay",
	Contract: power.Contract,
	Doc:      "a supply behind a relay that the kernel shows as an LED",
}, func(_ context.Context, env *driver.Env, c config) (driver.Driver, error) {
	return power.Driver(&relay{c.File, env.Log}), nil
})

type config struct {
	File string `yaml:"file" doc:"what takes 1 and 0, such as /sys/class/leds/relay1/brightness"`
}

// Claims lets check find two nodes that switch one relay.
func (c *config) Claims() []driver.Claim { return []driver.Claim{{Kind: "relay", Name: c.File}} }

type relay struct {
	file string
	log  *slog.Logger
}

func (r *relay) On(context.Context) error  { return r.set("1") }
func (r *relay) Off(context.Context) error { return r.set("0") }

func (r *relay) Read(context.Context) iter.Seq2[power.Reading, error] {
	return func(yield func(power.Reading, error) bool) { yield(power.Reading{}, errors.ErrUnsupported) }
}

func (r *relay) set(level string) error {
	r.log.Info("switching", "relay", r.file, "to", level)
	f, err := os.OpenFile(r.file, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return fmt.Errorf("%w: %w", driver.ErrUnavailable, err) // it works again once the file is back
	}
	_, err = f.WriteString(level)
	return errors.Join(err, f.Close())
}
