//go:build !linux

package local

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/jumplead/jumplead/drivers/driver"
)

func open(context.Context, *driver.Env, Config) (driver.Driver, error) {
	return driver.Driver{}, fmt.Errorf("shell: scripts on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
