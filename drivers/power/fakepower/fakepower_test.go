package fakepower_test

import (
	"slices"
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
		powertest.Test(t, func(t *testing.T) powertest.Supply {
			return powertest.Supply{
				Interface: power.NewClient(drivertest.Open(t, "", spec)),
				Measures:  true,
			}
		})
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
