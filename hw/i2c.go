package hw

import (
	"context"
	"errors"
	"fmt"
)

// I2C is the host's I2C buses.
type I2C interface {
	// OpenI2C opens the bus /dev/i2c-N.
	OpenI2C(ctx context.Context, n int) (I2CBus, error)
}

// I2CBus is an open bus. Its methods may be called from several goroutines at once.
type I2CBus interface {
	// Tx writes w to the chip at the 7-bit address and then, without letting go of the bus in between, reads r. Either may
	// be empty. That no chip answers is [ErrAbsent].
	Tx(addr uint16, w, r []byte) error
	Close() error
}

// OpenI2C opens an I2C bus of the host.
func (h Host) OpenI2C(ctx context.Context, n int) (I2CBus, error) {
	if h.I2C == nil {
		return nil, fmt.Errorf("open i2c-%d: this host has no I2C buses: %w", n, errors.ErrUnsupported)
	}
	return h.I2C.OpenI2C(ctx, n)
}
