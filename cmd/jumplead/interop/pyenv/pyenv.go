// Package pyenv makes the Python virtual environment that holds the stock
// Jumpstarter release, for tests and benchmarks that need the real peer.
//
// There is one environment for one list of requirements and one Python, in
// the folder .build of the checkout. Test packages run as processes side by
// side, so the first of them builds the environment under a file lock and
// the others wait. An environment that was not finished is built anew: the
// mark that says it is complete is written last.
package pyenv

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// module is the first line of the go.mod that marks the checkout's root.
const module = "module github.com/jumplead/jumplead\n"

// requirements is the list of distributions, below the checkout's root.
const requirements = "cmd/jumplead/interop/requirements.txt"

// probe prints what an environment depends on besides the requirements, and
// fails where the stock release does not run.
const probe = `import sys, venv
if sys.version_info < (3, 11): sys.exit("python %d.%d is too old, the stock release needs 3.11" % sys.version_info[:2])
print(sys.version, sys.base_prefix)`

// An Env is a virtual environment that is complete.
type Env struct {
	dir string
}

// Dir returns the environment's folder.
func (e *Env) Dir() string { return e.dir }

// Bin returns the path of a program of the environment, such as "python",
// "jmp" or "j".
func (e *Env) Bin(name string) string { return filepath.Join(e.dir, "bin", name) }

// Root returns the root of the checkout that holds the working directory.
// Tests run in their package's folder, so they find it whatever the checkout
// is called.
func Root() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("checkout: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(mod, []byte(module)) {
			return dir, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("checkout: %w", err)
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("checkout: %s is not inside one", start)
		}
	}
}

// Open returns the environment of this checkout, and builds it if it is not
// there; that takes half a minute and a package index. It fails when python3
// is missing, too old or without the venv module, and when a distribution
// cannot be had as a wheel.
func Open(ctx context.Context) (*Env, error) {
	root, err := Root()
	if err != nil {
		return nil, err
	}
	return open(ctx, filepath.Join(root, ".build"), filepath.Join(root, requirements))
}

func open(ctx context.Context, build, list string) (*Env, error) {
	python, err := exec.LookPath("python3")
	if err != nil {
		return nil, fmt.Errorf("python environment: %w", err)
	}
	version, err := run(ctx, python, "-c", probe)
	if err != nil {
		return nil, fmt.Errorf("python environment: %w", err)
	}
	wanted, err := os.ReadFile(list)
	if err != nil {
		return nil, fmt.Errorf("python environment: %w", err)
	}
	if err := os.MkdirAll(build, 0o755); err != nil {
		return nil, fmt.Errorf("python environment: %w", err)
	}
	sum := sha256.Sum256(append(version, wanted...))
	dir := filepath.Join(build, "venv-"+hex.EncodeToString(sum[:6]))

	unlock, err := lock(ctx, dir+".lock")
	if err != nil {
		return nil, fmt.Errorf("python environment: %w", err)
	}
	defer unlock()

	// The mark names the folder, because the programs of an environment
	// name it too: one that was moved is of no use.
	mark := filepath.Join(dir, "complete")
	if had, err := os.ReadFile(mark); err == nil && string(had) == dir {
		return &Env{dir}, nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("python environment: %w", err)
	}
	e := &Env{dir}
	for _, step := range [][]string{
		{python, "-m", "venv", dir},
		// --no-deps and the check afterwards: pip must not choose a version
		// of anything that the list forgot.
		{e.Bin("python"), "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check",
			"--no-deps", "--only-binary=:all:", "--requirement", list},
		{e.Bin("python"), "-m", "pip", "check", "--disable-pip-version-check"},
	} {
		if _, err := run(ctx, step...); err != nil {
			return nil, fmt.Errorf("python environment: %w", err)
		}
	}
	if err := os.WriteFile(mark, []byte(dir), 0o644); err != nil {
		return nil, fmt.Errorf("python environment: %w", err)
	}
	return e, nil
}

// run runs a program and returns its standard output. Its error holds the
// last lines of what the program said.
func run(ctx context.Context, argv ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var stdout, said bytes.Buffer
	cmd.Stdout = &stdout
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		text := bytes.TrimSpace(append(stdout.Bytes(), said.Bytes()...))
		return nil, fmt.Errorf("%s: %w: %s", filepath.Base(argv[0]), err, text[max(0, len(text)-800):])
	}
	return stdout.Bytes(), nil
}

// lock takes a lock that ends with the process if not before. It polls,
// because a blocking flock would not end with the context.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, ctx.Err())
		case <-tick.C:
		}
	}
}
