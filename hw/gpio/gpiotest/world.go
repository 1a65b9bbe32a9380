package gpiotest

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/gpio"
)

// World is a chip whose wires a test has in its hands: the model, or the kernel's gpio-sim. The chip has eight lines; line
// 3 is called "relay". Nobody else uses it.
type World interface {
	Bus() gpio.Bus
	Device() string // "gpiochip0"; after Remake it may be another
	Label() string
	Drive(t testing.TB, offset int, high bool)
	Level(t testing.TB, offset int) bool

	// Output reports whether the host drives a line, or would if its drive did not let go.
	Output(t testing.TB, offset int) bool

	// Record notes how the host drives a line from now on, whom nothing else of the chip disturbs. What it returns ends
	// that, and tells: "out-low", "out-high", and "in" for a line that it lets go, each when it was another before.
	Record(t testing.TB, offset int) (stop func() []string)

	Remove(t testing.TB)
	Remake(t testing.TB)
}

// Model is a World of the model.
func Model() World {
	m := &model{board: &Board{}}
	m.Remake(nil)
	return m
}

type model struct {
	board *Board
	chip  *Chip
}

func (m *model) Bus() gpio.Bus                             { return m.board.Bus() }
func (m *model) Device() string                            { return "gpiochip0" }
func (m *model) Label() string                             { return "model" }
func (m *model) Drive(_ testing.TB, offset int, high bool) { m.chip.Drive(offset, high) }
func (m *model) Level(_ testing.TB, offset int) bool       { return m.chip.Level(offset) }
func (m *model) Output(_ testing.TB, offset int) bool      { return m.chip.Output(offset) }
func (m *model) Record(_ testing.TB, offset int) func() []string {
	from := len(m.chip.History(offset))
	return func() (told []string) {
		for _, c := range m.chip.History(offset)[from:] {
			what := c.String()
			if !c.Output {
				what = "in"
			}
			if len(told) == 0 || told[len(told)-1] != what {
				told = append(told, what)
			}
		}
		return told
	}
}
func (m *model) Remove(testing.TB) { m.board.Remove("gpiochip0") }
func (m *model) Remake(testing.TB) {
	m.chip = m.board.Add("gpiochip0", "model", 8, "", "", "", "relay")
}

// patience is how long the kernel may take to do what the model does at once.
const patience = 10 * time.Second

// Test checks that a backend and its lines are what hw and hw/gpio promise. Open makes a fresh world.
func Test(t *testing.T, open func(t *testing.T) World) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, World)
	}{
		{"output", testOutput},
		{"first value", testFirst},
		{"drive", testDrive},
		{"input", testInput},
		{"bias", testBias},
		{"find", testFind},
		{"busy", testBusy},
		{"edges", testEdges},
		{"debounce", testDebounce},
		{"burst", testBurst},
		{"close ends a read", testClose},
		{"remake", testRemake},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

func take(t testing.TB, w World, at hw.LineRef, o hw.LineOptions) hw.Line {
	t.Helper()
	l, err := w.Bus().RequestLine(t.Context(), at, o)
	if err != nil {
		t.Fatalf("RequestLine(%v, %+v) = %v; want a line", at, o, err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func value(t testing.TB, l hw.Line, want bool) {
	t.Helper()
	if got, err := l.Value(); err != nil || got != want {
		t.Errorf("Value() = %t, %v; want %t, nil", got, err, want)
	}
}

func level(t testing.TB, w World, offset int, want bool) {
	t.Helper()
	if got := w.Level(t, offset); got != want {
		t.Errorf("line %d is high = %t; want %t", offset, got, want)
	}
}

// Outputs drive what they are told, from the first moment, and reading them changes nothing.
func testOutput(t *testing.T, w World) {
	for _, activeLow := range []bool{false, true} {
		for _, first := range []bool{false, true} {
			l := take(t, w, hw.LineRef{Chip: w.Device(), Offset: 1}, hw.LineOptions{Output: true, Active: first, ActiveLow: activeLow})
			for _, set := range []bool{first, !first, first, !first} {
				if err := l.SetValue(set); err != nil {
					t.Fatalf("SetValue(%t) = %v; want nil", set, err)
				}
				level(t, w, 1, set != activeLow)
				value(t, l, set)
				level(t, w, 1, set != activeLow)
			}
			if err := l.Close(); err != nil {
				t.Errorf("Close() = %v; want nil", err)
			}
			if err := l.Close(); err != nil {
				t.Errorf("second Close() = %v; want nil", err)
			}
			if err := l.SetValue(true); !errors.Is(err, os.ErrClosed) {
				t.Errorf("SetValue() after Close() = %v; want os.ErrClosed", err)
			}
		}
	}
	l := take(t, w, hw.LineRef{Chip: w.Device(), Offset: 2}, hw.LineOptions{Output: true, Active: true})
	level(t, w, 2, true)
	info := l.Info()
	if want := (hw.LineInfo{Chip: w.Device(), Label: w.Label(), Offset: 2}); info != want {
		t.Errorf("Info() = %+v; want %+v", info, want)
	}
}

// An output begins as what it is asked to be and is nothing else before; to read it is no reason to become an input, and to
// let it go none to change.
func testFirst(t *testing.T, w World) {
	for _, o := range []hw.LineOptions{
		{},
		{Active: true},
		{ActiveLow: true},
		{ActiveLow: true, Active: true},
		{Drive: hw.OpenDrain},
		{Drive: hw.OpenSource, Active: true},
		{Bias: hw.PullUp},
		{Bias: hw.PullDown, Active: true},
	} {
		o.Output = true
		want := "out-low"
		if o.Active != o.ActiveLow {
			want = "out-high"
		}
		take(t, w, hw.LineRef{Chip: w.Device(), Offset: 1}, hw.LineOptions{}).Close() // an input at first
		stop := w.Record(t, 1)
		l := take(t, w, hw.LineRef{Chip: w.Device(), Offset: 1}, o)
		for range 3 {
			value(t, l, o.Active)
		}
		if !w.Output(t, 1) {
			t.Errorf("%+v: the line is an input after it was read; want an output", o)
		}
		l.Close()
		if got := stop(); !slices.Equal(got, []string{want}) {
			t.Errorf("%+v: the host did %q to the line; want %q and nothing else", o, got, want)
		}
	}
}

// What an output does not drive is the outside's; what it reads is what is on the wire.
func testDrive(t *testing.T, w World) {
	for _, test := range []struct {
		drive     hw.Drive
		low, high bool // what it drives
	}{{hw.PushPull, true, true}, {hw.OpenDrain, true, false}, {hw.OpenSource, false, true}} {
		for _, activeLow := range []bool{false, true} {
			l := take(t, w, hw.LineRef{Chip: w.Device(), Offset: 2}, hw.LineOptions{Output: true, Drive: test.drive, ActiveLow: activeLow})
			for _, high := range []bool{true, false, true} {
				if err := l.SetValue(high != activeLow); err != nil {
					t.Fatalf("SetValue(%t) = %v; want nil", high != activeLow, err)
				}
				for _, outside := range []bool{true, false, true} {
					w.Drive(t, 2, outside)
					want := outside
					if high && test.high || !high && test.low {
						want = high
					}
					if got := w.Level(t, 2); got != want {
						t.Errorf("drive %d, active low %t: set high = %t and pulled high = %t, it is high = %t; want %t",
							test.drive, activeLow, high, outside, got, want)
					}
					value(t, l, want != activeLow)
				}
			}
			l.Close()
		}
	}
}

// A pull inside the chip makes the level of a line that nobody drives.
func testBias(t *testing.T, w World) {
	for _, test := range []struct {
		bias hw.Bias
		high bool
	}{{hw.PullUp, true}, {hw.PullDown, false}, {hw.PullUp, true}, {hw.PullDown, false}} {
		for _, activeLow := range []bool{false, true} {
			l := take(t, w, hw.LineRef{Chip: w.Device(), Offset: 7}, hw.LineOptions{Bias: test.bias, ActiveLow: activeLow})
			level(t, w, 7, test.high)
			value(t, l, test.high != activeLow)
			l.Close()
		}
	}
	for _, bias := range []hw.Bias{hw.BiasAsIs, hw.BiasOff} {
		take(t, w, hw.LineRef{Chip: w.Device(), Offset: 7}, hw.LineOptions{Bias: bias}).Close()
	}
}

func testInput(t *testing.T, w World) {
	for _, activeLow := range []bool{false, true} {
		l := take(t, w, hw.LineRef{Chip: w.Device(), Offset: 4}, hw.LineOptions{ActiveLow: activeLow})
		for _, high := range []bool{true, false, true} {
			w.Drive(t, 4, high)
			value(t, l, high != activeLow)
		}
		if err := l.SetValue(true); err == nil {
			t.Error("SetValue() of an input = nil; want an error")
		}
		l.Close()
	}
}

func testFind(t *testing.T, w World) {
	for _, at := range []hw.LineRef{
		{Chip: w.Device(), Offset: 3},
		{Chip: "/dev/" + w.Device(), Offset: 3},
		{Chip: w.Label(), Offset: 3},
		{Chip: w.Label(), Name: "relay"},
		{Chip: w.Device(), Name: "relay"},
	} {
		l := take(t, w, at, hw.LineOptions{})
		if got := l.Info(); got.Offset != 3 || got.Name != "relay" || got.Chip != w.Device() {
			t.Errorf("Info(%v) = %+v; want offset 3, relay, %s", at, got, w.Device())
		}
		l.Close()
	}
	for _, at := range []hw.LineRef{
		{Chip: "/dev/gpiochip999"},
		{Chip: "no-such-label"},
		{Chip: w.Device(), Offset: 8},
		{Chip: w.Device(), Offset: -1},
		{Chip: w.Device(), Name: "rely"},
	} {
		l, err := w.Bus().RequestLine(t.Context(), at, hw.LineOptions{})
		if !errors.Is(err, hw.ErrAbsent) {
			t.Errorf("RequestLine(%v) = %v, %v; want an error of kind %q", at, l, err, hw.ErrAbsent)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Bus().RequestLine(ctx, hw.LineRef{Chip: w.Device()}, hw.LineOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("RequestLine() in a context that is done = %v; want context.Canceled", err)
	}
}

func testBusy(t *testing.T, w World) {
	at := hw.LineRef{Chip: w.Device(), Offset: 5}
	l := take(t, w, at, hw.LineOptions{Output: true, Active: true, Consumer: "somebody"})
	_, err := w.Bus().RequestLine(t.Context(), at, hw.LineOptions{Output: true})
	if !errors.Is(err, hw.ErrBusy) {
		t.Errorf("second RequestLine() = %v; want an error of kind %q", err, hw.ErrBusy)
	}
	level(t, w, 5, true) // the loser has changed nothing
	l.Close()
	take(t, w, at, hw.LineOptions{})
}

// reader reads n edges.
func reader(t testing.TB, l hw.Line, n int) []hw.Edge {
	t.Helper()
	var got []hw.Edge
	done := time.AfterFunc(patience, func() { l.Close() })
	defer done.Stop()
	buf := make([]hw.Edge, 16)
	for len(got) < n {
		k, err := l.ReadEdges(buf)
		if err != nil {
			t.Fatalf("ReadEdges() = %v after %d edges; want %d edges", err, len(got), n)
		}
		got = append(got, buf[:k]...)
	}
	return got
}

func testEdges(t *testing.T, w World) {
	for _, activeLow := range []bool{false, true} {
		w.Drive(t, 6, activeLow)
		l := take(t, w, hw.LineRef{Chip: w.Device(), Offset: 6}, hw.LineOptions{Edges: true, ActiveLow: activeLow})
		var last time.Duration
		for i := range 6 {
			rising := i%2 == 0
			w.Drive(t, 6, rising != activeLow)
			got := reader(t, l, 1)[0]
			if got.Rising != rising || got.Seqno != uint32(i+1) || got.Time < last {
				t.Errorf("edge %d = %+v; want rising %t, seqno %d, no earlier than %v", i, got, rising, i+1, last)
			}
			last = got.Time
		}
		l.Close()
	}
}

// A line with a filter tells of what lasts.
func testDebounce(t *testing.T, w World) {
	w.Drive(t, 6, false)
	l := take(t, w, hw.LineRef{Chip: w.Device(), Offset: 6}, hw.LineOptions{Edges: true, Debounce: 20 * time.Millisecond})
	for range 5 {
		w.Drive(t, 6, true)
		w.Drive(t, 6, false)
	}
	w.Drive(t, 6, true)
	got := reader(t, l, 1)
	if len(got) != 1 || !got[0].Rising || got[0].Seqno != 1 {
		t.Errorf("edges of a bouncing line = %+v; want one that rises", got)
	}
	value(t, l, true)
}

// What is not read in time waits, or is missing by its number.
func testBurst(t *testing.T, w World) {
	const edges = 20_000 // of which a simulated interrupt tells every tenth apart
	w.Drive(t, 6, false)
	l := take(t, w, hw.LineRef{Chip: w.Device(), Offset: 6}, hw.LineOptions{Edges: true})
	for i := range edges {
		w.Drive(t, 6, i%2 == 0)
	}
	var got []hw.Edge
	buf := make([]hw.Edge, 64)
	// Nobody knows how many come: simulated interrupts may coincide.
	idle := time.AfterFunc(patience, func() { l.Close() })
	defer idle.Stop()
	for {
		n, err := l.ReadEdges(buf)
		if errors.Is(err, os.ErrClosed) && len(got) > 0 {
			break
		}
		if err != nil {
			t.Fatalf("ReadEdges() = %v after %d edges", err, len(got))
		}
		got = append(got, buf[:n]...)
		idle.Reset(patience / 20)
	}
	for i := 1; i < len(got); i++ {
		if got[i].Seqno != got[i-1].Seqno+1 {
			t.Errorf("edge %d has the number %d; want %d: only the oldest may be dropped", i, got[i].Seqno, got[i-1].Seqno+1)
		}
	}
	// The kernel may still be at it while the first are read.
	if first, last := got[0].Seqno, got[len(got)-1].Seqno; first == 1 || int(last) > edges || len(got) > 1024+len(buf) {
		t.Errorf("got %d edges, from number %d to %d, of %d; want the last 1024 or fewer", len(got), first, last, edges)
	}
}

func testClose(t *testing.T, w World) {
	l := take(t, w, hw.LineRef{Chip: w.Device(), Offset: 6}, hw.LineOptions{Edges: true})
	ended := make(chan error, 1)
	go func() {
		_, err := l.ReadEdges(make([]hw.Edge, 1))
		ended <- err
	}()
	l.Close()
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("ReadEdges() of a closed line = %v; want os.ErrClosed", err)
		}
	case <-time.After(patience):
		t.Fatal("ReadEdges() waits although the line was closed")
	}
}

// Who held a line holds it again when the chip is back.
func testRemake(t *testing.T, w World) {
	host := hw.Host{GPIO: w.Bus()}
	log := slog.New(slog.DiscardHandler)
	out := gpio.NewOutput(host, hw.LineRef{Chip: w.Label(), Offset: 1}, hw.LineOptions{}, false, log)
	defer out.Close()
	in := gpio.NewInput(host, hw.LineRef{Chip: w.Label(), Offset: 2}, hw.LineOptions{}, log)
	defer in.Close()
	rounds := 3
	for range rounds {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := out.Set(ctx, true); err != nil {
			t.Fatalf("Set(true) = %v; want nil", err)
		}
		level(t, w, 1, true)
		if _, err := in.Get(ctx); err != nil {
			t.Fatalf("Get() = %v; want nil", err)
		}
		waiting := make(chan error, 1)
		go func() { waiting <- in.Wait(ctx, true) }()
		w.Remove(t)
		if err := <-waiting; !errors.Is(err, hw.ErrAbsent) {
			t.Errorf("Wait() while the chip goes = %v; want an error of kind %q", err, hw.ErrAbsent)
		}
		if _, err := out.Get(ctx); !errors.Is(err, hw.ErrAbsent) {
			t.Errorf("Get() without a chip = %v; want an error of kind %q", err, hw.ErrAbsent)
		}
		if err := out.Set(ctx, true); !errors.Is(err, hw.ErrAbsent) {
			t.Errorf("Set() without a chip = %v; want an error of kind %q", err, hw.ErrAbsent)
		}
		if err := in.Wait(ctx, true); !errors.Is(err, hw.ErrAbsent) {
			t.Errorf("Wait() without a chip = %v; want an error of kind %q", err, hw.ErrAbsent)
		}
		w.Remake(t)
		if got, err := out.Get(ctx); err != nil || got {
			t.Errorf("Get() of a new chip = %t, %v; want the first value, false", got, err)
		}
		w.Drive(t, 2, true)
		if got, err := in.Get(ctx); err != nil || !got {
			t.Errorf("Get() of a new chip's input = %t, %v; want true, nil", got, err)
		}
	}
	if _, err := w.Bus().Chips.Open("/dev/gpiochip999"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open() of no chip = %v; want fs.ErrNotExist", err)
	}
}
