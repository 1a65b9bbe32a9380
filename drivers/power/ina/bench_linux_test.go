package ina_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/power"
	"github.com/jumplead/jumplead/drivers/power/ina"
	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/hwtest"
	"github.com/jumplead/jumplead/hw/i2c"
	"github.com/jumplead/jumplead/hw/i2c/i2ctest"
	"github.com/jumplead/jumplead/hw/usbtest"
)

// Meters on a bench, and what they have to measure.
func TestBench(t *testing.T) {
	for _, m := range hwtest.Meters(t) {
		t.Run(m.Model, func(t *testing.T) {
			config := fmt.Sprintf("{bus: %d, address: %d, shunt: %v}", m.Bus, m.Address, m.Shunt)
			if m.Shunt == 0 {
				config = fmt.Sprintf("{bus: %d, address: %d}", m.Bus, m.Address)
			}
			spec := map[string]driver.Spec{"INA219": ina.INA219, "INA226": ina.INA226, "INA260": ina.INA260}[m.Model]
			b := drivertest.Bench{Host: hw.Host{I2C: i2c.Buses{}}}
			b.Lifecycle(t, config, spec)
			c := power.NewClient(b.Open(t, config, spec))
			for range 5 {
				if r, err := read(t, c); err != nil || !m.Volts.Has(r.Voltage) || !m.Amps.Has(r.Current) {
					t.Errorf("Read() = %+v, %v; want %v V and %v A", r, err, m.Volts, m.Amps)
				}
			}
		})
	}
}

// All three meters' models on the kernel's own bus as a bench.
func TestUSBBench(t *testing.T) {
	hwtest.Need(t, hwtest.USB)
	adapter := &usbtest.I2C{}
	n := usbBus(t, adapter)
	var text strings.Builder
	text.WriteString("meters:\n")
	for i, model := range []int{219, 226, 260} {
		m := i2ctest.NewINA(model, 0.1)
		m.Set(5.1, 0.25)
		adapter.Put(uint16(0x40+i), onUSB{m})
		shunt := "shunt: 0.1, "
		if model == 260 {
			shunt = ""
		}
		fmt.Fprintf(&text, "  - {model: INA%d, bus: %d, address: %#x, %svolts: [5, 5.2], amps: [0.24, 0.26]}\n", model, n, 0x40+i, shunt)
	}
	file := filepath.Join(t.TempDir(), "bench.yaml")
	if err := os.WriteFile(file, []byte(text.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	t.Setenv(hwtest.BenchFile, file)
	TestBench(t)
}

// usbBus plugs an adapter in, and returns the number of its bus.
func usbBus(t *testing.T, adapter *usbtest.I2C) (n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	port, err := usbtest.Plug(adapter)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { port.Unplug() })
	dev, err := port.Await(ctx, "*/i2c-*/i2c-dev/i2c-*")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(dev)
	drivertest.Until(t, "/dev/"+name+" is there", func() bool { _, err := os.Stat("/dev/" + name); return err == nil })
	if _, err := fmt.Sscanf(name, "i2c-%d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}
