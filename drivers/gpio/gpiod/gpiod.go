// Package gpiod has the drivers of upstream's package of that name: outputs,
// inputs and supplies on lines of GPIO chips. hw/gpio tells what lines are.
//
// # Which line
//
// Upstream knows a line by its number on a device. Beyond that, line may be a
// name, the kernel's or the board's (GPIO17), and pin a position of the board's
// header. Both lead to the chip by its label, so that they outlast an update of
// the kernel that numbers the chips anew. The device may be given by its label,
// too.
//
// # The end of a session
//
// When a session ends its lines are let go. What is on the wire then depends on
// on_release: with keep, which is what upstream does, nothing is done, and the
// chip's kernel driver decides; nearly all of them leave the line as it is. With
// inactive the line is made inactive before. An exporter that is killed (kill -9,
// a crash, power) cannot do that: whatever on_release says, the line is then kept.
// A pulse that the end of a session meets is ended in any case.
//
// # Absent, busy, forbidden
//
// The line is requested when the session begins. If that fails for one of these
// reasons the node is there all the same, answers with the reason, and tries anew
// when it is used. A chip that goes and comes back during the session is found
// again at the next call; an output then begins with its initial_value, unless the
// call sets another.
package gpiod

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/gpio"
	"github.com/jumplead/jumplead/drivers/power"
	"github.com/jumplead/jumplead/hw"
	lines "github.com/jumplead/jumplead/hw/gpio"
)

// OutputConfig is upstream's, with pin and on_release.
type OutputConfig struct {
	Line         *Line   `yaml:"line" doc:"number of the line on its chip, or its name: the kernel's or the board's, such as GPIO17"`
	Pin          *int    `yaml:"pin" min:"1" doc:"position on the board's header, instead of line"`
	Device       *Device `yaml:"device" doc:"the chip: a path, a number or a label; /dev/gpiochip0 unless line is a name"`
	Drive        *string `yaml:"drive" oneof:"push_pull open_drain open_source" doc:"how the two levels are made; push_pull when left out"`
	Bias         *string `yaml:"bias" oneof:"as_is pull_up pull_down disabled" doc:"the pull resistor in the chip; as_is when left out"`
	ActiveLow    bool    `yaml:"active_low" default:"false" doc:"low is active"`
	InitialValue *Value  `yaml:"initial_value" doc:"active or inactive, or on, off, true, false: what the line is from the first moment on; inactive when left out"`
	OnRelease    string  `yaml:"on_release" default:"keep" oneof:"keep inactive" doc:"what the line does when the session ends"`
}

// SwitchConfig is upstream's, with pin and on_release.
type SwitchConfig struct {
	Line         *Line   `yaml:"line" doc:"number of the line on its chip, or its name: the kernel's or the board's, such as GPIO17"`
	Pin          *int    `yaml:"pin" min:"1" doc:"position on the board's header, instead of line"`
	Device       *Device `yaml:"device" doc:"the chip: a path, a number or a label; /dev/gpiochip0 unless line is a name"`
	Drive        *string `yaml:"drive" oneof:"push_pull open_drain open_source" doc:"how the two levels are made; push_pull when left out"`
	Bias         *string `yaml:"bias" oneof:"as_is pull_up pull_down disabled" doc:"the pull resistor in the chip; as_is when left out"`
	ActiveLow    bool    `yaml:"active_low" default:"false" doc:"low is active"`
	InitialValue *Value  `yaml:"initial_value" doc:"active or inactive, or on, off, true, false: what the line is from the first moment on; inactive when left out"`
	OnRelease    string  `yaml:"on_release" default:"keep" oneof:"keep inactive" doc:"what the line does when the session ends"`
	Mode         string  `yaml:"mode" default:"push_pull" doc:"has no effect, as upstream; see drive"`
}

// InputConfig is upstream's, with pin and debounce.
type InputConfig struct {
	Line      *Line         `yaml:"line" doc:"number of the line on its chip, or its name: the kernel's or the board's, such as GPIO17"`
	Pin       *int          `yaml:"pin" min:"1" doc:"position on the board's header, instead of line"`
	Device    *Device       `yaml:"device" doc:"the chip: a path, a number or a label; /dev/gpiochip0 unless line is a name"`
	Drive     *string       `yaml:"drive" oneof:"push_pull open_drain open_source" doc:"has no effect on an input"`
	Bias      *string       `yaml:"bias" oneof:"as_is pull_up pull_down disabled" doc:"the pull resistor in the chip; as_is when left out"`
	ActiveLow bool          `yaml:"active_low" default:"false" doc:"low is active"`
	Debounce  time.Duration `yaml:"debounce" default:"0" min:"0" max:"3600" doc:"seconds for which the line must be stable to count; 0 for no filter"`
}

// The drivers, under upstream's types.
var (
	Output = driver.Define(driver.Spec{
		Type:     "jumpstarter_driver_gpiod.driver.DigitalOutput",
		Contract: gpio.OutputContract,
		Doc:      "a GPIO line that is driven",
	}, func(ctx context.Context, env *driver.Env, c OutputConfig) (driver.Driver, error) {
		o, err := c.open(ctx, env)
		if err != nil {
			return driver.Driver{}, err
		}
		return gpio.OutputDriver(o), nil
	})

	Input = driver.Define(driver.Spec{
		Type:     "jumpstarter_driver_gpiod.driver.DigitalInput",
		Contract: gpio.InputContract,
		Doc:      "a GPIO line that is watched",
	}, openInput)

	Switch = driver.Define(driver.Spec{
		Type:     "jumpstarter_driver_gpiod.driver.PowerSwitch",
		Contract: power.Contract,
		Doc:      "a supply that a GPIO line switches",
		Exports: func() []driver.Export {
			return append(power.Exports((*power.Client)(nil)), gpio.PinExports((*gpio.OutputClient)(nil))...)
		},
	}, func(ctx context.Context, env *driver.Env, c SwitchConfig) (driver.Driver, error) {
		o, err := c.output().open(ctx, env)
		if err != nil {
			return driver.Driver{}, err
		}
		s := supply{o}
		return driver.Driver{Exports: append(power.Exports(s), gpio.PinExports(o)...), Impl: o}, nil
	})
)

// Line is a line's number or its name.
type Line string

// UnmarshalText reads either.
func (l *Line) UnmarshalText(text []byte) error {
	s := string(text)
	if hex, ok := strings.CutPrefix(s, "0x"); ok {
		if n, err := strconv.ParseUint(hex, 16, 16); err == nil {
			s = strconv.FormatUint(n, 10)
		}
	}
	n, err := strconv.Atoi(s)
	switch {
	case s == "" || s != strings.TrimSpace(s):
		return fmt.Errorf("%q is neither a number nor a name", s)
	case err == nil && (strconv.Itoa(n) != s || n < 0), err != nil && number(s):
		return fmt.Errorf("%q is not a line's number: those begin with 0 and are written plainly", s)
	}
	*l = Line(s)
	return nil
}

// number reports whether a text is a number to YAML, as 1.5 and 0o17 are, and so
// hardly a line's name.
func number(s string) bool {
	if !strings.ContainsAny(s[:1], "+-.0123456789") {
		return false
	}
	_, notInt := strconv.ParseInt(s, 0, 64)
	_, notFloat := strconv.ParseFloat(s, 64)
	return notInt == nil || notFloat == nil || errors.Is(notFloat, strconv.ErrRange)
}

// ref is the line on a chip.
func (l Line) ref(chip string) hw.LineRef {
	if n, err := strconv.Atoi(string(l)); err == nil {
		return hw.LineRef{Chip: chip, Offset: n}
	}
	return hw.LineRef{Chip: chip, Name: string(l)}
}

// Device is a chip.
type Device string

// UnmarshalText reads a path, a device's name, a number or a label.
func (d *Device) UnmarshalText(text []byte) error {
	s := string(text)
	if n, err := strconv.ParseUint(s, 10, 16); err == nil {
		s = "/dev/gpiochip" + strconv.FormatUint(n, 10)
	}
	if *d = Device(s); s == "" {
		return errors.New("is empty; it needs a path such as /dev/gpiochip0, a number or a chip's label")
	}
	return nil
}

// Value is active or not, in any of upstream's words.
type Value string

const active = Value("active")

// UnmarshalText reads the words, and what YAML 1.1 makes booleans.
func (v *Value) UnmarshalText(text []byte) error {
	switch s := string(text); strings.ToLower(s) {
	case "active", "on", "true", "yes", "y", "1":
		*v = active
	case "inactive", "off", "false", "no", "n", "0":
		*v = "inactive"
	default:
		return fmt.Errorf("invalid initial_value: %q, must be one of: inactive, active, on, off, true, false", s)
	}
	return nil
}

// place is where a line is, as a config says.
type place struct {
	line   *Line
	pin    *int
	device *Device
}

func (p place) validate() error {
	switch {
	case p.line == nil && p.pin == nil:
		return driver.BadKey("line", "is missing; it or pin says which line is meant")
	case p.line != nil && p.pin != nil:
		return driver.BadKey("pin", "line says already which line is meant; one of the two has to go")
	case p.pin != nil && p.device != nil:
		return driver.BadKey("device", "a pin of the header leads to its own device; leave this out")
	}
	return nil
}

// find is the line on a board. With an error it may be a line all the same, of
// which the board's names do not tell.
func (p place) find(names hw.Names) (hw.LineRef, error) {
	if p.pin != nil {
		at, err := names.Pin(*p.pin)
		if err != nil {
			return at, driver.BadKey("pin", "%v", err)
		}
		return at, nil
	}
	if p.device != nil {
		return p.line.ref(string(*p.device)), nil
	}
	at := p.line.ref("")
	if at.Name == "" {
		return at, nil
	}
	if known, ok := names.Line(at.Name); ok {
		return known, nil
	}
	if len(names.Lines) == 0 {
		return at, nil
	}
	return at, driver.BadKey("line", "the board %s has no line %q that is known here%s; the kernel may know it", names.Board,
		at.Name, driver.Hint(at.Name, slices.Sorted(maps.Keys(names.Lines))))
}

func (p place) claims(h hw.Host) ([]driver.Claim, error) {
	at, err := p.find(h.Names)
	if p.pin != nil && err != nil {
		return nil, err
	}
	return []driver.Claim{{Kind: "GPIO", Name: h.Names.Canonical(at)}}, err
}

// request is the line for the hardware.
func (p place) request(h hw.Host) (hw.LineRef, error) {
	at, err := p.find(h.Names)
	if p.pin != nil && err != nil {
		return at, hw.Mark(hw.ErrWrong, err)
	}
	return at, nil
}

func (c *OutputConfig) place() place { return place{c.Line, c.Pin, c.Device} }
func (c *InputConfig) place() place  { return place{c.Line, c.Pin, c.Device} }
func (c *SwitchConfig) output() *OutputConfig {
	return &OutputConfig{c.Line, c.Pin, c.Device, c.Drive, c.Bias, c.ActiveLow, c.InitialValue, c.OnRelease}
}

// Validate checks that the line is given once.
func (c *OutputConfig) Validate() error { return c.place().validate() }
func (c *InputConfig) Validate() error  { return c.place().validate() }
func (c *SwitchConfig) Validate() error { return c.output().Validate() }

// Locate finds the line by the board's names.
func (c *OutputConfig) Locate(h hw.Host) ([]driver.Claim, error) { return c.place().claims(h) }
func (c *InputConfig) Locate(h hw.Host) ([]driver.Claim, error)  { return c.place().claims(h) }
func (c *SwitchConfig) Locate(h hw.Host) ([]driver.Claim, error) { return c.output().Locate(h) }

// Probe finds the line, and looks who uses it.
func (c *OutputConfig) Probe(ctx context.Context, env *driver.Env) (string, error) {
	return c.place().probe(ctx, env.Host)
}
func (c *InputConfig) Probe(ctx context.Context, env *driver.Env) (string, error) {
	return c.place().probe(ctx, env.Host)
}
func (c *SwitchConfig) Probe(ctx context.Context, env *driver.Env) (string, error) {
	return c.output().Probe(ctx, env)
}

func (p place) probe(ctx context.Context, h hw.Host) (string, error) {
	at, err := p.request(h)
	if err != nil {
		return "", err
	}
	info, err := h.ProbeLine(ctx, at)
	if err != nil {
		return "", err
	}
	return info.String() + ", which nobody uses", nil
}

// words are the config's in the hardware's.
var (
	drives = map[string]hw.Drive{"push_pull": hw.PushPull, "open_drain": hw.OpenDrain, "open_source": hw.OpenSource}
	biases = map[string]hw.Bias{"as_is": hw.BiasAsIs, "pull_up": hw.PullUp, "pull_down": hw.PullDown, "disabled": hw.BiasOff}
)

func word[T any](words map[string]T, w *string) (v T) {
	if w != nil {
		v = words[*w]
	}
	return v
}

// consumer is who uses a line, for other programs that want it.
func consumer(env *driver.Env) string { return strings.TrimSpace("jumplead " + env.Path) }

// begin requests a line. One that the kernel does not answer for is kept, as it
// is to be requested once, and not at every try to open the node.
func begin(ctx context.Context, env *driver.Env, x interface {
	Open(context.Context) error
	Close() error
}) error {
	err := x.Open(ctx)
	if errors.Is(err, lines.ErrStuck) {
		env.Log.Warn("the line is not there yet", "error", err)
		return nil
	}
	if err != nil {
		x.Close() // there is nothing to close but what a request may still bring
	}
	return err
}

// over tells the end of the session.
func over(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("%w: the session is over", driver.ErrUnavailable)
	}
	return err
}

func (c *OutputConfig) open(ctx context.Context, env *driver.Env) (*output, error) {
	at, err := c.place().request(env.Host)
	if err != nil {
		return nil, err
	}
	x := lines.NewOutput(env.Host, at, hw.LineOptions{
		Consumer:  consumer(env),
		ActiveLow: c.ActiveLow,
		Active:    c.InitialValue != nil && *c.InitialValue == active,
		Drive:     word(drives, c.Drive),
		Bias:      word(biases, c.Bias),
	}, c.OnRelease == "inactive", env.Log)
	if err := begin(ctx, env, x); err != nil {
		return nil, err
	}
	return &output{x, env.Log}, nil
}

type output struct {
	*lines.Output
	log *slog.Logger
}

var _ gpio.Output = (*output)(nil)

func (o *output) On(ctx context.Context) error  { return o.turn(ctx, true, "on") }
func (o *output) Off(ctx context.Context) error { return o.turn(ctx, false, "off") }

// turn also logs what is on the wire, as upstream does: a shorted line is seen
// there.
func (o *output) turn(ctx context.Context, active bool, what string) error {
	if err := o.Set(ctx, active); err != nil {
		return over(err)
	}
	reads := "inactive"
	switch got, err := o.Get(ctx); {
	case err != nil:
		reads = err.Error()
	case got:
		reads = "active"
	}
	info, _ := o.Info()
	o.log.InfoContext(ctx, what, "line", info.String(), "reads", reads)
	return nil
}

func (o *output) ReadPin(ctx context.Context) (bool, error) {
	active, err := o.Get(ctx)
	return active, over(err)
}

func (o *output) Pulse(ctx context.Context, d time.Duration) error {
	return over(o.Output.Pulse(ctx, d))
}

// supply is an output as a supply, which cannot measure.
type supply struct{ *output }

func (supply) Read(context.Context) iter.Seq2[power.Reading, error] {
	return func(yield func(power.Reading, error) bool) {
		yield(power.Reading{}, fmt.Errorf("read: a GPIO line measures nothing: %w", errors.ErrUnsupported))
	}
}

func openInput(ctx context.Context, env *driver.Env, c InputConfig) (driver.Driver, error) {
	at, err := c.place().request(env.Host)
	if err != nil {
		return driver.Driver{}, err
	}
	x := lines.NewInput(env.Host, at, hw.LineOptions{
		Consumer:  consumer(env),
		ActiveLow: c.ActiveLow,
		Bias:      word(biases, c.Bias),
		Debounce:  c.Debounce,
	}, env.Log)
	if err := begin(ctx, env, x); err != nil {
		return driver.Driver{}, err
	}
	return gpio.InputDriver(&input{x}), nil
}

type input struct{ *lines.Input }

var _ gpio.Input = (*input)(nil)

func (i *input) ReadPin(ctx context.Context) (bool, error) {
	active, err := i.Get(ctx)
	return active, over(err)
}

func (i *input) WaitForActive(ctx context.Context, timeout time.Duration) error {
	return i.waitFor(ctx, true, timeout)
}

func (i *input) WaitForInactive(ctx context.Context, timeout time.Duration) error {
	return i.waitFor(ctx, false, timeout)
}

func (i *input) waitFor(ctx context.Context, active bool, timeout time.Duration) error {
	if now, err := i.Get(ctx); err != nil || now == active {
		return over(err)
	}
	return i.wait(ctx, active, timeout)
}

func (i *input) WaitForEdge(ctx context.Context, edge string, timeout time.Duration) error {
	return i.wait(ctx, edge == gpio.Rising, timeout)
}

func (i *input) wait(ctx context.Context, rising bool, timeout time.Duration) error {
	limited := ctx
	if timeout != 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	err := i.Wait(limited, rising)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		kind := gpio.Falling
		if rising {
			kind = gpio.Rising
		}
		return fmt.Errorf("timed out: no %s edge within %v: %w", kind, timeout, err)
	}
	return over(err)
}

func (i *input) Edges(ctx context.Context) iter.Seq2[gpio.Edge, error] {
	return func(yield func(gpio.Edge, error) bool) {
		for e, err := range i.Input.Edges(ctx) {
			if !yield(gpio.Edge{Active: e.Rising, Timestamp: e.Time.Seconds(), Seqno: e.Seqno, Lost: e.Lost}, over(err)) {
				return
			}
		}
	}
}
