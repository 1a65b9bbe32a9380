package fakepower_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/power"
	"github.com/jumplead/jumplead/drivers/power/fakepower"
	"github.com/jumplead/jumplead/drivers/power/powertest"
)

func TestConformance(t *testing.T) {
	for _, spec := range []driver.Spec{fakepower.Mock, fakepower.SyncMock} {
		drivertest.Spec(t, spec, "")
		drivertest.Bench{}.Lifecycle(t, "", spec)
		powertest.Test(t, func(t *testing.T) powertest.Supply {
			return powertest.Supply{
				Interface: power.NewClient(drivertest.Open(t, "", spec)),
				Measures:  true,
			}
		})
	}
}

// Upstream's suites look for these records.
func TestLog(t *testing.T) {
	log := &drivertest.Log{}
	c := power.NewClient(drivertest.Bench{Log: log}.Open(t, "", fakepower.Mock))
	for _, step := range []struct {
		do   func(context.Context) error
		want string
	}{
		{c.On, "level=INFO msg=\"power on\" driver=root driver_type=power\n"},
		{c.Off, "level=INFO msg=\"power off\" driver=root driver_type=power\n"},
	} {
		if err := step.do(t.Context()); err != nil {
			t.Fatalf("switching = %v; want nil", err)
		}
		if got := log.String(); !strings.HasSuffix(got, step.want) {
			t.Errorf("log = %q; want it to end in %q", got, step.want)
		}
	}
}

func TestRead(t *testing.T) {
	c := power.NewClient(drivertest.Open(t, "", fakepower.Mock))
	var got []power.Reading
	for r, err := range c.Read(t.Context()) {
		if err != nil {
			t.Fatalf("Read() = %v; want a reading", err)
		}
		got = append(got, r)
	}
	if want := []power.Reading{{}, {Voltage: 5, Current: 2}}; !slices.Equal(got, want) {
		t.Errorf("Read() = %v; want %v", got, want)
	}
}
