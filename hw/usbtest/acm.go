package usbtest

import (
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/serial/serialtest"
)

// ACM is a serial adapter of the class "CDC ACM", which the kernel's driver cdc-acm offers as /dev/ttyACM0: the USB side of
// most development boards. What the host sends is in Received; Write sends to the host. As on a wire without flow
// control, what is sent to a host that does not listen is lost.
//
// The class has no CTS line (USB PSTN devices 1.2, 6.5.4), and cdc-acm reports it as asserted.
type ACM struct {
	Serial   string // the device's serial number
	Received serialtest.Recorder

	mu        sync.Mutex
	changed   chan struct{} // closed at the next change; nil while nobody waits
	plugged   bool
	coding    [7]byte
	lines     hw.SerialLines
	broken    bool
	edges     []serialtest.Edge
	toHost    []byte
	listening bool   // the host reads, or will in a moment
	notices   []byte // states of the inputs that the host was not told yet
}

// The endpoints of an ACM, for [Port.Fail].
const (
	ACMData   = 0x81 // to the host
	ACMSend   = 0x02 // from the host
	ACMNotify = 0x83 // the modem lines
)

// Descriptors are those of an adapter without a vendor of its own: 1d6b:0104 is the Linux Foundation's composite gadget.
func (a *ACM) Descriptors() Descriptors {
	const (
		communications, data   = 2, 10
		abstractControl        = 2
		atCommands             = 1
		classSpecific          = 0x24
		linesAndBreaks         = 0x02 | 0x04
		headerKind             = 0
		callKind               = 1
		acmKind                = 2
		unionKind              = 6
		comm, dataIf           = 0, 1
		smallPacket, bigPacket = 16, 512
	)
	return Descriptors{
		Speed: High, Vendor: 0x1d6b, Product: 0x0104, Release: 0x0100, Class: communications,
		Maker: "jumplead", Name: "model of a serial adapter", Serial: a.Serial,
		Interfaces: 2,
		Body: slices.Concat(
			Interface(comm, 1, communications, abstractControl, atCommands),
			[]byte{5, classSpecific, headerKind, 0x10, 0x01},
			[]byte{5, classSpecific, callKind, 0, dataIf},
			[]byte{4, classSpecific, acmKind, linesAndBreaks},
			[]byte{5, classSpecific, unionKind, comm, dataIf},
			Endpoint(ACMNotify, Interrupt, smallPacket, 4),
			Interface(dataIf, 2, data, 0, 0),
			Endpoint(ACMData, Bulk, bigPacket, 0),
			Endpoint(ACMSend, Bulk, bigPacket, 0),
		),
	}
}

// change tells those who wait that something changed. a.mu is held.
func (a *ACM) change() {
	if a.changed != nil {
		close(a.changed)
		a.changed = nil
	}
}

// next is closed at the next change. a.mu is held.
func (a *ACM) next() <-chan struct{} {
	if a.changed == nil {
		a.changed = make(chan struct{})
	}
	return a.changed
}

// Power is a fresh adapter's state.
func (a *ACM) Power(on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.plugged = on
	a.set("DTR", &a.lines.DTR, false)
	a.set("RTS", &a.lines.RTS, false)
	a.broken = false
	a.lines = hw.SerialLines{}
	a.toHost, a.notices, a.listening = nil, nil, false
	a.change()
}

// set sets one of the outputs and notes the edge, if it is one. a.mu is held.
func (a *ACM) set(name string, line *bool, on bool) {
	if *line != on {
		*line = on
		a.edges = append(a.edges, serialtest.Edge{Line: name, On: on, At: time.Now()})
	}
}

// Control does what the class has (USB PSTN devices 1.2, 6.3).
func (a *ACM) Control(_ context.Context, s Setup, in []byte) ([]byte, error) {
	const (
		setLineCoding   = 0x20
		getLineCoding   = 0x21
		setControlLines = 0x22
		sendBreak       = 0x23
	)
	a.mu.Lock()
	defer a.mu.Unlock()
	defer a.change()
	switch s.Request {
	case setLineCoding:
		if len(in) != len(a.coding) {
			return nil, ErrStall
		}
		copy(a.coding[:], in)
	case getLineCoding:
		return slices.Clone(a.coding[:]), nil
	case setControlLines:
		a.set("DTR", &a.lines.DTR, s.Value&1 != 0)
		a.set("RTS", &a.lines.RTS, s.Value&2 != 0)
	case sendBreak: // the value is a time in ms, but the host ends a break itself: 0xffff is one without an end
		a.set("break", &a.broken, s.Value != 0)
	default:
		return nil, ErrStall
	}
	return nil, nil
}

// In waits for bytes to the host, or for a change of the inputs to tell of.
func (a *ACM) In(ctx context.Context, endpoint uint8, n int) ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		if endpoint == ACMData {
			a.listening = true
			if len(a.toHost) > 0 {
				n = min(n, len(a.toHost))
				b := slices.Clone(a.toHost[:n])
				a.toHost = a.toHost[n:]
				a.change()
				return b, nil
			}
		} else if len(a.notices) > 0 {
			const serialState = 0x20
			b := []byte{0xa1, serialState, 0, 0, 0, 0, 2, 0, a.notices[0], 0}
			a.notices = a.notices[1:]
			return b, nil
		}
		changed := a.next()
		a.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		a.mu.Lock()
		if ctx.Err() != nil {
			if endpoint == ACMData { // the host stops listening
				a.listening, a.toHost = false, nil
			}
			return nil, ctx.Err()
		}
	}
}

// Out records what the host sends.
func (a *ACM) Out(_ context.Context, _ uint8, data []byte) error {
	_, err := a.Received.Write(data)
	return err
}

// Write sends b to the host.
func (a *ACM) Write(b []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	// The kernel's driver asserts DTR when it has asked for the first bytes.
	if a.listening || a.lines.DTR {
		a.toHost = append(a.toHost, b...)
		a.change()
	}
	return len(b), nil
}

// Listening reports whether the host reads what Write sends.
func (a *ACM) Listening() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.listening
}

// Lines is the state of the modem lines. All are released while the device is unplugged.
func (a *ACM) Lines() hw.SerialLines {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lines
}

// SetInputs sets the lines that the device drives: DSR, DCD and RI. The other lines in l have no effect.
func (a *ACM) SetInputs(l hw.SerialLines) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lines.DSR, a.lines.DCD, a.lines.RI = l.DSR, l.DCD, l.RI
	var bits byte
	for i, on := range []bool{l.DCD, l.DSR, false, l.RI} {
		if on {
			bits |= 1 << i
		}
	}
	a.notices = append(a.notices, bits)
	a.change()
}

// Edges is the history of DTR, RTS and breaks since the device was made, the oldest first.
func (a *ACM) Edges() []serialtest.Edge {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.edges)
}

// Baud is the rate that the host has asked for.
func (a *ACM) Baud() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return int(binary.LittleEndian.Uint32(a.coding[:]))
}
