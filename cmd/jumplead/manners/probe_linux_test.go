package manners_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jumplead/jumplead/cmd/jumplead/app"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/gpio/cdev"
	"github.com/jumplead/jumplead/hw/gpio/gpiotest"
	"github.com/jumplead/jumplead/hw/hwtest"
	"github.com/jumplead/jumplead/hw/usbtest"
)

// check --probe on the kernel's own drivers tells what there is and who has it,
// and moves no line.
func TestProbeKernel(t *testing.T) {
	hwtest.Need(t, hwtest.GPIOSim)
	hwtest.Need(t, hwtest.USB)
	hwtest.Need(t, hwtest.I2CStub)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	w := gpiotest.NewSim(t, cdev.Bus())
	adapter := &usbtest.ACM{Serial: "probed"}
	port, err := usbtest.Plug(adapter)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { port.Unplug() })
	at, err := port.Await(ctx, "*/tty/ttyACM*")
	if err != nil {
		t.Fatal(err)
	}
	tty := "/dev/" + filepath.Base(at)
	drivertest.Until(t, tty+" is there", func() bool { _, err := os.Stat(tty); return err == nil })
	stub, err := hwtest.I2CStubPath()
	if err != nil {
		t.Fatal(err)
	}
	config := head + fmt.Sprintf(`  relay:
    type: jumpstarter_driver_gpiod.driver.DigitalOutput
    config: {line: relay, device: %[1]s}
  console:
    type: jumpstarter_driver_pyserial.driver.PySerial
    config: {url: %[2]s}
  meter:
    type: jumplead.power.INA219
    config: {bus: %[3]s, address: 0x4a}
`, w.Label(), tty, stub)
	look := func(want int, lines ...string) {
		t.Helper()
		status, got := probe(t, config)
		for _, l := range lines {
			if !strings.Contains(got, l) {
				t.Errorf("check --probe prints\n%s\nwant %q in it", got, l)
			}
		}
		if status != want {
			t.Errorf("check --probe = %d; want %d", status, want)
		}
	}
	relay := fmt.Sprintf("line 3 (relay) of %s (%s)", w.Device(), w.Label())
	history := w.Record(t, 3)
	// The kernel's simulated SMBus takes no plain messages: a bus that cannot do what is asked of it.
	look(1, "ok         relay: "+relay+", which nobody uses\n",
		"ok         console: "+filepath.Base(tty)+" (driver cdc_acm), which nobody is seen to use\n",
		" meter: INA219 at 0x4a on ")
	if moved := history(); len(moved) > 0 || len(adapter.Edges()) > 0 {
		t.Errorf("a probe has moved the GPIO line %q and the modem lines %v; want neither", moved, adapter.Edges())
	}
	l, err := cdev.Bus().RequestLine(ctx, hw.LineRef{Chip: w.Device(), Offset: 3}, hw.LineOptions{Consumer: "jumplead relay"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p, err := app.OS().Host.OpenSerial(ctx, tty, hw.SerialOptions{Baud: 9600, Shared: true}) // who takes no lock
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	look(1, "busy       relay: ", relay+`: "jumplead relay" uses it`,
		fmt.Sprintf("busy       console: open %s: process %d (", tty, os.Getpid()), "has the port open\n")
	if err := port.Unplug(); err != nil {
		t.Fatal(err)
	}
	w.Remove(t)
	look(1, "absent     relay: ", fmt.Sprintf("no chip has the label %q; there are no GPIO chips\n", w.Label()),
		"absent     console: open "+tty+": no such file or directory: is the device plugged in? there ")
	w.Remake(t)
}
