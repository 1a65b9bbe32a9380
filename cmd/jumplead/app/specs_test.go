package app_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/cmd/jumplead/app"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/power"
	"github.com/jumplead/jumplead/drivers/power/fakepower"
	"github.com/jumplead/jumplead/drivers/shell"
)

// A program that was put together wrongly says so, whatever it is asked to do.
func TestSpecs(t *testing.T) {
	const here = "github.com/jumplead/jumplead/cmd/jumplead/app_test"
	spec := func(typ string, c driver.Contract) driver.Spec {
		return driver.Define(driver.Spec{Type: typ, Contract: c},
			func(context.Context, *driver.Env, struct{}) (driver.Driver, error) { return driver.Driver{}, nil })
	}
	for _, test := range []struct {
		name  string
		specs []driver.Spec
		want  []string // of the errors; none: it runs
	}{
		{"none", nil, nil},
		{"its own", []driver.Spec{fakepower.Mock, spec("lab.power.Relay", power.Contract), spec("lab.Shell", shell.Contract)}, nil},
		{"twice", []driver.Spec{fakepower.Mock, fakepower.SyncMock, spec(fakepower.Mock.Type, power.Contract)}, []string{
			`type "jumpstarter_driver_power.driver.MockPower" is there twice, of github.com/jumplead/jumplead/drivers/power/fakepower and of ` +
				here + "; who means to replace a driver leaves the other one out"}},
		{"undefined", []driver.Spec{{Type: "lab.power.Relay", Contract: power.Contract}}, []string{
			`number 1, type "lab.power.Relay": it was not made with driver.Define`}},
		{"names", []driver.Spec{spec("relay", power.Contract), spec("", power.Contract), spec("lab.", power.Contract), spec("lab power.X", power.Contract)}, []string{
			`number 1, type "relay", of ` + here + ": a type is a dotted name", `number 2, type ""`, `number 3, type "lab."`, `number 4, type "lab power.X"`}},
		{"client", []driver.Spec{spec("lab.Relay", driver.Contract{Name: "relay"})}, []string{
			`type "lab.Relay", of ` + here + `: client class "" of its contract: it is the path of a Python class`}},
	} {
		for _, command := range []string{"version", "drivers", "run"} {
			var stdout, stderr buffer
			status := app.Main(t.Context(), app.Proc{Args: []string{"jumplead", command}, Stdout: &stdout, Stderr: &stderr}, test.specs...)
			said := stderr.String()
			if (status == 1) != (test.want != nil) || strings.Count(said, "drivers of this program") != len(test.want) {
				t.Errorf("%s: jumplead %s = %d, %q; want %d errors", test.name, command, status, said, len(test.want))
			}
			for _, want := range test.want {
				if !strings.Contains(said, "Error: drivers of this program: "+want) {
					t.Errorf("%s: jumplead %s = %d, %q; want %q", test.name, command, status, said, want)
				}
			}
		}
	}
}
