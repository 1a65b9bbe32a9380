package usbtest

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
)

// I2C is an I2C adapter of the open design "i2c-tiny-usb", which the kernel's driver of that name offers as /dev/i2c-N. It passes plain
// I2C messages, unlike the SMBus stub of the kernel. What is on its bus is up to the test: see [I2C.Put].
type I2C struct {
	Serial string

	mu    sync.Mutex
	chips map[uint16]Chip
	state byte // what the host is told of the last message
}

// Chip is what answers at an address of an I2C bus. Its methods are called one after another. False is a byte or an
// address that is not acknowledged.
type Chip interface {
	Write(b []byte) bool
	Read(n int) ([]byte, bool)
}

// Put puts a chip on the bus, or with nil takes one away.
func (d *I2C) Put(address uint16, c Chip) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.chips == nil {
		d.chips = map[uint16]Chip{}
	}
	d.chips[address] = c
}

// Descriptors are those of an adapter of this design: 0403:c631 is its number. It has no endpoint but 0.
func (d *I2C) Descriptors() Descriptors {
	const vendorSpecific = 0xff
	return Descriptors{
		Speed: Full, Vendor: 0x0403, Product: 0xc631, Release: 0x0200, Class: vendorSpecific,
		Maker: "jumplead", Name: "model of an I2C adapter", Serial: d.Serial,
		Interfaces: 1, Body: Interface(0, 0, vendorSpecific, 0, 0),
	}
}

// Power is nothing to a bus that has its own supply.
func (d *I2C) Power(bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state = stateIdle
}

const (
	stateIdle = 0
	stateAck  = 1
	stateNak  = 2
)

// Control passes one message of a transaction, or answers about the adapter.
func (d *I2C) Control(_ context.Context, s Setup, in []byte) ([]byte, error) {
	const (
		getFunctions = 1
		setDelay     = 2
		getStatus    = 3
		transfer     = 4 // and two bits: the first and the last message of a transaction
		read         = 1 // I2C_M_RD, in the value
	)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case s.Request == getFunctions:
		const i2c, smbusEmulated = 0x00000001, 0x0eff0008 // linux/i2c.h
		return binary.LittleEndian.AppendUint32(nil, i2c|smbusEmulated), nil
	case s.Request == setDelay:
		return nil, nil
	case s.Request == getStatus:
		return []byte{d.state}, nil
	case s.Request&^3 != transfer:
		return nil, ErrStall
	}
	d.state = stateNak
	c := d.chips[s.Index]
	if c == nil {
		if s.In() {
			return make([]byte, s.Length), nil
		}
		return nil, nil
	}
	ok := false
	var out []byte
	if s.Value&read != 0 {
		if out, ok = c.Read(int(s.Length)); !ok {
			out = make([]byte, s.Length) // the host asks for the state afterwards
		}
	} else {
		ok = c.Write(in)
	}
	if ok {
		d.state = stateAck
	}
	return out, nil
}

// In is not there: an adapter has no such endpoint.
func (d *I2C) In(context.Context, uint8, int) ([]byte, error) { return nil, errNoEndpoint }

// Out is not there either.
func (d *I2C) Out(context.Context, uint8, []byte) error { return errNoEndpoint }

var errNoEndpoint = errors.New("no such endpoint")

// Words is a chip with registers of 16 bits, the high byte first, and a pointer that a write sets: so are the power meters INA219, INA226
// and INA260 made, and many thermometers. The zero Words has none.
type Words struct {
	mu   sync.Mutex
	regs map[byte]uint16
	at   byte
}

// Set gives the register a value, and makes it exist.
func (w *Words) Set(register byte, v uint16) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.regs == nil {
		w.regs = map[byte]uint16{}
	}
	w.regs[register] = v
}

// Get is the register's value, as the host may have left it.
func (w *Words) Get(register byte) uint16 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.regs[register]
}

// Write sets the pointer, and the register if a value follows.
func (w *Words) Write(b []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(b) == 0 {
		return true // somebody looks who is there
	}
	w.at = b[0]
	if _, ok := w.regs[w.at]; !ok {
		return false
	}
	if len(b) == 3 {
		w.regs[w.at] = binary.BigEndian.Uint16(b[1:])
	}
	return len(b) == 1 || len(b) == 3
}

// Read reads the register that the pointer is at, again and again.
func (w *Words) Read(n int) ([]byte, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := make([]byte, 0, n+1)
	for len(b) < n {
		b = binary.BigEndian.AppendUint16(b, w.regs[w.at])
	}
	return b[:n], true
}
