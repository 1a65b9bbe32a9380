package ina_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/power"
	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/hwtest"
	"github.com/jumplead/jumplead/hw/i2c"
	"github.com/jumplead/jumplead/hw/i2c/i2ctest"
	"github.com/jumplead/jumplead/hw/usbtest"
)

// onUSB is a meter's model on the bus of a USB adapter.
type onUSB struct{ *i2ctest.INA }

func (c onUSB) Write(b []byte) bool { return len(b) == 0 || c.Tx(b, nil) == nil }
func (c onUSB) Read(n int) ([]byte, bool) {
	b := make([]byte, n)
	return b, c.Tx(nil, b) == nil
}

// The meters' models, on the kernel's own bus: through i2c-tiny-usb and /dev/i2c-N.
func TestKernelBus(t *testing.T) {
	hwtest.Need(t, hwtest.USB)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	adapter := &usbtest.I2C{}
	port, err := usbtest.Plug(adapter)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { port.Unplug() })
	bus := func() string {
		t.Helper()
		dev, err := port.Await(ctx, "*/i2c-*/i2c-dev/i2c-*")
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(dev)
		drivertest.Until(t, "/dev/"+name+" is there", func() bool { _, err := os.Stat("/dev/" + name); return err == nil })
		return name
	}
	for model, spec := range specs {
		m := i2ctest.NewINA(model, 0.1)
		adapter.Put(0x40, onUSB{m})
		b := drivertest.Bench{Host: hw.Host{I2C: i2c.Buses{}}, Log: &drivertest.Log{}}
		tree := b.Tree(t, fmt.Sprintf("{bus: %s, address: 0x40}", bus()), spec)
		c := power.NewClient(tree.Root.Caller())
		m.Set(5, 0.25)
		want := func(when string) {
			t.Helper()
			if r, err := read(t, c); err != nil || !near(r.Current, 0.25, 2.5e-3) || !near(r.Voltage, 5, 4e-3) {
				t.Errorf("INA%d %s: Read() = %+v, %v; want 5 V, 0.25 A", model, when, r, err)
			}
		}
		absent := func(when string) {
			t.Helper()
			if r, err := read(t, c); driver.Classify(err) != driver.Unavailable {
				t.Errorf("INA%d %s: Read() = %+v, %v; want unavailable", model, when, r, err)
			} else {
				t.Logf("INA%d %s: %v", model, when, err)
			}
		}
		want("at first")
		adapter.Put(0x40, nil)
		absent("without the chip")
		adapter.Put(0x40, onUSB{m})
		want("with the chip")
		before := bus()
		if err := port.Unplug(); err != nil {
			t.Fatalf("Unplug() = %v; want nil", err)
		}
		absent("without the adapter")
		if err := port.Replug(); err != nil {
			t.Fatalf("Replug() = %v; want nil", err)
		}
		if now := bus(); now != before {
			t.Fatalf("the bus came back as %s; want %s", now, before)
		}
		want("with the adapter again")
		if err := tree.Close(); err != nil {
			t.Errorf("Close() = %v; want nil", err)
		}
	}
}
