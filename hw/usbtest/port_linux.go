package usbtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// controller is the first of the kernel's virtual host controllers.
const controller = "/sys/devices/platform/vhci_hcd.0"

// Port is a port of the virtual hub, with a model in it or not.
type Port struct {
	model  Model
	number int
	dir    string // the device's folder in sysfs

	mu     sync.Mutex
	faults map[uint8]*fault
	link   *link // nil while unplugged
}

type fault struct {
	kind  Fault
	times int
}

// Plug plugs m into a free port. The kernel has not found it yet when Plug returns; see [Port.Await].
func Plug(m Model) (*Port, error) {
	bus, err := rootHub()
	if err != nil {
		return nil, err
	}
	p := &Port{model: m, number: -1, faults: map[uint8]*fault{}}
	free, err := freePorts()
	if err != nil {
		return nil, err
	}
	err = errors.New("all ports are taken")
	for _, n := range free {
		p.number, p.dir = n, fmt.Sprintf("%s/usb%d/%d-%d", controller, bus, bus, n+1)
		if err = p.Replug(); err == nil || !errors.Is(err, unix.EBUSY) {
			break // somebody else may have been quicker
		}
	}
	if err != nil {
		return nil, fmt.Errorf("plug into %s: %w", controller, err)
	}
	return p, nil
}

// rootHub finds the number of the bus that has the ports of USB 2.
func rootHub() (bus int, err error) {
	speeds, err := filepath.Glob(controller + "/usb*/speed")
	if err != nil {
		return 0, err
	}
	for _, path := range speeds {
		if b, _ := os.ReadFile(path); string(bytes.TrimSpace(b)) == "480" {
			_, err := fmt.Sscanf(filepath.Base(filepath.Dir(path)), "usb%d", &bus)
			return bus, err
		}
	}
	return 0, fmt.Errorf("%s has no USB 2 hub; is the kernel's module vhci-hcd loaded?", controller)
}

// status yields each port of USB 2, and whether it is free.
func status() (map[int]bool, error) {
	b, err := os.ReadFile(controller + "/status")
	if err != nil {
		return nil, err
	}
	ports := map[int]bool{}
	for line := range strings.Lines(string(b)) {
		var kind string
		var n, state int
		if c, _ := fmt.Sscan(line, &kind, &n, &state); c == 3 && kind == "hs" {
			const available = 4 // VDEV_ST_NULL
			ports[n] = state == available
		}
	}
	return ports, nil
}

func freePorts() (free []int, err error) {
	ports, err := status()
	for n := range len(ports) {
		if ports[n] {
			free = append(free, n)
		}
	}
	return free, err
}

// Dir is the device's folder in sysfs. It exists once the kernel has found the device.
func (p *Port) Dir() string { return p.dir }

// Replug plugs the model in again.
func (p *Port) Replug() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link != nil {
		return errors.New("replug: it is plugged in")
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	ours := os.NewFile(uintptr(pair[0]), "usb device")
	conn, err := net.FileConn(ours)
	ours.Close()
	if err == nil {
		d := p.model.Descriptors()
		// The kernel keeps its own reference of the socket.
		err = os.WriteFile(controller+"/attach", fmt.Appendf(nil, "%d %d %d %d", p.number, pair[1], 1<<16|p.number+1, d.Speed), 0)
		if err != nil {
			conn.Close()
		} else {
			p.model.Power(true)
			p.link = &link{port: p, conn: conn, descriptors: d, pending: map[uint32]*urb{}, queues: map[uint8]chan *urb{}, over: make(chan struct{})}
			go p.link.serve()
		}
	}
	unix.Close(pair[1])
	return err
}

// Unplug pulls the device out, if it is in, and waits until the kernel has noticed.
func (p *Port) Unplug() error {
	p.mu.Lock()
	l := p.link
	p.link = nil
	p.mu.Unlock()
	if l == nil {
		return nil
	}
	l.conn.Close()
	<-l.over
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		if _, err := os.Stat(p.dir); errors.Is(err, os.ErrNotExist) { // cheaper to ask than the other
			ports, err := status()
			if err != nil || ports[p.number] {
				return err
			}
		}
		if time.Now().After(end) {
			return fmt.Errorf("unplug: the kernel still has %s", p.dir)
		}
	}
}

// Await waits until the kernel's driver has made what matches the pattern below the device's folder in sysfs, such as
// "*/tty/tty*", and returns its path.
func (p *Port) Await(ctx context.Context, pattern string) (string, error) {
	for tick := time.NewTicker(4 * time.Millisecond); ; {
		found, err := filepath.Glob(filepath.Join(p.dir, pattern))
		if err != nil {
			return "", err
		}
		if len(found) > 0 {
			return found[0], nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "", fmt.Errorf("no %s in %s: %w", pattern, p.dir, ctx.Err())
		}
	}
}

// Fail lets the next transfers of an endpoint fail. Endpoint 0 counts control transfers of a class or vendor.
func (p *Port) Fail(endpoint uint8, f Fault, times int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults[endpoint] = &fault{f, times}
}

// fault tells whether a transfer that begins now is to fail.
func (p *Port) fault(endpoint uint8) (Fault, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.faults[endpoint]
	if f == nil || f.times == 0 {
		return 0, false
	}
	f.times--
	return f.kind, true
}

// link is the wire to the kernel while the device is plugged in. Messages are those of the USB/IP protocol: big-endian,
// with a head of 48 bytes.
type link struct {
	port        *Port
	conn        net.Conn
	descriptors Descriptors
	over        chan struct{} // closed when all goroutines have ended

	queues map[uint8]chan *urb // by endpoint address; only serve uses it

	mu      sync.Mutex // guards pending and writing
	pending map[uint32]*urb

	configuration byte // of the endpoint 0 alone
}

// urb is a transfer that the kernel asks for.
type urb struct {
	seq      uint32
	endpoint uint8 // with bit 7 for IN
	setup    Setup
	data     []byte // what the host sends
	length   int    // how much it takes
	ctx      context.Context
	cancel   context.CancelFunc

	// Guarded by the link's mu:
	begun  bool   // the model is at it
	unlink uint32 // the number of the request that takes it back, or 0
}

const (
	cmdSubmit, cmdUnlink = 1, 2
	retSubmit, retUnlink = 3, 4
	headSize             = 48
	// queued is more than drivers ask for at once.
	queued = 1024
)

var be = binary.BigEndian

// serve reads what the kernel asks for until the cable is pulled, from either side.
func (l *link) serve() {
	ctx, cancel := context.WithCancel(context.Background())
	var workers sync.WaitGroup
	defer func() {
		l.conn.Close()
		cancel()
		for _, q := range l.queues {
			close(q)
		}
		workers.Wait()
		l.port.model.Power(false)
		close(l.over)
	}()
	head := make([]byte, headSize)
	for {
		if _, err := io.ReadFull(l.conn, head); err != nil {
			return
		}
		seq := be.Uint32(head[4:])
		switch be.Uint32(head) {
		case cmdSubmit:
			u := &urb{seq: seq, endpoint: uint8(be.Uint32(head[16:])), length: int(be.Uint32(head[24:]))}
			s := head[40:]
			le := binary.LittleEndian
			u.setup = Setup{s[0], s[1], le.Uint16(s[2:]), le.Uint16(s[4:]), le.Uint16(s[6:])}
			if in := be.Uint32(head[12:]) == 1; !in {
				u.data = make([]byte, u.length)
				if _, err := io.ReadFull(l.conn, u.data); err != nil {
					return
				}
			} else if u.endpoint != 0 {
				u.endpoint |= 0x80
			}
			u.ctx, u.cancel = context.WithCancel(ctx)
			l.mu.Lock()
			l.pending[seq] = u
			l.mu.Unlock()
			q := l.queues[u.endpoint]
			if q == nil {
				q = make(chan *urb, queued)
				l.queues[u.endpoint] = q
				workers.Go(func() {
					for u := range q {
						l.transfer(u)
					}
				})
			}
			q <- u
		case cmdUnlink:
			l.unlink(seq, be.Uint32(head[20:]))
		default:
			return // not the kernel
		}
	}
}

// unlink takes back a transfer. One that the model is at is answered when the model has let go of it: then what the host
// does next finds the model as the host believes it is. One that is done already stays done.
func (l *link) unlink(seq, victim uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	u := l.pending[victim]
	switch {
	case u == nil:
		l.reply(retUnlink, seq, 0, 0, nil)
	case u.begun:
		u.unlink = seq
		u.cancel()
	default:
		delete(l.pending, victim)
		u.cancel()
		l.reply(retUnlink, seq, -int(unix.ECONNRESET), 0, nil)
	}
}

// reply writes a message. l.mu is held.
func (l *link) reply(kind, seq uint32, status, actual int, data []byte) {
	m := make([]byte, headSize, headSize+len(data))
	be.PutUint32(m, kind)
	be.PutUint32(m[4:], seq)
	be.PutUint32(m[20:], uint32(int32(status)))
	if kind == retSubmit {
		be.PutUint32(m[24:], uint32(actual))
		be.PutUint32(m[32:], ^uint32(0)) // not isochronous
	}
	l.conn.Write(append(m, data...)) // if that fails, the kernel is gone, and serve notices
}

// transfer does what the kernel asks for.
func (l *link) transfer(u *urb) {
	defer u.cancel()
	l.mu.Lock()
	u.begun = true
	taken := l.pending[u.seq] != u
	l.mu.Unlock()
	if taken {
		return
	}
	var out []byte
	err := l.failing(u)
	if err == nil {
		out, err = l.do(u)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pending, u.seq)
	if err != nil && u.unlink != 0 {
		l.reply(retUnlink, u.unlink, -int(unix.ECONNRESET), 0, nil)
		return
	}
	status, actual := 0, len(u.data)
	switch {
	case err == nil && u.data == nil:
		out = out[:min(len(out), u.length)]
		actual = len(out)
	case err == nil:
		out = nil
	case errors.Is(err, ErrStall):
		status, actual, out = -int(unix.EPIPE), 0, nil
	default:
		status, actual, out = -int(unix.EPROTO), 0, nil
	}
	l.reply(retSubmit, u.seq, status, actual, out)
	if u.unlink != 0 { // the host was too late
		l.reply(retUnlink, u.unlink, 0, 0, nil)
	}
}

// failing is the error of a transfer that is to fail.
func (l *link) failing(u *urb) error {
	if u.endpoint == 0 && u.setup.standard() {
		return nil
	}
	f, ok := l.port.fault(u.endpoint)
	switch {
	case !ok:
		return nil
	case f == Stall:
		return ErrStall
	case f == Pull:
		if u.endpoint != 0 && u.data != nil {
			l.port.model.Out(u.ctx, u.endpoint, u.data[:len(u.data)/2])
		}
		l.conn.Close()
		<-u.ctx.Done()
		return u.ctx.Err()
	case f == Mute:
		<-u.ctx.Done()
		return u.ctx.Err()
	}
	return errors.New("noise")
}

func (l *link) do(u *urb) ([]byte, error) {
	m := l.port.model
	switch {
	case u.endpoint == 0 && u.setup.standard():
		return l.standard(u)
	case u.endpoint == 0:
		return m.Control(u.ctx, u.setup, u.data)
	case u.endpoint&0x80 != 0:
		return m.In(u.ctx, u.endpoint, u.length)
	}
	return nil, m.Out(u.ctx, u.endpoint, u.data)
}

// standard does the requests that all devices have (USB 2.0, 9.4).
func (l *link) standard(u *urb) ([]byte, error) {
	const (
		getStatus        = 0
		clearFeature     = 1
		setFeature       = 3
		getDescriptor    = 6
		getConfiguration = 8
		setConfiguration = 9
		getInterface     = 10
		setInterface     = 11
	)
	switch s := u.setup; s.Request {
	case getDescriptor:
		if s.Type&0x1f != 0 { // of an interface: a class's
			return l.port.model.Control(u.ctx, s, nil)
		}
		if b := l.descriptors.answer(s.Value); b != nil {
			return b, nil
		}
		return nil, ErrStall
	case getStatus:
		return []byte{0, 0}, nil
	case getConfiguration:
		return []byte{l.configuration}, nil
	case setConfiguration:
		l.configuration = byte(s.Value)
		return nil, nil
	case getInterface:
		return []byte{0}, nil
	case setInterface, clearFeature, setFeature:
		return nil, nil
	}
	return nil, ErrStall
}
