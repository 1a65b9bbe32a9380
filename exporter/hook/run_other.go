//go:build !linux

package hook

import (
	"context"
	"errors"
	"fmt"
	"runtime"
)

// Runner runs the hooks of one lease.
type Runner struct{}

// New fails: hooks run on Linux only.
func New(Options) (*Runner, error) {
	return nil, fmt.Errorf("hooks on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

// Run is never called.
func (*Runner) Run(context.Context, Kind, Hook) (string, error) { return "", errors.ErrUnsupported }

// Close is never called.
func (*Runner) Close() error { return nil }
