package all_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/gpio/gpiod"
	"github.com/jumplead/jumplead/drivers/power/ina"
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

// asNobody makes this process that of a user who may nothing, until the returned
// function is called. The device belongs to a group then.
func asNobody(t *testing.T, device string) func() {
	t.Helper()
	const nobody, dialout = 65534, 20
	if err := os.Chown(device, 0, dialout); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(device, 0o660); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Seteuid(nobody); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := syscall.Seteuid(0); err != nil {
			t.Fatal(err) // nothing can go on like this
		}
	}
}

// public is the name of a file in a folder that everybody may look into.
func public(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, name)
}

// inGroup are the words for that.
const inGroup = "permission denied: the user "

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Manners when hardware is not as configured, on the kernel's own drivers.
func TestKernelMannersGPIO(t *testing.T) {
	hwtest.Need(t, hwtest.GPIOSim)
	w := gpiotest.NewSim(t, cdev.Bus())
	link := public(t, "relays")
	to := func(path string) {
		os.Remove(link)
		if err := os.Symlink(path, link); err != nil {
			t.Fatal(err)
		}
	}
	device := func() string { return "/dev/" + w.Device() }
	to(device())
	mannered{
		spec: gpiod.Output, config: fmt.Sprintf("{line: 2, device: %s}", link), host: hw.Host{GPIO: cdev.Bus()}, use: useOutput,
		disorder: map[driver.Condition]func(*testing.T) func(){
			driver.Absent: func(t *testing.T) func() {
				w.Remove(t)
				return func() { w.Remake(t); to(device()) }
			},
			driver.Busy: func(t *testing.T) func() {
				l, err := cdev.Bus().RequestLine(t.Context(), hw.LineRef{Chip: device(), Offset: 2}, hw.LineOptions{Consumer: "somebody else"})
				if err != nil {
					t.Fatal(err)
				}
				return func() { l.Close() }
			},
			driver.Forbidden: func(t *testing.T) func() { return asNobody(t, device()) },
			driver.Wrong:     func(*testing.T) func() { to(os.DevNull); return func() { to(device()) } },
		},
		words: map[driver.Condition]string{
			driver.Absent: "no " + link, driver.Busy: `"somebody else" uses it`, driver.Forbidden: inGroup, driver.Wrong: "not a GPIO chip",
		},
	}.test(t)
}

func TestKernelMannersSerial(t *testing.T) {
	hwtest.Need(t, hwtest.USB)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	adapter := &usbtest.ACM{Serial: "manners"}
	port, err := usbtest.Plug(adapter)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { port.Unplug() })
	link := public(t, "console")
	to := func(path string) {
		os.Remove(link)
		if err := os.Symlink(path, link); err != nil {
			t.Fatal(err)
		}
	}
	tty := ""
	find := func(t *testing.T) {
		t.Helper()
		at, err := port.Await(ctx, "*/tty/ttyACM*")
		if err != nil {
			t.Fatal(err)
		}
		tty = "/dev/" + filepath.Base(at)
		drivertest.Until(t, tty+" is there", func() bool { _, err := os.Stat(tty); return err == nil })
		to(tty)
	}
	find(t)
	mannered{
		spec: pyserial.Spec, config: "url: " + link, host: hw.Host{Serial: hwserial.Bus{}}, use: useSerial, late: driver.Busy,
		disorder: map[driver.Condition]func(*testing.T) func(){
			driver.Absent: func(t *testing.T) func() {
				if err := port.Unplug(); err != nil {
					t.Fatal(err)
				}
				return func() {
					if err := port.Replug(); err != nil {
						t.Fatal(err)
					}
					find(t)
				}
			},
			driver.Busy: func(t *testing.T) func() {
				p, err := hwserial.Open(ctx, tty, hw.SerialOptions{Baud: 9600})
				if err != nil {
					t.Fatal(err)
				}
				return func() { p.Close() }
			},
			driver.Forbidden: func(t *testing.T) func() { return asNobody(t, tty) },
			driver.Wrong:     func(*testing.T) func() { to(os.DevNull); return func() { to(tty) } },
		},
		words: map[driver.Condition]string{
			driver.Absent: "is the device plugged in?", driver.Busy: fmt.Sprintf("process %d (", os.Getpid()),
			driver.Forbidden: inGroup, driver.Wrong: "not a serial port, but a device of the kind mem; there",
		},
	}.test(t)
	// A probe moves no modem line: no board is reset.
	before := len(adapter.Edges())
	host := hw.Host{Serial: hwserial.Bus{}}
	for range 10 {
		info, err := host.ProbeSerial(ctx, link)
		if err != nil || info.Driver != "cdc_acm" || info.Name != filepath.Base(tty) {
			t.Errorf("ProbeSerial() = %+v, %v; want %s of cdc_acm", info, err, tty)
		}
	}
	if after := len(adapter.Edges()); after != before {
		t.Errorf("ten probes moved the modem lines %d times; want never", after-before)
	}
}

func TestKernelMannersMeter(t *testing.T) {
	hwtest.Need(t, hwtest.USB)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	adapter := &usbtest.I2C{}
	port, err := usbtest.Plug(adapter)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { port.Unplug() })
	dev, err := port.Await(ctx, "*/i2c-*/i2c-dev/i2c-*")
	if err != nil {
		t.Fatal(err)
	}
	bus := filepath.Base(dev)
	drivertest.Until(t, "/dev/"+bus+" is there", func() bool { _, err := os.Stat("/dev/" + bus); return err == nil })
	meter := i2ctest.NewINA(226, 0.1)
	plug := func() { adapter.Put(0x40, onUSB{meter}) }
	plug()
	sysfs := "/sys/bus/i2c/devices/" + bus
	mannered{
		spec: ina.INA226, config: "{bus: " + bus + "}", host: hw.Host{I2C: i2c.Buses{}}, use: useMeter,
		disorder: map[driver.Condition]func(*testing.T) func(){
			driver.Absent: func(*testing.T) func() { adapter.Put(0x40, nil); return plug },
			driver.Busy: func(t *testing.T) func() {
				write(t, sysfs+"/new_device", "dummy 0x40") // the kernel has a driver for any chip, which does nothing
				return func() { write(t, sysfs+"/delete_device", "0x40") }
			},
			driver.Forbidden: func(t *testing.T) func() { return asNobody(t, "/dev/"+bus) },
			driver.Wrong:     func(*testing.T) func() { adapter.Put(0x40, onUSB{i2ctest.NewINA(260, 0)}); return plug },
		},
		words: map[driver.Condition]string{
			driver.Absent: "no chip answers", driver.Busy: "the kernel's driver dummy has the chip",
			driver.Forbidden: inGroup, driver.Wrong: "another chip is there: an INA260",
		},
	}.test(t)
}

// onUSB is a meter's model on the bus of a USB adapter.
type onUSB struct{ *i2ctest.INA }

func (c onUSB) Write(b []byte) bool { return len(b) == 0 || c.Tx(b, nil) == nil }
func (c onUSB) Read(n int) ([]byte, bool) {
	b := make([]byte, n)
	return b, c.Tx(nil, b) == nil
}
