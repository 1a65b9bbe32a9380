package virtualdut

import (
	"context"
	"iter"
	"log/slog"
	"path/filepath"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/power"
)

// PowerConfig says which device.
type PowerConfig struct{ Device }

// Claims implements [driver.Claimer].
func (c PowerConfig) Claims() []driver.Claim {
	return []driver.Claim{{Kind: "virtual supply", Name: filepath.Clean(c.Socket)}}
}

// Power is the backend of the power contract.
var Power = driver.Define(driver.Spec{
	Type:     "jumplead.power.VirtualDUT",
	Contract: power.Contract,
	Doc:      "the supply rail of a virtual device under test (the command virtualdut)",
}, func(_ context.Context, env *driver.Env, cfg PowerConfig) (driver.Driver, error) {
	return power.Driver(&supply{cfg.Socket, env.Log}), nil
})

type supply struct {
	socket string
	log    *slog.Logger
}

func (s *supply) On(ctx context.Context) error  { return s.turn(ctx, "on") }
func (s *supply) Off(ctx context.Context) error { return s.turn(ctx, "off") }

func (s *supply) turn(ctx context.Context, word string) error {
	if _, err := ask(ctx, s.socket, word); err != nil {
		return err
	}
	s.log.Info("power " + word)
	return nil
}

func (s *supply) Read(ctx context.Context) iter.Seq2[power.Reading, error] {
	return func(yield func(power.Reading, error) bool) {
		a, err := ask(ctx, s.socket, "read")
		yield(a.Reading, err)
	}
}
