// Package ina has the power meters INA219, INA226 and INA260 of Texas Instruments,
// which measure voltage and current on an I2C bus.
//
// # How they measure
//
// The meter sits in the supply's high side. An INA219 or INA226 measures the
// voltage that the current makes at a resistor beside it, the shunt; an INA260 has
// its shunt inside. Data sheets SBOS448G, SBOS547A and SBOS656C:
//
//	          shunt voltage               bus voltage   ready flag
//	INA219    10 uV, up to 40..320 mV     4 mV          bit 1 of register 2
//	INA226    2.5 uV, up to 81.92 mV      1.25 mV       bit 3 of register 6
//	INA260    1.25 mA, up to 40.96 A      1.25 mV       bit 3 of register 6
//
// The current is that of the shunt, computed here. The chips can do it, too, once
// their calibration register is written; but they forget that when their power
// fails, and then measure 0 A. Here each reading looks first whether the chip has
// the settings that it should have, and gives it them anew if not.
//
// What is beyond a range is an error, not the range's end: a reading is right or
// none.
//
// # A meter and a switch
//
// A meter switches nothing. A child called switch, any driver of the power
// contract, or a ref to one, does so for it: the node is then a whole supply.
//
//	power:
//	  type: jumplead.power.INA226
//	  config: {bus: 1, address: 0x40, shunt: 0.01, max_current: 5}
//	  children:
//	    switch:
//	      type: jumpstarter_driver_gpiod.driver.PowerSwitch
//	      config: {line: GPIO17}
package ina

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/power"
	"github.com/jumplead/jumplead/hw"
	"periph.io/x/conn/v3/physic"
)

// Config219 and Config226 differ in what Validate knows of the chips.
type (
	Config219 struct {
		Bus        Bus      `yaml:"bus" default:"1" doc:"the I2C bus: N of /dev/i2c-N, or the board's name for it, such as I2C1"`
		Address    uint16   `yaml:"address" default:"0x40" min:"64" max:"79" doc:"address on the bus, from 0x40 to 0x4f"`
		Shunt      float64  `yaml:"shunt" default:"0.1" doc:"resistance of the shunt in ohms"`
		MaxCurrent *float64 `yaml:"max_current" doc:"the largest current that is to be measured, in amperes; as much as the chip can when left out"`
	}
	Config226 Config219
)

// Config260 is that of a meter with its shunt inside.
type Config260 struct {
	Bus     Bus    `yaml:"bus" default:"1" doc:"the I2C bus: N of /dev/i2c-N, or the board's name for it, such as I2C1"`
	Address uint16 `yaml:"address" default:"0x40" min:"64" max:"79" doc:"address on the bus, from 0x40 to 0x4f"`
}

// The meters.
var (
	INA219 = spec("INA219", "a power meter INA219 on an I2C bus, with a switch for a child if it has one", Config219.meter)
	INA226 = spec("INA226", "a power meter INA226 on an I2C bus, with a switch for a child if it has one", Config226.meter)
	INA260 = spec("INA260", "a power meter INA260 on an I2C bus, with a switch for a child if it has one", Config260.meter)
)

func (c Config219) meter() meter {
	m := meter{chip: ina219, bus: c.Bus, addr: c.Address, shunt: c.Shunt}
	m.gain, _ = gain(c.Shunt, c.MaxCurrent)
	return m
}

func (c Config226) meter() meter {
	return meter{chip: ina226, bus: c.Bus, addr: c.Address, shunt: c.Shunt}
}

func (c Config260) meter() meter { return meter{chip: ina260, bus: c.Bus, addr: c.Address} }

// switchName is that of the child that switches.
const switchName = "switch"

func spec[C any](name, doc string, makeMeter func(C) meter) driver.Spec {
	return driver.Define(driver.Spec{Type: "jumplead.power." + name, Contract: power.Contract, Doc: doc},
		func(ctx context.Context, env *driver.Env, c C) (driver.Driver, error) {
			m := makeMeter(c)
			m.host = env.Host
			if child, ok := env.Child(switchName); ok {
				m.relay = power.NewClient(child)
			}
			if err := m.with(ctx, m.identify); err != nil {
				if m.relay == nil {
					return driver.Driver{}, err
				}
				// The meter may be behind the switch.
				env.Log.Warn("the meter does not answer; its switch works all the same", "error", err)
			}
			return power.Driver(&m), nil
		})
}

// Probe reads what the chip says that it is. Those two registers are all that is
// asked on the bus, and of this address alone: there are chips that take any
// question for a command.
func (c *Config219) Probe(ctx context.Context, env *driver.Env) (string, error) {
	return c.meter().probe(ctx, env)
}
func (c *Config226) Probe(ctx context.Context, env *driver.Env) (string, error) {
	return c.meter().probe(ctx, env)
}
func (c *Config260) Probe(ctx context.Context, env *driver.Env) (string, error) {
	return c.meter().probe(ctx, env)
}

func (m meter) probe(ctx context.Context, env *driver.Env) (string, error) {
	m.host = env.Host
	if err := m.with(ctx, m.identify); err != nil {
		if _, ok := env.Child(switchName); ok && errors.Is(err, hw.ErrAbsent) {
			err = fmt.Errorf("%w; or is it behind its switch, and that is off?", err)
		}
		return "", err
	}
	n, _ := m.bus.find(m.host.Names)
	if m.chip.die == 0 {
		return fmt.Sprintf("a chip at %#02x on i2c-%d, as it seems an %s: those do not tell what they are", m.addr, n, m.chip.name), nil
	}
	return fmt.Sprintf("an %s at %#02x on i2c-%d", m.chip.name, m.addr, n), nil
}

// Bus is an I2C bus: its number, or the board's name for it.
type Bus string

// UnmarshalText reads either, and the path of a device.
func (b *Bus) UnmarshalText(text []byte) error {
	s := strings.TrimPrefix(strings.TrimPrefix(string(text), "/dev/i2c-"), "i2c-")
	if s == "" || strings.ContainsAny(s, "/ ") {
		return fmt.Errorf("%q is neither a number, /dev/i2c-N nor the name of a bus", text)
	}
	if _, err := strconv.ParseUint(s, 10, 16); err != nil && strings.Trim(s, "-0123456789") == "" {
		return fmt.Errorf("%q is no bus's number: those are from 0 to %d", text, math.MaxUint16)
	}
	*b = Bus(s)
	return nil
}

func (b Bus) find(n hw.Names) (int, error) {
	if bus, err := strconv.ParseUint(string(b), 10, 16); err == nil {
		return int(bus), nil
	}
	if bus, ok := n.I2C[string(b)]; ok {
		return bus, nil
	}
	var names []string
	for name := range n.I2C {
		names = append(names, name)
	}
	slices.Sort(names)
	if len(names) == 0 {
		return 0, driver.BadKey("bus", "no names of buses are known for this board; give the number")
	}
	return 0, driver.BadKey("bus", "the board %s has no I2C bus %q; it has %s", n.Board, string(b), strings.Join(names, ", "))
}

func claims(h hw.Host, b Bus, addr uint16) ([]driver.Claim, error) {
	n, err := b.find(h.Names)
	if err != nil {
		return nil, err
	}
	return []driver.Claim{{Kind: "I2C", Name: fmt.Sprintf("address %#02x on i2c-%d", addr, n)}}, nil
}

// Locate finds the bus by the board's names.
func (c *Config219) Locate(h hw.Host) ([]driver.Claim, error) { return claims(h, c.Bus, c.Address) }
func (c *Config226) Locate(h hw.Host) ([]driver.Claim, error) { return claims(h, c.Bus, c.Address) }
func (c *Config260) Locate(h hw.Host) ([]driver.Claim, error) { return claims(h, c.Bus, c.Address) }

// validate checks a shunt against the voltage that a chip can measure at it.
func validate(shunt float64, most *float64, limit physic.ElectricPotential) error {
	switch {
	case !(shunt > 0) || math.IsInf(shunt, 0):
		return driver.BadKey("shunt", "%v ohms is no resistance", shunt)
	case most != nil && !(*most > 0):
		return driver.BadKey("max_current", "%v A is no current to measure", *most)
	case most != nil && !fits(shunt, *most, limit):
		return driver.BadKey("max_current", "%v A make %.4g V at a shunt of %v ohms; the chip measures up to %v there, which are %.4g A",
			*most, *most*shunt, shunt, limit, volts(limit)/shunt)
	}
	return nil
}

// Validate checks that the shunt fits the current.
func (c *Config219) Validate() error { return validate(c.Shunt, c.MaxCurrent, 320*physic.MilliVolt) }
func (c *Config226) Validate() error { return validate(c.Shunt, c.MaxCurrent, 81920*physic.MicroVolt) }

// gain is the setting of an INA219's amplifier (PG, bits 12 and 11) with the best
// resolution for a current: 0 is 40 mV, and each step doubles that.
func gain(shunt float64, most *float64) (pg uint16, limit physic.ElectricPotential) {
	for pg, limit = 0, 40*physic.MilliVolt; pg < 3; pg, limit = pg+1, 2*limit {
		if most != nil && fits(shunt, *most, limit) {
			break
		}
	}
	return pg, limit
}

// fits tells whether a current makes no more than a voltage at a shunt, but for
// what float64 makes of 6.4 times 0.05.
func fits(shunt, amps float64, limit physic.ElectricPotential) bool {
	return amps*shunt <= volts(limit)*(1+1e-9)
}

func volts(v physic.ElectricPotential) float64 { return float64(v) / float64(physic.Volt) }

// The registers. Those from 6 on an INA219 has not.
const (
	regConfig = 0x00
	regShunt  = 0x01 // of an INA260: current
	regBus    = 0x02
	regPower  = 0x03
	regMask   = 0x06
	regMaker  = 0xfe
	regDie    = 0xff
)

// maker is what Texas Instruments' chips say they are of.
const maker = 0x5449

// chip is what the data sheets say.
type chip struct {
	name   string
	die    uint16 // without the revision, the last four bits; 0 if it does not tell
	config uint16 // continuous, with averages of 16 samples

	shuntStep   physic.ElectricPotential // 0: the chip tells the current
	currentStep physic.ElectricCurrent
	busStep     physic.ElectricPotential
	busShift    uint
}

var (
	// 32 V, both converters at 16 samples of 12 bits (8.51 ms), continuous; the
	// gain is added.
	ina219 = chip{name: "INA219", config: 0x2000 | 0xc<<7 | 0xc<<3 | 7,
		shuntStep: 10 * physic.MicroVolt, busStep: 4 * physic.MilliVolt, busShift: 3}
	// 16 averages, 1.1 ms each, continuous; the highest bits are fixed.
	ina226 = chip{name: "INA226", die: 0x226, config: 0x4000 | 2<<9 | 4<<6 | 4<<3 | 7,
		shuntStep: 2500 * physic.NanoVolt, busStep: 1250 * physic.MicroVolt}
	ina260 = chip{name: "INA260", die: 0x227, config: 0x6000 | 2<<9 | 4<<6 | 4<<3 | 7,
		currentStep: 1250 * physic.MicroAmpere, busStep: 1250 * physic.MicroVolt}
)

// meter is one chip. It keeps nothing open: a bus or a chip may go and come back.
type meter struct {
	chip  chip
	bus   Bus
	addr  uint16
	shunt float64 // ohms
	gain  uint16  // of an INA219
	host  hw.Host
	relay power.Interface // or nil
}

var _ power.Interface = (*meter)(nil)

func (m *meter) On(ctx context.Context) error {
	if m.relay == nil {
		return m.noSwitch("on")
	}
	return m.relay.On(ctx)
}

func (m *meter) Off(ctx context.Context) error {
	if m.relay == nil {
		return m.noSwitch("off")
	}
	return m.relay.Off(ctx)
}

func (m *meter) noSwitch(op string) error {
	return fmt.Errorf("%s: a meter switches nothing, and has no child %q that would: %w", op, switchName, errors.ErrUnsupported)
}

// Read yields one reading.
func (m *meter) Read(ctx context.Context) iter.Seq2[power.Reading, error] {
	return func(yield func(power.Reading, error) bool) {
		var r power.Reading
		err := m.with(ctx, func(ctx context.Context, c conn) (err error) {
			r, err = m.measure(ctx, c)
			return err
		})
		yield(r, err)
	}
}

// with calls f with the chip's bus.
func (m *meter) with(ctx context.Context, f func(context.Context, conn) error) (err error) {
	n, err := m.bus.find(m.host.Names)
	if err != nil {
		return hw.Mark(hw.ErrAbsent, err)
	}
	bus, err := m.host.OpenI2C(ctx, n)
	if err != nil {
		return fmt.Errorf("%s: %w", m.chip.name, err)
	}
	defer func() { err = errors.Join(err, bus.Close()) }()
	if err := f(ctx, conn{bus, m.addr}); err != nil {
		return fmt.Errorf("%s at %#02x on i2c-%d: %w", m.chip.name, m.addr, n, err)
	}
	return nil
}

// conn is a chip on its open bus.
type conn struct {
	bus  hw.I2CBus
	addr uint16
}

func (c conn) get(reg byte) (uint16, error) {
	var b [2]byte
	err := c.bus.Tx(c.addr, []byte{reg}, b[:])
	return binary.BigEndian.Uint16(b[:]), err
}

func (c conn) set(reg byte, v uint16) error {
	return c.bus.Tx(c.addr, []byte{reg, byte(v >> 8), byte(v)}, nil)
}

// identify makes sure that the chip is what the config says.
func (m *meter) identify(_ context.Context, c conn) error {
	by, err := c.get(regMaker)
	if err != nil {
		return err
	}
	die, err := c.get(regDie)
	if err != nil {
		return err
	}
	is := ""
	for _, k := range []chip{ina226, ina260} {
		if by == maker && die>>4 == k.die {
			is = k.name
		}
	}
	switch {
	case m.chip.die == 0 && is == "", is == m.chip.name:
		return nil // an INA219 does not tell what it is
	case is != "":
		return hw.Mark(hw.ErrWrong, fmt.Errorf("another chip is there: an %s; is the type in the config right?", is))
	}
	return hw.Mark(hw.ErrWrong, fmt.Errorf("another chip is there: its maker is %#04x and its die %#04x, where an %s has %#04x and %#03xN",
		by, die, m.chip.name, maker, m.chip.die))
}

func (m *meter) measure(ctx context.Context, c conn) (r power.Reading, err error) {
	if err := m.identify(ctx, c); err != nil {
		return r, err
	}
	if err := m.prepare(ctx, c); err != nil {
		return r, err
	}
	raw, err := c.get(regShunt)
	if err != nil {
		return r, err
	}
	limit, n := 0x7fff, int(int16(raw))
	if m.chip.die == 0 {
		limit = 4000 << m.gain
	}
	if r.Current = m.current(n); n >= limit || n <= -limit {
		return power.Reading{}, fmt.Errorf("the current is beyond the %.4g A that can be measured", math.Abs(m.current(limit)))
	}
	bus, err := c.get(regBus)
	if err != nil {
		return r, err
	}
	r.Voltage = volts(physic.ElectricPotential(bus>>m.chip.busShift) * m.chip.busStep)
	return r, nil
}

// current is what the first converter's number means, in amperes.
func (m *meter) current(n int) float64 {
	if m.chip.shuntStep == 0 {
		return float64(physic.ElectricCurrent(n)*m.chip.currentStep) / float64(physic.Ampere)
	}
	return volts(physic.ElectricPotential(n)*m.chip.shuntStep) / m.shunt
}

// settle bounds the time in which a conversion has to be done: 35 ms at most, by
// the data sheets.
const settle = time.Second

// prepare gives the chip its settings if it has others, and then waits for the
// first result.
func (m *meter) prepare(ctx context.Context, c conn) error {
	want := m.chip.config | m.gain<<11
	config, err := c.get(regConfig)
	if err != nil || config == want {
		return err
	}
	if err := c.set(regConfig, want); err != nil {
		return err
	}
	reg, bit := byte(regMask), uint16(1<<3)
	if m.chip.die == 0 {
		if _, err := c.get(regPower); err != nil { // clears the flag
			return err
		}
		reg, bit = regBus, 1<<1
	}
	limited, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		flags, err := c.get(reg)
		if err != nil || flags&bit != 0 {
			return err
		}
		select {
		case <-tick.C:
		case <-limited.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("no conversion within %v: %w", settle, limited.Err())
		}
	}
}
