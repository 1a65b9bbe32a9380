package driver_test

import (
	"context"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
)

func openAny[C any](context.Context, *driver.Env, C) (driver.Driver, error) {
	return driver.Driver{}, nil
}

// A spec is its opener's, whoever made it.
func TestPackage(t *testing.T) {
	const here = "github.com/jumplead/jumplead/drivers/driver_test"
	for want, specs := range map[string][]driver.Spec{
		here: {
			driver.Define(driver.Spec{}, openAny[struct{ A map[string]int }]),
			driver.Define(driver.Spec{}, func(context.Context, *driver.Env, drivertest.Bench) (driver.Driver, error) {
				return driver.Driver{}, nil
			}),
		},
		"": {{}, {Type: "a.B"}},
	} {
		for _, s := range specs {
			if got := s.Package(); got != want {
				t.Errorf("Package() = %q; want %q", got, want)
			}
		}
	}
}
