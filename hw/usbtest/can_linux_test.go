package usbtest_test

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jumplead/jumplead/hw/usbtest"
)

var le = binary.LittleEndian

// attr is an attribute of a netlink message (netlink(7)).
func attr(kind uint16, parts ...[]byte) []byte {
	b := slices.Concat(parts...)
	b = append(le.AppendUint16(le.AppendUint16(nil, uint16(4+len(b))), kind), b...)
	return append(b, make([]byte, -len(b)&3)...)
}

func words(v ...uint32) (b []byte) {
	for _, v := range v {
		b = le.AppendUint32(b, v)
	}
	return b
}

// attrs takes attributes apart.
func attrs(b []byte) map[uint16][]byte {
	m := map[uint16][]byte{}
	for len(b) >= 4 {
		n := int(le.Uint16(b))
		if n < 4 || n > len(b) {
			break
		}
		m[le.Uint16(b[2:])&^unix.NLA_F_NESTED] = b[4:n]
		b = b[min((n+3)&^3, len(b)):]
	}
	return m
}

// netlink asks the kernel about or for a network interface, and returns the answer's attributes.
func netlink(t *testing.T, kind uint16, index int, flags uint32, data []byte) map[uint16][]byte {
	t.Helper()
	a, err := tryNetlink(t, kind, index, flags, data)
	if err != nil {
		t.Fatalf("the kernel refuses: %v", err)
	}
	return a
}

func tryNetlink(t *testing.T, kind uint16, index int, flags uint32, data []byte) (map[uint16][]byte, error) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	request := uint16(unix.NLM_F_REQUEST)
	if kind == unix.RTM_NEWLINK {
		request |= unix.NLM_F_ACK
	}
	body := slices.Concat(words(0, uint32(index), flags, unix.IFF_UP), data)
	m := words(uint32(16 + len(body)))
	m = le.AppendUint16(le.AppendUint16(m, kind), request)
	m = append(append(m, words(1, 0)...), body...)
	if err := unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 1<<16)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		t.Fatal(err)
	}
	if le.Uint16(answer[4:]) == unix.NLMSG_ERROR {
		if code := int32(le.Uint32(answer[16:])); code != 0 {
			return nil, unix.Errno(-code)
		}
		return nil, nil
	}
	return attrs(answer[32:n]), nil
}

// link waits for the network interface of an adapter.
func link(t *testing.T, p *usbtest.Port) *net.Interface {
	t.Helper()
	i, err := net.InterfaceByName(find(t, p, "*/net/*"))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// set gives a CAN interface a rate and some control modes, and switches it on.
func set(t *testing.T, i *net.Interface, bitrate, modes uint32) error {
	t.Helper()
	_, err := tryNetlink(t, unix.RTM_NEWLINK, i.Index, 0, info(attr(unix.IFLA_CAN_BITTIMING, timing(bitrate)), attr(unix.IFLA_CAN_CTRLMODE, words(modes, modes))))
	if err == nil {
		_, err = tryNetlink(t, unix.RTM_NEWLINK, i.Index, unix.IFF_UP, nil)
	}
	return err
}

func down(t *testing.T, i *net.Interface) {
	t.Helper()
	netlink(t, unix.RTM_NEWLINK, i.Index, 0, nil)
}

// state is what the kernel keeps of a controller: its state, and how often it has reached the bad ones.
func state(t *testing.T, i *net.Interface) (state uint32, warning, passive, off uint32) {
	t.Helper()
	a := attrs(netlink(t, unix.RTM_GETLINK, i.Index, 0, nil)[unix.IFLA_LINKINFO])
	s, x := attrs(a[unix.IFLA_INFO_DATA])[unix.IFLA_CAN_STATE], a[unix.IFLA_INFO_XSTATS]
	if len(s) < 4 || len(x) < 16 { // linux/can/netlink.h: struct can_device_stats
		t.Fatalf("the kernel has the state %x and the statistics %x", s, x)
	}
	return le.Uint32(s), le.Uint32(x[4:]), le.Uint32(x[8:]), le.Uint32(x[12:])
}

// info wraps what a driver's interfaces have beyond others'.
func info(data ...[]byte) []byte {
	return attr(unix.IFLA_LINKINFO, attr(unix.IFLA_INFO_KIND, []byte("can\x00")), attr(unix.IFLA_INFO_DATA, data...))
}

func timing(bitrate uint32) []byte { return words(bitrate, 0, 0, 0, 0, 0, 0, 0) }

// raw opens a raw socket for everything, FD and errors, on an interface.
func raw(t *testing.T, index int) *os.File {
	t.Helper()
	fd, err := unix.Socket(unix.AF_CAN, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.CAN_RAW)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "can")
	t.Cleanup(func() { f.Close() })
	for option, v := range map[int]int{unix.CAN_RAW_FD_FRAMES: 1, unix.CAN_RAW_ERR_FILTER: unix.CAN_ERR_MASK} {
		if err := unix.SetsockoptInt(fd, unix.SOL_CAN_RAW, option, v); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrCAN{Ifindex: index}); err != nil {
		t.Fatal(err)
	}
	return f
}

// frame is a frame as a raw socket has it (linux/can.h).
func frame(f usbtest.CANFrame) []byte {
	const brs, esi, fd = 1, 2, 4
	size, flags := 8, byte(0)
	if f.FD {
		size, flags = 64, fd
	}
	if f.BRS {
		flags |= brs
	}
	if f.ESI {
		flags |= esi
	}
	b := append(words(f.ID), byte(len(f.Data)), flags, 0, 0)
	return append(b, append(slices.Clone(f.Data), make([]byte, size)...)[:size]...)
}

func TestCAN(t *testing.T) {
	c := &usbtest.CAN{}
	p := plug(t, c)
	for range 2 { // and once more after it was unplugged
		name := find(t, p, "*/net/*")
		link, err := net.InterfaceByName(name)
		if err != nil {
			t.Fatal(err)
		}
		netlink(t, unix.RTM_NEWLINK, link.Index, 0, info(
			attr(unix.IFLA_CAN_BITTIMING, timing(500_000)),
			attr(unix.IFLA_CAN_DATA_BITTIMING, timing(2_000_000)),
			attr(unix.IFLA_CAN_CTRLMODE, words(unix.CAN_CTRLMODE_FD, unix.CAN_CTRLMODE_FD)),
		))
		netlink(t, unix.RTM_NEWLINK, link.Index, unix.IFF_UP, nil)
		if nominal, data, started := c.Rates(); nominal != 500_000 || data != 2_000_000 || !started {
			t.Errorf("Rates() = %d, %d, %v; want 500000, 2000000, true", nominal, data, started)
		}
		s := raw(t, link.Index)
		s.SetReadDeadline(time.Now().Add(patience))
		buf := make([]byte, 128)
		read := func(want usbtest.CANFrame) {
			t.Helper()
			if n, err := s.Read(buf); err != nil || !reflect.DeepEqual(buf[:n], frame(want)) {
				t.Errorf("Read() = %x, %v; want %x", buf[:n], err, frame(want))
			}
		}
		before := len(c.Sent())
		frames := []usbtest.CANFrame{
			{ID: 0x123, Data: []byte{1, 2, 3}},
			{ID: 0x12345678 | unix.CAN_EFF_FLAG, Data: []byte("12345678")},
			{ID: 0x7ff, Data: slices.Repeat([]byte{0xaa}, 64), FD: true, BRS: true},
			{ID: 0x7fe, Data: slices.Repeat([]byte{0x55}, 12), FD: true, ESI: true},
			{ID: 0x7fd | unix.CAN_RTR_FLAG, Data: []byte{}},
		}
		for _, f := range frames {
			if _, err := s.Write(frame(f)); err != nil {
				t.Errorf("Write(%+v) = %v; want nil", f, err)
			}
		}
		await(t, "sending", func() bool { return len(c.Sent()) == before+len(frames) })
		if got := c.Sent()[before:]; !reflect.DeepEqual(got, frames) {
			t.Errorf("Sent() = %+v; want %+v", got, frames)
		}
		for _, f := range frames {
			c.Send(f)
			read(f)
		}

		// States and counters, in frames and where the kernel keeps them.
		for _, want := range []usbtest.CANState{{State: unix.CAN_STATE_ERROR_WARNING, Rx: 100}, {State: unix.CAN_STATE_ERROR_PASSIVE, Tx: 130}, {}} {
			c.SetState(want)
			if n, err := s.Read(buf); err != nil || le.Uint32(buf)&unix.CAN_ERR_FLAG == 0 {
				t.Errorf("Read() = %x, %v; want an error frame", buf[:n], err)
			}
			a := attrs(attrs(netlink(t, unix.RTM_GETLINK, link.Index, 0, nil)[unix.IFLA_LINKINFO])[unix.IFLA_INFO_DATA])
			state, counters := a[unix.IFLA_CAN_STATE], a[unix.IFLA_CAN_BERR_COUNTER]
			if len(state) != 4 || le.Uint32(state) != want.State || len(counters) != 4 ||
				uint32(le.Uint16(counters)) != want.Tx || uint32(le.Uint16(counters[2:])) != want.Rx {
				t.Errorf("the kernel has state %x and counters %x; want %+v", state, counters, want)
			}
		}

		// Without another node the queues fill, and nothing of that is lost once there is one.
		c.Alone(true)
		before = len(c.Sent())
		wrote := 0
		for s.SetWriteDeadline(time.Now().Add(patience)); ; wrote++ {
			if _, err := s.Write(frame(frames[0])); err != nil {
				break
			}
		}
		if wrote == 0 {
			t.Error("Write() to a bus without other nodes = an error at once; want a queue")
		}
		if got := len(c.Sent()); got != before {
			t.Errorf("%d frames were sent without anybody to acknowledge them", got-before)
		}
		c.Alone(false)
		await(t, "sending what waited", func() bool { return len(c.Sent()) == before+wrote })

		if err := p.Unplug(); err != nil {
			t.Fatalf("Unplug() = %v; want nil", err)
		}
		if _, err := net.InterfaceByName(name); err == nil {
			t.Errorf("%s is there after its device was unplugged", name)
		}
		if err := p.Replug(); err != nil {
			t.Fatalf("Replug() = %v; want nil", err)
		}
	}
}

// A controller that has made too many errors is off the bus until it is started anew, and the kernel counts that.
func TestCANBusOff(t *testing.T) {
	c := &usbtest.CAN{}
	i := link(t, plug(t, c))
	if err := set(t, i, 250_000, 0); err != nil {
		t.Fatal(err)
	}
	s := raw(t, i.Index)
	s.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 128)
	for _, st := range []usbtest.CANState{{State: unix.CAN_STATE_ERROR_WARNING, Tx: 96}, {State: unix.CAN_STATE_ERROR_PASSIVE, Tx: 128}, {State: unix.CAN_STATE_BUS_OFF, Tx: 255}} {
		c.SetState(st)
		if n, err := s.Read(buf); err != nil || le.Uint32(buf)&unix.CAN_ERR_FLAG == 0 {
			t.Fatalf("Read() = %x, %v; want an error frame", buf[:n], err)
		}
	}
	if st, warning, passive, off := state(t, i); st != unix.CAN_STATE_BUS_OFF || warning != 1 || passive != 1 || off != 1 {
		t.Errorf("the kernel has state %d after %d warnings, %d times passive, %d times off; want %d after one each", st, warning, passive, off, unix.CAN_STATE_BUS_OFF)
	}
	c.Send(usbtest.CANFrame{ID: 0x1}) // which it does not see
	down(t, i)
	if _, _, started := c.Rates(); started {
		t.Error("the adapter is on the bus though its interface is down; want off")
	}
	if err := set(t, i, 250_000, 0); err != nil {
		t.Fatal(err)
	}
	if st, _, _, _ := state(t, i); st != unix.CAN_STATE_ERROR_ACTIVE {
		t.Errorf("the kernel has state %d after a new start; want %d", st, unix.CAN_STATE_ERROR_ACTIVE)
	}
	s = raw(t, i.Index) // the old one is told that the network went down
	s.SetReadDeadline(time.Now().Add(patience))
	c.Send(usbtest.CANFrame{ID: 0x2, Data: []byte{2}})
	if n, err := s.Read(buf); err != nil || le.Uint32(buf) != 0x2 {
		t.Errorf("Read() = %x, %v; want the frame that came after the new start", buf[:n], err)
	}
}

// The adapter's clock times what it receives.
func TestCANTimes(t *testing.T) {
	c := &usbtest.CAN{}
	i := link(t, plug(t, c))
	if err := set(t, i, 250_000, 0); err != nil {
		t.Fatal(err)
	}
	s := raw(t, i.Index)
	conn, err := s.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	conn.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPING, unix.SOF_TIMESTAMPING_RX_HARDWARE|unix.SOF_TIMESTAMPING_RAW_HARDWARE)
	})
	if err != nil {
		t.Fatal(err)
	}
	s.SetReadDeadline(time.Now().Add(patience))
	// receive returns the adapter's time of the next frame, which the kernel puts on its own scale.
	receive := func() (at time.Time) {
		t.Helper()
		frame, oob := make([]byte, 128), make([]byte, 256)
		n := 0
		var got error
		err := conn.Read(func(fd uintptr) bool {
			_, n, _, _, got = unix.Recvmsg(int(fd), frame, oob, 0)
			return !errors.Is(got, unix.EAGAIN)
		})
		if err := errors.Join(err, got); err != nil {
			t.Fatal(err)
		}
		messages, err := unix.ParseSocketControlMessage(oob[:n])
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range messages {
			if m.Header.Type == unix.SO_TIMESTAMPING && len(m.Data) == 48 { // three times, of which the hardware's is the last
				return time.Unix(int64(le.Uint64(m.Data[32:])), int64(le.Uint64(m.Data[40:])))
			}
		}
		t.Fatalf("the frame comes with %+v; want a time of the hardware", messages)
		return at
	}
	before := time.Now()
	c.Send(usbtest.CANFrame{ID: 1})
	first := receive()
	c.Send(usbtest.CANFrame{ID: 2, FD: true, Data: []byte("12345678")})
	second := receive()
	if took := time.Since(before); !first.Before(second) || second.Sub(first) > took {
		t.Errorf("frames came at %v and %v by the adapter's clock; want one after another, within %v", first, second, took)
	}
}

func TestCANLoopBack(t *testing.T) {
	c := &usbtest.CAN{}
	i := link(t, plug(t, c))
	c.Alone(true) // it acknowledges itself
	if err := set(t, i, 250_000, unix.CAN_CTRLMODE_LOOPBACK); err != nil {
		t.Fatal(err)
	}
	s := raw(t, i.Index)
	s.SetReadDeadline(time.Now().Add(patience))
	f := frame(usbtest.CANFrame{ID: 0x123, Data: []byte{1}})
	if _, err := s.Write(f); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 128)
	if n, err := s.Read(buf); err != nil || !reflect.DeepEqual(buf[:n], f) {
		t.Errorf("Read() = %x, %v; want %x", buf[:n], err, f)
	}
	if got := c.Sent(); len(got) != 0 {
		t.Errorf("Sent() = %+v; want nothing on the bus", got)
	}
}

func TestCANFaults(t *testing.T) {
	c := &usbtest.CAN{}
	p := plug(t, c)
	i := link(t, p)
	for f, want := range []error{usbtest.Stall: unix.EPIPE, usbtest.Noise: unix.EPROTO, usbtest.Mute: unix.ETIMEDOUT} {
		p.Fail(0, usbtest.Fault(f), 2) // the first request is for the adapter's clock, without which it starts all the same
		if err := set(t, i, 500_000, 0); err != want {
			t.Errorf("to start an adapter with fault %d = %v; want %v", f, err, want)
		}
		if _, _, started := c.Rates(); started {
			t.Errorf("the adapter is started in spite of fault %d", f)
		}
		if err := set(t, i, 500_000, 0); err != nil {
			t.Errorf("to start an adapter that recovered from fault %d = %v; want nil", f, err)
		}
		down(t, i)
	}

	// A frame that meets a fault is lost; the next one is not.
	if err := set(t, i, 500_000, 0); err != nil {
		t.Fatal(err)
	}
	s := raw(t, i.Index)
	for _, f := range []usbtest.Fault{usbtest.Stall, usbtest.Noise} {
		before := len(c.Sent())
		p.Fail(usbtest.CANSend, f, 1)
		for id := range uint32(2) {
			if _, err := s.Write(frame(usbtest.CANFrame{ID: id})); err != nil {
				t.Errorf("Write() = %v; want nil", err)
			}
		}
		await(t, "a frame", func() bool { return len(c.Sent()) > before })
		if got := c.Sent()[before:]; len(got) != 1 || got[0].ID != 1 {
			t.Errorf("Sent() after fault %d = %+v; want the second frame", f, got)
		}
	}

	// The cable is pulled while a frame is on its way.
	before := len(c.Sent())
	p.Fail(usbtest.CANSend, usbtest.Pull, 1)
	if _, err := s.Write(frame(usbtest.CANFrame{ID: 3, Data: []byte("12345678")})); err != nil {
		t.Fatal(err)
	}
	s.SetReadDeadline(time.Now().Add(patience))
	if _, err := s.Read(make([]byte, 128)); !errors.Is(err, unix.ENETDOWN) && !errors.Is(err, unix.ENODEV) {
		t.Errorf("Read() after the cable was pulled = %v; want %v or %v", err, unix.ENETDOWN, unix.ENODEV)
	}
	if err := p.Unplug(); err != nil { // it is out already; this waits for the kernel
		t.Fatalf("Unplug() = %v; want nil", err)
	}
	if got := c.Sent()[before:]; len(got) != 0 {
		t.Errorf("Sent() = %+v; want nothing of half a frame", got)
	}
	if err := p.Replug(); err != nil {
		t.Fatalf("Replug() = %v; want nil", err)
	}
	if err := set(t, link(t, p), 500_000, 0); err != nil {
		t.Errorf("to start the adapter that is back = %v; want nil", err)
	}
}

// A device that is no CAN adapter though it says so: the kernel makes nothing of it, and survives.
func TestCANWrongDescriptors(t *testing.T) {
	for name, alter := range map[string]func(*usbtest.Descriptors){
		"no endpoints":         func(d *usbtest.Descriptors) { d.Body = usbtest.Interface(0, 0, 0xff, 0xff, 0xff) },
		"only one endpoint":    func(d *usbtest.Descriptors) { d.Body = d.Body[:9+7] },
		"a lying length":       func(d *usbtest.Descriptors) { d.Body[0] = 200 },
		"half a configuration": func(d *usbtest.Descriptors) { d.Raw = map[uint16][]byte{0x0200: {9, 2, 32}} },
	} {
		wrong(t, name, usbtest.Altered{Model: &usbtest.CAN{}, Alter: alter}, "*/net/*", &usbtest.CAN{})
	}
}

// wrong plugs in a device of which the kernel is to make nothing, beside one of which it does.
func wrong(t *testing.T, name string, bad usbtest.Model, makes string, good usbtest.Model) {
	t.Helper()
	p, beside := plug(t, bad), plug(t, good)
	find(t, beside, makes) // one hub finds devices one after another
	if found, _ := filepath.Glob(filepath.Join(p.Dir(), makes)); len(found) > 0 {
		t.Errorf("%s: the kernel made %q of it; want nothing", name, found)
	}
	if err := errors.Join(p.Unplug(), beside.Unplug()); err != nil {
		t.Errorf("%s: Unplug() = %v; want nil", name, err)
	}
}

func TestCANTwoAlike(t *testing.T) {
	one, two := &usbtest.CAN{Serial: "same"}, &usbtest.CAN{Serial: "same"}
	for id, x := range []struct {
		c *usbtest.CAN
		i *net.Interface
	}{{one, link(t, plug(t, one))}, {two, link(t, plug(t, two))}} {
		if err := set(t, x.i, uint32(id+1)*125_000, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := raw(t, x.i.Index).Write(frame(usbtest.CANFrame{ID: uint32(id)})); err != nil {
			t.Fatal(err)
		}
		await(t, "a frame", func() bool { return len(x.c.Sent()) == 1 })
		if rate, _, _ := x.c.Rates(); x.c.Sent()[0].ID != uint32(id) || rate != uint32(id+1)*125_000 {
			t.Errorf("adapter %d has sent %+v at %d bit/s; want its own", id, x.c.Sent(), rate)
		}
	}
}
