//go:build !ppc64 && !ppc64le

package serial

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/devfile"
)

const (
	classTTY = "/sys/class/tty"
	byID     = "/dev/serial/by-id"
)

func probe(ctx context.Context, path string) (hw.SerialInfo, error) {
	info, err := look(path)
	if err != nil {
		return info, err
	}
	if holders := devfile.Holders(ctx, path); len(holders) > 0 {
		return info, busy("open", path, unix.EBUSY, holders)
	}
	return info, nil
}

// look says what is at a path, and why it cannot be opened where that is to be seen from outside.
func look(path string) (info hw.SerialInfo, err error) {
	fail := func(kind, err error) (hw.SerialInfo, error) {
		return info, hw.Mark(kind, &fs.PathError{Op: "open", Path: path, Err: err})
	}
	var st unix.Stat_t
	switch err := unix.Stat(path, &st); {
	case errors.Is(err, fs.ErrNotExist):
		return fail(hw.ErrAbsent, fmt.Errorf("%w: is the device plugged in? %s", err, there()))
	case err != nil:
		return info, classify(&fs.PathError{Op: "open", Path: path, Err: err})
	case st.Mode&unix.S_IFMT != unix.S_IFCHR:
		return fail(hw.ErrWrong, fmt.Errorf("not a serial port, but a file or folder; %s", there()))
	}
	rdev := uint64(st.Rdev)
	if major := unix.Major(rdev); 136 <= major && major <= 143 { // as in isPTY; the kernel lists them nowhere else
		info.Name = fmt.Sprintf("pseudo-terminal %d", unix.Minor(rdev))
	} else {
		dev := fmt.Sprintf("/sys/dev/char/%d:%d", major, unix.Minor(rdev))
		subsystem, err := os.Readlink(dev + "/subsystem")
		if err == nil && filepath.Base(subsystem) != "tty" {
			return fail(hw.ErrWrong, fmt.Errorf("not a serial port, but a device of the kind %s; %s", filepath.Base(subsystem), there()))
		}
		info.Name = filepath.Base(path)
		if at, err := filepath.EvalSymlinks(dev); err == nil {
			info.Name = filepath.Base(at)
		}
		if driver, err := os.Readlink(dev + "/device/driver"); err == nil {
			info.Driver = filepath.Base(driver)
		}
		info.ID = ids()[info.Name]
		if vacant(info.Name) {
			return fail(hw.ErrAbsent, fmt.Errorf("the kernel found no UART there; %s", there()))
		}
	}
	if err := devfile.Usable(path); err != nil {
		return info, classify(err)
	}
	return info, nil
}

// vacant reports whether a port is only a place for one: the kernel's driver of PC UARTs keeps some, of the type 0 (unknown).
func vacant(name string) bool {
	b, err := os.ReadFile(filepath.Join(classTTY, name, "type"))
	return err == nil && strings.TrimSpace(string(b)) == "0"
}

// ids are the names below /dev/serial/by-id by the names of ports.
func ids() map[string]string {
	ids := map[string]string{}
	entries, _ := os.ReadDir(byID) // it is there as long as adapters are
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(byID, e.Name())); err == nil {
			ids[filepath.Base(to)] = e.Name()
		}
	}
	return ids
}

// maxThere is how many ports are named at most.
const maxThere = 8

// there says which ports there are.
func there() string {
	entries, _ := os.ReadDir(classTTY) // a machine without sysfs shows none
	names, more := ids(), 0
	var ports []string
	for _, e := range entries {
		// Ports have a device; what else is a terminal has none.
		if _, err := os.Stat(filepath.Join(classTTY, e.Name(), "device")); err != nil || vacant(e.Name()) {
			continue
		}
		port := "/dev/" + e.Name()
		if id := names[e.Name()]; id != "" {
			port += " (" + byID + "/" + id + ")"
		}
		ports = append(ports, port)
	}
	slices.Sort(ports)
	if len(ports) > maxThere {
		ports, more = ports[:maxThere], len(ports)-maxThere
	}
	switch {
	case len(ports) == 0:
		return "there are no serial ports"
	case more > 0:
		return fmt.Sprintf("there are %s and %d more", strings.Join(ports, ", "), more)
	case len(ports) == 1:
		return "there is " + ports[0]
	}
	return "there are " + strings.Join(ports, ", ")
}

// busy is the error of a port that is taken.
func busy(op, path string, cause error, holders []devfile.Holder) error {
	who := "another program or session"
	if len(holders) > 0 {
		who = devfile.List(holders)
	}
	return hw.Mark(hw.ErrBusy, &fs.PathError{Op: op, Path: path, Err: hw.Mark(cause, errors.New(who+" has the port open"))})
}
