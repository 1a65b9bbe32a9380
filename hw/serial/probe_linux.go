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
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/devfile"
)

// world is where the system tells of ports.
type world struct {
	class string // a folder for each terminal
	byID  string // links to ports by what their adapters are
	locks string // files LCK..ttyUSB0, which hold the number of a process: an old custom that minicom and others keep
}

var system = world{"/sys/class/tty", "/dev/serial/by-id", "/run/lock"}

func probe(ctx context.Context, path string) (hw.SerialInfo, error) {
	info, err := look(path)
	if err != nil {
		return info, err
	}
	holders := devfile.Holders(ctx, path)
	if len(holders) == 0 {
		holders = system.locked(info.Name)
	}
	if len(holders) > 0 {
		return info, busy("open", path, unix.EBUSY, holders)
	}
	return info, nil
}

// locked is who has left a lock file for a port, and lives.
func (w world) locked(name string) []devfile.Holder {
	text, err := os.ReadFile(filepath.Join(w.locks, "LCK.."+name))
	if err != nil {
		return nil
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return nil
	}
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return nil
	}
	return []devfile.Holder{{PID: pid, Command: strings.TrimSpace(string(command))}}
}

// look says what is at a path, and why it cannot be opened where that is to be seen from outside.
func look(path string) (info hw.SerialInfo, err error) {
	fail := func(kind, err error) (hw.SerialInfo, error) {
		return info, hw.Mark(kind, &fs.PathError{Op: "open", Path: path, Err: err})
	}
	var st unix.Stat_t
	switch err := unix.Stat(path, &st); {
	case errors.Is(err, fs.ErrNotExist):
		return fail(hw.ErrAbsent, fmt.Errorf("%w: is the device plugged in? %s", err, system.there()))
	case err != nil:
		return info, classify(&fs.PathError{Op: "open", Path: path, Err: err})
	case st.Mode&unix.S_IFMT != unix.S_IFCHR:
		return fail(hw.ErrWrong, fmt.Errorf("not a serial port, but a file or folder; %s", system.there()))
	}
	rdev := uint64(st.Rdev)
	if major := unix.Major(rdev); 136 <= major && major <= 143 { // as in isPTY; the kernel lists them nowhere else
		info.Name = fmt.Sprintf("pseudo-terminal %d", unix.Minor(rdev))
	} else {
		dev := fmt.Sprintf("/sys/dev/char/%d:%d", major, unix.Minor(rdev))
		subsystem, err := os.Readlink(dev + "/subsystem")
		if err == nil && filepath.Base(subsystem) != "tty" {
			return fail(hw.ErrWrong, fmt.Errorf("not a serial port, but a device of the kind %s; %s", filepath.Base(subsystem), system.there()))
		}
		info.Name = filepath.Base(path)
		if at, err := filepath.EvalSymlinks(dev); err == nil {
			info.Name = filepath.Base(at)
		}
		if driver, err := os.Readlink(dev + "/device/driver"); err == nil {
			info.Driver = filepath.Base(driver)
		}
		info.ID = system.ids()[info.Name]
		if system.vacant(info.Name) {
			return fail(hw.ErrAbsent, fmt.Errorf("the kernel found no UART there; %s", system.there()))
		}
	}
	if err := devfile.Usable(path); err != nil {
		return info, classify(err)
	}
	return info, nil
}

// vacant reports whether a port is only a place for one: the kernel's driver of PC UARTs keeps some, of the type 0 (unknown).
func (w world) vacant(name string) bool {
	b, err := os.ReadFile(filepath.Join(w.class, name, "type"))
	return err == nil && strings.TrimSpace(string(b)) == "0"
}

// ids are the names below /dev/serial/by-id by the names of ports.
func (w world) ids() map[string]string {
	ids := map[string]string{}
	entries, _ := os.ReadDir(w.byID) // it is there as long as adapters are
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(w.byID, e.Name())); err == nil {
			ids[filepath.Base(to)] = e.Name()
		}
	}
	return ids
}

// maxThere is how many ports are named at most.
const maxThere = 8

// there says which ports there are.
func (w world) there() string {
	entries, _ := os.ReadDir(w.class) // a machine without sysfs shows none
	names, more := w.ids(), 0
	var ports []string
	for _, e := range entries {
		// Ports have a device; what else is a terminal has none.
		if _, err := os.Stat(filepath.Join(w.class, e.Name(), "device")); err != nil || w.vacant(e.Name()) {
			continue
		}
		port := "/dev/" + e.Name()
		if id := names[e.Name()]; id != "" {
			port += " (" + filepath.Join(w.byID, id) + ")"
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
