//go:build !ppc64 && !ppc64le

package serial

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/hwtest"
	"github.com/jumplead/jumplead/hw/serial/serialtest"
)

// What there is instead is told with the names that last.
func TestThere(t *testing.T) {
	dir := t.TempDir()
	w := world{filepath.Join(dir, "class"), filepath.Join(dir, "by-id"), filepath.Join(dir, "locks")}
	mkdir := func(path string) {
		t.Helper()
		if err := os.MkdirAll(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	port := func(name, typ string) {
		t.Helper()
		mkdir(filepath.Join(w.class, name, "device"))
		if typ != "" {
			if err := os.WriteFile(filepath.Join(w.class, name, "type"), []byte(typ+"\n"), 0o666); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func(want string) {
		t.Helper()
		if got := w.there(); got != want {
			t.Errorf("there() = %s; want %s", got, want)
		}
	}
	check("there are no serial ports")
	mkdir(filepath.Join(w.class, "tty1")) // a terminal that is no port
	port("ttyS1", "0")                    // a place for one
	check("there are no serial ports")
	port("ttyS0", "4")
	check("there is /dev/ttyS0")
	port("ttyUSB0", "")
	mkdir(w.byID)
	if err := os.Symlink("../../ttyUSB0", filepath.Join(w.byID, "usb-FTDI-if00")); err != nil {
		t.Fatal(err)
	}
	check("there are /dev/ttyS0, /dev/ttyUSB0 (" + w.byID + "/usb-FTDI-if00)")
	for i := range 8 {
		port(fmt.Sprint("ttyACM", i), "")
	}
	var all []string
	for i := range 8 {
		all = append(all, fmt.Sprint("/dev/ttyACM", i))
	}
	check("there are " + strings.Join(all, ", ") + " and 2 more")

	mkdir(w.locks)
	for text, want := range map[string]int{
		fmt.Sprintf("%10d\n", os.Getpid()): os.Getpid(),
		"2147483647\n":                     0, // who has ended
		"\x01\x02":                         0, // an even older form
	} {
		if err := os.WriteFile(filepath.Join(w.locks, "LCK..ttyS0"), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		holders := w.locked("ttyS0")
		if want == 0 && len(holders) > 0 || want != 0 && (len(holders) != 1 || holders[0].PID != want || holders[0].Command == "") {
			t.Errorf("locked() by %q = %v; want process %d", text, holders, want)
		}
	}
	if holders := w.locked("ttyS9"); holders != nil {
		t.Errorf("locked() without a file = %v; want nobody", holders)
	}
}

// A port is looked at without being opened, and in the words that Open has.
func TestProbe(t *testing.T) {
	hwtest.Need(t, hwtest.PTY)
	pty, err := serialtest.OpenPTY(filepath.Join(t.TempDir(), "tty"))
	if err != nil {
		t.Fatal(err)
	}
	defer pty.Close()
	info, err := Bus{}.ProbeSerial(t.Context(), pty.Path())
	if err != nil && !errors.Is(err, hw.ErrBusy) || !strings.HasPrefix(info.String(), "pseudo-terminal ") {
		t.Errorf("ProbeSerial() = %v, %v; want a pseudo-terminal, which its model has open", info, err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for path, kind := range map[string]error{file: hw.ErrWrong, os.DevNull: hw.ErrWrong, file + "x": hw.ErrAbsent, filepath.Join(file, "x"): unix.ENOTDIR} {
		_, err := Bus{}.ProbeSerial(t.Context(), path)
		_, open := Open(t.Context(), path, hw.SerialOptions{Baud: 9600})
		if !errors.Is(err, kind) || fmt.Sprint(err) != fmt.Sprint(open) {
			t.Errorf("ProbeSerial(%s) = %v, and Open() = %v; want both alike, of kind %q", path, err, open, kind)
		}
	}
	p, err := Open(t.Context(), pty.Path(), hw.SerialOptions{Baud: 9600})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	_, err = Bus{}.ProbeSerial(t.Context(), pty.Path())
	_, open := Open(t.Context(), pty.Path(), hw.SerialOptions{Baud: 9600})
	if want := fmt.Sprintf("process %d (", os.Getpid()); !errors.Is(err, hw.ErrBusy) || !strings.Contains(err.Error(), want) || fmt.Sprint(err) != fmt.Sprint(open) {
		t.Errorf("ProbeSerial() of a port that is open = %v, and Open() = %v; want both alike, with %q", err, open, want)
	}
}
