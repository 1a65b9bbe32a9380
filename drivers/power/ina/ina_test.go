package ina_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/power"
	"github.com/jumplead/jumplead/drivers/power/ina"
	"github.com/jumplead/jumplead/drivers/power/powertest"
	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/hwtest"
	"github.com/jumplead/jumplead/hw/i2c/i2ctest"
)

var specs = map[int]driver.Spec{219: ina.INA219, 226: ina.INA226, 260: ina.INA260}

func bench(model int, shunt float64) (drivertest.Bench, *i2ctest.Buses, *i2ctest.INA) {
	host, board := hwtest.Host()
	host.Names.Board, host.Names.I2C = "rpi4", map[string]int{"I2C1": 1}
	board.I2C.Add(1)
	m := i2ctest.NewINA(model, shunt)
	board.I2C.Plug(1, 0x40, m)
	return drivertest.Bench{Host: host, Log: &drivertest.Log{}}, board.I2C, m
}

// read takes the one reading that there is.
func read(t *testing.T, p power.Interface) (r power.Reading, err error) {
	t.Helper()
	n := 0
	for r, err = range p.Read(t.Context()) {
		n++
	}
	if n != 1 {
		t.Errorf("Read() yields %d readings; want 1", n)
	}
	return r, err
}

// near tells whether two numbers differ by half a step, and what float64 adds.
func near(a, b, step float64) bool { return math.Abs(a-b) <= step/2*1.000001 }

// Readings are exact to the resolution of the data sheets, at every gain, with the
// settings written once.
func TestRead(t *testing.T) {
	for _, test := range []struct {
		model     int
		shunt     float64
		config    string
		most      float64 // amperes
		step      float64 // of the current
		voltsStep float64
	}{
		{219, 0.1, "{}", 3.2, 10e-6 / 0.1, 4e-3},
		{219, 0.1, "max_current: 0.4", 0.4, 10e-6 / 0.1, 4e-3},
		{219, 0.1, "max_current: 0.5", 0.8, 10e-6 / 0.1, 4e-3},
		{219, 0.01, "{shunt: 0.01, max_current: 16}", 16, 10e-6 / 0.01, 4e-3},
		{226, 0.1, "bus: I2C1", 0.8192, 2.5e-6 / 0.1, 1.25e-3},
		{226, 0.002, "{shunt: 0.002, max_current: 40, bus: /dev/i2c-1, address: 0x40}", 40.96, 2.5e-6 / 0.002, 1.25e-3},
		{260, 0, "bus: i2c-1", 40.96, 1.25e-3, 1.25e-3},
	} {
		synctest.Test(t, func(t *testing.T) {
			b, buses, m := bench(test.model, test.shunt)
			tree := b.Tree(t, test.config, specs[test.model])
			defer tree.Close()
			c := power.NewClient(tree.Root.Caller())
			for _, amps := range []float64{0, test.step, 0.1, -0.1, 0.3333, test.most * 0.99, -test.most * 0.99} {
				for _, v := range []float64{0, 3.3, 5.123, 24} {
					m.Set(v, amps)
					r, err := read(t, c)
					if err != nil || !near(r.Current, amps, test.step) || !near(r.Voltage, v, test.voltsStep) {
						t.Errorf("INA%d %s: Read() = %+v, %v; want %v V, %v A within half of %v V, %v A",
							test.model, test.config, r, err, v, amps, test.voltsStep, test.step)
					}
				}
			}
			if n := m.Writes(); n != 1 {
				t.Errorf("INA%d %s: %d registers were written; want 1, once", test.model, test.config, n)
			}
			for _, amps := range []float64{test.most * 1.01, -test.most * 1.01} {
				m.Set(5, amps)
				if r, err := read(t, c); err == nil || !strings.Contains(err.Error(), "the current is beyond the") || driver.Classify(err) != driver.Internal {
					t.Errorf("INA%d %s: Read() of %v A = %+v, %v; want an error", test.model, test.config, amps, r, err)
				}
			}
			if n := buses.Held(); n != 0 {
				t.Errorf("%d buses are held; want none between readings", n)
			}
		})
	}
}

// A meter that was without power has forgotten its settings.
func TestPowerFailure(t *testing.T) {
	for model, spec := range specs {
		synctest.Test(t, func(t *testing.T) {
			b, _, m := bench(model, 0.1)
			tree := b.Tree(t, "{}", spec)
			defer tree.Close()
			c := power.NewClient(tree.Root.Caller())
			m.Set(5, 0.25)
			for range 3 {
				if r, err := read(t, c); err != nil || !near(r.Current, 0.25, 2.5e-3) || !near(r.Voltage, 5, 4e-3) {
					t.Errorf("INA%d: Read() = %+v, %v; want 5 V, 0.25 A", model, r, err)
				}
				m.Reset()
			}
			if n := m.Writes(); n != 3 {
				t.Errorf("INA%d: %d registers were written; want 3, after each failure", model, n)
			}
		})
	}
}

// A chip that never gets ready, and a caller who does not wait that long.
func TestStuck(t *testing.T) {
	for model, spec := range specs {
		synctest.Test(t, func(t *testing.T) {
			b, _, m := bench(model, 0.1)
			m.Converges = math.MaxInt
			tree := b.Tree(t, "{}", spec)
			defer tree.Close()
			c := power.NewClient(tree.Root.Caller())
			if _, err := read(t, c); driver.Classify(err) != driver.Timeout || !strings.Contains(fmt.Sprint(err), "no conversion within 1s") {
				t.Errorf("INA%d: Read() of a stuck chip = %v; want a time-out", model, err)
			}
			m.Reset()
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			for _, err := range c.Read(ctx) {
				if !errors.Is(err, context.Canceled) {
					t.Errorf("INA%d: Read() of a caller who left = %v; want context.Canceled", model, err)
				}
			}
		})
	}
}

// Absent, wrong and back again, each with its words.
func TestNotThere(t *testing.T) {
	for model, spec := range specs {
		synctest.Test(t, func(t *testing.T) {
			b, buses, m := bench(model, 0.1)
			m.Set(5, 0.1)
			buses.Plug(1, 0x40, nil)
			tree := b.Tree(t, "{}", spec)
			defer tree.Close()
			c := power.NewClient(tree.Root.Caller())
			check := func(want string) {
				t.Helper()
				_, err := read(t, c)
				if want == "" && err != nil || !strings.Contains(fmt.Sprint(err), want) || want != "" && driver.Classify(err) != driver.Unavailable {
					t.Errorf("INA%d: Read() = %v; want unavailable with %q", model, err, want)
				}
			}
			check("i2c-1, address 0x40: no chip answers")
			other := map[int]int{219: 226, 226: 260, 260: 226}[model]
			buses.Plug(1, 0x40, i2ctest.NewINA(other, 0.1))
			check(fmt.Sprintf("another chip is there: an INA%d", other))
			if model != 219 {
				buses.Plug(1, 0x40, i2ctest.NewINA(219, 0.1))
				check("another chip is there: its maker is 0xffff")
			}
			buses.Plug(1, 0x40, m)
			check("")
			buses.Remove(1)
			check("no such bus")
			buses.Add(1)
			buses.Plug(1, 0x40, m)
			check("")
		})
	}
}

func TestConfig(t *testing.T) {
	for _, test := range []struct {
		spec         driver.Spec
		config, want string
	}{
		{ina.INA219, "{}", ""},
		{ina.INA219, "{bus: 3, address: 0x4f, shunt: 0.05, max_current: 6.4}", ""},
		{ina.INA226, "{bus: I2C1, shunt: 0.1, max_current: 0.8192}", ""},
		{ina.INA260, "address: 65", ""},
		{ina.INA219, "max_current: 3.3", "max_current: 3.3 A make 0.33 V at a shunt of 0.1 ohms; the chip measures up to 320mV there, which are 3.2 A"},
		{ina.INA226, "max_current: 1", "the chip measures up to 81.920mV there, which are 0.8192 A"},
		{ina.INA226, "shunt: 0", "shunt: 0 ohms is no resistance"},
		{ina.INA219, "{max_current: -1}", "max_current: -1 A is no current to measure"},
		{ina.INA219, "address: 0x3f", "address: 0x3f is out of range"},
		{ina.INA219, "address: 0x50", "address: 0x50 is out of range"},
		{ina.INA219, "bus: ''", `"" is neither a number, /dev/i2c-N nor the name of a bus`},
		{ina.INA219, "bus: /dev/ttyS0", `"/dev/ttyS0" is neither`},
		{ina.INA219, "bus: -1", `"-1" is no bus's number: those are from 0 to 65535`},
		{ina.INA219, "bus: 65536", `"65536" is no bus's number`},
		{ina.INA260, "shunt: 0.1", `unknown key "shunt"`},
	} {
		_, problems := drivertest.Bench{}.Plan(t, test.config, test.spec)
		got := fmt.Sprint(problems.Err())
		if test.want == "" && problems.Err() != nil || !strings.Contains(got, test.want) {
			t.Errorf("Plan(%s) = %v; want an error with %q", test.config, got, test.want)
		}
	}
}

func TestClaims(t *testing.T) {
	host := hw.Host{Names: hw.Names{Board: "rpi4", I2C: map[string]int{"I2C1": 1, "I2C3": 3}}}
	for _, test := range []struct{ config, want, warning string }{
		{"{}", "[I2C address 0x40 on i2c-1]", "[]"},
		{"{bus: I2C1, address: 0x41}", "[I2C address 0x41 on i2c-1]", "[]"},
		{"{bus: I2C9}", "[]", `bus: the board rpi4 has no I2C bus "I2C9"; it has I2C1, I2C3`},
	} {
		for _, spec := range specs {
			tree, problems := drivertest.Bench{Host: host}.Plan(t, test.config, spec)
			if got := fmt.Sprint(tree.Root.Claims()); got != test.want {
				t.Errorf("Claims(%s) = %s; want %s", test.config, got, test.want)
			}
			if got := fmt.Sprint(problems); !strings.Contains(got, test.warning) {
				t.Errorf("Plan(%s) warns %s; want %s", test.config, got, test.warning)
			}
		}
	}
}

func TestMeterAlone(t *testing.T) {
	for model, spec := range specs {
		b, _, _ := bench(model, 0.1)
		drivertest.Spec(t, spec, "{}")
		b.Lifecycle(t, "{}", spec)
		c := power.NewClient(b.Open(t, "{}", spec))
		for what, err := range map[string]error{"On": c.On(t.Context()), "Off": c.Off(t.Context())} {
			if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), `has no child "switch" that would`) {
				t.Errorf("INA%d: %s() = %v; want errors.ErrUnsupported, and what would help", model, what, err)
			}
		}
	}
}

// relay is a supply that cannot measure, of which the test knows the state.
type relay struct{ on atomic.Bool }

func (r *relay) spec() driver.Spec {
	return driver.Define(driver.Spec{Type: "test.Relay", Contract: power.Contract},
		func(context.Context, *driver.Env, struct{}) (driver.Driver, error) {
			set := func(on bool) func(context.Context) error {
				return func(context.Context) error { r.on.Store(on); return nil }
			}
			return driver.Driver{Exports: []driver.Export{driver.Do("on", set(true)), driver.Do("off", set(false))}}, nil
		})
}

// With a switch for a child a meter is a whole supply, and switches also while the
// meter is not there: it may be behind the switch.
func TestSwitch(t *testing.T) {
	for model, spec := range specs {
		b, buses, m := bench(model, 0.1)
		r := &relay{}
		b.Specs = []driver.Spec{r.spec()}
		b.Children = []driver.Decl{{Name: "switch", Type: "test.Relay"}}
		powertest.Test(t, func(t *testing.T) powertest.Supply {
			return powertest.Supply{
				Interface: power.NewClient(b.Open(t, "{}", spec)),
				Measures:  true,
			}
		})
		buses.Plug(1, 0x40, nil)
		c := power.NewClient(b.Open(t, "{}", spec))
		if err := c.On(t.Context()); err != nil || !r.on.Load() {
			t.Errorf("INA%d: On() = %v, and the switch is on = %t; want nil, true", model, err, r.on.Load())
		}
		if _, err := read(t, c); driver.Classify(err) != driver.Unavailable {
			t.Errorf("INA%d: Read() = %v; want unavailable", model, err)
		}
		buses.Plug(1, 0x40, m)
		if _, err := read(t, c); err != nil {
			t.Errorf("INA%d: Read() of a meter that has come = %v; want a reading", model, err)
		}
	}
}
