//go:build !ppc64 && !ppc64le

package serial

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/hwtest"
	"github.com/jumplead/jumplead/hw/serial/serialtest"
)

func TestOpenMakesRaw8N1(t *testing.T) {
	hwtest.Need(t, hwtest.PTY)
	pty, err := serialtest.OpenPTY(filepath.Join(t.TempDir(), "tty"))
	if err != nil {
		t.Fatal(err)
	}
	defer pty.Close()
	before, err := os.OpenFile(pty.Path(), os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	tty := int(before.Fd())
	// Everything set that some program could have left behind.
	worst, err := unix.IoctlGetTermios(tty, unix.TCGETS2)
	if err != nil {
		t.Fatal(err)
	}
	worst.Iflag, worst.Oflag, worst.Lflag = ^uint32(0), ^uint32(0), ^uint32(0)
	worst.Cflag |= unix.CSTOPB | unix.PARENB | unix.PARODD | unix.CMSPAR | unix.CRTSCTS
	worst.Cc[unix.VMIN], worst.Cc[unix.VTIME] = 0, 5
	if err := unix.IoctlSetTermios(tty, unix.TCSETS2, worst); err != nil {
		t.Fatal(err)
	}

	p, err := Open(t.Context(), pty.Path(), hw.SerialOptions{Baud: 250000})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	got, err := unix.IoctlGetTermios(tty, unix.TCGETS2)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name            string
		got, mask, want uint32
	}{
		{"input translation", got.Iflag, unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IUCLC | unix.ISTRIP, 0},
		{"input parity and break", got.Iflag, unix.INPCK | unix.PARMRK | unix.IGNBRK | unix.BRKINT, 0},
		{"software flow control", got.Iflag, unix.IXON | unix.IXOFF | unix.IXANY, 0},
		{"output translation", got.Oflag, unix.OPOST | unix.ONLCR | unix.OCRNL, 0},
		{"echo, lines, signals", got.Lflag, unix.ECHO | unix.ICANON | unix.ISIG | unix.IEXTEN, 0},
		{"8N1", got.Cflag, unix.CSIZE | unix.CSTOPB | unix.PARENB, unix.CS8},
		{"hardware flow control", got.Cflag, unix.CRTSCTS, 0},
		{"receiver on, carrier ignored", got.Cflag, unix.CREAD | unix.CLOCAL, unix.CREAD | unix.CLOCAL},
		{"output rate", got.Ospeed, ^uint32(0), 250000},
		{"input rate", got.Ispeed, ^uint32(0), 250000},
		{"VMIN", uint32(got.Cc[unix.VMIN]), ^uint32(0), 1},
		{"VTIME", uint32(got.Cc[unix.VTIME]), ^uint32(0), 0},
	} {
		if c.got&c.mask != c.want {
			t.Errorf("%s: the terminal has %#x; want %#x", c.name, c.got&c.mask, c.want)
		}
	}
	// A pseudo-terminal keeps this mark for ever, so it must never get it.
	if excl, err := unix.IoctlGetInt(tty, unix.TIOCGEXCL); excl != 0 || err != nil {
		t.Errorf("TIOCGEXCL of a pseudo-terminal = %d, %v; want 0, nil", excl, err)
	}
}

func TestOpenOfSomethingElse(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, os.DevNull} {
		_, err := Open(t.Context(), path, hw.SerialOptions{Baud: 9600})
		if err == nil || !strings.Contains(err.Error(), "not a serial port") {
			t.Errorf("Open(%s) = %v; want an error that says it is not a serial port", path, err)
		}
	}
	if _, err := Open(t.Context(), t.TempDir(), hw.SerialOptions{Baud: 9600}); err == nil {
		t.Error("Open(a folder) = nil error; want one")
	}
}

func TestClassify(t *testing.T) {
	kinds := map[string]error{"absent": hw.ErrAbsent, "busy": hw.ErrBusy, "permission": fs.ErrPermission,
		"not exist": fs.ErrNotExist, "closed": os.ErrClosed}
	for _, c := range []struct {
		err  error
		want []string
		text string
	}{
		{unix.ENOENT, []string{"absent", "not exist"}, "plugged in"},
		{unix.ENXIO, []string{"absent"}, "gone"},
		{unix.ENODEV, []string{"absent"}, "gone"},
		{unix.EIO, []string{"absent"}, "gone"},
		{unix.EBUSY, []string{"busy"}, "another program"},
		{unix.EWOULDBLOCK, []string{"busy"}, "another program"},
		{unix.EACCES, []string{"permission"}, "the group that owns the device"},
		{unix.EPERM, []string{"permission"}, "the group that owns the device"},
		{unix.EMFILE, nil, "too many open files"},
		{os.ErrClosed, []string{"closed"}, "closed"},
	} {
		got := classify(&fs.PathError{Op: "open", Path: "/nowhere/ttyUSB0", Err: c.err})
		var has []string
		for _, name := range []string{"absent", "busy", "permission", "not exist", "closed"} {
			if errors.Is(got, kinds[name]) {
				has = append(has, name)
			}
		}
		if fmt.Sprint(has) != fmt.Sprint(c.want) {
			t.Errorf("classify(%v) = %v of kinds %v; want %v", c.err, got, has, c.want)
		}
		if !errors.Is(got, c.err) {
			t.Errorf("classify(%v) = %v, which has lost its cause", c.err, got)
		}
		var pe *fs.PathError
		if !errors.As(got, &pe) || !strings.Contains(got.Error(), "/nowhere/ttyUSB0") || !strings.Contains(got.Error(), c.text) {
			t.Errorf("classify(%v) = %q; want a PathError with the path and %q", c.err, got, c.text)
		}
	}
}
