// Package devfile tells of the files of devices without opening them: whom they belong to, and who uses them.
//
// Opening is no way to look: the open of a serial port moves its modem lines, and a reader takes bytes away from others.
// What the file system and /proc show costs nobody anything. It may be less than all: the files that the processes of other
// users have open are shown to root alone, their locks to everybody.
package devfile

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// Explain adds to an error that says "permission denied" what would change that. Other errors it returns as they are. rule is
// what a udev rule matches such devices by, as SUBSYSTEM=="gpio".
func Explain(err error, path, rule string) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fmt.Errorf("%w: %s", err, remedy(path, rule))
}

// general is the remedy for a file of which nothing is known.
const general = "the user needs the group that owns the device"

// Holder is a process that uses a device.
type Holder struct {
	PID     int
	Command string // as the kernel knows it, or ""
}

func (h Holder) String() string {
	if h.Command == "" {
		return fmt.Sprintf("process %d", h.PID)
	}
	return fmt.Sprintf("process %d (%s)", h.PID, h.Command)
}

// List is the holders in words.
func List(holders []Holder) string {
	var all []string
	for _, h := range holders {
		all = append(all, h.String())
	}
	return strings.Join(all, ", ")
}
