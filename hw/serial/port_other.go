//go:build !linux || ppc64 || ppc64le

package serial

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"

	"github.com/jumplead/jumplead/hw"
)

func open(path string, _ hw.SerialOptions) (hw.SerialPort, error) {
	return nil, &fs.PathError{Op: "open", Path: path,
		Err: fmt.Errorf("serial ports on %s/%s: %w", runtime.GOOS, runtime.GOARCH, errors.ErrUnsupported)}
}

func probe(_ context.Context, path string) (hw.SerialInfo, error) {
	_, err := open(path, hw.SerialOptions{})
	return hw.SerialInfo{}, err
}
