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
	"slices"
	"strings"
	"time"

	"github.com/jumplead/jumplead/exporter/scratch"
)

// module is the first line of the go.mod that marks the checkout's root.
const module = "module github.com/jumplead/jumplead\n"

// The lists of distributions, below the checkout's root. That of the drivers holds
// what the other one lacks.
const (
	requirements = "cmd/jumplead/interop/requirements.txt"
	drivers      = "cmd/jumplead/interop/requirements-drivers.txt"
)

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

// Environ is the environment of this process for a program under test: without what steers Jumpstarter or jumplead, or
// sends the loopback through a proxy, with a folder that the program may write to, and with more.
func Environ(folder string, more ...string) []string {
	var env []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		switch {
		case strings.HasPrefix(name, "JMP_"), strings.HasPrefix(name, "JUMPSTARTER_"), strings.HasPrefix(name, "JUMPLEAD_"):
		case strings.HasSuffix(strings.ToLower(name), "_proxy"):
		default:
			env = append(env, e)
		}
	}
	return slices.Concat(env, []string{
		"HOME=" + folder,
		"TMPDIR=" + folder,
		"XDG_CONFIG_HOME=" + folder,
		"XDG_RUNTIME_DIR=" + folder,
		"PYTHONDONTWRITEBYTECODE=1",
		// A program with the race detector sleeps for a second before its end.
		"GORACE=atexit_sleep_ms=0",
	}, more)
}

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
	return open(ctx, filepath.Join(root, ".build"), filepath.Join(root, requirements), nil)
}

// OpenDrivers returns an environment that has every driver package of the release
// that can be had as wheels. It lies on top of that of [Open]: what is there is not
// installed a second time, and it has no programs of its own but python.
func OpenDrivers(ctx context.Context) (*Env, error) {
	base, err := Open(ctx)
	if err != nil {
		return nil, err
	}
	root, err := Root()
	if err != nil {
		return nil, err
	}
	return open(ctx, filepath.Join(root, ".build"), filepath.Join(root, drivers), base)
}

// open builds an environment, on top of another one if that is not nil.
func open(ctx context.Context, build, list string, base *Env) (*Env, error) {
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
	if base != nil {
		version = append(version, base.dir...)
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
	if err := e.make(ctx, python, base); err != nil {
		return nil, fmt.Errorf("python environment: %w", err)
	}
	for _, step := range [][]string{
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

// make makes an environment without anything in it. One that is on top of another
// finds that one's packages, pip among them, after its own.
func (e *Env) make(ctx context.Context, python string, base *Env) error {
	if base == nil {
		_, err := run(ctx, python, "-m", "venv", e.dir)
		return err
	}
	if _, err := run(ctx, python, "-m", "venv", "--without-pip", e.dir); err != nil {
		return err
	}
	const packages = "import sysconfig; print(sysconfig.get_path('purelib'), end='')"
	theirs, err := run(ctx, base.Bin("python"), "-c", packages)
	if err != nil {
		return err
	}
	ours, err := run(ctx, e.Bin("python"), "-c", packages)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(string(ours), "base.pth"), append(theirs, '\n'), 0o644)
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
		err := scratch.Lock(f)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, scratch.ErrHeld) {
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
