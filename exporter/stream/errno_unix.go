//go:build unix

package stream

import (
	"errors"
	"syscall"
)

func notConnected(err error) bool { return errors.Is(err, syscall.ENOTCONN) }
