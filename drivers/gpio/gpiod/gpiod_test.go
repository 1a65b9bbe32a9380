package gpiod_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/gpio"
	"github.com/jumplead/jumplead/drivers/gpio/gpiod"
	"github.com/jumplead/jumplead/drivers/power"
	"github.com/jumplead/jumplead/drivers/power/powertest"
	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/gpio/gpiotest"
	"github.com/jumplead/jumplead/hw/hwtest"
)

// names are those of a board with a header.
var names = hw.Names{
	Board: "rpi4",
	Chips: map[string]string{"gpiochip0": "pinctrl-bcm2711"},
	Lines: map[string]hw.LineRef{"GPIO17": {Chip: "pinctrl-bcm2711", Offset: 17}},
	Pins:  map[int]string{1: "3V3", 11: "GPIO17"},
}

func bench() (drivertest.Bench, *gpiotest.Board, *gpiotest.Chip) {
	host, board := hwtest.Host()
	host.Names = names
	chip := board.GPIO.Add("gpiochip0", "pinctrl-bcm2711", 58, "ID_SDA")
	return drivertest.Bench{Host: host}, board.GPIO, chip
}

func TestSpecs(t *testing.T) {
	b, _, _ := bench()
	for _, test := range []struct {
		spec driver.Spec
		rows string
	}{
		{gpiod.Output, "call on(), call off(), call read_pin(), call pulse(ms)"},
		{gpiod.Input, "call read_pin(), call wait_for_active(timeout=null), call wait_for_inactive(timeout=null), " +
			"call wait_for_edge(edge_type, timeout=null), feed edges()"},
		{gpiod.Switch, "call on(), call off(), feed read(), call read_pin(), call pulse(ms)"},
	} {
		drivertest.Spec(t, test.spec, "line: 17")
		b.Lifecycle(t, "line: 17", test.spec)
		var got []string
		for _, e := range test.spec.Table() {
			got = append(got, e.Kind().String()+" "+e.Usage())
		}
		if rows := strings.Join(got, ", "); rows != test.rows {
			t.Errorf("%s: rows are %s; want %s", test.spec.Type, rows, test.rows)
		}
	}
}

func TestConfig(t *testing.T) {
	all := "{line: 17, device: /dev/gpiochip0, drive: push_pull, bias: pull_up, active_low: true, "
	for _, test := range []struct {
		spec         driver.Spec
		config, want string
	}{
		{gpiod.Output, all + "initial_value: inactive}", ""},
		{gpiod.Output, all + "initial_value: on, on_release: inactive}", ""},
		{gpiod.Output, "{line: 17, initial_value: null, drive: null, bias: null}", ""},
		{gpiod.Output, "{line: GPIO17, initial_value: Off}", ""},
		{gpiod.Output, "{line: '17', initial_value: true, device: 1}", ""},
		{gpiod.Output, "pin: 11", ""},
		{gpiod.Switch, all + "initial_value: active, mode: open_drain}", ""},
		{gpiod.Input, all + "debounce: 0.01}", ""},
		{gpiod.Output, "{}", "line: is missing; it or pin says which line is meant"},
		{gpiod.Input, "{line: 1, pin: 11}", "pin: line says already which line is meant"},
		{gpiod.Switch, "{pin: 11, device: /dev/gpiochip1}", "device: a pin of the header leads to its own device"},
		{gpiod.Output, "line: -1", `"-1" is not a line's number`},
		{gpiod.Output, "line: 017", `"017" is not a line's number`},
		{gpiod.Output, "line: 0o17", `"0o17" is not a line's number`},
		{gpiod.Output, "line: 1.5", `"1.5" is not a line's number`},
		{gpiod.Output, "line: 99999999999999999999", `"99999999999999999999" is not a line's number`},
		{gpiod.Output, "line: 3V3_EN", ""},
		{gpiod.Output, "line: ''", `"" is neither a number nor a name`},
		{gpiod.Output, "{line: 1, device: ''}", "is empty; it needs a path"},
		{gpiod.Output, "pin: 0", "pin: 0 is out of range"},
		{gpiod.Output, "{line: 1, drive: strong}", `drive: "strong" is none of push_pull, open_drain, open_source`},
		{gpiod.Output, "{line: 1, bias: up}", `bias: "up" is none of as_is, pull_up, pull_down, disabled`},
		{gpiod.Output, "{line: 1, initial_value: maybe}", `invalid initial_value: "maybe", must be one of: inactive, active`},
		{gpiod.Output, "{line: 1, on_release: off}", "on_release"},
		{gpiod.Output, "{line: 1, debounce: 1}", `unknown key "debounce"`},
		{gpiod.Input, "{line: 1, initial_value: on}", `unknown key "initial_value"`},
		{gpiod.Input, "{line: 1, debounce: -1}", "debounce: -1 is out of range"},
	} {
		_, problems := drivertest.Bench{}.Plan(t, test.config, test.spec)
		got := fmt.Sprint(problems.Err())
		if test.want == "" && problems.Err() != nil || !strings.Contains(got, test.want) {
			t.Errorf("Plan(%s) = %v; want an error with %q", test.config, got, test.want)
		}
	}
}

// All names of one line are one claim; names that the board lacks draw a warning.
func TestClaims(t *testing.T) {
	const one = "GPIO line 17 of pinctrl-bcm2711"
	for _, test := range []struct {
		config  string
		names   hw.Names
		want    string
		warning string
	}{
		{"line: 17", names, one, ""},
		{"line: GPIO17", names, one, ""},
		{"line: gpio17", names, one, ""},
		{"pin: 11", names, one, ""},
		{"{line: 17, device: 0}", names, one, ""},
		{"{line: 17, device: pinctrl-bcm2711}", names, one, ""},
		{"line: 0x11", names, one, ""},
		{"{line: GPIO17, device: pinctrl-bcm2711}", names, one, ""},
		{"{line: GPIO17, device: /dev/gpiochip1}", names, `GPIO line "GPIO17" of gpiochip1`, ""},
		{"{line: 17, device: /dev/gpiochip1}", names, "GPIO line 17 of gpiochip1", ""},
		{"line: 17", hw.Names{}, "GPIO line 17 of gpiochip0", ""},
		{"line: GPIO17", hw.Names{}, `GPIO line "GPIO17"`, ""},
		{"line: GPIO71", names, `GPIO line "GPIO71"`, `line: the board rpi4 has no line "GPIO71" that is known here; did you mean "GPIO17"?; the kernel may know it`},
		{"pin: 1", names, "", "pin: pin 1 of the rpi4 is 3V3, not a line"},
		{"pin: 41", names, "", "pin: the header of the rpi4 has no pin 41, but 1 to 11"},
		{"pin: 11", hw.Names{}, "", "pin: this board, which is no known one, has no header that is known here; give the line's number or name"},
	} {
		for _, spec := range []driver.Spec{gpiod.Output, gpiod.Input, gpiod.Switch} {
			tree, problems := drivertest.Bench{Host: hw.Host{Names: test.names}}.Plan(t, test.config, spec)
			if err := problems.Err(); err != nil {
				t.Fatalf("Plan(%s) = %v; want no error", test.config, err)
			}
			var got []string
			for _, c := range tree.Root.Claims() {
				got = append(got, c.String())
			}
			if s := strings.Join(got, ", "); s != test.want {
				t.Errorf("Claims(%s) on %q = %s; want %s", test.config, test.names.Board, s, test.want)
			}
			warnings := fmt.Sprint(problems.Warnings())
			if test.warning == "" && len(problems) > 0 || !strings.Contains(warnings, test.warning) {
				t.Errorf("Plan(%s) on %q warns %s; want %s", test.config, test.names.Board, warnings, test.warning)
			}
		}
	}
}

func TestOutput(t *testing.T) {
	for _, test := range []struct {
		config string
		high   []bool // at first, after on, after off
		after  bool   // once the session is over, after on
	}{
		{"line: 17", []bool{false, true, false}, true},
		{"pin: 11", []bool{false, true, false}, true},
		{"{line: GPIO17, active_low: true}", []bool{true, false, true}, false},
		{"{line: 17, initial_value: on}", []bool{true, true, false}, true},
		{"{line: 17, initial_value: active, active_low: on}", []bool{false, false, true}, false},
		{"{line: 17, on_release: inactive}", []bool{false, true, false}, false},
		{"{line: 17, on_release: inactive, active_low: true}", []bool{true, false, true}, true},
		{"{line: 17, drive: open_drain, bias: pull_up}", []bool{false, true, false}, true},
		{"{line: 17, drive: open_source, bias: pull_down}", []bool{false, true, false}, true},
	} {
		for _, spec := range []driver.Spec{gpiod.Output, gpiod.Switch} {
			b, _, chip := bench()
			log := &drivertest.Log{}
			b.Log = log
			tree := b.Tree(t, test.config, spec)
			c := gpio.NewOutput(tree.Root.Caller())
			check := func(when string, high bool) {
				t.Helper()
				if got := chip.Level(17); got != high {
					t.Errorf("%s: %s: the line is high = %t; want %t", test.config, when, got, high)
				}
			}
			check("at first", test.high[0])
			activeLow := strings.Contains(test.config, "active_low")
			for i, do := range []func(context.Context) error{c.On, c.Off, c.On} {
				if err := do(t.Context()); err != nil {
					t.Fatalf("%s: switching = %v; want nil", test.config, err)
				}
				high := test.high[1+i%2]
				check(fmt.Sprint("step ", i), high)
				if got, err := c.ReadPin(t.Context()); err != nil || got != (high != activeLow) {
					t.Errorf("%s: ReadPin() = %t, %v; want %t", test.config, got, err, high != activeLow)
				}
			}
			if !strings.Contains(log.String(), ` line="line 17 of gpiochip0 (pinctrl-bcm2711)" reads=active`) {
				t.Errorf("%s: log = %q; want a record of what was read", test.config, log)
			}
			if err := tree.Close(); err != nil {
				t.Errorf("%s: Close() = %v; want nil", test.config, err)
			}
			check("after the session", test.after)
			for _, c := range chip.History(17) {
				if !c.Output {
					t.Errorf("%s: the line was an input: %v", test.config, chip.History(17))
				}
			}
		}
	}
}

// What is on the wire is told, not what was asked for.
func TestShorted(t *testing.T) {
	b, _, chip := bench()
	c := gpio.NewOutput(b.Open(t, "{line: 17, drive: open_drain}", gpiod.Output))
	chip.Drive(17, false)
	if err := c.On(t.Context()); err != nil {
		t.Fatalf("On() = %v; want nil", err)
	}
	if got, err := c.ReadPin(t.Context()); err != nil || got {
		t.Errorf("ReadPin() of a line that is held low = %t, %v; want false, nil", got, err)
	}
}

func TestPowerConformance(t *testing.T) {
	powertest.Test(t, func(t *testing.T) powertest.Supply {
		b, _, chip := bench()
		return powertest.Supply{
			Interface: power.NewClient(b.Open(t, "{line: 17, active_low: true}", gpiod.Switch)),
			State:     func(*testing.T) bool { return !chip.Level(17) },
		}
	})
}

func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, chip := bench()
		tree := b.Tree(t, "line: 17", gpiod.Output)
		defer tree.Close()
		c := gpio.NewOutput(tree.Root.Caller())
		if err := c.Pulse(t.Context(), 1500*time.Microsecond); err != nil {
			t.Fatalf("Pulse() = %v; want nil", err)
		}
		h := chip.History(17)
		if len(h) != 3 || !h[1].High || h[2].High || h[2].At.Sub(h[1].At) != 1500*time.Microsecond {
			t.Errorf("the wire was %v; want high for 1.5 ms", h)
		}
		for _, ms := range []float64{0, -1, 3600_001, 1e300} {
			if _, err := tree.Root.Caller().Call(t.Context(), "pulse", ms); driver.Classify(err) != driver.Invalid {
				t.Errorf("pulse(%v) = %v; want an error about its argument", ms, err)
			}
		}
		ended := make(chan error)
		go func() { ended <- c.Pulse(t.Context(), time.Minute) }()
		synctest.Wait()
		tree.Close()
		if err := <-ended; driver.Classify(err) != driver.Unavailable || chip.Level(17) {
			t.Errorf("Pulse() at the end of its session = %v, and the line is high = %t; want unavailable, false", err, chip.Level(17))
		}
	})
}

func TestInput(t *testing.T) {
	b, _, chip := bench()
	c := gpio.NewInput(b.Open(t, "{line: GPIO17, active_low: true, bias: pull_up}", gpiod.Input))
	for _, high := range []bool{false, true, false} {
		chip.Drive(17, high)
		if got, err := c.ReadPin(t.Context()); err != nil || got == high {
			t.Errorf("ReadPin() = %t, %v; want %t, nil", got, err, !high)
		}
	}
	b.Lifecycle(t, "{line: 18, debounce: 0.005}", gpiod.Input)
}

// The waits as upstream has them, time by time.
func TestWaits(t *testing.T) {
	for _, test := range []struct {
		method string
		args   []any
		high   bool          // at the beginning
		change time.Duration // when the line changes; 0 for never
		took   time.Duration
		class  driver.Class
	}{
		{"wait_for_active", nil, true, 0, 0, driver.OK},
		{"wait_for_active", []any{-1}, true, 0, 0, driver.OK},
		{"wait_for_inactive", []any{5}, false, 0, 0, driver.OK},
		{"wait_for_active", nil, false, time.Hour, time.Hour, driver.OK},
		{"wait_for_active", []any{nil}, false, time.Hour, time.Hour, driver.OK},
		{"wait_for_active", []any{0}, false, time.Hour, time.Hour, driver.OK},
		{"wait_for_active", []any{1e300}, false, time.Hour, time.Hour, driver.OK},
		{"wait_for_active", []any{2.5}, false, 0, 2500 * time.Millisecond, driver.Timeout},
		{"wait_for_active", []any{-1}, false, 0, 0, driver.Timeout},
		{"wait_for_inactive", []any{2}, true, time.Second, time.Second, driver.OK},
		{"wait_for_inactive", []any{0.5}, true, time.Second, 500 * time.Millisecond, driver.Timeout},
		{"wait_for_edge", []any{"rising", 2}, false, time.Second, time.Second, driver.OK},
		{"wait_for_edge", []any{"falling"}, true, time.Second, time.Second, driver.OK},
		{"wait_for_edge", []any{"falling", 2}, false, time.Second, 2 * time.Second, driver.Timeout},
		{"wait_for_edge", []any{"both", 2}, false, 0, 0, driver.Invalid},
		{"wait_for_edge", nil, false, 0, 0, driver.Invalid},
	} {
		synctest.Test(t, func(t *testing.T) {
			b, _, chip := bench()
			chip.Drive(17, test.high)
			tree := b.Tree(t, "line: 17", gpiod.Input)
			defer tree.Close()
			if test.change > 0 {
				time.AfterFunc(test.change, func() { chip.Drive(17, !test.high) })
			}
			start := time.Now()
			_, err := tree.Root.Caller().Call(t.Context(), test.method, test.args...)
			if took := time.Since(start); driver.Classify(err) != test.class || took != test.took {
				t.Errorf("%s%v = %v after %v; want %v after %v", test.method, test.args, err, took, test.class, test.took)
			}
		})
	}
}

// A caller who leaves, and the end of the session, end a wait at once.
func TestWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, board, _ := bench()
		tree := b.Tree(t, "line: 17", gpiod.Input)
		c := gpio.NewInput(tree.Root.Caller())
		start := time.Now()
		wait := func(ctx context.Context, end func(), want driver.Class) {
			t.Helper()
			ended := make(chan error)
			go func() { ended <- c.WaitForActive(ctx, 0) }()
			synctest.Wait()
			end()
			if err := <-ended; driver.Classify(err) != want || time.Since(start) != 0 {
				t.Errorf("WaitForActive() = %v after %v; want an error of class %v at once", err, time.Since(start), want)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		wait(ctx, cancel, driver.Canceled)
		wait(t.Context(), func() { board.Remove("gpiochip0") }, driver.Unavailable)
		board.Add("gpiochip0", "pinctrl-bcm2711", 58)
		wait(t.Context(), func() { tree.Close() }, driver.Unavailable)
	})
}

func TestEdges(t *testing.T) {
	b, _, chip := bench()
	c := gpio.NewInput(b.Open(t, "{line: 17, active_low: true}", gpiod.Input))
	var got []gpio.Edge
	for e, err := range c.Edges(t.Context()) {
		if err != nil {
			t.Fatalf("Edges() = %v; want edges", err)
		}
		if got = append(got, e); len(got) == 4 {
			break
		}
		chip.Drive(17, len(got)%2 == 1)
	}
	for i, e := range got {
		if e.Active != (i%2 == 0) || e.Seqno != uint32(i) || e.Lost != 0 || (e.Timestamp > 0) != (i > 0) {
			t.Errorf("Edges() = %+v; want number %d, alternating from active, with a time from the second on", e, i)
		}
	}
}

// A device that is not there, taken or forbidden fails no session, and works once
// it is to be had.
func TestNotThere(t *testing.T) {
	host, fake := hwtest.Host()
	b := drivertest.Bench{Host: host, Log: &drivertest.Log{}}
	board := fake.GPIO
	for _, spec := range []driver.Spec{gpiod.Output, gpiod.Input, gpiod.Switch} {
		tree, problems := b.Plan(t, "{line: 3, device: relays}", spec)
		if err := problems.Err(); err != nil {
			t.Fatalf("Plan() = %v; want no error", err)
		}
		if err := tree.Open(t.Context()); err != nil {
			t.Fatalf("%s: Open() without a chip = %v; want nil", spec.Type, err)
		}
		read := func(want ...string) {
			t.Helper()
			_, err := tree.Root.Caller().Call(t.Context(), "read_pin")
			for _, w := range want {
				if !strings.Contains(fmt.Sprint(err), w) {
					t.Errorf("%s: read_pin() = %v; want %q in it", spec.Type, err, w)
				}
			}
			if want == nil && err != nil {
				t.Errorf("%s: read_pin() = %v; want nil", spec.Type, err)
			}
		}
		read("line 3 of relays", "there are no GPIO chips")
		board.Add("gpiochip0", "other", 54)
		read(`no chip has the label "relays"`, "there are gpiochip0 (other, 54 lines)")
		chip := board.Add("gpiochip7", "relays", 4)
		held, err := chip.Request(3, hw.LineOptions{Consumer: "spi0 CS0"})
		if err != nil {
			t.Fatalf("Request() = %v; want a line", err)
		}
		read("line 3 of gpiochip7 (relays)", `"spi0 CS0" uses it`)
		held.Close()
		read()
		if s, _ := chip.Line(3); s.Consumer != "jumplead" {
			t.Errorf("%s: the line is used by %q; want jumplead", spec.Type, s.Consumer)
		}
		board.Remove("gpiochip7")
		read(`no chip has the label "relays"`)
		board.Add("gpiochip8", "relays", 4)
		read()
		if err := tree.Close(); err != nil {
			t.Errorf("%s: Close() = %v; want nil", spec.Type, err)
		}
		board.Remove("gpiochip8")
		board.Remove("gpiochip0")
	}
}

// A pin that no board is known to have fails no session either.
func TestUnknownPin(t *testing.T) {
	host, _ := hwtest.Host()
	tree, _ := drivertest.Bench{Host: host}.Plan(t, "pin: 11", gpiod.Output)
	if err := tree.Open(t.Context()); err != nil {
		t.Errorf("Open() = %v; want nil", err)
	}
	defer tree.Close()
	if _, err := tree.Root.Caller().Call(t.Context(), "on"); driver.Classify(err) != driver.Unavailable || !errors.Is(err, hw.ErrWrong) {
		t.Errorf("on() = %v; want an error that says that this is no line", err)
	}
}
