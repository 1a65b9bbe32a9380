package app_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
			dir := t.TempDir()
			config := filepath.Join(dir, "exporter.yaml")
			text := fmt.Sprintf(`apiVersion: jumpstarter.dev/v1alpha1
kind: ExporterConfig
metadata: {namespace: default, name: bench}
endpoint: ""
token: ""
export:
  relay:
    type: jumpstarter_driver_gpiod.driver.DigitalOutput
    config: {line: 1, device: %s, on_release: %s}
`, w.Label(), test.release)
			if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			socket := filepath.Join(dir, "s")
			history := w.Record(t, 1)
			exporter := exec.CommandContext(ctx, os.Args[0], "run", "--exporter-config", config, "--listen", "unix:"+socket)
			exporter.Env = append(os.Environ(), asProgram+"=1")
			var said buffer
			exporter.Stderr = &said
			if err := exporter.Start(); err != nil {
				t.Fatal(err)
			}
			defer exporter.Process.Kill()
			c, err := client.Dial(ctx, socket, client.Options{})
			if err != nil {
				t.Fatalf("Dial() = %v; the exporter says %s", err, said.String())
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
