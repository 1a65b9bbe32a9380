// Package i2ctest has models of I2C buses and of chips on them, for tests without hardware.
package i2ctest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"syscall"

	"github.com/jumplead/jumplead/hw"
)

// Chip is a model of a chip on a bus. Calls do not overlap.
type Chip interface {
	// Tx is a write and then a read; either may be empty.
	Tx(w, r []byte) error
}

// Buses is a host with any number of buses. The zero Buses has none.
type Buses struct {
	mu    sync.Mutex
	buses map[int]map[uint16]Chip
	open  int

	forbidden map[int]bool      // to this user
	taken     map[uint16]string // by drivers of the kernel
}

var _ hw.I2C = (*Buses)(nil)

// Add makes a bus appear, without chips.
func (b *Buses) Add(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.buses == nil {
		b.buses = map[int]map[uint16]Chip{}
	}
	b.buses[n] = map[uint16]Chip{}
}

// Remove takes a bus away, with its chips.
func (b *Buses) Remove(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.buses, n)
}

// Plug puts a chip on a bus that is there; nil takes it away.
func (b *Buses) Plug(n int, addr uint16, c Chip) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.buses[n][addr] = c; c == nil {
		delete(b.buses[n], addr)
	}
}

// Forbid takes away the right to open a bus, or gives it back.
func (b *Buses) Forbid(n int, forbidden bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forbidden = map[int]bool{n: forbidden}
}

// Take gives the chips at an address to a driver of the kernel; "" takes them back.
func (b *Buses) Take(addr uint16, driver string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.taken = map[uint16]string{addr: driver}
}

// Held is how many open buses were not closed.
func (b *Buses) Held() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

// OpenI2C opens a bus.
func (b *Buses) OpenI2C(ctx context.Context, n int) (hw.I2CBus, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.buses[n] == nil {
		return nil, hw.Mark(hw.ErrAbsent, fmt.Errorf("open i2c-%d: no such bus", n))
	}
	if b.forbidden[n] {
		return nil, fmt.Errorf("open /dev/i2c-%d: %w: the user needs the group that owns the device", n, fs.ErrPermission)
	}
	b.open++
	return &bus{buses: b, n: n}, nil
}

type bus struct {
	buses  *Buses
	n      int
	closed bool
}

func (b *bus) Tx(addr uint16, w, r []byte) error {
	b.buses.mu.Lock()
	defer b.buses.mu.Unlock()
	if driver := b.buses.taken[addr]; driver != "" {
		return hw.Mark(hw.ErrBusy, fmt.Errorf("i2c-%d, address %#02x: the kernel's driver %s has the chip", b.n, addr, driver))
	}
	c := b.buses.buses[b.n][addr]
	if c == nil {
		return hw.Mark(hw.ErrAbsent, fmt.Errorf("i2c-%d, address %#02x: no chip answers: %w", b.n, addr, syscall.ENXIO))
	}
	return c.Tx(w, r)
}

func (b *bus) Close() error {
	b.buses.mu.Lock()
	defer b.buses.mu.Unlock()
	if b.closed {
		return errors.New("closed twice")
	}
	b.closed = true
	b.buses.open--
	return nil
}

// registers is what chips with 8-bit pointers and 16-bit registers have in common: a write of one byte sets the pointer, one
// of three writes a register, high byte first, and a read yields the register that the pointer is at.
type registers struct{ pointer byte }

func (c *registers) tx(w, r []byte, get func(reg byte) uint16, set func(reg byte, v uint16)) error {
	switch len(w) {
	case 0:
	case 1:
		c.pointer = w[0]
	case 3:
		c.pointer = w[0]
		set(w[0], binary.BigEndian.Uint16(w[1:]))
	default:
		return fmt.Errorf("a write of %d bytes: %w", len(w), syscall.EIO)
	}
	switch len(r) {
	case 0:
	case 2:
		binary.BigEndian.PutUint16(r, get(c.pointer))
	default:
		return fmt.Errorf("a read of %d bytes: %w", len(r), syscall.EIO)
	}
	return nil
}
