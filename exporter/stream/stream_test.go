package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
)

const (
	data   = pb.FrameType_FRAME_TYPE_DATA
	goaway = pb.FrameType_FRAME_TYPE_GOAWAY
	ping   = pb.FrameType_FRAME_TYPE_PING
	rst    = pb.FrameType_FRAME_TYPE_RST_STREAM
)

// message is a frame as a test writes it down: its type and its payload.
type message struct {
	t       pb.FrameType
	payload string
}

func (m message) String() string {
	return fmt.Sprintf("%s %q", strings.TrimPrefix(m.t.String(), "FRAME_TYPE_"), m.payload)
}

var errGone = errors.New("rpc: the other side is gone")

// rpc stands in for the RPC that carries frames. Both directions hold no more
// than room messages, as flow control would.
type rpc struct {
	ctx      context.Context
	in, out  chan message
	halfOnce sync.Once
	sending  atomic.Bool
}

func newRPC(ctx context.Context, room int, in ...message) *rpc {
	r := &rpc{ctx: ctx, in: make(chan message, max(room, len(in))), out: make(chan message, room)}
	for _, m := range in {
		r.in <- m
	}
	return r
}

// end is the other side's half-close.
func (r *rpc) end() *rpc {
	r.halfOnce.Do(func() { close(r.in) })
	return r
}

func (r *rpc) SendMsg(m any) error {
	if !r.sending.CompareAndSwap(false, true) {
		panic("two send at once, which gRPC forbids")
	}
	defer r.sending.Store(false)
	f := m.(*Frame)
	out := message{f.Type, ""}
	if f.Len() > 0 {
		out.payload = string(f.Payload())
	}
	select {
	case r.out <- out:
		return nil
	case <-r.ctx.Done():
		return errGone
	}
}

func (r *rpc) RecvMsg(m any) error {
	var in message
	ok := true
	select {
	case in, ok = <-r.in: // what has arrived comes before the end
	default:
		select {
		case in, ok = <-r.in:
		case <-r.ctx.Done():
			return errGone
		}
	}
	if !ok {
		return io.EOF
	}
	*m.(*Frame) = *NewFrame(in.t, []byte(in.payload))
	return nil
}

// sent lists what was sent so far.
func (r *rpc) sent() (list []message) {
	for {
		select {
		case m := <-r.out:
			list = append(list, m)
		default:
			return list
		}
	}
}

// echo is a driver's stream that answers with what it is told.
type echo struct {
	*io.PipeReader
	*io.PipeWriter
}

func newEcho() *echo {
	r, w := io.Pipe()
	return &echo{r, w}
}

func (e *echo) CloseWrite() error { return e.PipeWriter.Close() }
func (e *echo) Close() error {
	e.PipeReader.CloseWithError(net.ErrClosed)
	return e.PipeWriter.CloseWithError(net.ErrClosed)
}

// packets is an echo that keeps boundaries.
type packets struct {
	ch           chan string
	half, closed func()
	ended, gone  context.Context
}

func newPackets() *packets {
	p := &packets{ch: make(chan string, 64)}
	p.gone, p.closed = context.WithCancel(context.Background())
	p.ended, p.half = context.WithCancel(p.gone)
	return p
}

func (p *packets) PacketStream() {}

func (p *packets) Read(b []byte) (int, error) {
	select {
	case s := <-p.ch:
		return copy(b, s), nil
	case <-p.ended.Done():
	}
	select {
	case s := <-p.ch:
		return copy(b, s), nil
	default:
		if p.gone.Err() != nil {
			return 0, net.ErrClosed
		}
		return 0, io.EOF
	}
}

func (p *packets) Write(b []byte) (int, error) {
	select {
	case p.ch <- string(b):
		return len(b), nil
	case <-p.ended.Done():
		return 0, net.ErrClosed
	}
}

// wholePackets hands them out whole, whatever their size.
type wholePackets struct{ *packets }

func (p wholePackets) ReadPacket() ([]byte, error) {
	b := make([]byte, 4<<20)
	n, err := p.packets.Read(b)
	return b[:n], err
}

// large is more than any buffer of the pump holds.
var large = strings.Repeat("x", 3<<20)

func (wholePackets) Read([]byte) (int, error) { panic("Read was called, and there is ReadPacket") }

func (p *packets) CloseWrite() error { p.half(); return nil }
func (p *packets) Close() error      { p.closed(); return nil }

// script is a driver's stream made of functions. What is nil blocks until Close.
type script struct {
	read, write func([]byte) (int, error)
	half, close func() error

	once   sync.Once
	closed chan struct{}
}

func newScript() *script { return &script{closed: make(chan struct{})} }

func (s *script) block() (int, error) {
	<-s.closed
	return 0, net.ErrClosed
}

func (s *script) Read(b []byte) (int, error) {
	if s.read != nil {
		return s.read(b)
	}
	return s.block()
}

func (s *script) Write(b []byte) (int, error) {
	if s.write != nil {
		return s.write(b)
	}
	return s.block()
}

func (s *script) CloseWrite() error {
	if s.half != nil {
		return s.half()
	}
	return nil
}

func (s *script) Close() error {
	s.once.Do(func() { close(s.closed) })
	if s.close != nil {
		return s.close()
	}
	return nil
}

func wantSent(t *testing.T, r *rpc, want ...message) {
	t.Helper()
	if got := r.sent(); !slices.Equal(got, want) {
		t.Errorf("sent %v; want %v", got, want)
	}
}

func TestServeHalfCloses(t *testing.T) {
	drivertest.NoLeaks(t)
	tests := []struct {
		name string
		in   []message
		s    io.ReadWriteCloser
		want []message
	}{
		{"nothing", nil, newEcho(), []message{{goaway, ""}}},
		{"goaway", []message{{data, "a"}, {data, "bc"}, {goaway, ""}}, newEcho(), []message{{data, "a"}, {data, "bc"}, {goaway, ""}}},
		{"end of rpc", []message{{data, "a"}}, newEcho(), []message{{data, "a"}, {goaway, ""}}},
		{"after goaway", []message{{goaway, "why"}, {data, "x"}}, newEcho(), []message{{goaway, ""}}},
		{"others", []message{{ping, ""}, {rst, "r"}, {99, "x"}, {data, ""}, {data, "a"}, {ping, "p"}}, newEcho(), []message{{data, "a"}, {goaway, ""}}},
		{"packets", []message{{data, "a"}, {data, ""}, {ping, ""}, {data, "bb"}, {data, ""}}, newPackets(),
			[]message{{data, "a"}, {data, ""}, {data, "bb"}, {data, ""}, {goaway, ""}}},
		{"large packets", []message{{data, "a"}, {data, ""}, {data, large}, {data, ""}}, wholePackets{newPackets()},
			[]message{{data, "a"}, {data, ""}, {data, large}, {data, ""}, {goaway, ""}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRPC(t.Context(), 16, test.in...).end()
			if err := Serve(t.Context(), r, test.s, true); err != nil {
				t.Errorf("Serve() = %v; want nil", err)
			}
			wantSent(t, r, test.want...)
		})
	}
}

// A device that has ended may still be told things.
func TestServeDeviceEndsFirst(t *testing.T) {
	drivertest.NoLeaks(t)
	var got bytes.Buffer
	s := newScript()
	s.read = func([]byte) (int, error) { return 0, io.EOF }
	s.write = got.Write
	r := newRPC(t.Context(), 8)
	served := make(chan error, 1)
	go func() { served <- Serve(t.Context(), r, s, true) }()
	if m := <-r.out; m != (message{goaway, ""}) {
		t.Errorf("sent %v; want GOAWAY", m)
	}
	r.in <- message{data, "late"}
	r.in <- message{goaway, ""}
	if err := <-served; err != nil || got.String() != "late" {
		t.Errorf("Serve() = %v with %q written; want nil with %q", err, got.String(), "late")
	}
	wantSent(t, r)
}

func TestServeBreaks(t *testing.T) {
	drivertest.NoLeaks(t)
	broken := errors.New("broken")
	fail := func([]byte) (int, error) { return 0, broken }
	tests := []struct {
		name  string
		setup func(*script)
		in    []message
		data  []message // before the break
	}{
		{"read", func(s *script) { s.read = fail }, nil, nil},
		{"read after data", func(s *script) {
			n := 0
			s.read = func(b []byte) (int, error) {
				if n++; n > 2 {
					return copy(b, "last"), broken
				}
				return copy(b, "x"), nil
			}
		}, nil, []message{{data, "x"}, {data, "x"}, {data, "last"}}},
		{"write", func(s *script) { s.write = fail }, []message{{data, "a"}}, nil},
		{"half-close", func(s *script) { s.half = func() error { return broken } }, []message{{goaway, ""}}, nil},
		{"too much", func(s *script) { s.read = func(b []byte) (int, error) { return len(b) + 1, nil } }, nil, nil},
		{"less than nothing", func(s *script) { s.read = func(b []byte) (int, error) { return -1, nil } }, nil, nil},
		{"panic in read", func(s *script) { s.read = func([]byte) (int, error) { panic("oops") } }, nil, nil},
		{"panic in write", func(s *script) { s.write = func([]byte) (int, error) { panic("oops") } }, []message{{data, "a"}}, nil},
		{"panic in half-close", func(s *script) { s.half = func() error { panic("oops") } }, []message{{goaway, ""}}, nil},
		{"panic in close", func(s *script) {
			s.read = func([]byte) (int, error) { return 0, io.EOF }
			s.close = func() error { panic("oops") }
		}, []message{{goaway, ""}}, []message{{goaway, ""}}},
		{"close", func(s *script) {
			s.read = func([]byte) (int, error) { return 0, io.EOF }
			s.close = func() error { return broken }
		}, []message{{goaway, ""}}, []message{{goaway, ""}}},
	}
	for _, test := range tests {
		for _, away := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/goaway=%t", test.name, away), func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				s := newScript()
				test.setup(s)
				r := newRPC(ctx, 16, test.in...)
				err := Serve(ctx, r, s, away)
				if !errors.Is(err, ErrPeer) {
					t.Fatalf("Serve() = %v; want an error of the driver's stream", err)
				}
				var p *PanicError
				if strings.HasPrefix(test.name, "panic") != errors.As(err, &p) {
					t.Errorf("Serve() = %v (%T); want a PanicError for a panic only", err, err)
				}
				want := slices.Clone(test.data)
				if away {
					want = append(want, message{goaway, err.Error()})
				}
				wantSent(t, r, want...)
				select {
				case <-s.closed:
				default:
					t.Error("the driver's stream is open; want closed")
				}
			})
		}
	}
}

// A peer that takes no more may still have something to say.
func TestServeDrainsAfterBrokenPipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript()
		s.write = func([]byte) (int, error) { return 0, &net.OpError{Op: "write", Err: syscall.EPIPE} }
		n := 0
		s.read = func(b []byte) (int, error) {
			select {
			case <-s.closed:
				return 0, net.ErrClosed
			case <-time.After(time.Second): // the peer thinks
			}
			if n++; n > 3 {
				return 0, io.EOF
			}
			return copy(b, "answer"), nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r := newRPC(ctx, 16, message{data, "ask"})
		err := Serve(ctx, r, s, true)
		if driver.Classify(err) != driver.Unavailable {
			t.Errorf("Serve() = %v; want a broken pipe", err)
		}
		wantSent(t, r, message{data, "answer"}, message{data, "answer"}, message{data, "answer"}, message{goaway, ""}, message{goaway, err.Error()})
	})
}

// The GOAWAY of a stream that breaks for writing waits for the data that is on
// its way to a client which does not read yet.
func TestServeBreaksWhileSending(t *testing.T) {
	drivertest.NoLeaks(t)
	s := newScript()
	s.read = func(b []byte) (int, error) {
		select {
		case <-s.closed:
			return 0, net.ErrClosed
		default:
			return copy(b, "x"), nil
		}
	}
	s.write = func([]byte) (int, error) { return 0, errors.New("broken") }
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := newRPC(ctx, 4)
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, r, s, true) }()
	drivertest.Until(t, "the way to the client is full", func() bool { return len(r.out) == 4 })
	r.in <- message{data, "a"}
	<-s.closed
	for n := 0; ; n++ {
		m := <-r.out
		if m.t == goaway {
			if n < 4 || m.payload == "" {
				t.Errorf("after %d frames: %v; want all data before a GOAWAY with a reason", n, m)
			}
			break
		}
	}
	if err := <-served; !errors.Is(err, ErrPeer) {
		t.Errorf("Serve() = %v; want an error of the driver's stream", err)
	}
	wantSent(t, r)
}

func TestServeEndsWithContext(t *testing.T) {
	drivertest.NoLeaks(t)
	ctx, cancel := context.WithCancel(t.Context())
	s := newScript()
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, newRPC(ctx, 1), s, true) }()
	cancel()
	if err := <-served; err == nil {
		t.Error("Serve() of a context that is done = nil; want an error")
	}
	<-s.closed
}

// A client that has said all and then goes is noticed, too.
func TestServeEndsWithContextAfterHalfClose(t *testing.T) {
	drivertest.NoLeaks(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	s := newScript()
	s.half = func() error { close(ended); return nil }
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, newRPC(ctx, 1).end(), s, true) }()
	<-ended
	cancel()
	select {
	case err := <-served:
		if err == nil {
			t.Error("Serve() of a context that is done = nil; want an error")
		}
	case <-time.After(10 * time.Second):
		s.Close()
		t.Fatal("Serve() still runs 10s after the end of its context")
	}
	<-s.closed
}

// While the client does not read, the device is not read either, and the
// GOAWAY of a break comes after all data.
func TestServeBackPressure(t *testing.T) {
	drivertest.NoLeaks(t)
	reads := 0
	s := newScript()
	s.read = func(b []byte) (int, error) {
		if reads++; reads == 100 {
			return 0, errors.New("broken")
		}
		return copy(b, "x"), nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := newRPC(ctx, 4)
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, r, s, true) }()
	drivertest.Until(t, "the way to the client is full", func() bool { return len(r.out) == 4 })
	for i := 1; i < 100; i++ {
		if m := <-r.out; m != (message{data, "x"}) {
			t.Fatalf("frame %d = %v; want DATA", i, m)
		}
	}
	if m := <-r.out; m.t != goaway || m.payload == "" {
		t.Errorf("last frame = %v; want a GOAWAY with a reason", m)
	}
	if err := <-served; !errors.Is(err, ErrPeer) {
		t.Errorf("Serve() = %v; want an error of the driver's stream", err)
	}
}

func TestServeSlowClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, limit := range []time.Duration{closeLimit - time.Second, closeLimit + time.Second} {
			ctx, cancel := context.WithCancel(t.Context())
			s := newScript()
			s.read = func([]byte) (int, error) { return 0, errors.New("broken") }
			s.close = func() error { time.Sleep(limit); return nil }
			r := newRPC(ctx, 8)
			start := time.Now()
			err := Serve(ctx, r, s, true)
			took, want := time.Since(start), min(limit, closeLimit)
			if took != want || !errors.Is(err, ErrPeer) || !strings.Contains(err.Error(), "broken") {
				t.Errorf("Serve() with a Close of %v = %v after %v; want what broke, after %v", limit, err, took, want)
			}
			wantSent(t, r, message{goaway, err.Error()})
			cancel()
			synctest.Wait()
			time.Sleep(limit) // the bubble's clock: the Close ends
		}
	})
}

// A client is told of the end also when neither Close nor a Read returns, but
// not in the middle of a frame that it does not take.
func TestServeStuckClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, full := range []bool{false, true} {
			ctx, cancel := context.WithCancel(t.Context())
			stuck := make(chan struct{})
			s := newScript()
			s.write = func([]byte) (int, error) { return 0, errors.New("broken") }
			s.close = func() error { <-stuck; return nil }
			s.read = func(b []byte) (int, error) {
				if full {
					return copy(b, "x"), nil
				}
				<-stuck
				return copy(b, "too late"), nil
			}
			r := newRPC(ctx, 1, message{data, "a"})
			err := Serve(ctx, r, s, true)
			if !errors.Is(err, ErrPeer) || !strings.Contains(err.Error(), "not done after") {
				t.Errorf("Serve() with a Close that is stuck = %v; want that it is", err)
			}
			close(stuck)
			if full {
				if m := <-r.out; m.t != data {
					t.Errorf("sent %v; want the frame that was stuck", m)
				}
			} else {
				synctest.Wait()
				wantSent(t, r, message{goaway, err.Error()})
			}
			cancel()
		}
	})
}

// pair is a Stream and the other side of its RPC.
func pair(t *testing.T, in ...message) (*Stream, *rpc) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	r := newRPC(ctx, 16, in...)
	return New(r, cancel), r
}

func TestStreamRead(t *testing.T) {
	s, r := pair(t, message{data, "abc"}, message{ping, "p"}, message{data, ""}, message{data, "d"}, message{goaway, ""})
	buf := make([]byte, 2)
	for _, want := range []string{"ab", "c", "", "d"} {
		n, err := s.Read(buf)
		if got := string(buf[:n]); got != want || err != nil {
			t.Fatalf("Read() = %q, %v; want %q, nil", got, err, want)
		}
	}
	for range 2 {
		if n, err := s.Read(buf); n != 0 || err != io.EOF {
			t.Errorf("Read() after GOAWAY = %d, %v; want 0, EOF", n, err)
		}
	}
	if n, err := s.Write([]byte("x")); n != 1 || err != nil {
		t.Errorf("Write() after the other side's end = %d, %v; want 1, nil", n, err)
	}
	wantSent(t, r, message{data, "x"})
}

func TestStreamReadPacket(t *testing.T) {
	s, _ := pair(t, message{data, "abc"}, message{data, ""}, message{rst, ""}, message{data, "d"}, message{goaway, ""})
	for _, want := range []string{"abc", "", "d"} {
		if got, err := s.ReadPacket(); string(got) != want || err != nil {
			t.Fatalf("ReadPacket() = %q, %v; want %q, nil", got, err, want)
		}
	}
	if got, err := s.ReadPacket(); err != io.EOF {
		t.Errorf("ReadPacket() after GOAWAY = %q, %v; want EOF", got, err)
	}
}

// A stream that broke must not look like one that ended.
func TestStreamReadEnds(t *testing.T) {
	tests := []struct {
		name string
		in   []message
		gone bool // the RPC ends with an error; else with OK
		want error
	}{
		{"goaway", []message{{data, "abc"}, {goaway, ""}}, true, nil},
		{"ok", []message{{data, "abc"}}, false, nil},
		{"error", []message{{data, "abc"}}, true, errGone},
		{"announced error", []message{{data, "abc"}, {goaway, "broken"}}, true, errGone},
		{"announced, but ok", []message{{data, "abc"}, {goaway, "broken"}}, false, io.ErrUnexpectedEOF},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			r := newRPC(ctx, 8, test.in...)
			if !test.gone {
				r.end()
			}
			cancel()
			got, err := io.ReadAll(New(r, cancel))
			if !errors.Is(err, test.want) || string(got) != "abc" {
				t.Errorf("ReadAll() = %q, %v; want abc, %v", got, err, test.want)
			}
			if test.want != nil && !strings.Contains(err.Error(), "after 3 bytes") {
				t.Errorf("Read() = %v; want how many bytes came", err)
			}
		})
	}
}

func TestStreamWrite(t *testing.T) {
	s, r := pair(t)
	big := bytes.Repeat([]byte("x"), maxChunk+5)
	for _, p := range [][]byte{[]byte("a"), {}, big} {
		if n, err := s.Write(p); n != len(p) || err != nil {
			t.Fatalf("Write(%d bytes) = %d, %v; want all", len(p), n, err)
		}
	}
	for range 2 {
		if err := s.CloseWrite(); err != nil {
			t.Errorf("CloseWrite() = %v; want nil", err)
		}
	}
	if n, err := s.Write([]byte("x")); n != 0 || !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("Write() after CloseWrite = %d, %v; want 0, %v", n, err, io.ErrClosedPipe)
	}
	wantSent(t, r, message{data, "a"}, message{data, ""}, message{data, string(big[:maxChunk])}, message{data, "xxxxx"}, message{goaway, ""})
}

// What was written may be changed once Write has returned.
func TestStreamWriteCopies(t *testing.T) {
	var kept []*Frame
	s := New(keeper{&kept}, func() {})
	p := []byte("abc")
	for range 2 {
		if _, err := s.Write(p); err != nil {
			t.Fatal(err)
		}
		copy(p, "xyz")
	}
	for i, want := range []string{"abc", "xyz"} {
		if got := string(kept[i].Payload()); got != want {
			t.Errorf("frame %d = %q; want %q", i, got, want)
		}
	}
}

// keeper is a transport that writes later.
type keeper struct{ kept *[]*Frame }

func (k keeper) SendMsg(m any) error {
	f := *m.(*Frame)
	f.data.Ref()
	*k.kept = append(*k.kept, &f)
	return nil
}
func (k keeper) RecvMsg(any) error { return io.EOF }

func TestStreamClose(t *testing.T) {
	s, _ := pair(t)
	read := make(chan error, 1)
	go func() {
		_, err := s.Read(make([]byte, 1))
		read <- err
	}()
	if err := s.Close(); err != nil {
		t.Errorf("Close() = %v; want nil", err)
	}
	if err := <-read; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read() of a closed stream = %v; want %v", err, net.ErrClosed)
	}
	if _, err := s.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write() to a closed stream = %v; want %v", err, net.ErrClosed)
	}
	if err := s.CloseWrite(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("CloseWrite() of a closed stream = %v; want %v", err, net.ErrClosed)
	}
}

// Two Streams, back to back over Serve, with both directions busy.
func TestStreamConcurrent(t *testing.T) {
	drivertest.NoLeaks(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	there, back := make(chan message, 4), make(chan message, 4)
	server := &rpc{ctx: ctx, in: there, out: back}
	client := New(&rpc{ctx: ctx, in: back, out: there}, cancel)
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, server, newEcho(), false) }()

	want := bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // 1 MiB
	wrote := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{client}, bytes.NewReader(want), make([]byte, 7777))
		if err == nil {
			err = client.CloseWrite()
		}
		wrote <- err
	}()
	got, err := io.ReadAll(client)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, %v; want the %d that were written", len(got), err, len(want))
	}
	if err := <-wrote; err != nil {
		t.Errorf("Write() = %v; want nil", err)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve() = %v; want nil", err)
	}
}
