// Package serialtest has models of what is at the far end of a serial line, for tests without hardware.
//
// They have state instead of a script: a test says what the device does (it writes, it is unplugged), and asks
// afterwards what happened to it. There are two:
//
//   - [UART] lives in memory and is opened through [Bus], a fake of the host's serial bus. It has what a
//     pseudo-terminal has not, the modem lines, and remembers every edge on them. Its time is the test's, also in a
//     bubble of testing/synctest.
//   - [PTY] is a terminal of the kernel. It is for tests of hw/serial itself, and of whole processes.
//
// Both keep the promises of [hw.SerialPort]; one test in hw/serial holds them to that.
package serialtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/jumplead/jumplead/hw"
)

// Bus is a fake serial bus: paths at which devices are plugged in. The zero Bus is ready for use and has none.
type Bus struct {
	mu        sync.Mutex
	devices   map[string]*UART
	others    map[string]bool // what is no serial port
	forbidden map[string]bool // to this user
}

var _ hw.SerialBus = (*Bus)(nil)

// Plug makes u appear at path. It may have been there before and come back.
func (b *Bus) Plug(path string, u *UART) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.devices == nil {
		b.devices = map[string]*UART{}
	}
	u.plugIn()
	b.devices[path] = u
	delete(b.others, path)
}

// Unplug takes away the device at path, if there is one. Whoever has it open is hung up.
func (b *Bus) Unplug(path string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if u := b.devices[path]; u != nil {
		delete(b.devices, path)
		u.unplug()
	}
}

// OpenSerial opens the device that is plugged in at path.
func (b *Bus) OpenSerial(ctx context.Context, path string, o hw.SerialOptions) (hw.SerialPort, error) {
	fail := func(err error) error { return &fs.PathError{Op: "open", Path: path, Err: err} }
	if o.Baud <= 0 {
		return nil, fail(fmt.Errorf("baud rate %d: must be positive", o.Baud))
	}
	if err := ctx.Err(); err != nil {
		return nil, fail(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	u, err := b.find(path)
	if err != nil {
		return nil, fail(err)
	}
	p, err := u.open(path, o)
	if err != nil {
		return nil, fail(err)
	}
	return p, nil
}

// UART is a serial device in memory. What the host sends is in Received; Write sends to the host. As on the wire, there
// is no flow control: the device takes all that comes, and what it sends to a host that has no port open is lost.
type UART struct {
	Received Recorder

	// NoLines makes a device without modem lines, like a pseudo-terminal. Set it before the device is plugged in.
	NoLines bool

	mu      sync.Mutex
	changed signal
	ports   []*port // open now, in order of opening
	lines   hw.SerialLines
	broken  bool // a break is on the line
	edges   []Edge
	hupcl   bool
	baud    int
	toHost  []byte // sent, not read yet
}

// Edge is a change on one of the lines that the host drives.
type Edge struct {
	Line string // "DTR", "RTS" or "break"
	On   bool
	At   time.Time
}

// String is "DTR+" for a line that was asserted and "DTR-" for one that was released.
func (e Edge) String() string {
	if e.On {
		return e.Line + "+"
	}
	return e.Line + "-"
}

// Write sends b to the host.
func (u *UART) Write(b []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.ports) > 0 {
		u.toHost = append(u.toHost, b...)
		u.changed.broadcast()
	}
	return len(b), nil
}

// Lines is the state of the modem lines. All are released while the device is unplugged.
func (u *UART) Lines() hw.SerialLines {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.lines
}

// SetInputs sets the lines that the device drives: CTS, DSR, DCD and RI. DTR and RTS in l have no effect.
func (u *UART) SetInputs(l hw.SerialLines) {
	u.mu.Lock()
	defer u.mu.Unlock()
	l.DTR, l.RTS = u.lines.DTR, u.lines.RTS
	u.lines = l
}

// Edges is the history of DTR, RTS and breaks since the device was made, the oldest first.
func (u *UART) Edges() []Edge {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.edges)
}

// Settings is what the host has asked of the port.
func (u *UART) Settings() Settings {
	u.mu.Lock()
	defer u.mu.Unlock()
	return Settings{Baud: u.baud, HUPCL: u.hupcl}
}

// Open reports how many ports the host has open on the device.
func (u *UART) Open() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.ports)
}

func (u *UART) plugIn() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.hupcl = true
}

func (u *UART) unplug() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range u.ports {
		p.gone = true
	}
	u.ports, u.toHost, u.broken = nil, nil, false
	u.drive(false, false)
	u.lines = hw.SerialLines{}
	u.changed.broadcast()
}

func (u *UART) open(path string, o hw.SerialOptions) (*port, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	claimed := slices.ContainsFunc(u.ports, func(p *port) bool { return p.claims })
	if claimed { // for a Shared open too: the kernel lets only root pass
		return nil, errTaken
	}
	p := &port{uart: u, path: path, claims: !o.Shared, breaking: make(chan struct{}, 1)}
	u.ports = append(u.ports, p)
	u.baud, u.toHost = o.Baud, nil
	if o.DisableHUPCL {
		u.hupcl = false
	}
	u.drive(true, true)
	return p, nil
}

// drive sets both output lines. u.mu is held.
func (u *UART) drive(dtr, rts bool) {
	if !u.NoLines {
		u.set("DTR", &u.lines.DTR, dtr)
		u.set("RTS", &u.lines.RTS, rts)
	}
}

// set sets one output and notes the edge, if it is one. u.mu is held.
func (u *UART) set(name string, line *bool, on bool) {
	if *line != on {
		*line = on
		u.edges = append(u.edges, Edge{name, on, time.Now()})
	}
}

// port is the host's end. Its fields below path are guarded by the mutex of its UART.
type port struct {
	uart     *UART
	path     string
	breaking chan struct{} // holds one token while a break is on the line

	claims                      bool
	closed, gone                bool
	readDeadline, writeDeadline time.Time
}

// check is the error of op on a port that is no longer one. The lock is held.
func (p *port) check(op string) error {
	switch {
	case p.closed:
		return p.fail(op, os.ErrClosed)
	case p.gone:
		return hw.Mark(hw.ErrAbsent, p.fail(op, errors.New("hung up: the device is gone")))
	}
	return nil
}

func (p *port) fail(op string, err error) error { return &fs.PathError{Op: op, Path: p.path, Err: err} }

func (p *port) Read(b []byte) (int, error) {
	u := p.uart
	for {
		u.mu.Lock()
		err := p.check("read")
		deadline := p.readDeadline
		if err == nil && expired(deadline) {
			err = p.fail("read", os.ErrDeadlineExceeded)
		}
		n := 0
		if err == nil {
			n = copy(b, u.toHost)
			u.toHost = u.toHost[n:]
		}
		changed := u.changed.next()
		u.mu.Unlock()
		if n > 0 || err != nil || len(b) == 0 {
			return n, err
		}
		var late <-chan time.Time
		if !deadline.IsZero() {
			late = time.After(time.Until(deadline))
		}
		select {
		case <-changed:
		case <-late:
		}
	}
}

func expired(deadline time.Time) bool { return !deadline.IsZero() && time.Until(deadline) <= 0 }

func (p *port) Write(b []byte) (int, error) {
	p.uart.mu.Lock()
	defer p.uart.mu.Unlock()
	if err := p.check("write"); err != nil {
		return 0, err
	}
	if expired(p.writeDeadline) {
		return 0, p.fail("write", os.ErrDeadlineExceeded)
	}
	return p.uart.Received.Write(b)
}

func (p *port) SetReadDeadline(t time.Time) error  { return p.setDeadline(&p.readDeadline, t) }
func (p *port) SetWriteDeadline(t time.Time) error { return p.setDeadline(&p.writeDeadline, t) }

func (p *port) setDeadline(deadline *time.Time, t time.Time) error {
	p.uart.mu.Lock()
	defer p.uart.mu.Unlock()
	if p.closed {
		return p.fail("set deadline", os.ErrClosed)
	}
	*deadline = t
	p.uart.changed.broadcast()
	return nil
}

func (p *port) Close() error {
	u := p.uart
	u.mu.Lock()
	if p.closed {
		u.mu.Unlock()
		return p.fail("close", os.ErrClosed)
	}
	p.closed = true
	u.changed.broadcast()
	u.mu.Unlock()

	p.breaking <- struct{}{} // a break that is on the line is taken off first
	defer func() { <-p.breaking }()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ports = slices.DeleteFunc(u.ports, func(o *port) bool { return o == p })
	if len(u.ports) == 0 {
		u.toHost = nil
		if u.hupcl {
			u.drive(false, false)
		}
	}
	return nil
}

// line runs f under the lock if the port is open and has modem lines.
func (p *port) line(op string, f func()) error {
	p.uart.mu.Lock()
	defer p.uart.mu.Unlock()
	if err := p.check(op); err != nil {
		return err
	}
	if p.uart.NoLines {
		return p.fail(op, fmt.Errorf("the port cannot do that: %w", errors.ErrUnsupported))
	}
	f()
	return nil
}

func (p *port) SetDTR(asserted bool) error {
	return p.line("set dtr", func() { p.uart.set("DTR", &p.uart.lines.DTR, asserted) })
}

func (p *port) SetRTS(asserted bool) error {
	return p.line("set rts", func() { p.uart.set("RTS", &p.uart.lines.RTS, asserted) })
}

func (p *port) Lines() (l hw.SerialLines, err error) {
	err = p.line("read lines", func() { l = p.uart.lines })
	return l, err
}

func (p *port) SendBreak(ctx context.Context, d time.Duration) error {
	select {
	case p.breaking <- struct{}{}:
		defer func() { <-p.breaking }()
	case <-ctx.Done():
	}
	if err := ctx.Err(); err != nil {
		return p.fail("send break", err)
	}
	end := time.NewTimer(d)
	defer end.Stop()
	u := p.uart
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := p.check("send break"); err != nil {
		return err
	}
	if !u.NoLines {
		u.set("break", &u.broken, true)
		defer u.set("break", &u.broken, false)
	}
	for {
		changed := u.changed.next()
		u.mu.Unlock()
		done, err := false, error(nil)
		select {
		case <-end.C:
			done = true
		case <-ctx.Done():
			err = p.fail("send break", ctx.Err())
		case <-changed:
		}
		u.mu.Lock()
		if err == nil {
			err = p.check("send break")
		}
		if done || err != nil {
			return err
		}
	}
}

func (p *port) Drain(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return p.fail("drain", err)
	}
	return p.open("drain", func() {})
}

func (p *port) DiscardInput() error {
	return p.open("discard input", func() { p.uart.toHost = nil })
}

func (p *port) DiscardOutput() error { return p.open("discard output", func() {}) }

func (p *port) Baud() (baud int, err error) {
	err = p.open("read baud rate", func() { baud = p.uart.baud })
	return baud, err
}

// open runs f under the lock if the port is open.
func (p *port) open(op string, f func()) error {
	p.uart.mu.Lock()
	defer p.uart.mu.Unlock()
	if err := p.check(op); err != nil {
		return err
	}
	f()
	return nil
}
