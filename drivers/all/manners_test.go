package all_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/gpio"
	"github.com/jumplead/jumplead/drivers/gpio/gpiod"
	"github.com/jumplead/jumplead/drivers/power"
	"github.com/jumplead/jumplead/drivers/power/ina"
	"github.com/jumplead/jumplead/drivers/serial"
	"github.com/jumplead/jumplead/drivers/serial/pyserial"
	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/hwtest"
	"github.com/jumplead/jumplead/hw/i2c/i2ctest"
	"github.com/jumplead/jumplead/hw/serial/serialtest"
)

// mannered is a driver whose hardware a test can bring into disorder.
type mannered struct {
	spec   driver.Spec
	config string
	host   hw.Host
	use    func(context.Context, driver.Caller) error
	// disorder makes the hardware absent, busy, forbidden or wrong, and returns what
	// puts it right.
	disorder map[driver.Condition]func(t *testing.T) (mend func())
	words    map[driver.Condition]string // that the error has to have
	late     driver.Condition            // what is told at the first use only, not at the start
}

// classes are those that callers get.
var classes = map[driver.Condition]driver.Class{
	driver.Absent: driver.Unavailable, driver.Busy: driver.Device, driver.Forbidden: driver.Device, driver.Wrong: driver.Unavailable,
}

// test checks that a probe, the start of a session and a call say the same of
// hardware that is not as configured, that the session begins all the same, and
// that the driver works as soon as all is well.
func (m mannered) test(t *testing.T) {
	bench := drivertest.Bench{Host: m.host}
	found := func(t *testing.T) driver.Finding {
		t.Helper()
		tree, problems := bench.Plan(t, m.config, m.spec)
		if err := problems.Err(); err != nil {
			t.Fatalf("Plan(%s) = %v; want no error", m.config, err)
		}
		defer tree.Close()
		all := tree.Probe(t.Context(), time.Minute)
		if len(all) != 1 {
			t.Fatalf("Probe() = %v; want one finding", all)
		}
		return all[0]
	}
	if f := found(t); f.Condition != driver.Healthy || f.Text == "" {
		t.Fatalf("Probe() of what is as it should be = %s, %s; want ok", f.Condition, f.Text)
	}
	for condition, class := range classes {
		t.Run(string(condition), func(t *testing.T) {
			mend := m.disorder[condition](t)
			mended := false
			defer func() {
				if !mended {
					mend()
				}
			}()
			f := found(t)
			if f.Condition != condition || !strings.Contains(f.Text, m.words[condition]) {
				t.Errorf("Probe() = %s, %s; want %s with %q", f.Condition, f.Text, condition, m.words[condition])
			}
			t.Log(f.Text)
			log := &drivertest.Log{}
			bench := bench
			bench.Log = log
			tree := bench.Tree(t, m.config, m.spec) // fails if the session does not begin
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for range 2 {
				err := m.use(ctx, tree.Root.Caller())
				if driver.Classify(err) != class || driver.ConditionOf(err) != condition || !strings.Contains(fmt.Sprint(err), f.Text) {
					t.Errorf("a call = %v (%v, %s); want %v, %s, in the words of the probe: %s",
						err, driver.Classify(err), driver.ConditionOf(err), class, condition, f.Text)
				}
			}
			warnings, want := 0, 1
			for line := range strings.Lines(log.String()) {
				if strings.Contains(line, "level=WARN") {
					warnings++
					if !strings.Contains(unquoted(line), f.Text) {
						t.Errorf("the log has %s; want %s", line, f.Text)
					}
				}
			}
			if condition == m.late {
				want = 0
			}
			if warnings != want {
				t.Errorf("the log has %d warnings; want %d: %s", warnings, want, log)
			}
			mend()
			mended = true
			if err := m.use(ctx, tree.Root.Caller()); err != nil {
				t.Errorf("a call once all is well = %v; want nil", err)
			}
			if err := tree.Close(); err != nil {
				t.Errorf("Close() = %v; want nil", err)
			}
		})
	}
}

// unquoted is a log's line without the marks that its quotes got.
func unquoted(line string) string { return strings.ReplaceAll(line, `\"`, `"`) }

func useOutput(ctx context.Context, c driver.Caller) error { return gpio.NewOutput(c).On(ctx) }

func useSerial(ctx context.Context, c driver.Caller) error {
	s, err := serial.NewClient(c).Connect(ctx)
	if err == nil {
		err = s.Close()
	}
	return err
}

func useMeter(ctx context.Context, c driver.Caller) error {
	for _, err := range power.NewClient(c).Read(ctx) {
		return err
	}
	return fmt.Errorf("no reading")
}

// Manners when hardware is not as configured, on models.
func TestManners(t *testing.T) {
	t.Run("gpio", func(t *testing.T) {
		host, board := hwtest.Host()
		chip := board.GPIO.Add("gpiochip900", "relays", 4)
		mannered{
			spec: gpiod.Output, config: "{line: 3, device: relays}", host: host, use: useOutput,
			disorder: map[driver.Condition]func(*testing.T) func(){
				driver.Absent: func(*testing.T) func() {
					board.GPIO.Remove("gpiochip900")
					return func() { chip = board.GPIO.Add("gpiochip900", "relays", 4) }
				},
				driver.Busy: func(t *testing.T) func() {
					l, err := chip.Request(3, hw.LineOptions{Consumer: "spi0 CS0"})
					if err != nil {
						t.Fatal(err)
					}
					return func() { l.Close() }
				},
				driver.Forbidden: func(*testing.T) func() {
					board.GPIO.Forbid("gpiochip900")
					return func() { board.GPIO.Allow("gpiochip900") }
				},
				driver.Wrong: func(*testing.T) func() {
					board.GPIO.Add("gpiochip901", "relays", 8)
					return func() { board.GPIO.Remove("gpiochip901") }
				},
			},
			words: map[driver.Condition]string{
				driver.Absent: `no chip has the label "relays"; there are no GPIO chips`, driver.Busy: `"spi0 CS0" uses it`,
				driver.Forbidden: "the group that owns the device",
				driver.Wrong:     `2 chips have the label "relays"; give the device: there are gpiochip900 (relays, 4 lines), gpiochip901`,
			},
		}.test(t)
	})
	t.Run("serial", func(t *testing.T) {
		host, board := hwtest.Host()
		uart := &serialtest.UART{}
		const path = "/dev/ttyUSB0"
		plug := func() { board.Serial.Plug(path, uart) }
		plug()
		mannered{
			spec: pyserial.Spec, config: "url: " + path, host: host, use: useSerial, late: driver.Busy,
			disorder: map[driver.Condition]func(*testing.T) func(){
				driver.Absent: func(*testing.T) func() { board.Serial.Unplug(path); return plug },
				driver.Busy: func(t *testing.T) func() {
					p, err := board.Serial.OpenSerial(t.Context(), path, hw.SerialOptions{Baud: 9600})
					if err != nil {
						t.Fatal(err)
					}
					return func() { p.Close() }
				},
				driver.Forbidden: func(*testing.T) func() {
					board.Serial.Forbid(path, true)
					return func() { board.Serial.Forbid(path, false) }
				},
				driver.Wrong: func(*testing.T) func() { board.Serial.Put(path); return plug },
			},
			words: map[driver.Condition]string{
				driver.Absent: "is the device plugged in? there are no serial ports", driver.Busy: "has the port open",
				driver.Forbidden: "the group that owns the device", driver.Wrong: "not a serial port",
			},
		}.test(t)
		if n := len(uart.Edges()); n%4 != 0 { // each open and close asserts and releases DTR and RTS
			t.Errorf("the modem lines moved %d times; want that only opens and closes move them", n)
		}
	})
	t.Run("meter", func(t *testing.T) {
		host, board := hwtest.Host()
		board.I2C.Add(1)
		m := i2ctest.NewINA(226, 0.1)
		plug := func() { board.I2C.Plug(1, 0x40, m) }
		plug()
		mannered{
			spec: ina.INA226, config: "{}", host: host, use: useMeter,
			disorder: map[driver.Condition]func(*testing.T) func(){
				driver.Absent:    func(*testing.T) func() { board.I2C.Plug(1, 0x40, nil); return plug },
				driver.Busy:      func(*testing.T) func() { board.I2C.Take(0x40, "ina2xx"); return func() { board.I2C.Take(0x40, "") } },
				driver.Forbidden: func(*testing.T) func() { board.I2C.Forbid(1, true); return func() { board.I2C.Forbid(1, false) } },
				driver.Wrong:     func(*testing.T) func() { board.I2C.Plug(1, 0x40, i2ctest.NewINA(260, 0)); return plug },
			},
			words: map[driver.Condition]string{
				driver.Absent: "no chip answers", driver.Busy: "the kernel's driver ina2xx has the chip",
				driver.Forbidden: "the group that owns the device", driver.Wrong: "another chip is there: an INA260",
			},
		}.test(t)
	})
}
