//go:build !linux || ppc64 || ppc64le

package pty

import (
	"errors"
	"os"
)

func open() (master, slave *os.File, err error) { return nil, nil, errors.ErrUnsupported }
