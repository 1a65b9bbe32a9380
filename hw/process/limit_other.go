//go:build !linux

package process

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/jumplead/jumplead/hw"
)

// Keeps fails: limits are only kept on Linux.
func Keeps(hw.Limits, string) (how string, err error) {
	return "", fmt.Errorf("limits on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
