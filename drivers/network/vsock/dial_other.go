//go:build !linux

package vsock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
)

func dial(context.Context, Config) (io.ReadWriteCloser, error) {
	return nil, fmt.Errorf("vsock on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
