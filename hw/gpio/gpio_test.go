package gpio_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/gpio"
	"github.com/jumplead/jumplead/hw/gpio/gpiotest"
)

func TestModel(t *testing.T) {
	gpiotest.Test(t, func(t *testing.T) gpiotest.World { return gpiotest.Model() })
}

// Errors say what was looked for and what is there instead.
func TestErrors(t *testing.T) {
	board := &gpiotest.Board{}
	bus := board.Bus()
	if _, err := bus.RequestLine(t.Context(), hw.LineRef{Offset: 17}, hw.LineOptions{}); err == nil ||
		err.Error() != "request line 17: no /dev/gpiochip0; there are no GPIO chips" || !errors.Is(err, hw.ErrAbsent) {
		t.Errorf("RequestLine() on an empty board = %v", err)
	}
	board.Add("gpiochip0", "pinctrl-bcm2711", 58, "ID_SDA", "ID_SCL", "twice")
	expander := board.Add("gpiochip1", "raspberrypi-exp-gpio", 8, "BT_ON", "twice")
	expander.NoEdges = true
	board.Add("gpiochip2", "cp2104", 4)
	board.Add("gpiochip3", "cp2104", 4)
	board.Add("gpiochip904", "private", 1)
	board.Forbid("gpiochip904")
	board.Link("/dev/relays", "gpiochip1")
	held, err := bus.RequestLine(t.Context(), hw.LineRef{Chip: "/dev/relays"}, hw.LineOptions{Consumer: "bluetooth"})
	if err != nil {
		t.Fatalf("RequestLine() through a link = %v; want a line", err)
	}
	defer held.Close()
	there := "there are gpiochip0 (pinctrl-bcm2711, 58 lines), gpiochip1 (raspberrypi-exp-gpio, 8 lines), " +
		"gpiochip2 (cp2104, 4 lines), gpiochip3 (cp2104, 4 lines), gpiochip904"
	refused := "permission denied: the user needs the group that owns the device"
	for _, test := range []struct {
		at   hw.LineRef
		o    hw.LineOptions
		kind error
		want string
	}{
		{hw.LineRef{Chip: "gpiochip9", Offset: 1}, hw.LineOptions{}, hw.ErrAbsent, "request line 1 of gpiochip9: no /dev/gpiochip9; " + there},
		{hw.LineRef{Chip: "pinctrl-rp1"}, hw.LineOptions{}, fs.ErrPermission, "request line 0 of pinctrl-rp1: open /dev/gpiochip904: " + refused},
		{hw.LineRef{Name: "GPIO99"}, hw.LineOptions{}, hw.ErrAbsent, `request line "GPIO99": no line has that name; ` + there},
		{hw.LineRef{Name: "ID_SDL"}, hw.LineOptions{}, hw.ErrAbsent, `request line "ID_SDL": no line has that name; did you mean "ID_SDA"?; ` + there},
		{hw.LineRef{Chip: "gpiochip1", Offset: 17}, hw.LineOptions{}, hw.ErrAbsent,
			"request line 17 of gpiochip1: gpiochip1 (raspberrypi-exp-gpio) has the lines 0 to 7; is another chip meant? " + there},
		{hw.LineRef{Name: "twice"}, hw.LineOptions{}, hw.ErrWrong, `request line "twice": several lines have that name: ` +
			"line 2 of gpiochip0 (pinctrl-bcm2711), line 1 of gpiochip1 (raspberrypi-exp-gpio); give the chip and the number"},
		{hw.LineRef{Chip: "cp2104"}, hw.LineOptions{}, hw.ErrWrong, `request line 0 of cp2104: 2 chips have the label "cp2104"; give the device: ` + there},
		{hw.LineRef{Name: "BT_ON"}, hw.LineOptions{}, hw.ErrBusy,
			`request line "BT_ON": line 0 (BT_ON) of gpiochip1 (raspberrypi-exp-gpio): "bluetooth" uses it: device or resource busy`},
		{hw.LineRef{Chip: "gpiochip904"}, hw.LineOptions{}, fs.ErrPermission, "request line 0 of gpiochip904: open /dev/gpiochip904: " + refused},
		{hw.LineRef{Chip: "gpiochip1", Offset: 2}, hw.LineOptions{Edges: true}, errors.ErrUnsupported,
			"request line 2 of gpiochip1: line 2 of gpiochip1 (raspberrypi-exp-gpio): the chip cannot report edges of it, " +
				"or not with this bias (no such device): unsupported operation"},
		{hw.LineRef{Chip: "gpiochip1", Offset: 2}, hw.LineOptions{Drive: hw.OpenDrain}, errors.ErrUnsupported,
			"request line 2 of gpiochip1: line 2 of gpiochip1 (raspberrypi-exp-gpio): the chip cannot use it in this direction, " +
				"or with this drive or bias (invalid argument): unsupported operation"},
	} {
		_, err := bus.RequestLine(t.Context(), test.at, test.o)
		if fmt.Sprint(err) != test.want || test.kind != nil && !errors.Is(err, test.kind) {
			t.Errorf("RequestLine(%v) =\n%v; want\n%v (%v)", test.at, err, test.want, test.kind)
		}
		if test.o != (hw.LineOptions{}) {
			continue // what a line cannot do is known once it is asked for
		}
		if _, err := bus.ProbeLine(t.Context(), test.at); fmt.Sprint(err) != test.want || test.kind != nil && !errors.Is(err, test.kind) {
			t.Errorf("ProbeLine(%v) =\n%v; want\n%v (%v)", test.at, err, test.want, test.kind)
		}
	}
	info, err := bus.ProbeLine(t.Context(), hw.LineRef{Name: "ID_SCL"})
	if want := (hw.LineInfo{Chip: "gpiochip0", Label: "pinctrl-bcm2711", Offset: 1, Name: "ID_SCL"}); info != want || err != nil {
		t.Errorf("ProbeLine() of a free line = %+v, %v; want %+v", info, err, want)
	}
	if _, err := (hw.Host{}).RequestLine(t.Context(), hw.LineRef{}, hw.LineOptions{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("RequestLine() on an empty host = %v; want errors.ErrUnsupported", err)
	}
	if _, err := (hw.Host{}).ProbeLine(t.Context(), hw.LineRef{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("ProbeLine() on an empty host = %v; want errors.ErrUnsupported", err)
	}
}

// bench is a board with one chip, and an output or input on its line 1.
type bench struct {
	board *gpiotest.Board
	chip  *gpiotest.Chip
	log   bytes.Buffer
}

func newBench() *bench {
	b := &bench{board: &gpiotest.Board{}}
	b.chip = b.board.Add("gpiochip0", "model", 4)
	return b
}

func (b *bench) host() hw.Host        { return hw.Host{GPIO: b.board.Bus()} }
func (b *bench) logger() *slog.Logger { return slog.New(slog.NewTextHandler(&b.log, nil)) }
func (b *bench) output(o hw.LineOptions, inactive bool) *gpio.Output {
	return gpio.NewOutput(b.host(), hw.LineRef{Offset: 1}, o, inactive, b.logger())
}
func (b *bench) input(o hw.LineOptions) *gpio.Input {
	return gpio.NewInput(b.host(), hw.LineRef{Offset: 1}, o, b.logger())
}

// history is all that was on the wire.
func (b *bench) history() string {
	var list []string
	for _, c := range b.chip.History(1) {
		list = append(list, c.String())
	}
	return strings.Join(list, " ")
}

// An output begins with its value and is nothing else at any time; what it ends as is the user's choice.
func TestOutputWire(t *testing.T) {
	for _, test := range []struct {
		name     string
		o        hw.LineOptions
		inactive bool
		do       func(t *testing.T, x *gpio.Output)
		want     string
	}{
		{"inactive", hw.LineOptions{}, false, func(*testing.T, *gpio.Output) {}, "out-low"},
		{"active", hw.LineOptions{Active: true}, false, func(*testing.T, *gpio.Output) {}, "out-high"},
		{"active low, inactive", hw.LineOptions{ActiveLow: true}, false, func(*testing.T, *gpio.Output) {}, "out-high"},
		{"active low, active", hw.LineOptions{Active: true, ActiveLow: true}, false, func(*testing.T, *gpio.Output) {}, "out-low"},
		{"on is kept", hw.LineOptions{}, false, func(t *testing.T, x *gpio.Output) { set(t, x, true) }, "out-low out-high"},
		{"on is let go", hw.LineOptions{}, true, func(t *testing.T, x *gpio.Output) { set(t, x, true) }, "out-low out-high out-low"},
		{"on is let go, active low", hw.LineOptions{ActiveLow: true}, true, func(t *testing.T, x *gpio.Output) { set(t, x, true) },
			"out-high out-low out-high"},
		{"reading", hw.LineOptions{Active: true}, false, func(t *testing.T, x *gpio.Output) {
			for range 5 {
				if got, err := x.Get(t.Context()); err != nil || !got {
					t.Errorf("Get() = %t, %v; want true, nil", got, err)
				}
			}
		}, "out-high"},
	} {
		b := newBench()
		x := b.output(test.o, test.inactive)
		if err := x.Open(t.Context()); err != nil {
			t.Fatalf("%s: Open() = %v; want nil", test.name, err)
		}
		test.do(t, x)
		if err := x.Close(); err != nil {
			t.Errorf("%s: Close() = %v; want nil", test.name, err)
		}
		if err := x.Close(); err != nil {
			t.Errorf("%s: second Close() = %v; want nil", test.name, err)
		}
		if got := b.history(); got != test.want {
			t.Errorf("%s: the wire was %s; want %s", test.name, got, test.want)
		}
		if b.chip.Used(1) {
			t.Errorf("%s: the line is held after Close()", test.name)
		}
		for what, err := range map[string]error{"Set": x.Set(t.Context(), true), "Pulse": x.Pulse(t.Context(), 1), "Open": x.Open(t.Context())} {
			if !errors.Is(err, os.ErrClosed) {
				t.Errorf("%s: %s() after Close() = %v; want os.ErrClosed", test.name, what, err)
			}
		}
	}
}

func set(t *testing.T, x *gpio.Output, active bool) {
	t.Helper()
	if err := x.Set(t.Context(), active); err != nil {
		t.Fatalf("Set(%t) = %v; want nil", active, err)
	}
}

// What is set while a chip is away is what its line begins with.
func TestOutputBack(t *testing.T) {
	b := newBench()
	x := b.output(hw.LineOptions{}, false)
	defer x.Close()
	set(t, x, true)
	if got := b.history(); got != "out-high" {
		t.Errorf("the wire was %s; want out-high: the first use may be the request", got)
	}
	b.board.Remove("gpiochip0")
	b.chip = b.board.Add("gpiochip0", "model", 4)
	set(t, x, true)
	if got := b.history(); got != "out-high" {
		t.Errorf("the new wire was %s; want out-high", got)
	}
	if !strings.Contains(b.log.String(), "the chip is back; the line began anew") {
		t.Errorf("log = %q; want a record of the new line", b.log.String())
	}
	if i, ok := x.Info(); !ok || i.Offset != 1 {
		t.Errorf("Info() = %v, %t; want line 1", i, ok)
	}
}

func TestPulse(t *testing.T) {
	const d = 100 * time.Millisecond
	for _, test := range []struct {
		name string
		do   func(t *testing.T, b *bench, x *gpio.Output) error
		want []string // what the wire became, and when
		err  error
	}{
		{"whole", func(t *testing.T, b *bench, x *gpio.Output) error { return x.Pulse(t.Context(), d) },
			[]string{"out-low 0s", "out-high 1s", "out-low 1.1s"}, nil},
		{"of an active line", func(t *testing.T, b *bench, x *gpio.Output) error {
			set(t, x, true)
			return x.Pulse(t.Context(), d)
		}, []string{"out-low 0s", "out-high 1s", "out-low 1.1s"}, nil},
		{"the caller leaves", func(t *testing.T, b *bench, x *gpio.Output) error {
			ctx, cancel := context.WithTimeout(t.Context(), d/2)
			defer cancel()
			return x.Pulse(ctx, d)
		}, []string{"out-low 0s", "out-high 1s", "out-low 1.05s"}, context.DeadlineExceeded},
		{"off wins", func(t *testing.T, b *bench, x *gpio.Output) error {
			time.AfterFunc(d/2, func() { x.Set(context.Background(), false) })
			return x.Pulse(t.Context(), d)
		}, []string{"out-low 0s", "out-high 1s", "out-low 1.05s"}, nil},
		{"on wins", func(t *testing.T, b *bench, x *gpio.Output) error {
			time.AfterFunc(d/2, func() { x.Set(context.Background(), true) })
			return x.Pulse(t.Context(), d)
		}, []string{"out-low 0s", "out-high 1s"}, nil},
		{"a longer one wins", func(t *testing.T, b *bench, x *gpio.Output) error {
			second := make(chan error)
			time.AfterFunc(d/2, func() { second <- x.Pulse(context.Background(), d) })
			return errors.Join(x.Pulse(t.Context(), d), <-second)
		}, []string{"out-low 0s", "out-high 1s", "out-low 1.15s"}, nil},
		{"the session ends", func(t *testing.T, b *bench, x *gpio.Output) error {
			time.AfterFunc(d/2, func() { x.Close() })
			return x.Pulse(t.Context(), d)
		}, []string{"out-low 0s", "out-high 1s", "out-low 1.05s"}, os.ErrClosed},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench()
			start := time.Now()
			x := b.output(hw.LineOptions{}, false) // keep
			defer x.Close()
			if err := x.Open(t.Context()); err != nil {
				t.Fatalf("Open() = %v; want nil", err)
			}
			time.Sleep(time.Second) // of the bubble
			err := test.do(t, b, x)
			var got []string
			for _, c := range b.chip.History(1) {
				got = append(got, fmt.Sprint(c, " ", c.At.Sub(start)))
			}
			if !slices.Equal(got, test.want) || !errors.Is(err, test.err) {
				t.Errorf("%s: Pulse() = %v, and the wire was %q; want %v, %q", test.name, err, got, test.err, test.want)
			}
		})
	}
}

func TestWait(t *testing.T) {
	for _, test := range []struct {
		name   string
		before string // edges before the wait: "rf"
		during string // and one second apart in it
		rising bool
		want   time.Duration // 0: at once
		err    error
	}{
		{"an edge to come", "", "r", true, time.Second, nil},
		{"the second edge to come", "", "rf", false, 2 * time.Second, nil},
		{"an edge that has been", "r", "", true, 0, nil},
		{"one of several that have been", "rfr", "", false, 0, nil},
		{"none", "f", "", true, 9 * time.Second, context.DeadlineExceeded},
		{"of the other kind", "", "r", false, 9 * time.Second, context.DeadlineExceeded},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench()
			x := b.input(hw.LineOptions{})
			defer x.Close()
			if strings.HasPrefix(test.before, "f") {
				b.chip.Drive(1, true)
			}
			if err := x.Open(t.Context()); err != nil {
				t.Fatalf("Open() = %v; want nil", err)
			}
			drive := func(e rune) {
				b.chip.Drive(1, e == 'r')
			}
			for _, e := range test.before {
				drive(e)
			}
			synctest.Wait()
			go func() {
				for _, e := range test.during {
					time.Sleep(time.Second)
					drive(e)
				}
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
			defer cancel()
			start := time.Now()
			err := x.Wait(ctx, test.rising)
			if got := time.Since(start); got != test.want || !errors.Is(err, test.err) {
				t.Errorf("%s: Wait() = %v after %v; want %v after %v", test.name, err, got, test.err, test.want)
			}
			// What was seen or waited through does not count again.
			ctx, cancel = context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := x.Wait(ctx, test.rising); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: second Wait() = %v; want a time-out", test.name, err)
			}
		})
	}
}

// gap is a line of which the kernel tells of one edge only, the second.
type gap struct {
	told  bool
	over  chan struct{}
	close sync.Once // closes over
}

func (g *gap) RequestLine(context.Context, hw.LineRef, hw.LineOptions) (hw.Line, error) {
	return g, nil
}

func (g *gap) Info() hw.LineInfo    { return hw.LineInfo{Chip: "gpiochip0"} }
func (g *gap) Value() (bool, error) { return false, nil }
func (g *gap) SetValue(bool) error  { return fs.ErrPermission }
func (g *gap) Close() error         { g.close.Do(func() { close(g.over) }); return nil }

func (g *gap) ReadEdges(buf []hw.Edge) (int, error) {
	if !g.told {
		g.told = true
		buf[0] = hw.Edge{Seqno: 2}
		return 1, nil
	}
	<-g.over
	return 0, fs.ErrClosed
}

// Who waits for an edge that the kernel has dropped learns of it from the next one, which goes the other way.
func TestWaitDropped(t *testing.T) {
	in := gpio.NewInput(hw.Host{GPIO: &gap{over: make(chan struct{})}}, hw.LineRef{}, hw.LineOptions{}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := in.Wait(ctx, true); err != nil {
		t.Errorf("Wait(rising) with a falling edge after one that was dropped = %v; want nil", err)
	}
	if err := in.Close(); err != nil {
		t.Errorf("Close() = %v; want nil", err)
	}
}

// Waits that overlap see the same edge, and the end.
func TestWaitTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		x := b.input(hw.LineOptions{})
		ended := make(chan error, 3)
		wait := func() {
			for range cap(ended) {
				go func() { ended <- x.Wait(t.Context(), true) }()
			}
			synctest.Wait()
		}
		wait()
		b.chip.Drive(1, true)
		for range cap(ended) {
			if err := <-ended; err != nil {
				t.Errorf("Wait() = %v; want nil", err)
			}
		}
		wait()
		x.Close()
		for range cap(ended) {
			if err := <-ended; !errors.Is(err, os.ErrClosed) {
				t.Errorf("Wait() of a closed input = %v; want os.ErrClosed", err)
			}
		}
		if _, err := x.Get(t.Context()); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Get() of a closed input = %v; want os.ErrClosed", err)
		}
	})
}

// All edges come, with their numbers; a reader who sleeps is told what it has missed.
func TestEdges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		x := b.input(hw.LineOptions{})
		defer x.Close()
		b.chip.Drive(1, true)
		const total, sleepFrom = 10000, 100
		go func() {
			time.Sleep(time.Second)
			for i := range total {
				b.chip.Drive(1, i%2 == 1)
				if i%50 == 0 { // the kernel's queue is no concern here
					synctest.Wait()
				}
			}
		}()
		n, told, lost := 0, 0, 0
		for e, err := range x.Edges(t.Context()) {
			if err != nil {
				t.Fatalf("Edges() = %v after %d; want edges", err, n)
			}
			if n == 0 {
				if e != (gpio.Event{Edge: hw.Edge{Rising: true}}) {
					t.Errorf("first event = %+v; want the value, true, and no number", e)
				}
				n++
				continue
			}
			told++
			lost += e.Lost
			if e.Rising != (e.Seqno%2 == 0) || int(e.Seqno) != told+lost {
				t.Fatalf("event = %+v after %d told and %d lost; want one that fits", e, told-1, lost)
			}
			if told == sleepFrom {
				time.Sleep(time.Minute)
			}
			if e.Seqno == total {
				break
			}
		}
		if told+lost != total || lost != total-sleepFrom-4096 {
			t.Errorf("told of %d edges and of %d lost ones; want %d together, and a queue of 4096 kept", told, lost, total)
		}
	})
}

func TestNames(t *testing.T) {
	n := hw.Names{
		Board: "rpi4",
		Chips: map[string]string{"gpiochip0": "pinctrl-bcm2711"},
		Lines: map[string]hw.LineRef{"GPIO17": {Chip: "pinctrl-bcm2711", Offset: 17}},
		Pins:  map[int]string{1: "3V3", 11: "GPIO17"},
	}
	for _, name := range []string{"GPIO17", "gpio17"} {
		if at, ok := n.Line(name); !ok || at != (hw.LineRef{Chip: "pinctrl-bcm2711", Offset: 17}) {
			t.Errorf("Line(%q) = %v, %t; want line 17", name, at, ok)
		}
	}
	if at, ok := n.Line("GPIO18"); ok {
		t.Errorf("Line(GPIO18) = %v, true; want false", at)
	}
	if at, err := n.Pin(11); err != nil || at.Offset != 17 {
		t.Errorf("Pin(11) = %v, %v; want line 17", at, err)
	}
	for pin, want := range map[int]string{
		1:  "pin 1 of the rpi4 is 3V3, not a line",
		41: "the header of the rpi4 has no pin 41, but 1 to 11",
	} {
		if _, err := n.Pin(pin); fmt.Sprint(err) != want {
			t.Errorf("Pin(%d) = %v; want %s", pin, err, want)
		}
	}
	if _, err := (hw.Names{}).Pin(1); err == nil {
		t.Error("Pin() of an unknown board = nil; want an error")
	}
	for at, want := range map[hw.LineRef]string{
		{Offset: 17}:                          "line 17 of pinctrl-bcm2711",
		{Chip: "/dev/gpiochip0", Offset: 17}:  "line 17 of pinctrl-bcm2711",
		{Chip: "/dev//gpiochip0", Offset: 17}: "line 17 of pinctrl-bcm2711",
		{Chip: "pinctrl-bcm2711", Offset: 17}: "line 17 of pinctrl-bcm2711",
		{Chip: "gpiochip1", Offset: 17}:       "line 17 of gpiochip1",
		{Chip: "/dev/relays/a", Offset: 1}:    "line 1 of relays/a",
		{Chip: "gpiochip0", Name: "GPIO17"}:   "line 17 of pinctrl-bcm2711",
		{Chip: "gpiochip1", Name: "GPIO17"}:   `line "GPIO17" of gpiochip1`,
		{Name: "relay"}:                       `line "relay"`,
	} {
		if got := n.Canonical(at); got != want {
			t.Errorf("Canonical(%v) = %s; want %s", at, got, want)
		}
	}
}
