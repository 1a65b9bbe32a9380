package cdev_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/jumplead/jumplead/hw/gpio/cdev"
	"github.com/jumplead/jumplead/hw/gpio/gpiotest"
	"github.com/jumplead/jumplead/hw/hwtest"
)

// Lines that are joined on a bench.
func TestBench(t *testing.T) {
	for _, l := range hwtest.GPIOLoops(t) {
		t.Run(l.Out.Line, func(t *testing.T) { gpiotest.Loop(t, cdev.Bus(), l.Out.Ref(), l.In.Ref()) })
	}
}

// The kernel's simulated chips as a bench.
func TestSimBench(t *testing.T) {
	hwtest.Need(t, hwtest.GPIOSim)
	w := gpiotest.NewSim(t, cdev.Bus())
	w.Join(t, 3, 5)
	file := filepath.Join(t.TempDir(), "bench.yaml")
	text := fmt.Sprintf("gpio:\n  - {out: {chip: %s, line: relay}, in: {chip: %s, line: 5}}\n", w.Label(), w.Device())
	if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	t.Setenv(hwtest.BenchFile, file)
	TestBench(t)
}
