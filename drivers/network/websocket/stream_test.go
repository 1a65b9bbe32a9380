package websocket

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
)

const last = 0x80 // marks the last frame of a message

// sent is a frame as servers send them.
func sent(first byte, payload string) string {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return string(b) + payload
}

func bye(status uint16, why string) string {
	return sent(last|opClose, string(binary.BigEndian.AppendUint16(nil, status))+why)
}

// script is a connection on which a peer says what it has to say, and hangs up.
type script struct {
	io.Reader
	mu  sync.Mutex
	got []byte
}

func (s *script) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, p...)
	return len(p), nil
}

func (s *script) Close() error { return nil }

// play is what a stream makes of a script: its messages, and how it ends. What
// the stream sent is the kinds of its frames and their payloads.
func play(text io.Reader) (messages []string, end error, reply []string) {
	peer := &script{Reader: text}
	s := newStream(peer, peer)
	for {
		var m []byte
		if m, end = s.ReadPacket(); end != nil {
			break
		}
		messages = append(messages, string(m))
	}
	s.Close()
	for r := bytes.NewReader(peer.got); r.Len() > 0; {
		op, payload, err := clientFrame(r)
		if err != nil {
			return messages, end, append(reply, err.Error())
		}
		reply = append(reply, fmt.Sprintf("%d %s", op, payload))
	}
	return messages, end, reply
}

// clientFrame reads a frame as servers do.
func clientFrame(r io.Reader) (op byte, payload string, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, "", err
	}
	if head[0]&0xf0 != last || head[1]&0x80 == 0 {
		return 0, "", fmt.Errorf("frame begins with %x; want it to be final and masked", head)
	}
	n := uint64(head[1] & 0x7f)
	if n >= 126 {
		var ext [8]byte
		if _, err := io.ReadFull(r, ext[8-map[uint64]int{126: 2, 127: 8}[n]:]); err != nil {
			return 0, "", err
		}
		n = binary.BigEndian.Uint64(ext[:])
	}
	b := make([]byte, 4+n)
	if _, err := io.ReadFull(r, b); err != nil {
		return 0, "", err
	}
	for i := range b[4:] {
		b[4+i] ^= b[i%4]
	}
	return head[0] & 0x0f, string(b[4:]), nil
}

func status(n uint16) string { return "8 " + string(binary.BigEndian.AppendUint16(nil, n)) }

func TestRead(t *testing.T) {
	k70, m4 := strings.Repeat("x", 70_000), strings.Repeat("y", MaxMessage)
	for _, test := range []struct {
		name, script string
		messages     []string
		end          string
		reply        []string
	}{
		{"messages", sent(last|opBinary, "a") + sent(last|opBinary, "") + sent(last|opText, "grün\xff") + bye(1000, "done"),
			[]string{"a", "", "grün\xff"}, "EOF", []string{status(1000)}},
		{"no status", sent(last|opClose, ""), nil, "EOF", []string{"8 "}},
		{"sizes", sent(last|opBinary, k70[:125]) + sent(last|opBinary, k70[:126]) + sent(last|opBinary, k70[:65535]) + sent(last|opBinary, k70) + bye(1000, ""),
			[]string{k70[:125], k70[:126], k70[:65535], k70}, "EOF", []string{status(1000)}},
		{"the largest", sent(last|opBinary, m4) + bye(1000, ""), []string{m4}, "EOF", []string{status(1000)}},
		{"fragments", sent(opBinary, "a") + sent(last|opPong, "p") + sent(opContinuation, "") + sent(opContinuation, k70) + sent(last, "b") + sent(opText, "") + sent(last, "") + bye(1000, ""),
			[]string{"a" + k70 + "b", ""}, "EOF", []string{status(1000)}},

		{"going away", bye(1001, "restart"), nil, `read: the peer closed with status 1001 "restart"`, []string{status(1001)}},
		{"failure", sent(last|opBinary, "a") + bye(1011, ""), []string{"a"}, `read: the peer closed with status 1011 ""`, []string{status(1011)}},
		{"own status", bye(4000, "x"), nil, `read: the peer closed with status 4000 "x"`, []string{status(4000)}},
		{"within a message", sent(opBinary, "abc") + bye(1000, ""), nil,
			`read: the peer closed within a message, after 3 bytes of it (status 1000 ""): unexpected EOF`, []string{status(1000)}},
		{"no farewell", sent(last|opBinary, "a"), []string{"a"}, "read: the connection ended without being closed (unexpected EOF): unavailable", []string{status(1000)}},

		{"too large", "\x82\x7f\x00\x00\x00\x00\x00\x3f\xff\xf1", nil, "read: a message of 4194289 bytes: at most 4194288 can be passed on", []string{status(1009)}},
		{"huge", "\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", nil, "read: a message of 9223372036854775807 bytes: at most 4194288 can be passed on", []string{status(1009)}},
		{"too many fragments", sent(opBinary, m4) + sent(opContinuation, "x"), nil,
			"read: a message of at least 4194289 bytes: at most 4194288 can be passed on", []string{status(1009)}},

		{"impossible size", "\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00", nil, "sent a frame of 9223372036854775808 bytes", []string{status(1002)}},
		{"reserved bits", sent(last|0x40|opBinary, "a"), nil, "sent a frame with the reserved bits 0x40", []string{status(1002)}},
		{"masked", "\x82\x81abcda", nil, "sent a frame that is masked as a client's", []string{status(1002)}},
		{"unknown data", sent(last|3, "a"), nil, "sent a frame of the unknown kind 3", []string{status(1002)}},
		{"unknown control", sent(last|11, "a"), nil, "sent a frame of the unknown kind 11", []string{status(1002)}},
		{"long control", sent(last|opPing, k70[:126]), nil, "sent a control frame of 126 bytes, final: true", []string{status(1002)}},
		{"fragmented control", sent(opPing, "a"), nil, "sent a control frame of 1 bytes, final: false", []string{status(1002)}},
		{"continuation of nothing", sent(last, "a"), nil, "sent a frame of kind 0 within a message: false", []string{status(1002)}},
		{"message in a message", sent(opBinary, "a") + sent(last|opBinary, "b"), nil, "sent a frame of kind 2 within a message: true", []string{status(1002)}},
		{"half a status", sent(last|opClose, "\x03"), nil, "sent half a status", []string{status(1002)}},
		{"status 999", bye(999, ""), nil, "sent the status 999", []string{status(1002)}},
		{"status 1005", bye(1005, ""), nil, "sent the status 1005", []string{status(1002)}},
		{"status 1006", bye(1006, ""), nil, "sent the status 1006", []string{status(1002)}},
		{"status 1015", bye(1015, ""), nil, "sent the status 1015", []string{status(1002)}},
		{"status 5000", bye(5000, ""), nil, "sent the status 5000", []string{status(1002)}},
	} {
		messages, end, reply := play(strings.NewReader(test.script))
		if slices.Equal(test.reply, []string{status(1002)}) {
			test.end = "read: the peer breaks the protocol: it " + test.end
		}
		if !slices.Equal(messages, test.messages) || fmt.Sprint(end) != test.end || !slices.Equal(reply, test.reply) {
			t.Errorf("%s: messages of %v bytes, then %v, answered by %q; want %v, then %s, answered by %q",
				test.name, sizes(messages), end, reply, sizes(test.messages), test.end, test.reply)
		}
	}
}

func sizes(list []string) (n []int) {
	for _, s := range list {
		n = append(n, len(s))
	}
	return n
}

// However a connection is cut short, and however it comes in pieces, what was
// whole is there and the end is an error.
func TestCut(t *testing.T) {
	const text = "abcdefghij"
	whole := sent(last|opBinary, text) + sent(last|opPing, "p") + sent(opBinary, text) + sent(last, text) + bye(1000, "")
	first, second := len(sent(last|opBinary, text)), len(whole)-len(bye(1000, ""))
	for cut := range len(whole) {
		var want []string
		if cut >= first {
			want = append(want, text)
		}
		if cut >= second {
			want = append(want, text+text)
		}
		messages, end, _ := play(strings.NewReader(whole[:cut]))
		if !slices.Equal(messages, want) || !errors.Is(end, io.ErrUnexpectedEOF) || driver.Classify(end) != driver.Unavailable {
			t.Errorf("cut after %d of %d bytes: %q, %v; want %q and an error", cut, len(whole), messages, end, want)
		}
	}
	messages, end, _ := play(slow{strings.NewReader(whole)})
	if want := []string{text, text + text}; !slices.Equal(messages, want) || end != io.EOF {
		t.Errorf("byte by byte: %q, %v; want %q, EOF", messages, end, want)
	}
}

// slow yields a byte at a time.
type slow struct{ r io.Reader }

func (s slow) Read(p []byte) (int, error) { return s.r.Read(p[:min(len(p), 1)]) }

// A long message that breaks off where a buffer ends is not taken for a whole
// one.
func TestCutLong(t *testing.T) {
	whole := sent(last|opBinary, strings.Repeat("x", 300_000))
	for _, cut := range []int{10 + 512, 10 + 4096, 4096, 10 + 64<<10, 10 + 128<<10, 10 + 256<<10, len(whole) - 1} {
		messages, end, _ := play(strings.NewReader(whole[:cut]))
		if len(messages) > 0 || !errors.Is(end, io.ErrUnexpectedEOF) {
			t.Errorf("cut after %d of %d bytes: messages of %v bytes, %v; want none and an error", cut, len(whole), sizes(messages), end)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, text := range []string{
		sent(last|opBinary, "a") + bye(1000, "x"),
		sent(opText, "a") + sent(last|opPing, "p") + sent(last, "") + sent(last|opClose, ""),
		"\x82\x7f\x00\x00\x00\x00\x00\x3f\xff\xf0" + "abc", "\x82\x7e\x01\x00" + "abc",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		messages, end, reply := play(bytes.NewReader(text))
		again, endAgain, _ := play(slow{bytes.NewReader(text)})
		if !slices.Equal(messages, again) || fmt.Sprint(end) != fmt.Sprint(endAgain) {
			t.Errorf("%q: %q, %v; byte by byte %q, %v", text, messages, end, again, endAgain)
		}
		total := 0
		for _, m := range messages {
			total += len(m)
		}
		if total > len(text) {
			t.Errorf("%q: messages of %d bytes; want no more than there were", text, total)
		}
		if n := len(reply); n == 0 || !strings.HasPrefix(reply[n-1], "8 ") || end == io.EOF && reply[n-1] != "8 " && reply[n-1] != status(1000) {
			t.Errorf("%q: ends with %v and the answers %q; want a farewell", text, end, reply)
		}
	})
}

// ends is a stream and the peer at the other end of a pipe.
func ends(t *testing.T) (*stream, net.Conn) {
	t.Helper()
	near, far := net.Pipe()
	s := newStream(near, near)
	t.Cleanup(func() {
		far.Close()
		s.Close()
	})
	return s, far
}

func TestWrite(t *testing.T) {
	s, far := ends(t)
	for _, n := range []int{0, 1, 3, 125, 126, 511, 512, 513, 65535, 65536, MaxMessage} {
		want := strings.Repeat("abcdefg", n/7+1)[:n]
		wrote := make(chan error, 1)
		go func() {
			n, err := io.WriteString(s, want)
			if err == nil && n != len(want) {
				err = fmt.Errorf("Write() = %d; want %d", n, len(want))
			}
			wrote <- err
		}()
		op, got, err := clientFrame(far)
		if op != opBinary || got != want || err != nil {
			t.Errorf("Write(%d bytes) sends kind %d, %d bytes, %v; want kind 2, the same", n, op, len(got), err)
		}
		if err := <-wrote; err != nil {
			t.Error(err)
		}
	}
	want := "write: a message of 4194289 bytes: at most 4194288 can be passed on"
	if n, err := s.Write(make([]byte, MaxMessage+1)); n != 0 || err == nil || err.Error() != want {
		t.Errorf("Write(%d bytes) = %d, %v; want 0, %s", MaxMessage+1, n, err, want)
	}
}

// What a caller writes stays as it is.
func TestWriteKeepsItsArgument(t *testing.T) {
	s := newStream(&script{Reader: strings.NewReader("")}, &script{})
	defer s.Close()
	p := []byte("hello")
	s.Write(p)
	if string(p) != "hello" {
		t.Errorf("after Write() its argument is %q; want hello", p)
	}
}

// The peer's pings are answered, the last one if there are many, also while a
// Write waits for the peer.
func TestPings(t *testing.T) {
	drivertest.NoLeaks(t)
	s, far := ends(t)
	var all sync.WaitGroup
	all.Go(func() { io.WriteString(s, "data") }) // waits: nobody reads
	all.Go(func() {
		if m, err := s.ReadPacket(); string(m) != "end" || err != nil {
			t.Errorf("ReadPacket() = %q, %v; want end", m, err)
		}
	})
	for _, f := range []string{sent(last|opPing, "1"), sent(last|opPing, "2"), sent(last|opPing, "3"), sent(last|opBinary, "end")} {
		if _, err := io.WriteString(far, f); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for !slices.Contains(got, "2 data") || !slices.Contains(got, "10 3") {
		op, payload, err := clientFrame(far)
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		got = append(got, fmt.Sprintf("%d %s", op, payload))
	}
	all.Wait()
	far.Close()
	s.Close()
}

func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, far := ends(t)
		start := time.Now()
		for i := range 3 {
			op, _, err := clientFrame(far)
			if want := time.Duration(i+1) * 20 * time.Second; op != opPing || err != nil || time.Since(start) != want {
				t.Errorf("after %v: frame of kind %d, %v; want a ping after %v", time.Since(start), op, err, want)
			}
		}
		far.Close()
		s.Close()
	})
}

// A peer that does not answer a farewell is left after a second.
func TestCloseSilentPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, far := ends(t)
		go io.Copy(io.Discard, far)
		start := time.Now()
		if err := s.Close(); err != nil || time.Since(start) != closeLimit {
			t.Errorf("Close() = %v after %v; want nil after %v", err, time.Since(start), closeLimit)
		}
	})
}

// One that does is not, and what it still had to say is passed over.
func TestCloseInOrder(t *testing.T) {
	drivertest.NoLeaks(t)
	s, far := ends(t)
	s.limit = time.Hour
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	if op, payload, err := clientFrame(far); op != opClose || payload != "\x03\xe8" || err != nil {
		t.Errorf("Close() sends kind %d %q, %v; want 8, status 1000", op, payload, err)
	}
	io.WriteString(far, sent(last|opBinary, "late")+sent(last|opPing, "")+bye(1000, ""))
	if err := <-closed; err != nil {
		t.Errorf("Close() = %v; want nil", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close() again = %v; want nil", err)
	}
}

// Close releases a Read and a Write that wait for the peer.
func TestCloseReleases(t *testing.T) {
	drivertest.NoLeaks(t)
	s, far := ends(t)
	s.limit = 50 * time.Millisecond
	read, wrote := make(chan error, 1), make(chan error, 1)
	go func() { _, err := s.Read(make([]byte, 1)); read <- err }()
	go func() { _, err := io.WriteString(s, "stuck"); wrote <- err }()
	if _, err := far.Read(make([]byte, 1)); err != nil { // Write is under way
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close() = %v; want nil", err)
	}
	for what, end := range map[string]chan error{"Read": read, "Write": wrote} {
		if err := <-end; !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s() of a stream that is closed = %v; want %v", what, err, net.ErrClosed)
		}
	}
	if _, err := s.Write(nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write() after Close = %v; want %v", err, net.ErrClosed)
	}
	if _, err := s.ReadPacket(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("ReadPacket() after Close = %v; want %v", err, net.ErrClosed)
	}
}

// A peer that has closed gets its answer without anybody's doing, and no more
// messages.
func TestPeerCloses(t *testing.T) {
	drivertest.NoLeaks(t)
	s, far := ends(t)
	go io.WriteString(far, bye(1000, ""))
	for range 2 {
		if m, err := s.ReadPacket(); m != nil || err != io.EOF {
			t.Errorf("ReadPacket() = %q, %v; want EOF", m, err)
		}
	}
	if op, payload, err := clientFrame(far); op != opClose || payload != "\x03\xe8" || err != nil {
		t.Errorf("the answer is of kind %d %q, %v; want 8, status 1000", op, payload, err)
	}
	if n, err := io.WriteString(s, "more"); n != 0 || !errors.Is(err, syscall.EPIPE) {
		t.Errorf("Write() after the peer closed = %d, %v; want 0, %v", n, err, syscall.EPIPE)
	}
	s.Close()
}

// A small buffer costs boundaries, not data.
func TestParts(t *testing.T) {
	peer := &script{Reader: strings.NewReader(sent(last|opBinary, "hello, world") + sent(last|opBinary, "") + sent(last|opBinary, "!") + bye(1000, ""))}
	s := newStream(peer, peer)
	defer s.Close()
	var got []string
	buf := make([]byte, 5)
	for {
		n, err := s.Read(buf)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(buf[:n]))
	}
	if want := "hello|, wor|ld||!"; strings.Join(got, "|") != want {
		t.Errorf("Read() = %q; want %s", got, want)
	}
}
