package usbtest_test

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jumplead/jumplead/hw/usbtest"
)

func TestI2C(t *testing.T) {
	d := &usbtest.I2C{}
	meter := &usbtest.Words{}
	meter.Set(0x02, 0x1234)
	meter.Set(0x05, 0)
	d.Put(0x40, meter)
	p := plug(t, d)
	f, err := os.OpenFile("/dev/"+find(t, p, "*/i2c-*/i2c-dev/i2c-*"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	address := func(a int) {
		t.Helper()
		const slave = 0x0703 // I2C_SLAVE (linux/i2c-dev.h)
		if err := unix.IoctlSetInt(int(f.Fd()), slave, a); err != nil {
			t.Fatal(err)
		}
	}
	write := func(b ...byte) error { _, err := f.Write(b); return err }

	address(0x40)
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
	address(0x41)
	if err := write(0x00); !errors.Is(err, unix.ENXIO) {
		t.Errorf("Write() to nobody = %v; want %v", err, unix.ENXIO)
	}
	if _, err := f.Read(b); !errors.Is(err, unix.ENXIO) {
		t.Errorf("Read() of nobody = %v; want %v", err, unix.ENXIO)
	}

	address(0x40)
	p.Fail(0, usbtest.Stall, 1)
	if err := write(0x02); err == nil {
		t.Error("Write() to an adapter that stalls = nil; want an error")
	}
	if err := write(0x02); err != nil {
		t.Errorf("Write() to an adapter that recovered = %v; want nil", err)
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
