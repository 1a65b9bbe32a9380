package gpiod_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/gpio"
	"github.com/jumplead/jumplead/drivers/gpio/gpiod"
	"github.com/jumplead/jumplead/drivers/power"
	"github.com/jumplead/jumplead/drivers/power/powertest"
	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/gpio/cdev"
	"github.com/jumplead/jumplead/hw/gpio/gpiotest"
	"github.com/jumplead/jumplead/hw/hwtest"
)

// sim is a chip of the kernel's, and a bench on it.
func sim(t *testing.T) (drivertest.Bench, *gpiotest.Sim) {
	hwtest.Need(t, hwtest.GPIOSim)
	return drivertest.Bench{Host: hw.Host{GPIO: cdev.Bus()}, Log: &drivertest.Log{}}, gpiotest.NewSim(t, cdev.Bus())
}

func TestSimPower(t *testing.T) {
	b, w := sim(t)
	config := fmt.Sprintf("{line: relay, device: %s, active_low: true, initial_value: off}", w.Label())
	b.Lifecycle(t, config, gpiod.Switch)
	powertest.Test(t, func(t *testing.T) powertest.Supply {
		tree := b.Tree(t, config, gpiod.Switch)
		t.Cleanup(func() { tree.Close() })
		return powertest.Supply{
			Interface: power.NewClient(tree.Root.Caller()),
			State:     func(t *testing.T) bool { return !w.Level(t, 3) },
		}
	})
}

func TestSimInput(t *testing.T) {
	b, w := sim(t)
	w.Drive(t, 5, false)
	c := gpio.NewInput(b.Open(t, "{line: 5, device: "+w.Device()+"}", gpiod.Input))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.WaitForInactive(ctx, time.Second); err != nil {
		t.Errorf("WaitForInactive() = %v; want nil", err)
	}
	if err := c.WaitForActive(ctx, 20*time.Millisecond); driver.Classify(err) != driver.Timeout {
		t.Errorf("WaitForActive() = %v; want a time-out", err)
	}
	w.Drive(t, 5, true) // and then wait: it counts
	if err := c.WaitForEdge(ctx, gpio.Rising, time.Minute); err != nil {
		t.Errorf("WaitForEdge() = %v; want nil", err)
	}
	ended := make(chan error)
	go func() { ended <- c.WaitForInactive(ctx, 0) }()
	w.Drive(t, 5, false)
	if err := <-ended; err != nil {
		t.Errorf("WaitForInactive() = %v; want nil", err)
	}
}

// A process that is killed gives its lines back to the kernel, which lets others
// have them at once. What on_release says is not done.
func TestSimKilled(t *testing.T) {
	b, w := sim(t)
	config := "{line: 4, device: " + w.Label() + ", on_release: inactive, initial_value: active}"
	if os.Getenv("GPIOD_TEST_CHIP") != "" {
		t.Fatal("a child of the test runs the test; want only its helper")
	}
	child := exec.Command(os.Args[0], "-test.run=^TestHold$")
	child.Env = append(os.Environ(), "GPIOD_TEST_CHIP="+w.Label())
	outOf, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, err := outOf.Read(buf) // says that it has the line
	if err != nil || !strings.HasPrefix(string(buf[:n]), "held") {
		t.Fatalf("the child says %q, %v; want that it holds the line", buf[:n], err)
	}
	if !w.Level(t, 4) {
		t.Error("the line is low while it is held; want high")
	}
	tree := b.Tree(t, config, gpiod.Output)
	defer tree.Close()
	if _, err := tree.Root.Caller().Call(t.Context(), "read_pin"); !errors.Is(err, hw.ErrBusy) && driver.Classify(err) != driver.Device {
		t.Errorf("read_pin() of a line that another process holds = %v; want busy", err)
	}
	child.Process.Kill()
	child.Wait()
	if _, err := tree.Root.Caller().Call(t.Context(), "read_pin"); err != nil {
		t.Errorf("read_pin() after that process was killed = %v; want nil", err)
	}
}

// TestHold is what the test above runs in a process of its own.
func TestHold(t *testing.T) {
	chip := os.Getenv("GPIOD_TEST_CHIP")
	if chip == "" {
		return
	}
	b := drivertest.Bench{Host: hw.Host{GPIO: cdev.Bus()}}
	b.Tree(t, "{line: 4, device: "+chip+", on_release: inactive, initial_value: active}", gpiod.Output)
	fmt.Println("held")
	select {} // until it is killed
}

// BenchmarkSim tells what a driver adds to the bare system call.
func BenchmarkSim(b *testing.B) {
	hwtest.Need(b, hwtest.GPIOSim)
	w := gpiotest.NewSim(b, cdev.Bus())
	bench := drivertest.Bench{Host: hw.Host{GPIO: cdev.Bus()}}
	line, err := cdev.Bus().RequestLine(b.Context(), hw.LineRef{Chip: w.Device(), Offset: 1}, hw.LineOptions{Output: true})
	if err != nil {
		b.Fatal(err)
	}
	defer line.Close()
	c := gpio.NewOutput(bench.Open(b, "{line: 2, device: "+w.Label()+"}", gpiod.Output))
	for name, f := range map[string]func() error{
		"bare/set":        func() error { return line.SetValue(true) },
		"bare/get":        func() error { _, err := line.Value(); return err },
		"driver/on":       func() error { return c.On(b.Context()) },
		"driver/read_pin": func() error { _, err := c.ReadPin(b.Context()); return err },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
