package rough_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
	"github.com/jumplead/jumplead/hw/gpio/cdev"
	"github.com/jumplead/jumplead/hw/gpio/gpiotest"
	"github.com/jumplead/jumplead/hw/hwtest"
	"github.com/jumplead/jumplead/hw/i2c"
	"github.com/jumplead/jumplead/hw/i2c/i2ctest"
	hwserial "github.com/jumplead/jumplead/hw/serial"
	"github.com/jumplead/jumplead/hw/usbtest"
)

// rounds is how often each device is removed and put back.
const rounds = 200

// board is one USB device with two functions: a serial port, which sends back what
// it gets, for the kernel's cdc-acm, and an I2C bus for its i2c-tiny-usb. The hub
// takes a fifth of a second to find a device, one after another, so that two
// devices would take twice as long.
type board struct {
	usbtest.ACM
	bus usbtest.I2C
}

func (b *board) Descriptors() usbtest.Descriptors {
	const association = 11 // of the first two interfaces, which are one function
	d := b.ACM.Descriptors()
	bus := b.bus.Descriptors()
	d.Vendor, d.Product = bus.Vendor, bus.Product
	d.Class, d.SubClass, d.Protocol = 0xef, 2, 1
	d.Interfaces = 3
	d.Body = slices.Concat([]byte{8, association, 0, 2, 2, 2, 1, 0}, d.Body, usbtest.Interface(2, 0, 0xff, 0, 0))
	return d
}

func (b *board) Control(ctx context.Context, s usbtest.Setup, in []byte) ([]byte, error) {
	if s.Type&0x60 == 0x40 { // a vendor's request, not a class's
		return b.bus.Control(ctx, s, in)
	}
	return b.ACM.Control(ctx, s, in)
}

func (b *board) Out(_ context.Context, _ uint8, data []byte) error {
	_, err := b.ACM.Write(data)
	return err
}

// onUSB is a meter's model on the bus of a USB adapter.
type onUSB struct{ *i2ctest.INA }

func (c onUSB) Write(b []byte) bool { return len(b) == 0 || c.Tx(b, nil) == nil }
func (c onUSB) Read(n int) ([]byte, bool) {
	b := make([]byte, n)
	return b, c.Tx(nil, b) == nil
}

// judge watches the outcomes of calls.
type judge struct {
	t    *testing.T
	done atomic.Bool // the load is over: what ends now need not say why

	mu     sync.Mutex
	counts map[string]*[2]int // of what went well, and of what was not there
	bad    int
}

// saw notes how a call ended, which may say that the device is not there.
func (j *judge) saw(call, device string, err error) {
	if err != nil && j.done.Load() {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	c := j.counts[call]
	if c == nil {
		c = &[2]int{}
		j.counts[call] = c
	}
	switch {
	case err == nil:
		c[0]++
	case driver.Classify(err) == driver.Unavailable && strings.Contains(err.Error(), device):
		c[1]++
	default:
		if j.bad++; j.bad <= 20 {
			j.t.Errorf("%s = %v (class %v); want nil, or unavailable with the name %s", call, err, driver.Classify(err), device)
		}
	}
}

// gone checks that a call says that its device is not there.
func gone(call, device string, err error) error {
	if driver.Classify(err) != driver.Unavailable || !strings.Contains(err.Error(), device) {
		return fmt.Errorf("%s without its device = %v; want unavailable, with the name %s", call, err, device)
	}
	return nil
}

// A GPIO chip, a serial adapter and an I2C adapter are each removed and put back
// 200 times, under load.
func TestRemovals(t *testing.T) {
	hwtest.Need(t, hwtest.GPIOSim)
	hwtest.Need(t, hwtest.USB)
	drivertest.NoLeaks(t)
	chip := gpiotest.NewSim(t, cdev.Bus())
	usb := &usbDevice{board: &board{}, link: filepath.Join(t.TempDir(), "console")}
	meter := i2ctest.NewINA(226, 0.1)
	meter.Set(5, 0.25)
	usb.board.bus.Put(0x40, onUSB{meter})
	var err error
	if usb.port, err = usbtest.Plug(usb.board); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { usb.port.Unplug() })
	if usb.bus, err = usb.find(t.Context()); err != nil {
		t.Fatal(err)
	}
	hasten(t, usb.port)
	c := serve(t, hw.Host{GPIO: cdev.Bus(), Serial: hwserial.Bus{}, I2C: i2c.Buses{}},
		node{"out", gpiod.Output, "{line: 1, device: " + chip.Label() + "}"},
		node{"in", gpiod.Input, "{line: 2, device: " + chip.Label() + "}"},
		node{"console", pyserial.Spec, "{url: " + usb.link + "}"},
		node{"meter", ina.INA226, "{bus: " + usb.bus + ", address: 0x40}"},
	)
	l := &load{
		judge: &judge{t: t, counts: map[string]*[2]int{}},
		chip:  chip, usb: usb,
		out: gpio.NewOutput(find(t, c, "out")), in: gpio.NewInput(find(t, c, "in")),
		console: serial.NewClient(find(t, c, "console")), meter: power.NewClient(find(t, c, "meter")),
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stop := l.start(ctx)
	start := time.Now()
	usbDone := make(chan error, 1)
	var usbSlowest, chipSlowest time.Duration
	go func() { usbDone <- repeat(func() error { return l.replug(ctx, &usbSlowest) }) }()
	chipErr := repeat(func() error { return l.remake(ctx, &chipSlowest) })
	chipTook := time.Since(start)
	usbErr := <-usbDone
	usbTook := time.Since(start)
	l.done.Store(true)
	cancel()
	stop()
	for _, err := range []error{chipErr, usbErr} {
		if err != nil {
			t.Error(err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for call, n := range l.counts {
		t.Logf("%s: %d went well, %d were told that the device is not there", call, n[0], n[1])
		if stream := call == "stream of edges" || call == "tunnel"; n[0] == 0 && !stream || n[1] < rounds && stream {
			t.Errorf("%s: %d went well, %d were told that the device is not there; want some, and each stream told", call, n[0], n[1])
		}
	}
	t.Logf("the chip: %d rounds in %v, back in use within %v; the USB device: in %v, within %v",
		rounds, chipTook.Round(time.Millisecond), chipSlowest.Round(time.Millisecond), usbTook.Round(time.Millisecond), usbSlowest.Round(time.Millisecond))
	// What it costs shows in the last rounds against the first.
	if l.first.routines == 0 || l.last.routines == 0 {
		t.Fatal("nothing was measured")
	}
	if l.last.routines > l.first.routines+8 || l.last.files > l.first.files+8 || l.last.heap > l.first.heap+4<<20 {
		t.Errorf("after the last rounds the process holds %+v; want no more than after the first ones, %+v", l.last, l.first)
	}
}

// hasten lets the kernel look at what is plugged in once, with a short wait after the reset, and not twice with longer ones
// (Documentation/ABI/testing/sysfs-bus-usb, quirks of a port: USB_PORT_QUIRK_OLD_SCHEME and USB_PORT_QUIRK_FAST_ENUM).
func hasten(t *testing.T, p *usbtest.Port) {
	t.Helper()
	bus, port, _ := strings.Cut(filepath.Base(p.Dir()), "-")
	quirks := fmt.Sprintf("%s/%s-0:1.0/usb%s-port%s/quirks", filepath.Dir(p.Dir()), bus, bus, port)
	was, err := os.ReadFile(quirks)
	if err == nil {
		err = os.WriteFile(quirks, []byte("3"), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.WriteFile(quirks, was, 0) })
}

// usbDevice is the device at its port, and what udev makes of it.
type usbDevice struct {
	board *board
	port  *usbtest.Port
	link  string // to the terminal, as below /dev/serial/by-id
	bus   string // "i2c-1"
}

// find waits for what the kernel makes of the device, and names it as udev does.
func (u *usbDevice) find(ctx context.Context) (bus string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var paths []string
	for _, pattern := range []string{"*:*/tty/tty*", "*:*/i2c-*/i2c-dev/i2c-*"} {
		dir, err := u.port.Await(ctx, pattern)
		if err != nil {
			return "", err
		}
		path := "/dev/" + filepath.Base(dir)
		if _, err := until(path, func() bool { _, err := os.Stat(path); return err == nil }); err != nil {
			return "", err
		}
		paths = append(paths, path)
	}
	return filepath.Base(paths[1]), os.Symlink(paths[0], u.link)
}

// load is what goes on while devices come and go.
type load struct {
	*judge
	chip    *gpiotest.Sim
	usb     *usbDevice
	out     *gpio.OutputClient
	in      *gpio.InputClient
	console *serial.Client
	meter   *power.Client

	// The kernel (7.x) deadlocks when a line is requested with edges while gpio-sim's chip is being removed: the request
	// waits for its interrupt's thread, and the removal for the request. So inputs are not requested just then.
	there sync.RWMutex

	edges   atomic.Int64 // that were told; -1 while no stream of them is open
	echoed  atomic.Int64 // bytes that came back; -1 while no tunnel is open
	removed atomic.Int64 // rounds that are over

	first, last held
}

// start begins the load. What it returns waits for its end.
func (l *load) start(ctx context.Context) (wait func()) {
	l.edges.Store(-1)
	l.echoed.Store(-1)
	var all sync.WaitGroup
	label, link, bus := l.chip.Label(), l.usb.link, l.usb.bus
	for _, call := range []struct {
		name, device string
		stream       bool // that only ends when something is wrong
		do           func() error
	}{
		{"on", label, false, func() error { return l.out.On(ctx) }},
		{"off", label, false, func() error { return l.out.Off(ctx) }},
		{"pulse", label, false, func() error { return l.out.Pulse(ctx, time.Millisecond) }},
		{"read_pin of the output", label, false, func() error { _, err := l.out.ReadPin(ctx); return err }},
		{"read_pin of the input", label, false, func() error {
			l.there.RLock()
			defer l.there.RUnlock()
			_, err := l.in.ReadPin(ctx)
			return err
		}},
		{"stream of edges", label, true, func() error { return l.watch(ctx) }},
		{"tunnel", link, true, func() error { return l.tunnel(ctx) }},
		{"set_dtr", link, false, func() error { return l.console.SetDTR(ctx, true) }},
		{"power.read", bus, false, func() error { return l.read(ctx) }},
	} {
		all.Go(func() {
			for ctx.Err() == nil {
				start := time.Now()
				l.saw(call.name, call.device, call.do())
				// An emulated machine has other things to do, too: the callers together take a fifth of its time.
				pause := min(max(50*time.Since(start), 20*time.Millisecond), time.Second)
				if call.stream {
					pause = 150 * time.Millisecond
				}
				rest(ctx, pause)
			}
		})
	}
	return all.Wait
}

func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (l *load) read(ctx context.Context) error {
	for r, err := range l.meter.Read(ctx) {
		if err != nil {
			return err
		}
		if r.Voltage < 4.99 || r.Voltage > 5.01 {
			return fmt.Errorf("read() = %+v; want 5 V", r)
		}
	}
	return nil
}

// watch reads edges until the stream ends, for which there must be a reason.
func (l *load) watch(ctx context.Context) error {
	l.there.RLock()
	begun := sync.OnceFunc(l.there.RUnlock)
	defer begun()
	defer l.edges.Store(-1)
	for e, err := range l.in.Edges(ctx) {
		begun()
		if err != nil {
			return err
		}
		if e.Lost > 0 {
			return fmt.Errorf("edge %+v; want none lost", e)
		}
		l.edges.Add(1) // the first makes it 0
	}
	return fmt.Errorf("the stream has ended, and nothing said why")
}

// tunnel pumps bytes through the serial line until that ends.
func (l *load) tunnel(ctx context.Context) error {
	s, err := l.console.Connect(ctx)
	if err != nil {
		return err
	}
	defer l.echoed.Store(-1)
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	defer s.Close()
	over := make(chan struct{})
	var writing sync.WaitGroup
	defer writing.Wait()
	defer close(over)
	writing.Go(func() {
		pace := time.NewTicker(200 * time.Millisecond)
		defer pace.Stop()
		for {
			if _, err := s.Write([]byte(strings.Repeat("0123456789abcdef", 4))); err != nil {
				return // the reader learns why
			}
			select {
			case <-pace.C:
			case <-over:
				return
			}
		}
	})
	l.echoed.Store(0)
	buf := make([]byte, 1024)
	for {
		n, err := s.Read(buf)
		l.echoed.Add(int64(n))
		if err != nil {
			return err
		}
	}
}

func repeat(round func() error) error {
	for i := range rounds {
		if err := round(); err != nil {
			return fmt.Errorf("round %d: %w", i+1, err)
		}
	}
	return nil
}

// remake removes the chip and puts it back.
func (l *load) remake(ctx context.Context, slowest *time.Duration) error {
	t := l.t
	if _, err := until("the stream of edges", func() bool { return l.edges.Load() >= 0 }); err != nil {
		return err
	}
	before := l.edges.Load()
	for i := range 4 {
		l.chip.Drive(t, 2, i%2 == 0)
	}
	if _, err := until("edges", func() bool { return l.edges.Load() > before }); err != nil {
		return err
	}
	l.there.Lock()
	l.chip.Remove(t)
	l.there.Unlock()
	_, err := l.out.ReadPin(ctx)
	if err := gone("read_pin", l.chip.Label(), err); err != nil {
		return err
	}
	if _, err := until("the end of the stream of edges", func() bool { return l.edges.Load() < 0 }); err != nil {
		return err
	}
	l.chip.Remake(t)
	took, err := until("the lines", func() bool {
		_, err := l.in.ReadPin(ctx)
		return err == nil && l.out.On(ctx) == nil
	})
	*slowest = max(*slowest, took)
	return err
}

// replug pulls the USB device out and puts it back.
func (l *load) replug(ctx context.Context, slowest *time.Duration) error {
	if _, err := until("bytes in the tunnel", func() bool { return l.echoed.Load() > 0 }); err != nil {
		return err
	}
	if err := l.usb.port.Unplug(); err != nil {
		return err
	}
	if err := os.Remove(l.usb.link); err != nil {
		return err
	}
	if _, err := until("the end of the tunnel", func() bool { return l.echoed.Load() < 0 }); err != nil {
		return err
	}
	if err := gone("set_dtr", l.usb.link, l.console.SetDTR(ctx, true)); err != nil {
		return err
	}
	if err := gone("power.read", l.usb.bus, l.read(ctx)); err != nil {
		return err
	}
	if err := l.usb.port.Replug(); err != nil {
		return err
	}
	bus, err := l.usb.find(ctx)
	if err != nil {
		return err
	}
	if bus != l.usb.bus {
		return fmt.Errorf("the bus came back as %s; want %s", bus, l.usb.bus)
	}
	took, err := until("the console and the meter", func() bool { return l.read(ctx) == nil && l.console.SetDTR(ctx, true) == nil })
	*slowest = max(*slowest, took)
	n := l.removed.Add(1)
	switch n {
	case rounds / 10:
		l.first = holds(l.t)
	case rounds:
		l.last = holds(l.t)
	}
	return err
}
