//go:build !linux || ppc64 || ppc64le

package serialtest

import (
	"errors"
	"os"
)

func openPair() (master, slave *os.File, err error) { return nil, nil, errors.ErrUnsupported }

func settings(*os.File) (Settings, error) { return Settings{}, errors.ErrUnsupported }
