// Package i2c opens the I2C buses of this machine, through periph.
//
// # I2C on Linux
//
// Two wires, a clock and data, join one host and up to 127 chips, each with a 7-bit address that is soldered or strapped.
// The kernel offers each bus as /dev/i2c-N if the module i2c-dev is loaded; on a Raspberry Pi it also wants
// dtparam=i2c_arm=on in config.txt. A transaction is a write, a read, or a write and then a read with no stop in between,
// which is how registers are read: write the register's number, read what it holds.
//
// A chip that does not acknowledge its address is not there: that is [hw.ErrAbsent], as is a bus that has gone with its USB
// adapter. One that a driver of the kernel has is [hw.ErrBusy]. Looking for what else is on a bus is left to people (i2cdetect):
// some chips take a probe for a command.
package i2c

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"periph.io/x/host/v3/sysfs"

	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/devfile"
)

// Buses is the I2C buses of this machine.
type Buses struct{}

var _ hw.I2C = Buses{}

// OpenI2C opens /dev/i2c-N. Errors are of the kinds [hw.ErrAbsent], whose text says which buses there are,
// [fs.ErrPermission], or ctx's own.
func (Buses) OpenI2C(ctx context.Context, n int) (hw.I2CBus, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	path := "/dev/i2c-" + strconv.Itoa(n)
	// periph's errors are text; what matters is found out before.
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, hw.Mark(hw.ErrAbsent, fmt.Errorf("open i2c-%d: no %s; %s", n, path, there()))
	case errors.Is(err, fs.ErrPermission):
		return nil, devfile.Explain(err, path, `SUBSYSTEM=="i2c-dev"`)
	case errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.ENODEV): // it goes just now
		return nil, hw.Mark(hw.ErrAbsent, fmt.Errorf("the bus is gone: %w", err))
	case err != nil:
		return nil, err
	}
	f.Close()
	b, err := sysfs.NewI2C(n)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, kind(err))
	}
	return bus{b, n}, nil
}

// there says which buses there are.
func there() string {
	paths, _ := filepath.Glob("/dev/i2c-*") // the pattern is sound
	if len(paths) == 0 {
		return "there are no I2C buses: is the module i2c-dev loaded, and the bus enabled (dtparam=i2c_arm=on on a Raspberry Pi)?"
	}
	slices.Sort(paths)
	for i, path := range paths {
		if name, err := os.ReadFile("/sys/class/i2c-dev/" + filepath.Base(path) + "/name"); err == nil {
			paths[i] += " (" + strings.TrimSpace(string(name)) + ")"
		}
	}
	return "there are " + strings.Join(paths, ", ")
}

type bus struct {
	*sysfs.I2C
	n int
}

func (b bus) Tx(addr uint16, w, r []byte) error {
	if err := taken(b.n, addr); err != nil {
		return err
	}
	if err := b.I2C.Tx(addr, w, r); err != nil {
		return fmt.Errorf("i2c-%d, address %#02x: %w", b.n, addr, kind(err))
	}
	return nil
}

// taken is the error of a chip that a driver of the kernel has. The kernel would let us talk to it all the same: the two would
// undo each other's settings.
func taken(n int, addr uint16) error {
	chip := fmt.Sprintf("%d-%04x", n, addr)
	driver, err := os.Readlink("/sys/bus/i2c/devices/" + chip + "/driver")
	if err != nil { // nobody has it; or it is a bus that sysfs does not show
		return nil
	}
	name := filepath.Base(driver)
	return hw.Mark(hw.ErrBusy, fmt.Errorf("i2c-%d, address %#02x: the kernel's driver %s has the chip; leave its overlay out of config.txt, or: echo %s | sudo tee /sys/bus/i2c/drivers/%s/unbind",
		n, addr, name, chip, name))
}

// kind finds the system's error in the text that periph makes of it.
func kind(err error) error {
	for _, k := range []struct {
		errno syscall.Errno
		kind  error // or nil
		text  string
	}{
		{syscall.ENXIO, hw.ErrAbsent, "no chip answers: is it powered, and is this its address?"},
		{syscall.Errno(121), hw.ErrAbsent, "no chip answers: is it powered, and is this its address?"}, // EREMOTEIO, which only Linux has
		{syscall.ENODEV, hw.ErrAbsent, "the bus is gone"},
		{syscall.ENOENT, hw.ErrAbsent, "the bus is gone"}, // since its file was looked for
		// What an adapter says that is pulled out in the middle of a transfer is its driver's choice: i2c-tiny-usb has one of these.
		{syscall.EIO, hw.ErrAbsent, "the adapter failed: is it still plugged in?"},
		{syscall.EPROTO, hw.ErrAbsent, "the adapter failed: is it still plugged in?"},
		{syscall.EPIPE, hw.ErrAbsent, "the adapter failed: is it still plugged in?"},
		{syscall.ESHUTDOWN, hw.ErrAbsent, "the adapter failed: is it still plugged in?"},
		{syscall.EOPNOTSUPP, hw.ErrAbsent, "the adapter takes no plain I2C: is it one for SMBus only, or just being unplugged?"},
		{syscall.ETIMEDOUT, nil, "the bus is stuck: is a line shorted, or a pull-up missing?"},
	} {
		if !strings.HasSuffix(err.Error(), k.errno.Error()) {
			continue
		}
		err = fmt.Errorf("%s (%w)", k.text, k.errno)
		if k.kind != nil {
			err = hw.Mark(k.kind, err)
		}
		break
	}
	return err
}
