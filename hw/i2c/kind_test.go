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
		{syscall.ENXIO, true}, {syscall.Errno(121), true}, {syscall.ENODEV, true}, {syscall.ENOENT, true}, {syscall.EIO, true}, {syscall.EOPNOTSUPP, true}, {syscall.ETIMEDOUT, false},
	} {
		err := kind(fmt.Errorf("sysfs-i2c: %v", test.errno))
		if got := errors.Is(err, hw.ErrAbsent); got != test.absent {
			t.Errorf("kind(%v) = %v, absent = %t; want %t", test.errno, err, got, test.absent)
		}
		if !errors.Is(err, test.errno) {
			t.Errorf("kind(%v) = %v; want the system's error in it", test.errno, err)
		}
	}
	if other := errors.New("sysfs-i2c: invalid address"); kind(other) != other {
		t.Errorf("kind(%v) = %v; want it as it is", other, kind(other))
	}
}
