//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package scratch

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver/drivertest"
)

// asHolder makes the test's own file make a folder in the place that it names, and
// wait for the end.
const asHolder = "SCRATCH_TEST_HOLDER"

func TestMain(m *testing.M) {
	place := os.Getenv(asHolder)
	if place == "" {
		os.Exit(m.Run())
	}
	f, err := Make("held", place)
	if err != nil {
		panic(err)
	}
	os.Stdout.WriteString(f.Path + "\n")
	if os.Getenv("SCRATCH_TEST_HEIR") == "" {
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	f.Inherit()
	heir := exec.Command("cat")
	heir.Stdin, heir.Stdout = os.Stdin, os.Stdout // which end with us who test
	if err := heir.Start(); err != nil {
		panic(err)
	}
	_, _ = os.Stdout.WriteString("started\n")
	_ = heir.Wait()
}

// holder is a process that has a folder.
type holder struct {
	*exec.Cmd
	path  string
	stdin io.WriteCloser
	out   *bufio.Reader
}

func start(t *testing.T, place string, env ...string) *holder {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h := &holder{Cmd: exec.Command(self)}
	h.Env = append(append(os.Environ(), asHolder+"="+place), env...)
	h.Stderr = os.Stderr
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	h.Stdout, h.out = w, bufio.NewReader(out)
	if h.stdin, err = h.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := h.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() {
		h.stdin.Close()
		_ = h.Process.Kill()
		_ = h.Wait()
		out.Close()
	})
	h.path = h.line(t)
	return h
}

func (h *holder) line(t *testing.T) string {
	t.Helper()
	line, err := h.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(line, "\n")
}

func make1(t *testing.T, place string) *Folder {
	t.Helper()
	f, err := Make("held", place)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func there(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// The folder of a process that was killed goes when the next one is made, and no
// other does.
func TestMake(t *testing.T) {
	place := t.TempDir()
	live, dead := start(t, place), start(t, place)
	if err := os.WriteFile(filepath.Join(dead.path, "socket"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	precious := filepath.Join(place, "precious")
	for _, dir := range []string{precious, "held-1x", "held-", "held", "held-else-1", "other-1"} {
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(place, dir)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(precious, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// a folder that others can put things into, a link to a folder, a file, and a link in one that is left
	for _, err := range []error{
		os.Mkdir(filepath.Join(place, "held-2"), 0o700), os.Chmod(filepath.Join(place, "held-2"), 0o770),
		os.Symlink(precious, filepath.Join(place, "held-3")),
		os.WriteFile(filepath.Join(place, "held-4"), nil, 0o600),
		os.Symlink(precious, filepath.Join(dead.path, "link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}

	_ = dead.Process.Kill()
	_ = dead.Wait()
	if !there(dead.path) {
		t.Fatalf("%s went with its process; want it left, or this tests nothing", dead.path)
	}
	f := make1(t, place)
	if there(dead.path) {
		t.Errorf("%s of a process that was killed is there; want it gone", dead.path)
	}
	if !there(live.path) {
		t.Errorf("%s of a process that lives is gone; want it there", live.path)
	}
	for _, name := range []string{"precious/file", "held-1x", "held-", "held", "held-else-1", "other-1", "held-2", "held-3", "held-4"} {
		if !there(filepath.Join(place, name)) {
			t.Errorf("%s is gone; want it there", name)
		}
	}
	if fi, err := os.Stat(f.Path); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("Stat(%s) = %v, %v; want it for its owner only", f.Path, fi, err)
	}
	if g := make1(t, place); !there(f.Path) || g.Remove() != nil {
		t.Errorf("%s of this process is gone; want it there", f.Path)
	}
	if err := f.Remove(); err != nil || there(f.Path) {
		t.Errorf("Remove() = %v, there: %t; want it gone", err, there(f.Path))
	}
}

// A program that was let inherit a folder holds it on when its parent was killed.
func TestInherit(t *testing.T) {
	place := t.TempDir()
	h := start(t, place, "SCRATCH_TEST_HEIR=1")
	h.line(t)
	_ = h.Process.Kill()
	_, _ = h.Process.Wait()
	_ = make1(t, place).Remove()
	if !there(h.path) {
		t.Errorf("%s, which a child has still, is gone; want it there", h.path)
	}
	h.stdin.Close() // which ends the child
	if _, err := h.out.ReadString('\n'); err != io.EOF {
		t.Fatalf("the child's output = %v; want its end", err)
	}
	drivertest.Until(t, "the folder is gone after its last holder", func() bool { // whose files the kernel closes one by one
		_ = make1(t, place).Remove()
		return !there(h.path)
	})
}

// Who makes a folder while others tidy up has one, and keeps it.
func TestMakeTogether(t *testing.T) {
	place := t.TempDir()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				f, err := Make("held", place)
				if err != nil {
					t.Errorf("Make() = %v; want a folder", err)
					return
				}
				file := filepath.Join(f.Path, "file")
				if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Remove(file), f.Remove()); err != nil {
					t.Errorf("using and removing it = %v; want nil", err)
				}
			}
		})
	}
	all.Wait()
	if left, err := os.ReadDir(place); err != nil || len(left) > 0 {
		t.Errorf("there is left %v, %v; want nothing", left, err)
	}
}

func TestMakePlaces(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Make("held", "", "/"+strings.Repeat("x", longest), file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Remove()
	want := os.TempDir()
	if len(want) > longest {
		want = "/tmp"
	}
	if got := filepath.Dir(f.Path); got != want {
		t.Errorf("Make() without a place that will have it = %s; want it in %s", f.Path, want)
	}
}
