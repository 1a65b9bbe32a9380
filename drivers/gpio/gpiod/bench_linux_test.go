package gpiod_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/gpio"
	"github.com/jumplead/jumplead/drivers/gpio/gpiod"
	"github.com/jumplead/jumplead/drivers/power"
	"github.com/jumplead/jumplead/drivers/power/powertest"
	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/gpio/cdev"
	"github.com/jumplead/jumplead/hw/hwtest"
)

// at is a line of a bench in a config's words.
func at(l hwtest.BenchLine) string {
	if l.Chip == "" {
		return "line: " + l.Line
	}
	return fmt.Sprintf("line: %s, device: %s", l.Line, l.Chip)
}

// An output and an input that a bench joins: one switches, the other sees it.
func TestBench(t *testing.T) {
	for _, l := range hwtest.GPIOLoops(t) {
		t.Run(l.Out.Line, func(t *testing.T) {
			b := drivertest.Bench{Host: hw.Host{GPIO: cdev.Bus()}}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			t.Run("power", func(t *testing.T) {
				powertest.Test(t, func(t *testing.T) powertest.Supply {
					out := b.Tree(t, fmt.Sprintf("{%s, active_low: true}", at(l.Out)), gpiod.Switch)
					in := b.Tree(t, fmt.Sprintf("{%s, active_low: true}", at(l.In)), gpiod.Input)
					t.Cleanup(func() { out.Close(); in.Close() })
					sees := gpio.NewInput(in.Root.Caller())
					return powertest.Supply{
						Interface: power.NewClient(out.Root.Caller()),
						State: func(t *testing.T) bool {
							// A wire takes its time, and a resistor more.
							short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
							defer cancel()
							_ = sees.WaitForEdge(short, gpio.Rising, 50*time.Millisecond)
							on, err := sees.ReadPin(ctx)
							if err != nil {
								t.Errorf("ReadPin() = %v; want a value", err)
							}
							return on
						},
					}
				})
			})
			out := gpio.NewOutput(b.Open(t, fmt.Sprintf("{%s, on_release: inactive}", at(l.Out)), gpiod.Output))
			in := gpio.NewInput(b.Open(t, fmt.Sprintf("{%s}", at(l.In)), gpiod.Input))
			if err := in.WaitForInactive(ctx, time.Second); err != nil {
				t.Errorf("WaitForInactive() at first = %v; want nil", err)
			}
			for range 5 {
				if err := out.On(ctx); err != nil {
					t.Fatalf("On() = %v; want nil", err)
				}
				if err := in.WaitForActive(ctx, time.Second); err != nil {
					t.Errorf("WaitForActive() after On() = %v; want nil", err)
				}
				if err := out.Off(ctx); err != nil {
					t.Fatalf("Off() = %v; want nil", err)
				}
				if err := in.WaitForInactive(ctx, time.Second); err != nil {
					t.Errorf("WaitForInactive() after Off() = %v; want nil", err)
				}
			}
			if err := out.Pulse(ctx, 20*time.Millisecond); err != nil {
				t.Fatalf("Pulse() = %v; want nil", err)
			}
			if err := in.WaitForEdge(ctx, gpio.Rising, time.Second); err != nil {
				t.Errorf("WaitForEdge() for a pulse that was = %v; want nil", err)
			}
		})
	}
}

// The kernel's simulated chips as a bench.
func TestSimBench(t *testing.T) {
	_, w := sim(t)
	w.Join(t, 3, 5)
	file := filepath.Join(t.TempDir(), "bench.yaml")
	text := fmt.Sprintf("gpio:\n  - {out: {chip: %s, line: relay}, in: {chip: %s, line: 5}}\n", w.Label(), w.Device())
	if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	t.Setenv(hwtest.BenchFile, file)
	TestBench(t)
}
