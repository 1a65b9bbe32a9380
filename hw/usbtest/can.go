package usbtest

import (
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"time"
)

// CAN is a CAN FD adapter of the open protocol "gs_usb", the one of candleLight and its kin, which the kernel's driver of that name
// offers as the network interface can0. The rest of its bus is up to the test.
type CAN struct {
	Serial string

	mu      sync.Mutex
	changed chan struct{} // closed at the next change; nil while nobody waits
	started bool
	mode    uint32
	nominal uint32 // bit/s
	data    uint32
	alone   bool
	waiting []sending // while nobody acknowledges
	sent    []CANFrame
	toHost  [][]byte
	state   CANState
}

// CANFrame is a frame on the bus. ID has the kernel's flags for extended and remote frames (linux/can.h) in its upper bits.
type CANFrame struct {
	ID           uint32
	Data         []byte // up to 8 bytes, or up to 64 of FD
	FD, BRS, ESI bool
}

// CANState is the state of the adapter's controller: what errors it has seen.
type CANState struct {
	State  uint32 // 0 error-active, 1 warning, 2 passive, 3 bus-off
	Rx, Tx uint32 // the error counters
}

// The endpoints of a CAN, for [Port.Fail].
const (
	CANReceive = 0x81 // to the host
	CANSend    = 0x02 // from the host
)

// canClock is the clock of the controller in Hz, from which it makes its bit rates.
const canClock = 80_000_000

// Bits of the adapter's features and of its mode.
const (
	canFD        = 1 << 8
	canTimingExt = 1 << 10
	canErrors    = 1 << 12
	canGetState  = 1 << 13
	canTimes     = 1 << 4
	canLoopBack  = 1 << 1
	canListen    = 1 << 0
)

// Descriptors are those of a candleLight, 1d50:606f.
func (c *CAN) Descriptors() Descriptors {
	const vendorSpecific = 0xff
	return Descriptors{
		Speed: High, Vendor: 0x1d50, Product: 0x606f,
		Maker: "jumplead", Name: "model of a CAN adapter", Serial: c.Serial,
		Interfaces: 1,
		Body: slices.Concat(
			Interface(0, 2, vendorSpecific, vendorSpecific, vendorSpecific),
			Endpoint(CANReceive, Bulk, 512, 0),
			Endpoint(CANSend, Bulk, 512, 0),
		),
	}
}

// change tells those who wait that something changed. c.mu is held.
func (c *CAN) change() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// Power is a fresh adapter's state: off the bus.
func (c *CAN) Power(bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.started, c.mode, c.nominal, c.data, c.toHost, c.waiting, c.state = false, 0, 0, 0, nil, nil, CANState{}
	c.change()
}

// Control does the requests of the protocol, as the kernel's drivers/net/can/usb/gs_usb.c makes them.
func (c *CAN) Control(_ context.Context, s Setup, in []byte) ([]byte, error) {
	const (
		hostFormat    = 0
		bitTiming     = 1
		mode          = 2
		timingLimits  = 4
		clock         = 6
		deviceConfig  = 5
		dataBitTiming = 10
		timingExt     = 11
		getState      = 14
	)
	le := binary.LittleEndian
	words := func(v ...uint32) (b []byte) {
		for _, v := range v {
			b = le.AppendUint32(b, v)
		}
		return b
	}
	sent := func(n int) bool { return len(in) >= 4*n }
	word := func(i int) uint32 { return le.Uint32(in[4*i:]) }
	rate := func() uint32 { // from the parts of a bit: propagation, phase 1, phase 2, jump width, prescaler
		quanta := 1 + uint64(word(0)) + uint64(word(1)) + uint64(word(2))
		return uint32(canClock / max(quanta*uint64(word(4)), 1))
	}
	const features = canListen | canLoopBack | canTimes | canFD | canTimingExt | canErrors | canGetState
	limits := []uint32{features, canClock, 1, 256, 1, 128, 128, 1, 512, 1}
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.change()
	switch {
	case s.Request == hostFormat && sent(1):
		return nil, nil // it sends 0x0000beef; everybody is little-endian by now
	case s.Request == deviceConfig:
		const oneChannel = 0 // how many there are beyond the first
		return append([]byte{0, 0, 0, oneChannel}, words(2, 1)...), nil
	case s.Request == clock:
		return words(micros()), nil
	case s.Request == timingLimits:
		return words(limits...), nil
	case s.Request == timingExt:
		return words(append(limits, 1, 32, 1, 16, 16, 1, 32, 1)...), nil
	case s.Request == bitTiming && sent(5):
		c.nominal = rate()
	case s.Request == dataBitTiming && sent(5):
		c.data = rate()
	case s.Request == mode && sent(2):
		c.started, c.mode, c.toHost, c.waiting, c.state = word(0) == 1, word(1), nil, nil, CANState{}
	case s.Request == getState:
		return words(c.state.State, c.state.Rx, c.state.Tx), nil
	default:
		return nil, ErrStall
	}
	return nil, nil
}

// noEcho is in the place of a sent frame's number in one that came from the bus.
const noEcho = ^uint32(0)

// frame flags of the protocol
const (
	flagFD = 1 << (iota + 1)
	flagBRS
	flagESI
)

// lengths are what the four bits of a frame's length mean (ISO 11898-1).
var lengths = [16]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64}

// micros is the adapter's clock, in microseconds.
func micros() uint32 { return uint32(time.Now().UnixMicro()) }

// pack is a frame for the host, with the time if the host has asked for that. c.mu is held.
func (c *CAN) pack(f CANFrame, echo uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, echo)
	b = binary.LittleEndian.AppendUint32(b, f.ID)
	code := slices.IndexFunc(lengths[:], func(n int) bool { return n >= len(f.Data) })
	var flags byte
	room := 8
	if f.FD {
		flags, room = flagFD, 64
	}
	if f.BRS {
		flags |= flagBRS
	}
	if f.ESI {
		flags |= flagESI
	}
	b = append(b, byte(code), 0, flags, 0)
	b = append(b, append(slices.Clone(f.Data), make([]byte, room)...)[:room]...)
	if c.mode&canTimes != 0 {
		b = binary.LittleEndian.AppendUint32(b, micros())
	}
	return b
}

// Out takes a frame from the host. The host is told when it was sent, which takes somebody else on the bus.
func (c *CAN) Out(_ context.Context, _ uint8, b []byte) error {
	const head = 12
	if len(b) < head {
		return ErrStall
	}
	flags := b[10]
	f := CANFrame{ID: binary.LittleEndian.Uint32(b[4:]), FD: flags&flagFD != 0, BRS: flags&flagBRS != 0, ESI: flags&flagESI != 0}
	n := lengths[b[8]&15]
	if !f.FD {
		n = min(n, 8)
	}
	if len(b) < head+n {
		return ErrStall
	}
	f.Data = slices.Clone(b[head : head+n])
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.started {
		c.waiting = append(c.waiting, sending{f, binary.LittleEndian.Uint32(b)})
		c.send()
	}
	return nil
}

// sending is a frame of the host and the number by which the host is told that it was sent.
type sending struct {
	CANFrame
	echo uint32
}

// off is the state of a controller that has made too many errors and takes no part in the bus until it is started anew.
const off = 3

// send sends what waits, if there is somebody to acknowledge it: in loop-back that is the adapter itself, which also receives
// it. c.mu is held.
func (c *CAN) send() {
	loop := c.mode&canLoopBack != 0
	if c.alone && !loop || c.state.State == off {
		return
	}
	for _, w := range c.waiting {
		c.toHost = append(c.toHost, c.pack(w.CANFrame, w.echo))
		if loop {
			c.toHost = append(c.toHost, c.pack(w.CANFrame, noEcho))
		} else {
			c.sent = append(c.sent, w.CANFrame)
		}
	}
	c.waiting = nil
	c.change()
}

// In waits for a frame for the host.
func (c *CAN) In(ctx context.Context, _ uint8, _ int) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.toHost) == 0 {
		if c.changed == nil {
			c.changed = make(chan struct{})
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		c.mu.Lock()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	b := c.toHost[0]
	c.toHost = c.toHost[1:]
	return b, nil
}

// Send lets another node of the bus send a frame. An adapter that is not started, or off the bus, does not see it.
func (c *CAN) Send(f CANFrame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.State != off {
		c.tell(f)
	}
}

// tell sends a frame to the host. c.mu is held.
func (c *CAN) tell(f CANFrame) {
	if c.started {
		c.toHost = append(c.toHost, c.pack(f, noEcho))
		c.change()
	}
}

// SetState lets errors happen, and tells the host. An adapter that is off the bus stays so until the host starts it anew.
func (c *CAN) SetState(s CANState) {
	const (
		errorFrame              = 0x20000000 // linux/can.h
		controller, busOff      = 0x04, 0x40 // linux/can/error.h, and below
		withCounters            = 0x200
		rxWarning, txWarning    = 0x04, 0x08
		rxPassive, txPassive    = 0x10, 0x20
		active                  = 0x40
		warningLevel, passLevel = 96, 128
	)
	f := CANFrame{ID: errorFrame | withCounters | controller, Data: make([]byte, 8)}
	f.Data[6], f.Data[7] = byte(s.Tx), byte(s.Rx)
	switch {
	case s.State == off:
		f.ID = errorFrame | busOff
	case s.State == 0:
		f.Data[1] = active
	default:
		for _, e := range []struct {
			count      uint32
			warn, pass byte
		}{{s.Rx, rxWarning, rxPassive}, {s.Tx, txWarning, txPassive}} {
			switch {
			case s.State == 2 && e.count >= passLevel:
				f.Data[1] |= e.pass
			case s.State == 1 && e.count >= warningLevel:
				f.Data[1] |= e.warn
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = s
	c.tell(f)
}

// Alone takes all other nodes off the bus, or brings them back: nobody acknowledges what the host sends, and the
// adapter tries for ever.
func (c *CAN) Alone(alone bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.alone = alone
	c.send()
}

// Sent are the frames that the host sent, the oldest first.
func (c *CAN) Sent() []CANFrame {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.sent)
}

// Rates are the bit rates that the host has set, and whether the adapter is on the bus. Data is that of FD frames'
// second part, and 0 if the host did not switch that on.
func (c *CAN) Rates() (nominal, data uint32, started bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mode&canFD == 0 {
		return c.nominal, 0, c.started
	}
	return c.nominal, c.data, c.started
}
