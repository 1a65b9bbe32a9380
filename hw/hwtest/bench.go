package hwtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/jumplead/jumplead/hw"
)

// BenchFile is the environment variable that names the file which says what is wired to this board for tests. The file
// bench.example.yaml beside this package has all that can be said. Nothing else may be attached to what it names: tests switch
// it, and send on it.
const BenchFile = "JUMPLEAD_BENCH"

// Bench is what is wired to a board for tests.
type Bench struct {
	GPIO   []GPIOLoop   `yaml:"gpio"`
	Serial []SerialLoop `yaml:"serial"`
	Meters []Meter      `yaml:"meters"`
}

// GPIOLoop is two lines that a wire joins. A resistor of some kiloohms in place of the wire is wiser: it survives a test that
// takes both for outputs.
type GPIOLoop struct {
	Out BenchLine `yaml:"out"`
	In  BenchLine `yaml:"in"`
}

// BenchLine is a GPIO line.
type BenchLine struct {
	Chip string `yaml:"chip"` // its label, or its device; "" is /dev/gpiochip0, or any for a line with a name
	Line string `yaml:"line"` // its number, or its name
}

// Ref is the line for the hardware.
func (l BenchLine) Ref() hw.LineRef {
	if n, err := strconv.Atoi(l.Line); err == nil {
		return hw.LineRef{Chip: l.Chip, Offset: n}
	}
	return hw.LineRef{Chip: l.Chip, Name: l.Line}
}

// SerialLoop is a serial port whose TX and RX are joined.
type SerialLoop struct {
	Port string `yaml:"port"`
	Baud int    `yaml:"baud"` // to test at; 115200 when left out
	Bulk int    `yaml:"bulk"` // bytes that a long transfer has; 65536 when left out
}

// Meter is a power meter on an I2C bus, with something to measure.
type Meter struct {
	Model   string  `yaml:"model"` // INA219, INA226, INA260
	Bus     int     `yaml:"bus"`   // N of /dev/i2c-N
	Address uint16  `yaml:"address"`
	Shunt   float64 `yaml:"shunt"` // ohms; none for an INA260
	Volts   Range   `yaml:"volts"`
	Amps    Range   `yaml:"amps"`
}

// Range is what a reading has to be in: [least, most].
type Range [2]float64

// Has reports whether v is in the range.
func (r Range) Has(v float64) bool { return r[0] <= v && v <= r[1] }

// ReadBench reads a bench file. It is strict: errors name the line, and what may have been meant.
func ReadBench(name string, text []byte) (*Bench, error) {
	var b Bench
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&b); err != nil && !errors.Is(err, io.EOF) { // an empty file is an empty bench
		return nil, place(name, err)
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return nil, place(name, err)
	}
	var errs []error
	check := func(section string, i int, bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf("%s:%d: %s: %s", name, lineOf(&root, section, i), section, fmt.Sprintf(format, args...)))
		}
	}
	for i, l := range b.GPIO {
		check("gpio", i, l.Out.Line == "" || l.In.Line == "", "out and in each need a line")
		check("gpio", i, l.Out == l.In, "out and in are one line")
	}
	for i := range b.Serial {
		l := &b.Serial[i]
		check("serial", i, l.Port == "", "port is missing")
		check("serial", i, l.Baud < 0 || l.Bulk < 0, "baud and bulk are positive")
		if l.Baud == 0 {
			l.Baud = 115200
		}
		if l.Bulk == 0 {
			l.Bulk = 65536
		}
	}
	for i, m := range b.Meters {
		models := []string{"INA219", "INA226", "INA260"}
		check("meters", i, !slices.Contains(models, m.Model), "model is %q; want one of %s", m.Model, strings.Join(models, ", "))
		check("meters", i, m.Address < 0x40 || m.Address > 0x4f, "address is %#02x; want one from 0x40 to 0x4f", m.Address)
		check("meters", i, (m.Shunt > 0) == (m.Model == "INA260"), "an INA260 has its shunt inside, the others need one")
		check("meters", i, !(m.Volts[0] < m.Volts[1]), "volts is %v; want [least, most]", m.Volts)
		check("meters", i, !(m.Amps[0] < m.Amps[1]) || math.IsInf(m.Amps[1], 0), "amps is %v; want [least, most]", m.Amps)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &b, nil
}

var (
	yamlLine = regexp.MustCompile(`^(?:yaml: )?line (\d+): `)
	noField  = regexp.MustCompile(`field (\S+) not found in type hwtest\.(\w+)`)
)

// place rewrites what the YAML reader says: the place in front, in this package's words.
func place(name string, err error) error {
	texts := []string{err.Error()}
	var wrong *yaml.TypeError
	if errors.As(err, &wrong) {
		texts = wrong.Errors
	}
	var errs []error
	for _, text := range texts {
		text = noField.ReplaceAllStringFunc(text, func(s string) string {
			m := noField.FindStringSubmatch(s)
			s = fmt.Sprintf("unknown key %q", m[1])
			if near := hw.Nearest(m[1], keys(m[2])); near != "" {
				s += fmt.Sprintf("; did you mean %q?", near)
			}
			return s
		})
		if m := yamlLine.FindStringSubmatch(text); m != nil {
			text = m[1] + ": " + strings.TrimPrefix(text, m[0])
		}
		errs = append(errs, fmt.Errorf("%s:%s", name, text))
	}
	return errors.Join(errs...)
}

// keys are those of a section.
func keys(typ string) (names []string) {
	for _, t := range []reflect.Type{reflect.TypeFor[Bench](), reflect.TypeFor[GPIOLoop](), reflect.TypeFor[BenchLine](),
		reflect.TypeFor[SerialLoop](), reflect.TypeFor[Meter]()} {
		for i := range t.NumField() {
			if t.Name() == typ {
				names = append(names, t.Field(i).Tag.Get("yaml"))
			}
		}
	}
	return names
}

// lineOf is the line of the nth entry of a section.
func lineOf(root *yaml.Node, section string, n int) int {
	if len(root.Content) == 0 {
		return 1
	}
	m := root.Content[0]
	for i := 0; i+1 < len(m.Content); i += 2 {
		if list := m.Content[i+1]; m.Content[i].Value == section && n < len(list.Content) {
			return list.Content[n].Line
		}
	}
	return m.Line
}

// bench is this board's, or nil where no file is named.
func bench() (*Bench, error) {
	name := os.Getenv(BenchFile)
	if name == "" {
		return nil, nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return ReadBench(name, text)
}

// wired makes the probe of a capability that is a section of the bench file.
func wired[T any](section string, list func(*Bench) []T) func() error {
	return func() error {
		b, err := bench()
		switch {
		case err != nil:
			return err
		case b == nil:
			return fmt.Errorf("%s names no file that says what is wired to this board", BenchFile)
		case len(list(b)) == 0:
			return fmt.Errorf("%s has nothing under %s", os.Getenv(BenchFile), section)
		}
		return nil
	}
}

// on skips the test unless the bench has something of a kind. A file that is not sound fails it: who wrote one wants its tests.
func on[T any](t testing.TB, c Capability, list func(*Bench) []T) []T {
	t.Helper()
	b, err := bench()
	if err != nil {
		t.Fatalf("%s: %v", BenchFile, err)
	}
	Need(t, c)
	return list(b)
}

// GPIOLoops are the bench's pairs of joined lines. The test is skipped where there are none, as by [Need].
func GPIOLoops(t testing.TB) []GPIOLoop { t.Helper(); return on(t, BenchGPIO, gpioLoops) }

// SerialLoops are the bench's serial ports that hear themselves.
func SerialLoops(t testing.TB) []SerialLoop { t.Helper(); return on(t, BenchSerial, serialLoops) }

// Meters are the bench's power meters.
func Meters(t testing.TB) []Meter { t.Helper(); return on(t, BenchMeter, meters) }

func gpioLoops(b *Bench) []GPIOLoop     { return b.GPIO }
func serialLoops(b *Bench) []SerialLoop { return b.Serial }
func meters(b *Bench) []Meter           { return b.Meters }
