package i2c

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/jumplead/jumplead/hw"
)

// periph keeps of the system's errors only the text.
func TestKind(t *testing.T) {
	for _, test := range []struct {
		errno  syscall.Errno
		absent bool
	}{
		{syscall.ENXIO, true}, {syscall.Errno(121), true}, {syscall.ENODEV, true}, {syscall.ETIMEDOUT, false}, {syscall.EIO, false},
	} {
		err := kind(fmt.Errorf("sysfs-i2c: %v", test.errno))
		if got := errors.Is(err, hw.ErrAbsent); got != test.absent {
			t.Errorf("kind(%v) = %v, absent = %t; want %t", test.errno, err, got, test.absent)
		}
	}
}
