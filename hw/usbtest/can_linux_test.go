package usbtest_test

import (
	"encoding/binary"
	"net"
	"os"
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
			t.Fatalf("the kernel refuses: %v", unix.Errno(-code))
		}
		return nil
	}
	return attrs(answer[32:n])
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
