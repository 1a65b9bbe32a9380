package gpiotest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jumplead/jumplead/hw/gpio"
)

// Sim is a World of the kernel's gpio-sim: a chip that is made through configfs, whose wires are files in sysfs (kernel,
// admin-guide/gpio/gpio-sim). Its wires have weak pulls only.
type Sim struct {
	bus    gpio.Bus
	config string // folder in configfs
	label  string
	chip   string // "gpiochip0"
	wires  string // folder in sysfs
}

var _ World = (*Sim)(nil)

// sims counts the chips of this process, for their names.
var sims atomic.Int32

// NewSim makes a chip, which is removed when the test ends. The machine must have gpio-sim; see hwtest.GPIOSim.
func NewSim(t testing.TB, bus gpio.Bus) *Sim {
	t.Helper()
	name := fmt.Sprintf("jumplead-%d-%d", os.Getpid(), sims.Add(1))
	s := &Sim{bus: bus, config: filepath.Join("/sys/kernel/config/gpio-sim", name), label: name}
	bank := filepath.Join(s.config, "bank0")
	line := filepath.Join(bank, "line3")
	t.Cleanup(func() {
		s.write(t, "live", "0")
		for _, dir := range []string{line, bank, s.config} {
			if err := os.Remove(dir); err != nil {
				t.Errorf("gpio-sim: %v", err)
			}
		}
	})
	if err := os.MkdirAll(line, 0o755); err != nil {
		t.Fatalf("gpio-sim: %v", err)
	}
	s.write(t, "bank0/num_lines", "8")
	s.write(t, "bank0/label", name)
	s.write(t, "bank0/line3/name", "relay")
	s.Remake(t)
	return s
}

func (s *Sim) write(t testing.TB, file, value string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.config, file), []byte(value), 0o644); err != nil {
		t.Fatalf("gpio-sim: %v", err)
	}
}

func (s *Sim) read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("gpio-sim: %v", err)
	}
	return strings.TrimSpace(string(b))
}

func (s *Sim) Bus() gpio.Bus  { return s.bus }
func (s *Sim) Device() string { return s.chip }
func (s *Sim) Label() string  { return s.label }

// Drive pulls a wire up or down.
func (s *Sim) Drive(t testing.TB, offset int, high bool) {
	t.Helper()
	pull := "pull-down"
	if high {
		pull = "pull-up"
	}
	if err := os.WriteFile(filepath.Join(s.wires, "sim_gpio"+strconv.Itoa(offset), "pull"), []byte(pull), 0o644); err != nil {
		t.Errorf("gpio-sim: %v", err)
	}
}

// Level is what is on a wire.
func (s *Sim) Level(t testing.TB, offset int) bool {
	t.Helper()
	return s.read(t, filepath.Join(s.wires, "sim_gpio"+strconv.Itoa(offset), "value")) == "1"
}

// Remove takes the chip away, as an unplugged adapter's.
func (s *Sim) Remove(t testing.TB) { s.write(t, "live", "0") }

// Remake brings it back.
func (s *Sim) Remake(t testing.TB) {
	t.Helper()
	s.write(t, "live", "1")
	s.chip = s.read(t, filepath.Join(s.config, "bank0/chip_name"))
	s.wires = filepath.Join("/sys/devices/platform", s.read(t, filepath.Join(s.config, "dev_name")), s.chip)
}
