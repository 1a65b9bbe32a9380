package gpiotest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warthog618/go-gpiocdev/uapi"

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

	mu    sync.Mutex
	pulls map[int]*os.File // of the wires that were driven, to be quick
}

var _ World = (*Sim)(nil)

// sims counts the chips of this process, for their names.
var sims atomic.Int32

// NewSim makes a chip, which is removed when the test ends. The machine must have gpio-sim; see hwtest.GPIOSim.
func NewSim(t testing.TB, bus gpio.Bus) *Sim {
	t.Helper()
	name := fmt.Sprintf("jumplead-%d-%d", os.Getpid(), sims.Add(1))
	s := &Sim{bus: bus, config: filepath.Join("/sys/kernel/config/gpio-sim", name), label: name, pulls: map[int]*os.File{}}
	bank := filepath.Join(s.config, "bank0")
	line := filepath.Join(bank, "line3")
	t.Cleanup(func() {
		s.Remove(t)
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
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.pulls[offset]
	if f == nil {
		var err error
		if f, err = os.OpenFile(filepath.Join(s.wires, "sim_gpio"+strconv.Itoa(offset), "pull"), os.O_WRONLY, 0); err != nil {
			t.Errorf("gpio-sim: %v", err)
			return
		}
		s.pulls[offset] = f
	}
	if _, err := f.WriteAt([]byte(pull), 0); err != nil {
		t.Errorf("gpio-sim: %v", err)
	}
}

// leave closes what is open of a chip that goes.
func (s *Sim) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.pulls {
		f.Close()
	}
	clear(s.pulls)
}

// Level is what is on a wire.
func (s *Sim) Level(t testing.TB, offset int) bool {
	t.Helper()
	return s.read(t, filepath.Join(s.wires, "sim_gpio"+strconv.Itoa(offset), "value")) == "1"
}

// Output is what the kernel says of the line.
func (s *Sim) Output(t testing.TB, offset int) bool {
	t.Helper()
	f, err := os.Open("/dev/" + s.chip)
	if err != nil {
		t.Fatalf("gpio-sim: %v", err)
	}
	defer f.Close()
	info, err := uapi.GetLineInfoV2(f.Fd(), offset)
	if err != nil {
		t.Fatalf("gpio-sim: %v", err)
	}
	return info.Flags.IsOutput()
}

// Record takes what the kernel's own trace tells of what it does to lines (kernel, trace/ftrace). That does not tell lines
// of several chips apart; nothing else in a test's machine drives any.
func (s *Sim) Record(t testing.TB, _ int) (stop func() []string) {
	t.Helper()
	dir := filepath.Join("/sys/kernel/debug/tracing/instances", s.label)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatalf("gpio-sim: trace: %v", err)
	}
	remove := sync.OnceFunc(func() {
		if err := os.Remove(dir); err != nil {
			t.Errorf("gpio-sim: trace: %v", err)
		}
	})
	t.Cleanup(remove)
	if err := os.WriteFile(filepath.Join(dir, "events/gpio/enable"), []byte("1"), 0); err != nil {
		t.Fatalf("gpio-sim: trace: %v", err)
	}
	return func() []string {
		t.Helper()
		defer remove()
		return told(t, s.read(t, filepath.Join(dir, "trace")))
	}
}

// told makes of a trace's lines what [World] says. They end with "gpio_value: 512 set 1" or "gpio_direction: 512 out (0)";
// a line is set before it is an output.
func told(t testing.TB, trace string) (list []string) {
	t.Helper()
	output, level := false, "low"
	for line := range strings.Lines(trace) {
		words := strings.Fields(line)
		n := len(words)
		if strings.HasPrefix(line, "#") || n < 4 {
			continue
		}
		what := "in"
		switch event, do, arg := words[n-4], words[n-2], words[n-1]; {
		case event == "gpio_value:" && do == "get":
			continue
		case event == "gpio_value:" && do == "set":
			level = map[string]string{"0": "low", "1": "high"}[arg]
		case event == "gpio_direction:" && do == "out" && arg == "(0)":
			output = true
		case event == "gpio_direction:" && do == "in" && arg == "(0)":
			output = false
		default:
			t.Errorf("gpio-sim: the trace has %q", line)
		}
		if output {
			what = "out-" + level
		} else if words[n-4] == "gpio_value:" {
			continue // of a line that is not an output yet
		}
		if len(list) == 0 || list[len(list)-1] != what {
			list = append(list, what)
		}
	}
	return list
}

// Remove takes the chip away, as an unplugged adapter's.
func (s *Sim) Remove(t testing.TB) {
	t.Helper()
	s.leave()
	s.write(t, "live", "0")
}

// Remake brings it back.
func (s *Sim) Remake(t testing.TB) {
	t.Helper()
	s.write(t, "live", "1")
	s.chip = s.read(t, filepath.Join(s.config, "bank0/chip_name"))
	s.wires = filepath.Join("/sys/devices/platform", s.read(t, filepath.Join(s.config, "dev_name")), s.chip)
}

// Join makes one wire follow another until the test ends: what a piece of wire does on a bench, and a little later.
func (s *Sim) Join(t testing.TB, from, to int) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(stop); <-stopped })
	last := s.Level(t, from)
	s.Drive(t, to, last)
	go func() {
		defer close(stopped)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			b, err := os.ReadFile(filepath.Join(s.wires, "sim_gpio"+strconv.Itoa(from), "value"))
			if now := strings.TrimSpace(string(b)) == "1"; err == nil && now != last {
				s.Drive(t, to, now)
				last = now
			}
		}
	}()
}
