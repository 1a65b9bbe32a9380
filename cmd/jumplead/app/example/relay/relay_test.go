// relay_test.go

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/power"
	"github.com/jumplead/jumplead/drivers/power/powertest"
)

func TestRelay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "brightness")
	if err := os.WriteFile(file, []byte("0"), 0o600); err != nil {
		t.Fatal(err)
	}
	yaml := "file: " + file
	drivertest.Spec(t, Relay, yaml)
	drivertest.Bench{}.Lifecycle(t, yaml, Relay)
	powertest.Test(t, func(t *testing.T) powertest.Supply {
		return powertest.Supply{
			Interface: power.NewClient(drivertest.Open(t, yaml, Relay)),
			State: func(t *testing.T) bool {
				level, err := os.ReadFile(file)
				return err == nil && string(level) == "1"
			},
		}
	})
}
