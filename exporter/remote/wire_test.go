package remote

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jumplead/jumplead/exporter/stream"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// end is the process's end of a wire, which says what it is told to.
type end struct {
	net.Conn
	broke chan struct{}
}

func newEnd(t *testing.T) (*wire, *end) {
	t.Helper()
	ours, theirs := net.Pipe()
	e := &end{theirs, make(chan struct{})}
	w := newWire(ours, sync.OnceFunc(func() { close(e.broke) }))
	t.Cleanup(func() {
		theirs.Close()
		if err := w.Close(); err != nil {
			t.Errorf("Close() = %v; want nil", err)
		}
	})
	return w, e
}

// hears reads a frame of a kind, and returns the number of its RPC.
func (e *end) hears(t *testing.T, want byte) (uint32, []byte) {
	t.Helper()
	var head [wireHead]byte
	if _, err := io.ReadFull(e, head[:]); err != nil {
		t.Fatal(err)
	}
	data := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(e, data); err != nil {
		t.Fatal(err)
	}
	if head[8] != want {
		t.Fatalf("frame is of kind %d; want %d", head[8], want)
	}
	return binary.BigEndian.Uint32(head[4:]), data
}

func (e *end) says(t *testing.T, id uint32, kind byte, data []byte) {
	t.Helper()
	head := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
	if _, err := e.Write(append(append(binary.BigEndian.AppendUint32(head, id), kind), data...)); err != nil {
		t.Fatal(err)
	}
}

const method = pb.ExporterService_DriverCall_FullMethodName

// called makes a call, whose frames were read when it returns.
func called(t *testing.T, w *wire, e *end) (id uint32, result chan error) {
	t.Helper()
	result = make(chan error, 1)
	go func() {
		result <- w.Invoke(t.Context(), method, &pb.DriverCallRequest{Method: "on"}, new(pb.DriverCallResponse))
	}()
	id, _ = e.hears(t, wireOpen)
	e.hears(t, wireMessage)
	return id, result
}

// What a process says that was not agreed on ends the connection, and all RPCs say so.
func TestWireRubbish(t *testing.T) {
	for name, c := range map[string]struct {
		say  func(*end, uint32)
		want string
	}{
		"length":  {func(e *end, _ uint32) { _, _ = e.Write([]byte("HTTP/1.0 400 What?\r\n")) }, "a frame has 1213486160 bytes"},
		"kind":    {func(e *end, id uint32) { e.says(t, id, 99, nil) }, "of kind 99"},
		"credit":  {func(e *end, id uint32) { e.says(t, id, wireCredit, []byte("x")) }, "credit has 1 bytes; want 4"},
		"headers": {func(e *end, id uint32) { e.says(t, id, wireHeaders, []byte("x")) }, "headers: invalid character"},
		"status":  {func(e *end, id uint32) { e.says(t, id, wireStatus, []byte("{")) }, "status: unexpected end"},
		"end":     {func(e *end, id uint32) { e.Close() }, "EOF"},
		"part":    {func(e *end, id uint32) { _, _ = e.Write([]byte{0, 0}); e.Close() }, "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			w, e := newEnd(t)
			id, result := called(t, w, e)
			_, other := called(t, w, e)
			c.say(e, id)
			for _, result := range []chan error{result, other} {
				if err := <-result; status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), c.want) {
					t.Errorf("Invoke() = %v; want unavailable, and %q", err, c.want)
				}
			}
			<-e.broke
			if err := w.Invoke(t.Context(), method, &pb.DriverCallRequest{}, new(pb.DriverCallResponse)); status.Code(err) != codes.Unavailable {
				t.Errorf("Invoke() afterwards = %v; want unavailable", err)
			}
			if _, err := w.NewStream(t.Context(), nil, method); status.Code(err) != codes.Unavailable {
				t.Errorf("NewStream() afterwards = %v; want unavailable", err)
			}
		})
	}
}

// What a process says of one RPC is no business of the others.
func TestWireAnswers(t *testing.T) {
	w, e := newEnd(t)
	for name, c := range map[string]struct {
		say  func(uint32)
		code codes.Code
		want string
	}{
		"none":  {func(id uint32) { e.says(t, id, wireStatus, nil) }, codes.Internal, "gave no answer"},
		"error": {func(id uint32) { e.says(t, id, wireStatus, []byte(`{"code":5,"message":"no such"}`)) }, codes.NotFound, "no such"},
		"late": {func(id uint32) {
			e.says(t, id, wireMessage, nil)
			e.says(t, id, wireStatus, []byte(`{"code":5,"message":"no such"}`))
		}, codes.NotFound, "no such"},
		"strange": {func(id uint32) {
			e.says(t, id, wireMessage, []byte{0xff})
			e.says(t, id, wireStatus, nil)
		}, codes.Internal, "cannot parse"},
		"twice": {func(id uint32) {
			e.says(t, id, wireMessage, nil)
			e.says(t, id, wireMessage, nil)
			e.hears(t, wireCancel)
			e.says(t, id, wireStatus, nil) // nobody waits for it
		}, codes.Internal, "answered a call twice"},
		"large": {func(id uint32) {
			e.says(t, id, wireMessage, make([]byte, maxMessage+1))
			e.hears(t, wireCancel)
		}, codes.ResourceExhausted, "larger than max"},
		"good": {func(id uint32) {
			e.says(t, id+1, wireMessage, []byte("for an RPC that is none"))
			e.says(t, id, wireMessage, nil)
			e.says(t, id, wireStatus, nil)
		}, codes.OK, ""},
	} {
		id, result := called(t, w, e)
		c.say(id)
		if err := <-result; status.Code(err) != c.code || !strings.Contains(status.Convert(err).Message(), c.want) {
			t.Errorf("%s: Invoke() = %v; want %v, %q", name, err, c.code, c.want)
		}
	}
}

// A process that takes nothing keeps nobody waiting for longer than he wants to,
// and what waits for it does not pile up.
func TestWireStuck(t *testing.T) {
	w, _ := newEnd(t)
	for round := range 3 {
		var all sync.WaitGroup
		for range wireQueue {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				defer cancel()
				err := w.Invoke(ctx, method, &pb.DriverCallRequest{}, new(pb.DriverCallResponse))
				if status.Code(err) != codes.DeadlineExceeded {
					t.Errorf("Invoke() = %v; want DeadlineExceeded", err)
				}
			})
		}
		all.Wait()
		w.mu.Lock()
		waiting, known := len(w.queue), len(w.calls)
		w.mu.Unlock()
		if waiting > 2*wireQueue+8 || known > 0 {
			t.Errorf("after %d calls that were given up, %d frames wait and %d calls are known; want at most %d, and none",
				(round+1)*wireQueue, waiting, known, 2*wireQueue+8)
		}
	}
}

// Streams to a process that takes nothing are held up before much is held for them.
func TestWireBacklog(t *testing.T) {
	w, _ := newEnd(t)
	const streams, chunk = 100, 64 << 10
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var open []grpc.ClientStream // all of them before any of them fills the queue
	for range streams {
		s, err := w.NewStream(ctx, &grpc.StreamDesc{}, pb.RouterService_Stream_FullMethodName)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, s)
	}
	var all sync.WaitGroup
	for _, s := range open {
		all.Go(func() {
			for s.SendMsg(stream.NewFrame(pb.FrameType_FRAME_TYPE_DATA, make([]byte, chunk))) == nil {
			}
		})
	}
	held := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.bytes
	}
	for deadline := time.Now().Add(10 * time.Second); held() < wireBacklog; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are held; want %d", held(), wireBacklog)
		}
	}
	cancel()
	all.Wait()
	if n := held(); n > wireBacklog+streams*(chunk+100) {
		t.Errorf("%d bytes are held for %d streams; want at most one chunk of each more than %d", n, streams, wireBacklog)
	}
}

// A stream sends as much as it may, and more when it may; its end, and that of who
// waits, are noticed.
func TestWireCredit(t *testing.T) {
	w, e := newEnd(t)
	ctx, cancel := context.WithCancel(t.Context())
	s, err := w.NewStream(ctx, &grpc.StreamDesc{}, pb.RouterService_Stream_FullMethodName)
	if err != nil {
		t.Fatal(err)
	}
	const chunk = 64 << 10
	sent := make(chan error)
	go func() {
		defer close(sent)
		for {
			err := s.SendMsg(stream.NewFrame(pb.FrameType_FRAME_TYPE_DATA, make([]byte, chunk)))
			sent <- err
			if err != nil {
				return
			}
		}
	}()
	id, _ := e.hears(t, wireOpen)
	take := func(n int) {
		t.Helper()
		for range n {
			if err := <-sent; err != nil {
				t.Fatalf("SendMsg() = %v; want nil", err)
			}
			if _, data := e.hears(t, wireMessage); len(data) < chunk || bytes.Count(data, []byte{0}) < chunk {
				t.Fatalf("message has %d bytes; want those that were sent", len(data))
			}
		}
	}
	held := func() {
		t.Helper()
		select {
		case err := <-sent:
			t.Fatalf("SendMsg() beyond the window = %v; want it to wait", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	take(wireWindow / chunk)
	held()
	e.says(t, id, wireCredit, binary.BigEndian.AppendUint32(nil, 3*chunk))
	take(3)
	held()

	e.says(t, id, wireHeaders, []byte(`[["resource","{}"],["some-bin","AAE="]]`))
	if md, err := s.Header(); err != nil || fmt.Sprint(md.Get("resource"), md.Get("some-bin")) != "[{}] [\x00\x01]" {
		t.Errorf("Header() = %q, %v; want what was said", md, err)
	}
	// What comes is given credit for once it was taken.
	go func() {
		for range wireWindow / 2 / chunk {
			e.says(t, id, wireMessage, append([]byte{0x0a, 0xfd, 0xff, 0x03}, make([]byte, chunk-4+1)...))
		}
	}()
	for range wireWindow / 2 / chunk {
		var f stream.Frame
		if err := s.RecvMsg(&f); err != nil || f.Len() != chunk-3 {
			t.Fatalf("RecvMsg() = %d bytes, %v; want %d", f.Len(), err, chunk-3)
		}
		f.Free()
	}
	if _, data := e.hears(t, wireCredit); binary.BigEndian.Uint32(data) < wireWindow/2 {
		t.Errorf("credit = %d bytes; want those that were taken", binary.BigEndian.Uint32(data))
	}
	cancel()
	if err := <-sent; err != io.EOF {
		t.Errorf("SendMsg() on an RPC that was canceled = %v; want EOF", err)
	}
	if err := s.RecvMsg(new(stream.Frame)); status.Code(err) != codes.Canceled {
		t.Errorf("RecvMsg() on an RPC that was canceled = %v; want Canceled", err)
	}
	e.hears(t, wireCancel)
}

// Who sends more than he may is not believed any more.
func TestWireFlood(t *testing.T) {
	w, e := newEnd(t)
	s, err := w.NewStream(t.Context(), &grpc.StreamDesc{}, pb.RouterService_Stream_FullMethodName)
	if err != nil {
		t.Fatal(err)
	}
	id, _ := e.hears(t, wireOpen)
	go func() {
		head := binary.BigEndian.AppendUint32(nil, 64<<10)
		frame := append(append(binary.BigEndian.AppendUint32(head, id), wireMessage), make([]byte, 64<<10)...)
		for {
			if _, err := e.Write(frame); err != nil {
				return
			}
		}
	}()
	<-e.broke
	for err == nil {
		var f stream.Frame
		err = s.RecvMsg(&f)
		f.Free()
	}
	if status.Code(err) != codes.Unavailable && status.Code(err) != codes.Internal {
		t.Errorf("RecvMsg() = %v; want unavailable", err)
	}
}
