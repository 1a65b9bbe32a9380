package power_test

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/power"
	"github.com/jumplead/jumplead/drivers/power/powertest"
)

// supply is a model: it can fail, and it knows when it was switched.
type supply struct {
	mu       sync.Mutex
	on       bool
	steps    []string
	start    time.Time
	fail     map[string]error
	readings []power.Reading
	end      error
}

func (s *supply) step(name string, on bool) error {
	if err := s.fail[name]; err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.on = on
	s.steps = append(s.steps, name+" "+time.Since(s.start).String())
	return nil
}

func (s *supply) On(context.Context) error  { return s.step("on", true) }
func (s *supply) Off(context.Context) error { return s.step("off", false) }

func (s *supply) Read(context.Context) iter.Seq2[power.Reading, error] {
	return func(yield func(power.Reading, error) bool) {
		for _, r := range s.readings {
			if !yield(r, nil) {
				return
			}
		}
		if s.end != nil {
			yield(power.Reading{}, s.end)
		}
	}
}

func TestRows(t *testing.T) {
	d := power.Driver(&supply{})
	drivertest.Rows(t, d)
	var names []string
	for _, e := range d.Exports {
		names = append(names, e.Kind().String()+" "+e.Usage())
	}
	if got, want := strings.Join(names, ", "), "call on(), call off(), feed read()"; got != want {
		t.Errorf("Exports() = %s; want %s", got, want)
	}
}

// The client is a supply like the one behind it, errors included.
func TestClient(t *testing.T) {
	readings := []power.Reading{{Voltage: 5.1, Current: 0.25}, {Voltage: 4.9}}
	stuck := errors.New("relay is stuck")
	for _, test := range []struct {
		name   string
		supply *supply
		end    error
	}{
		{"measures", &supply{readings: readings}, nil},
		{"breaks off", &supply{readings: readings[:1], end: stuck}, stuck},
		{"cannot measure", &supply{end: errors.ErrUnsupported}, errors.ErrUnsupported},
	} {
		c := power.NewClient(driver.Local(power.Driver(test.supply)))
		var got []power.Reading
		var end error
		for r, err := range c.Read(t.Context()) {
			if end = err; err == nil {
				got = append(got, r)
			}
		}
		if !slices.Equal(got, test.supply.readings) || !errors.Is(end, test.end) {
			t.Errorf("%s: Read() = %v, %v; want %v, %v", test.name, got, end, test.supply.readings, test.end)
		}
	}
	s := &supply{fail: map[string]error{"off": stuck}}
	c := power.NewClient(driver.Local(power.Driver(s)))
	if err := c.On(t.Context()); err != nil || !s.on {
		t.Errorf("On() = %v, and it is on: %t; want nil, true", err, s.on)
	}
	if err := c.Off(t.Context()); err != stuck || !s.on {
		t.Errorf("Off() = %v, and it is on: %t; want %v, true", err, s.on, stuck)
	}
}

func TestReadingOnTheWire(t *testing.T) {
	got, err := driver.Encode(power.Reading{Voltage: 5, Current: 0.5})
	if m, ok := got.(map[string]any); err != nil || !ok || len(m) != 2 || m["voltage"] != 5.0 || m["current"] != 0.5 {
		t.Errorf("Encode(Reading) = %v, %v; want voltage 5, current 0.5", got, err)
	}
}

func TestCycle(t *testing.T) {
	stuck := errors.New("relay is stuck")
	tests := []struct {
		name  string
		fail  map[string]error
		wait  time.Duration
		leave time.Duration // 0: never
		want  string
		err   error
	}{
		{"whole", nil, power.CycleWait, 0, "off 0s, on 2s", nil},
		{"at once", nil, 0, 0, "off 0s, on 0s", nil},
		{"cannot switch off", map[string]error{"off": stuck}, time.Second, 0, "", stuck},
		{"cannot switch on", map[string]error{"on": stuck}, time.Second, 0, "off 0s", stuck},
		{"left in the pause", nil, time.Minute, time.Second, "off 0s", context.DeadlineExceeded},
		{"left before", nil, 0, -1, "off 0s", context.DeadlineExceeded},
	}
	for _, test := range tests {
		synctest.Test(t, func(t *testing.T) {
			ctx := t.Context()
			if test.leave != 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, test.leave)
				defer cancel()
			}
			s := &supply{on: true, fail: test.fail, start: time.Now()}
			err := power.Cycle(ctx, s, test.wait)
			if got := strings.Join(s.steps, ", "); got != test.want || !errors.Is(err, test.err) {
				t.Errorf("%s: Cycle() = %v, and did %q; want %v, %q", test.name, err, got, test.err, test.want)
			}
		})
	}
}

func TestConformance(t *testing.T) {
	open := func(s *supply, measures bool) func(t *testing.T) powertest.Supply {
		return func(t *testing.T) powertest.Supply {
			return powertest.Supply{
				Interface: power.NewClient(driver.Local(power.Driver(s))),
				State:     func(*testing.T) bool { return s.on },
				Measures:  measures,
			}
		}
	}
	powertest.Test(t, open(&supply{readings: []power.Reading{{Voltage: 5}}}, true))
	powertest.Test(t, open(&supply{end: errors.ErrUnsupported}, false))
}
