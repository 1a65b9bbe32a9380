//go:build !linux || ppc64 || ppc64le

package serialtest

import (
	"errors"
	"os"
)

func settings(*os.File) (Settings, error) { return Settings{}, errors.ErrUnsupported }
