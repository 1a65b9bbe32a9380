package pyenv

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jumplead/jumplead/hw/hwtest"
)

// needVenv skips where python3 cannot make environments at all. The tests
// here use a list of no distributions, so they need no package index.
func needVenv(t *testing.T) {
	t.Helper()
	hwtest.NeedFunc(t, hwtest.Python, func() error {
		_, err := run(t.Context(), "python3", "-c", probe+"\nimport ensurepip")
		return err
	})
}

func empty(t *testing.T) string {
	t.Helper()
	list := filepath.Join(t.TempDir(), "requirements.txt")
	if err := os.WriteFile(list, []byte("# none\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return list
}

func TestRoot(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, requirements)); err != nil {
		t.Errorf("Root() = %s; want the checkout: %v", root, err)
	}
	t.Chdir(t.TempDir())
	if root, err := Root(); err == nil {
		t.Errorf("Root() outside a checkout = %s; want an error", root)
	}
}

// Several processes that ask at once get one environment, built once; one
// that was left half made is built again.
func TestOpenOnce(t *testing.T) {
	needVenv(t)
	build, list := t.TempDir(), empty(t)

	first, err := open(t.Context(), build, list, nil)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(first.Bin("python"), "-c", "import sys; print(sys.prefix)").Output(); err != nil ||
		strings.TrimSpace(string(out)) != first.Dir() {
		t.Errorf("the environment's python has the prefix %s, %v; want %s", out, err, first.Dir())
	}
	if err := os.Remove(filepath.Join(first.Dir(), "complete")); err != nil {
		t.Fatal(err)
	}
	debris := filepath.Join(first.Dir(), "debris")
	if err := os.WriteFile(debris, nil, 0o644); err != nil {
		t.Fatal(err)
	}

	var wg sync.WaitGroup
	var marks [3]os.FileInfo
	for i := range marks {
		wg.Go(func() {
			e, err := open(t.Context(), build, list, nil)
			if err != nil {
				t.Errorf("open() = %v; want the environment", err)
				return
			}
			if e.Dir() != first.Dir() {
				t.Errorf("open() = %s; want %s", e.Dir(), first.Dir())
			}
			marks[i], _ = os.Stat(filepath.Join(e.Dir(), "complete"))
		})
	}
	wg.Wait()
	if _, err := os.Stat(debris); err == nil {
		t.Error("a half-made environment was kept; want it built anew")
	}
	for _, m := range marks {
		if m == nil || !os.SameFile(m, marks[0]) || !m.ModTime().Equal(marks[0].ModTime()) {
			t.Errorf("marks = %v; want one, written once", marks)
		}
	}

	// One on top of it has what it has.
	top, err := open(t.Context(), build, list, first)
	if err != nil {
		t.Fatalf("open() on top of another = %v; want the environment", err)
	}
	if top.Dir() == first.Dir() {
		t.Errorf("open() on top of another = %s; want a folder of its own", top.Dir())
	}
	out, err := exec.Command(top.Bin("python"), "-c", "import pip, sys; print(sys.prefix, pip.__file__)").CombinedOutput()
	if prefix, pip, _ := strings.Cut(string(out), " "); err != nil || prefix != top.Dir() || !strings.HasPrefix(pip, first.Dir()) {
		t.Errorf("the prefix and where pip is = %s, %v; want %s, and below %s", out, err, top.Dir(), first.Dir())
	}
}

func TestOpenOtherList(t *testing.T) {
	needVenv(t)
	build := t.TempDir()
	list := filepath.Join(t.TempDir(), "requirements.txt")
	if err := os.WriteFile(list, []byte("/nowhere/absent.whl\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := open(t.Context(), build, list, nil)
	if err == nil || !strings.Contains(err.Error(), "absent.whl") {
		t.Errorf("open() = %v; want an error that names absent.whl", err)
	}
}

func TestOpenNoPython(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := open(t.Context(), t.TempDir(), empty(t), nil)
	if !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("open() without python3 = %v; want %v", err, exec.ErrNotFound)
	}
}

func TestLockEndsWithContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := lock(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("lock() of a held lock = %v; want %v", err, context.DeadlineExceeded)
	}
	unlock()
	again, err := lock(t.Context(), path)
	if err != nil {
		t.Fatalf("lock() after unlock = %v; want it", err)
	}
	again()
}
