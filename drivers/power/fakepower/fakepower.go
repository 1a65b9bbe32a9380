// Package fakepower is a supply that switches nothing: it logs what it was asked
// and measures two fixed readings. Configurations use it to try a harness out,
// and test suites recognise its log lines and readings.
package fakepower

import (
	"context"
	"iter"
	"log/slog"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/power"
)

// Config has no keys of its own.
type Config struct{}

// Mock and SyncMock are upstream's two mocks; they differ only in how the
// Python exporter runs them.
var (
	Mock     = spec("jumpstarter_driver_power.driver.MockPower")
	SyncMock = spec("jumpstarter_driver_power.driver.SyncMockPower")
)

func spec(typ string) driver.Spec {
	return driver.Define(driver.Spec{
		Type:     typ,
		Contract: power.Contract,
		Doc:      "a supply that switches nothing, for trials and tests",
		Lenient:  true,
	}, func(_ context.Context, env *driver.Env, _ Config) (driver.Driver, error) {
		return power.Driver(&supply{env.Log}), nil
	})
}

type supply struct{ log *slog.Logger }

func (s *supply) On(context.Context) error {
	s.log.Info("power on")
	return nil
}

func (s *supply) Off(context.Context) error {
	s.log.Info("power off")
	return nil
}

func (s *supply) Read(context.Context) iter.Seq2[power.Reading, error] {
	return func(yield func(power.Reading, error) bool) {
		_ = yield(power.Reading{}, nil) && yield(power.Reading{Voltage: 5, Current: 2}, nil)
	}
}
