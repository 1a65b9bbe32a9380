// Package hwtest lets a test ask for what it needs instead of where it runs.
//
// A test that needs something which not every machine has calls [Need]. On a machine without it the test is skipped, and
// the skip names what is missing. The same test then runs on a laptop, in a virtual machine with simulated buses and on
// a board on the bench.
//
// A skip that nobody notices is a hole, so a continuous-integration job promises what it has set up:
//
//	JUMPLEAD_PROMISED=pty,python go test ./...
//
// A promised capability that turns out to be missing fails the test. The program cmd/vm boots a machine that has the
// kernel's simulated buses, promises them, and runs tests there.
//
// On a board, a bench file says what is wired to it for tests: two lines that are joined, a serial port that hears itself, a
// power meter. The suites that models and simulated buses pass then run on those; see [BenchFile].
//
//	JUMPLEAD_BENCH=bench.yaml go test ./hw/... ./drivers/...
//
// A test that needs no hardware at all, only something that behaves like it, takes a [Board] of models from [Host].
package hwtest

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/gpio/gpiotest"
	"github.com/jumplead/jumplead/hw/i2c/i2ctest"
	"github.com/jumplead/jumplead/hw/serial/serialtest"
)

// Capability is something that a test needs and a machine may lack.
type Capability string

const (
	// What is wired to a board; see BenchFile.
	BenchGPIO   Capability = "bench-gpio"   // pairs of joined lines; see GPIOLoops
	BenchMeter  Capability = "bench-meter"  // power meters on an I2C bus; see Meters
	BenchSerial Capability = "bench-serial" // serial ports that hear themselves; see SerialLoops

	CGroup   Capability = "cgroup"   // a control group (v2) of one's own with the controllers cpu, memory and pids; see NeedFunc
	DBus     Capability = "dbus"     // dbus-daemon, the message bus
	GPIOSim  Capability = "gpio-sim" // the kernel's simulated GPIO chips, made through configfs
	I2CStub  Capability = "i2c-stub" // the kernel's simulated SMBus; see I2CStubPath
	Landlock Capability = "landlock" // the kernel's Landlock, which keeps files out of reach; see NeedFunc
	Packers  Capability = "packers"  // the programs gzip, pigz, bzip2, pbzip2, xz, zstd, pzstd; see NeedFunc
	PTY      Capability = "pty"      // the kernel's pseudo-terminals
	Python   Capability = "python"   // the stock Python packages in a virtual environment; see NeedFunc
	Systemd  Capability = "systemd"  // systemd-analyze, which judges unit files
	UART     Capability = "uart"     // a real serial port that a test may play with; see UARTPath
	USB      Capability = "usb"      // the kernel's virtual USB host controller, for hw/usbtest
	VCAN     Capability = "vcan"     // the kernel's virtual CAN buses, and the right to make them
	VM       Capability = "vm"       // QEMU and a kernel for it, to make machines as cmd/vm does; see NeedFunc
	VSock    Capability = "vsock"    // the kernel's sockets between virtual machines, with their loopback; see NeedFunc
)

// probes says of each capability how to find out whether it is there. A nil probe belongs to the tests: they alone can
// look, and call NeedFunc. A capability that is missing from this list cannot be needed or promised, so that a misspelt
// promise is noticed.
var probes = map[Capability]func() error{
	BenchGPIO:   wired("gpio", gpioLoops),
	BenchMeter:  wired("meters", meters),
	BenchSerial: wired("serial", serialLoops),

	CGroup:   nil,
	DBus:     func() error { _, err := exec.LookPath("dbus-daemon"); return err },
	GPIOSim:  func() error { return writable("/sys/kernel/config/gpio-sim") },
	I2CStub:  func() error { _, err := I2CStubPath(); return err },
	Landlock: nil,
	Packers:  nil,
	PTY:      probePTY,
	Python:   nil,
	Systemd:  func() error { _, err := exec.LookPath("systemd-analyze"); return err },
	UART:     probeUART,
	USB:      func() error { return writable("/sys/devices/platform/vhci_hcd.0/attach") },
	VCAN:     func() error { return writable("/sys/module/vcan") },
	VM:       nil,
	VSock:    nil,
}

// Promises is the environment variable in which a test run lists, with commas, the capabilities that it has.
const Promises = "JUMPLEAD_PROMISED"

// Need skips the test unless the machine has c, or fails it if c was promised.
func Need(t testing.TB, c Capability) {
	t.Helper()
	probe, ok := probes[c]
	if ok && probe == nil {
		t.Fatalf("Need(%q): hwtest has no probe for it; use NeedFunc", c)
	}
	NeedFunc(t, c, probe)
}

// NeedFunc is Need with the caller's own probe: nil means that c is there, an error says why it is not.
func NeedFunc(t testing.TB, c Capability, probe func() error) {
	t.Helper()
	known := slices.Sorted(maps.Keys(probes))
	if _, ok := probes[c]; !ok {
		t.Fatalf("unknown capability %q; known: %q", c, known)
	}
	promised := false
	for _, p := range strings.Split(os.Getenv(Promises), ",") {
		p := Capability(strings.TrimSpace(p))
		if _, ok := probes[p]; !ok && p != "" {
			t.Fatalf("%s promises unknown capability %q; known: %q", Promises, p, known)
		}
		promised = promised || p == c
	}
	err := probe()
	switch {
	case err != nil && promised:
		t.Fatalf("capability %s was promised but is missing: %v", c, err)
	case err != nil:
		t.Skipf("needs capability %s, which is missing: %v", c, err)
	}
}

func probePTY() error {
	dir, err := os.MkdirTemp("", "hwtest")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	p, err := serialtest.OpenPTY(filepath.Join(dir, "tty"))
	if err != nil {
		return fmt.Errorf("%w (is devpts mounted on /dev/pts?)", err)
	}
	return p.Close()
}

// UARTPath is the serial port that this machine lends to tests, from the environment variable JUMPLEAD_UART, or "".
// Nothing that minds an edge on DTR or RTS, or a stray byte, may be attached to it.
func UARTPath() string { return os.Getenv("JUMPLEAD_UART") }

func probeUART() error {
	if UARTPath() == "" {
		return errors.New("JUMPLEAD_UART does not name a serial port for tests")
	}
	return nil
}

// writable reports why a file or folder of the kernel's cannot be used, if it cannot: the module that makes it is not
// loaded, or this user may not.
func writable(path string) error {
	_, err := os.Stat(path)
	if err == nil && os.Geteuid() != 0 {
		err = fmt.Errorf("%s: %w: only root may use it", path, fs.ErrPermission)
	}
	return err
}

// I2CStubPath is the bus of the kernel's module i2c-stub, /dev/i2c-N.
func I2CStubPath() (string, error) {
	names, err := filepath.Glob("/sys/class/i2c-dev/i2c-*/name")
	if err != nil {
		return "", err
	}
	for _, name := range names {
		if b, _ := os.ReadFile(name); strings.HasPrefix(string(b), "SMBus stub driver") {
			return "/dev/" + filepath.Base(filepath.Dir(name)), nil
		}
	}
	return "", fmt.Errorf("none of %d I2C buses is a stub (are the kernel's modules i2c-stub and i2c-dev loaded?)", len(names))
}

// Board holds the models behind a fake host: what the test plugs in there, the code under test finds.
type Board struct {
	Serial *serialtest.Bus
	GPIO   *gpiotest.Board
	I2C    *i2ctest.Buses
}

// Host returns a whole fake host, with nothing plugged in, and the board behind it.
func Host() (hw.Host, *Board) {
	b := &Board{Serial: &serialtest.Bus{}, GPIO: &gpiotest.Board{}, I2C: &i2ctest.Buses{}}
	return hw.Host{Serial: b.Serial, GPIO: b.GPIO.Bus(), I2C: b.I2C}, b
}
