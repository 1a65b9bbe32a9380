package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"

	"github.com/jumplead/jumplead/drivers/driver"
)

// Probe looks for the interpreter and for the working directory. No script is run.
func (c *Config) Probe(context.Context, *driver.Env) (string, error) {
	if len(c.Shell) == 0 {
		return "", errors.New("shell: is empty")
	}
	path, err := exec.LookPath(c.Shell[0])
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("shell: %w: no %s on the PATH", fs.ErrNotExist, c.Shell[0])
	} else if err != nil {
		return "", fmt.Errorf("shell: %w", err)
	}
	if c.Cwd == "" {
		return path, nil
	}
	switch info, err := os.Stat(c.Cwd); {
	case err != nil:
		return "", fmt.Errorf("cwd: %w", err)
	case !info.IsDir():
		return "", fmt.Errorf("cwd: %w", &fs.PathError{Op: "chdir", Path: c.Cwd, Err: syscall.ENOTDIR})
	}
	return path + ", in " + c.Cwd, nil
}
