package devfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jumplead/jumplead/hw/devfile"
	"github.com/jumplead/jumplead/hw/hwtest"
	"github.com/jumplead/jumplead/hw/serial/serialtest"
)

func TestExplain(t *testing.T) {
	missing := &fs.PathError{Op: "open", Path: "/nowhere", Err: syscall.ENOENT}
	if got := devfile.Explain(missing, "/nowhere", ""); got != error(missing) {
		t.Errorf("Explain(%v) = %v; want it as it is", missing, got)
	}
	path := filepath.Join(t.TempDir(), "device")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	denied := &fs.PathError{Op: "open", Path: path, Err: syscall.EACCES}
	for mode, want := range map[fs.FileMode]string{
		0o600: `mode 0600: a udev rule gives it to a group that the user is in: SUBSYSTEM=="x", GROUP="...", MODE="0660"`,
		0o660: "the group ",
	} {
		if os.Geteuid() == 0 {
			want = "DeviceAllow="
		} else if os.Getegid() == 0 {
			want = "a udev rule"
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		got := devfile.Explain(denied, path, `SUBSYSTEM=="x"`)
		if !errors.Is(got, fs.ErrPermission) || !strings.HasPrefix(got.Error(), denied.Error()+": ") || !strings.Contains(got.Error(), want) {
			t.Errorf("Explain(%v) of mode %o = %v; want %q in it", denied, mode, got, want)
		}
	}
	if got := devfile.Explain(denied, "/nowhere", ""); !strings.HasSuffix(got.Error(), "the group that owns the device") {
		t.Errorf("Explain() of a file that is not there = %v; want general advice", got)
	}
}

func TestHolders(t *testing.T) {
	hwtest.Need(t, hwtest.PTY)
	pty, err := serialtest.OpenPTY(filepath.Join(t.TempDir(), "tty"))
	if err != nil {
		t.Fatal(err)
	}
	defer pty.Close()
	held := func() bool {
		for _, h := range devfile.Holders(t.Context(), pty.Path()) {
			if h.PID == os.Getpid() && h.Command != "" {
				return true
			}
		}
		return false
	}
	f, err := os.OpenFile(pty.Path(), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if !held() {
		t.Errorf("Holders() of a port that is open = %v; want this process", devfile.Holders(t.Context(), pty.Path()))
	}
	f.Close()
	file := filepath.Join(t.TempDir(), "locked")
	if f, err = os.Create(file); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := devfile.Holders(t.Context(), file); len(got) != 0 {
		t.Errorf("Holders() of a file without a lock = %v; want none", got)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if got := devfile.Holders(t.Context(), file); len(got) != 1 || got[0].PID != os.Getpid() {
		t.Errorf("Holders() of a locked file = %v; want this process", got)
	}
	if got := devfile.List([]devfile.Holder{{812, "agetty"}, {813, ""}}); got != "process 812 (agetty), process 813" {
		t.Errorf("List() = %s; want both", got)
	}
	if got := devfile.Holders(t.Context(), "/nowhere"); got != nil {
		t.Errorf("Holders() of nothing = %v; want none", got)
	}
}
