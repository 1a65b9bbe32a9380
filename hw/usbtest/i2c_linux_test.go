package usbtest_test

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jumplead/jumplead/hw/usbtest"
)

// bus opens the I2C bus of an adapter, for the chip at an address.
func bus(t *testing.T, p *usbtest.Port, address int) *os.File {
	t.Helper()
	f, err := os.OpenFile("/dev/"+find(t, p, "*/i2c-*/i2c-dev/i2c-*"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	choose(t, f, address)
	return f
}

func choose(t *testing.T, f *os.File, address int) {
	t.Helper()
	const slave = 0x0703 // I2C_SLAVE (linux/i2c-dev.h)
	if err := unix.IoctlSetInt(int(f.Fd()), slave, address); err != nil {
		t.Fatal(err)
	}
}

func TestI2C(t *testing.T) {
	d := &usbtest.I2C{}
	meter := &usbtest.Words{}
	meter.Set(0x02, 0x1234)
	meter.Set(0x05, 0)
	d.Put(0x40, meter)
	p := plug(t, d)
	f := bus(t, p, 0x40)
	write := func(b ...byte) error { _, err := f.Write(b); return err }

	if err := errors.Join(write(0x05, 0xbe, 0xef), write(0x02)); err != nil {
		t.Errorf("Write() to a chip = %v; want nil", err)
	}
	if got := meter.Get(0x05); got != 0xbeef {
		t.Errorf("register 5 = %#x; want %#x", got, 0xbeef)
	}
	b := make([]byte, 4)
	if n, err := f.Read(b); n != 4 || err != nil || string(b) != "\x12\x34\x12\x34" {
		t.Errorf("Read() = %d, %v, %x; want register 2 twice", n, err, b)
	}
	if err := write(0x77); !errors.Is(err, unix.ENXIO) {
		t.Errorf("Write() that the chip does not acknowledge = %v; want %v", err, unix.ENXIO)
	}
	choose(t, f, 0x41)
	if err := write(0x00); !errors.Is(err, unix.ENXIO) {
		t.Errorf("Write() to nobody = %v; want %v", err, unix.ENXIO)
	}
	if _, err := f.Read(b); !errors.Is(err, unix.ENXIO) {
		t.Errorf("Read() of nobody = %v; want %v", err, unix.ENXIO)
	}

	choose(t, f, 0x40)
	for f, name := range []string{usbtest.Stall: "stalls", usbtest.Noise: "is not understood", usbtest.Mute: "is silent, for the kernel's two seconds"} {
		p.Fail(0, usbtest.Fault(f), 1)
		if err := write(0x02); err == nil {
			t.Errorf("Write() to an adapter that %s = nil; want an error", name)
		}
		if err := write(0x02); err != nil {
			t.Errorf("Write() to an adapter that recovered = %v; want nil", err)
		}
	}
	p.Fail(0, usbtest.Pull, 1)
	if err := write(0x02); err == nil {
		t.Error("Write() while the cable is pulled = nil; want an error")
	}
	f.Close() // the kernel keeps the adapter for as long as it is open
	if err := p.Unplug(); err != nil {
		t.Fatalf("Unplug() = %v; want nil", err)
	}
	if err := p.Replug(); err != nil {
		t.Fatalf("Replug() = %v; want nil", err)
	}
	find(t, p, "*/i2c-*/i2c-dev/i2c-*")
}

// A device that cannot be what it says: the kernel makes nothing of it, and survives.
func TestI2CWrongDescriptors(t *testing.T) {
	for name, alter := range map[string]func(*usbtest.Descriptors){
		"a lying length":       func(d *usbtest.Descriptors) { d.Body[0] = 200 },
		"half a configuration": func(d *usbtest.Descriptors) { d.Raw = map[uint16][]byte{0x0200: {9, 2, 18}} },
		"another's number":     func(d *usbtest.Descriptors) { d.Product = 0xc632 },
	} {
		wrong(t, name, usbtest.Altered{Model: &usbtest.I2C{}, Alter: alter}, "*/i2c-*/i2c-dev/i2c-*", &usbtest.I2C{})
	}
}

func TestI2CTwoAlike(t *testing.T) {
	var buses []*os.File
	for i := range 2 {
		d := &usbtest.I2C{Serial: "same"}
		w := &usbtest.Words{}
		w.Set(0, uint16(i))
		d.Put(0x40, w)
		buses = append(buses, bus(t, plug(t, d), 0x40))
	}
	for i, f := range buses {
		b := make([]byte, 2)
		if _, err := f.Write([]byte{0}); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Read(b); err != nil || int(b[1]) != i {
			t.Errorf("Read() of bus %d = %x, %v; want its own chip's register", i, b, err)
		}
		f.Close()
	}
}
