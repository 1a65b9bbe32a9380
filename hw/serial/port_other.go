//go:build !linux || ppc64 || ppc64le

package serial

import (
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
