package gpio_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jumplead/jumplead/drivers/cli"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/gpio"
	"github.com/spf13/cobra"
)

// line is a model of both kinds: it notes what it was asked.
type line struct {
	mu     sync.Mutex
	active bool
	asked  []string
	fail   error
}

func (l *line) note(format string, args ...any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = append(l.asked, fmt.Sprintf(format, args...))
	return l.fail
}

func (l *line) set(active bool, what string) error {
	err := l.note("%s", what)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active = active
	return err
}

func (l *line) On(context.Context) error                       { return l.set(true, "on") }
func (l *line) Off(context.Context) error                      { return l.set(false, "off") }
func (l *line) ReadPin(context.Context) (bool, error)          { return l.active, l.note("read") }
func (l *line) Pulse(_ context.Context, d time.Duration) error { return l.note("pulse %v", d) }
func (l *line) WaitForActive(_ context.Context, d time.Duration) error {
	return l.note("active %v", d)
}
func (l *line) WaitForInactive(_ context.Context, d time.Duration) error {
	return l.note("inactive %v", d)
}
func (l *line) WaitForEdge(_ context.Context, edge string, d time.Duration) error {
	return l.note("%s %v", edge, d)
}

func (l *line) Edges(context.Context) iter.Seq2[gpio.Edge, error] {
	return func(yield func(gpio.Edge, error) bool) {
		for i := range uint32(5) {
			if !yield(gpio.Edge{Active: i%2 == 1, Timestamp: float64(i) / 2, Seqno: i}, nil) {
				return
			}
		}
		yield(gpio.Edge{}, l.fail)
	}
}

func TestRows(t *testing.T) {
	drivertest.Rows(t, gpio.OutputDriver(&line{}))
	drivertest.Rows(t, gpio.InputDriver(&line{}))
}

// The clients are lines like those behind them.
func TestClients(t *testing.T) {
	l := &line{}
	out, in := gpio.NewOutput(driver.Local(gpio.OutputDriver(l))), gpio.NewInput(driver.Local(gpio.InputDriver(l)))
	ctx := t.Context()
	for _, err := range []error{
		out.On(ctx), out.Off(ctx), out.Pulse(ctx, 1500*time.Microsecond),
		in.WaitForActive(ctx, 0), in.WaitForInactive(ctx, 2500*time.Millisecond), in.WaitForEdge(ctx, gpio.Falling, -time.Second),
		in.WaitForActive(ctx, 200*365*24*time.Hour),
	} {
		if err != nil {
			t.Errorf("a call = %v; want nil", err)
		}
	}
	want := "on, off, pulse 1.5ms, active 0s, inactive 2.5s, falling -1s, active 277777h46m40s"
	if got := strings.Join(l.asked, ", "); got != want {
		t.Errorf("the line was asked %s; want %s", got, want)
	}
	if err := in.WaitForEdge(ctx, "both", 0); driver.Classify(err) != driver.Invalid || !strings.Contains(err.Error(), "must be one of: rising, falling") {
		t.Errorf("WaitForEdge(both) = %v; want an error about its argument", err)
	}
	for _, active := range []bool{true, false} {
		l.active = active
		for _, p := range []gpio.Pin{out, in} {
			if got, err := p.ReadPin(ctx); err != nil || got != active {
				t.Errorf("ReadPin() = %t, %v; want %t, nil", got, err, active)
			}
		}
	}
	l.fail = errors.ErrUnsupported
	if err := out.On(ctx); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("On() = %v; want %v", err, errors.ErrUnsupported)
	}
}

// The commands have the Python client's words.
func TestCommands(t *testing.T) {
	for _, test := range []struct {
		args  string
		asked string
		out   string
		fails bool
	}{
		{"out on", "on", "", false},
		{"out off", "off", "", false},
		{"out read", "read", "inactive\n", false},
		{"out cycle -w 3", "off, on", "Power cycling with 3 seconds wait time...\n", false},
		{"out pulse 2.5", "pulse 2.5ms", "", false},
		{"out pulse long", "", "", true},
		{"out pulse 0", "", "", true},
		{"in read", "read", "inactive\n", false},
		{"in wait-for-active", "active 1h0m0s", "", false},
		{"in wait-for-inactive -t 0.5", "inactive 500ms", "", false},
		{"in wait-for-edge rising --timeout 0", "rising 0s", "", false},
		{"in wait-for-edge both", "", "", true},
		{"in wait-for-edge", "", "", true},
		{"in wait-for-active -t soon", "", "", true},
		{"in edges -n 2", "", "inactive\n0.500000000  rising  number=1 lost=0\n1.000000000  falling  number=2 lost=0\n", false},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := &line{}
			var out bytes.Buffer
			s := &cli.Session{Getenv: func(string) string { return "" }}
			root := &cobra.Command{Use: "j", SilenceUsage: true, SilenceErrors: true}
			root.AddCommand(
				gpio.OutputCommand(&cli.Node{Name: "out", Caller: driver.Local(gpio.OutputDriver(l)), Session: s}),
				gpio.InputCommand(&cli.Node{Name: "in", Caller: driver.Local(gpio.InputDriver(l)), Session: s}),
			)
			root.SetOut(&out)
			root.SetErr(&bytes.Buffer{})
			err := cli.Execute(t.Context(), root, s, strings.Fields(test.args))
			if got := strings.Join(l.asked, ", "); got != test.asked || out.String() != test.out || (err != nil) != test.fails {
				t.Errorf("%s = %v, asked %q, printed %q; want %q, %q, an error: %t", test.args, err, got, out.String(), test.asked, test.out, test.fails)
			}
		})
	}
}
