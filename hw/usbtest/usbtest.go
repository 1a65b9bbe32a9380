// Package usbtest has models of USB devices, and plugs them into this machine's kernel.
//
// A [Model] is a USB device in Go: descriptors, and what it does when the host talks to it. [Plug] puts it into a port of
// vhci-hcd, the kernel's virtual host controller, and from then on everything is real but the wire: the kernel
// enumerates the device, binds its own driver to it, and offers /dev/ttyACM0, /dev/i2c-1, can0 or whatever that driver
// makes of it. A test of hw/serial so meets the kernel's cdc-acm driver, with modem lines, breaks and unplugging.
//
// vhci-hcd was made for devices that are shared over a network (Documentation/usb/usbip_protocol.rst). It takes any
// stream socket, so one end of a pair of sockets is given to the kernel, and the test process serves the other. No
// network, daemon or tool is involved. It takes root, which is why such tests run in the machine of cmd/vm; a test asks
// for hwtest.USB.
//
// # Faults
//
// Hardware fails in ways that no driver asks for. [Port.Fail] makes the next transfers of an endpoint stall, break, stay
// unanswered, or pulls the cable in their middle. [Altered] plugs in a model with other descriptors, wrong ones too. Two devices that
// are alike in everything are two models plugged in at once.
package usbtest

import (
	"context"
	"encoding/binary"
	"errors"
	"unicode/utf16"
)

// Model is a device. Its endpoints are served at the same time, each in order: In and Out of different endpoints and
// Control may overlap.
type Model interface {
	// Descriptors says what the device is. It is asked each time the device is plugged in.
	Descriptors() Descriptors

	// Power tells that the device was plugged in, in the state of a fresh one, or unplugged.
	Power(on bool)

	// Control does a class's or vendor's request. For one that reads it returns the data; in is what it got for one that
	// writes.
	Control(ctx context.Context, s Setup, in []byte) (out []byte, err error)

	// In waits for something to send on an IN endpoint, at most n bytes, until ctx is done: the host does not want it
	// any more.
	In(ctx context.Context, endpoint uint8, n int) ([]byte, error)

	// Out takes what came in on an OUT endpoint. It may wait, as a device does whose buffer is full.
	Out(ctx context.Context, endpoint uint8, data []byte) error
}

// ErrStall is the error of a request that the device does not know, or of an endpoint that is halted. Any other error
// shows to the host as noise on the wire.
var ErrStall = errors.New("stall")

// Speed is a bus speed, as the kernel numbers them.
type Speed int

const (
	Low   Speed = 1 // 1.5 Mbit/s
	Full  Speed = 2 // 12 Mbit/s
	High  Speed = 3 // 480 Mbit/s
	Super Speed = 5 // 5 Gbit/s; not offered by this package's ports
)

// Descriptors is what a device tells of itself.
type Descriptors struct {
	Speed                     Speed
	Vendor, Product, Release  uint16
	Class, SubClass, Protocol uint8
	Maker, Name, Serial       string // "" is none

	Interfaces int    // how many interfaces Body has
	Body       []byte // the interfaces, endpoints and what else follows the configuration's own descriptor

	// Raw has answers that are given instead: by the kind of descriptor in the upper byte and its number in the lower,
	// 0x0100 for the device's and 0x0200 for the configuration's.
	Raw map[uint16][]byte
}

// Kinds of descriptor (USB 2.0, table 9-5).
const (
	kindDevice        = 1
	kindConfiguration = 2
	kindString        = 3
	kindInterface     = 4
	kindEndpoint      = 5
)

// Interface is the descriptor of an interface, without alternatives.
func Interface(number, endpoints, class, subClass, protocol uint8) []byte {
	return []byte{9, kindInterface, number, 0, endpoints, class, subClass, protocol, 0}
}

// Kinds of endpoint.
const (
	Bulk      = 2
	Interrupt = 3
)

// Endpoint is the descriptor of an endpoint. An address with bit 7 set is one that the host reads.
func Endpoint(address, kind uint8, packet uint16, interval uint8) []byte {
	return []byte{7, kindEndpoint, address, kind, byte(packet), byte(packet >> 8), interval}
}

// answer is what GET_DESCRIPTOR with this value yields, or nil.
func (d Descriptors) answer(value uint16) []byte {
	if b, ok := d.Raw[value]; ok {
		return b
	}
	le := binary.LittleEndian
	switch kind, index := value>>8, int(value&0xff); {
	case kind == kindDevice && index == 0:
		b := []byte{18, kindDevice, 0x00, 0x02, d.Class, d.SubClass, d.Protocol, 64}
		b = le.AppendUint16(b, d.Vendor)
		b = le.AppendUint16(b, d.Product)
		b = le.AppendUint16(b, d.Release)
		for i, s := range []string{d.Maker, d.Name, d.Serial} {
			if s == "" {
				b = append(b, 0)
			} else {
				b = append(b, byte(i+1))
			}
		}
		return append(b, 1)
	case kind == kindConfiguration && index == 0:
		b := le.AppendUint16([]byte{9, kindConfiguration}, uint16(9+len(d.Body)))
		const busPowered, milliamperes = 0x80, 100
		return append(append(b, byte(d.Interfaces), 1, 0, busPowered, milliamperes/2), d.Body...)
	case kind == kindString && index == 0:
		return []byte{4, kindString, 0x09, 0x04} // the language: English (US)
	case kind == kindString && index <= 3:
		s := []string{d.Maker, d.Name, d.Serial}[index-1]
		if s == "" {
			return nil
		}
		b := []byte{0, kindString}
		for _, u := range utf16.Encode([]rune(s)) {
			b = le.AppendUint16(b, u)
		}
		b[0] = byte(len(b))
		return b
	}
	return nil
}

// Setup is the request of a control transfer (USB 2.0, table 9-2).
type Setup struct {
	Type    uint8 // direction, kind and recipient
	Request uint8
	Value   uint16
	Index   uint16
	Length  uint16
}

// In reports whether the device sends the data.
func (s Setup) In() bool { return s.Type&0x80 != 0 }

// standard reports whether it is the USB specification's own, and not a class's or vendor's.
func (s Setup) standard() bool { return s.Type&0x60 == 0 }

// Altered is a model with other descriptors.
type Altered struct {
	Model
	Alter func(*Descriptors)
}

// Descriptors are those of the model, altered.
func (a Altered) Descriptors() Descriptors {
	d := a.Model.Descriptors()
	a.Alter(&d)
	return d
}

// Fault is what a transfer can meet.
type Fault int

const (
	Stall Fault = iota // the device refuses
	Noise              // the wire garbles it
	Mute               // nobody answers, until the host gives up
	Pull               // the cable is pulled in its middle: the model gets half of what the host sends
)
