package manners_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/gpio"
	"github.com/jumplead/jumplead/exporter/client"
	"github.com/jumplead/jumplead/hw/gpio/cdev"
	"github.com/jumplead/jumplead/hw/gpio/gpiotest"
	"github.com/jumplead/jumplead/hw/hwtest"
)

// What becomes of lines when an exporter ends, in a session and before one: by
// on_release when it is stopped, by the chip's kernel driver alone when it is killed.
// That of gpio-sim gives a line that is let go back to its pull.
func TestExporterKilled(t *testing.T) {
	hwtest.Need(t, hwtest.GPIOSim)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	w := gpiotest.NewSim(t, cdev.Bus())
	for _, test := range []struct {
		name, release string
		signal        syscall.Signal
		use           string
		want          string // what the exporter drove
	}{
		{"stopped", "keep", syscall.SIGTERM, "on", "out-low out-high"},
		{"stopped", "inactive", syscall.SIGTERM, "on", "out-low out-high out-low"},
		{"stopped in a pulse", "keep", syscall.SIGTERM, "pulse", "out-low out-high out-low"},
		{"killed", "keep", syscall.SIGKILL, "on", "out-low out-high"},
		{"killed", "inactive", syscall.SIGKILL, "on", "out-low out-high"},
		{"killed in a pulse", "inactive", syscall.SIGKILL, "pulse", "out-low out-high"},
		{"killed unused", "inactive", syscall.SIGKILL, "", "out-low"},
	} {
		t.Run(test.name+", "+test.release, func(t *testing.T) {
			exporter, socket := relayExporter(ctx, t, w, test.release)
			history := w.Record(t, 1)
			said, err := os.Create(filepath.Join(t.TempDir(), "said"))
			if err != nil {
				t.Fatal(err)
			}
			defer said.Close()
			exporter.Stderr = said
			if err := exporter.Start(); err != nil {
				t.Fatal(err)
			}
			defer exporter.Process.Kill()
			c, err := client.Dial(ctx, socket, client.Options{})
			if err != nil {
				text, _ := os.ReadFile(said.Name())
				t.Fatalf("Dial() = %v; the exporter says %s", err, text)
			}
			defer c.Close()
			if owner := user(t, w); owner != "jumplead relay" {
				t.Errorf("the line is used by %q; want jumplead relay: standalone, the session is always there", owner)
			}
			node, err := c.Find("relay")
			if err != nil {
				t.Fatal(err)
			}
			relay := gpio.NewOutput(node)
			switch test.use {
			case "on":
				err = relay.On(ctx)
			case "pulse":
				go relay.Pulse(ctx, time.Minute)
				drivertest.Until(t, "the pulse has begun", func() bool { return w.Level(t, 1) })
			}
			if err != nil {
				t.Fatalf("%s = %v; want nil", test.use, err)
			}
			if high := w.Level(t, 1); high != (test.use != "") {
				t.Errorf("the line is high = %t while it is held; want %t", high, test.use != "")
			}
			w.Drive(t, 1, true) // how the line is pulled when nobody drives it
			if err := exporter.Process.Signal(test.signal); err != nil {
				t.Fatal(err)
			}
			exporter.Wait() // says how it ended, which is ours
			if got := strings.Join(history(), " "); got != test.want {
				t.Errorf("the line was %s; want %s", got, test.want)
			}
			if owner := user(t, w); owner != "" {
				t.Errorf("afterwards the line is used by %q; want nobody", owner)
			}
			if !w.Level(t, 1) {
				t.Error("afterwards the line is low; want high: the simulated chip gives it back to its pull")
			}
			w.Drive(t, 1, false)
		})
	}
}

// relayExporter is an exporter's process, with one node that drives line 1.
func relayExporter(ctx context.Context, t *testing.T, w *gpiotest.Sim, release string) (_ *exec.Cmd, socket string) {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "exporter.yaml")
	text := head + fmt.Sprintf(`  relay:
    type: jumpstarter_driver_gpiod.driver.DigitalOutput
    config: {line: 1, device: %s, on_release: %s}
`, w.Label(), release)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "s")
	c := exec.CommandContext(ctx, os.Args[0], "run", "--exporter-config", config, "--listen", "unix:"+socket)
	c.Env = append(os.Environ(), asProgram+"=1")
	return c, socket
}

// An exporter that is killed at any moment, also while it starts and while it
// switches, leaves no line taken, and has made nothing of the line but an output
// that switches.
func TestExporterKilledAnytime(t *testing.T) {
	hwtest.Need(t, hwtest.GPIOSim)
	w := gpiotest.NewSim(t, cdev.Bus())
	switching := regexp.MustCompile(`^(out-low( out-high out-low)*( out-high)?)?$`)
	longest := 0
	for i := 0; i < 12 || longest < 3 && i < 60; i++ { // a busy machine takes its time to start one
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*300*time.Millisecond) // and then it is killed
		exporter, socket := relayExporter(ctx, t, w, "inactive")
		history := w.Record(t, 1)
		var calls sync.WaitGroup
		calls.Go(func() {
			c, err := client.Dial(ctx, socket, client.Options{})
			if err != nil {
				return // it was killed before
			}
			defer c.Close()
			node, err := c.Find("relay")
			if err != nil {
				t.Error(err)
				return
			}
			for relay := gpio.NewOutput(node); relay.On(ctx) == nil && relay.Off(ctx) == nil; {
			}
		})
		if err := exporter.Start(); err == nil {
			exporter.Wait() // says that it was killed
		}
		calls.Wait()
		cancel()
		got := history()
		if longest = max(longest, len(got)); !switching.MatchString(strings.Join(got, " ")) {
			t.Errorf("moment %d: the line was %s; want an output that switches, or nothing", i, got)
		}
		if owner := user(t, w); owner != "" {
			t.Errorf("moment %d: afterwards the line is used by %q; want nobody", i, owner)
		}
	}
	if longest < 3 {
		t.Errorf("no exporter lived to switch more than %d times; want some that did", longest)
	}
}

// user is who uses line 1.
func user(t *testing.T, w *gpiotest.Sim) string {
	t.Helper()
	chip, err := cdev.Kernel{}.Open("/dev/" + w.Device())
	if err != nil {
		t.Fatal(err)
	}
	defer chip.Close()
	s, err := chip.Line(1)
	if err != nil {
		t.Fatal(err)
	}
	return s.Consumer
}
