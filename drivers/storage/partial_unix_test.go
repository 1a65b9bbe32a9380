//go:build unix

package storage

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver/drivertest"
)

func TestHoles(t *testing.T) {
	root, dir := openRoot(t)
	const mega = 1 << 20
	data := bytes.Repeat([]byte{1}, mega)
	tests := []struct {
		pieces []int // in MiB; zeros when negative
		blocks int64 // that it may take, in MiB
	}{
		{[]int{-64}, 0},
		{[]int{-64, 1}, 1},
		{[]int{1, -64}, 1},
		{[]int{1, -32, 1, -32}, 2},
		{[]int{2}, 2},
		{nil, 0},
	}
	for _, test := range tests {
		p, err := NewPartial(root, "file")
		if err != nil {
			t.Fatal(err)
		}
		var want []byte
		for _, n := range test.pieces {
			piece := make([]byte, max(n, -n)*mega)
			if n > 0 {
				piece = bytes.Repeat(data, n)
			}
			want = append(want, piece...)
			if got, err := p.Write(piece); got != len(piece) || err != nil {
				t.Fatalf("Write(%d) = %d, %v; want all", len(piece), got, err)
			}
		}
		p.Write([]byte{0, 0, 0}) // not worth a hole
		want = append(want, 0, 0, 0)
		if p.Size() != int64(len(want)) {
			t.Errorf("Size() = %d; want %d", p.Size(), len(want))
		}
		if err := p.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(dir + "/file")
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("pieces %d: file has %d bytes, %v; want %d equal ones", test.pieces, len(got), err, len(want))
		}
		info, err := os.Stat(dir + "/file")
		if err != nil {
			t.Fatal(err)
		}
		if took := info.Sys().(*syscall.Stat_t).Blocks * 512; took > (test.blocks+1)*mega {
			t.Errorf("pieces %d take %d bytes on the disk; want at most %d MiB", test.pieces, took, test.blocks+1)
		}
	}
}

func TestNewPartialRefuses(t *testing.T) {
	drivertest.NoLeaks(t)
	root, dir := openRoot(t)
	if err := errors.Join(
		os.Mkdir(dir+"/dir", 0o777),
		syscall.Mkfifo(dir+"/fifo", 0o666),
		os.WriteFile(dir+"/file", nil, 0o666),
		os.WriteFile(dir+"/readonly", nil, 0o444),
		os.Symlink("loop", dir+"/loop"),
		os.Symlink("/etc/passwd", dir+"/abs"),
		os.Symlink("../outside", dir+"/out"),
		os.Symlink("dir", dir+"/todir"),
	); err != nil {
		t.Fatal(err)
	}
	want := len(names(t, dir))
	for _, name := range []string{"dir", "todir", "fifo", "loop", "abs", "out", "file/x", "../x", ".", strings.Repeat("x", 256), "/etc/passwd"} {
		if p, err := NewPartial(root, name); err == nil {
			t.Errorf("NewPartial(%.20q) = nil; want an error", name)
			p.Discard()
		}
	}
	if os.Geteuid() != 0 { // whom permissions do not stop
		if _, err := NewPartial(root, "readonly"); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("NewPartial(readonly) = %v; want %v", err, fs.ErrPermission)
		}
	}
	if got := names(t, dir); len(got) != want {
		t.Errorf("there are %q; want what was there before", got)
	}
}

// TestFull runs in a process of its own, in which files cannot grow beyond
// fullAt: the disk is full for it, wherever it is.
func TestFull(t *testing.T) {
	const fullAt = 1 << 20
	if os.Getenv("STORAGE_TEST_FULL") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestFull$", "-test.v")
		cmd.Env = append(os.Environ(), "STORAGE_TEST_FULL=1")
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: TestFull")) {
			t.Errorf("in a process with limited files: %v:\n%s", err, out)
		}
		return
	}
	root, dir := openRoot(t)
	signal.Ignore(syscall.SIGXFSZ)
	if err := os.WriteFile(dir+"/file", []byte("old"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: fullAt, Max: fullAt}); err != nil {
		t.Fatal(err)
	}
	for what, src := range map[string][]byte{
		"data":                     bytes.Repeat([]byte{1}, fullAt+1),
		"data behind a hole":       append(make([]byte, 2*fullAt), bytes.Repeat([]byte{1}, 1000)...),
		"nothing but a hole":       make([]byte, 2*fullAt),
		"data, and a hole at last": append(bytes.Repeat([]byte{1}, 1000), make([]byte, 2*fullAt)...),
	} {
		if n, err := Replace(t.Context(), root, "file", bytes.NewReader(src)); !errors.Is(err, syscall.EFBIG) {
			t.Errorf("Replace(%s) = %d, %v; want %v", what, n, err, syscall.EFBIG)
		}
		if got, _ := os.ReadFile(dir + "/file"); string(got) != "old" || len(names(t, dir)) != 1 {
			t.Errorf("%s: file = %q among %q; want the old one alone", what, got, names(t, dir))
		}
	}
	if _, err := Replace(t.Context(), root, "file", bytes.NewReader(make([]byte, fullAt))); err != nil {
		t.Errorf("Replace() with what fits = %v; want nil", err)
	}
}
