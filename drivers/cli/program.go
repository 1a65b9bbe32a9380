package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// Program runs a program of the user's machine with the command's standard
// streams. Its exit status becomes the command's, as [Status] has it. When the
// context is done the program is interrupted, and killed if that is in vain.
func Program(ctx context.Context, c *cobra.Command, argv []string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.InOrStdin(), c.OutOrStdout(), c.ErrOrStderr()
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	return Status(cmd.Run())
}

// Status is what [exec.Cmd] says of a program's end, as the end of this one: the
// same exit status, 128 and the signal's number after a death by a signal, 127
// if there is no such program and 126 if it cannot be run.
func Status(err error) error {
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
			return Exit(128 + int(s.Signal()))
		}
		return Exit(exit.ExitCode())
	case errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist):
		return &failure{err, 127}
	case errors.Is(err, fs.ErrPermission):
		return &failure{err, 126}
	}
	return err
}

// failure is an error with an exit status of its own.
type failure struct {
	error
	status int
}

func (f *failure) Unwrap() error { return f.error }
