// Package stream carries byte streams in router frames.
//
// One bidirectional RPC carries one stream. A DATA frame is a chunk; its
// boundaries are kept from end to end, which is how datagrams travel. A GOAWAY
// frame ends the sender's direction and leaves the other open. When both have
// ended the RPC ends with OK; a stream that breaks ends it with an error, which
// is the only way for the other side to tell a broken stream from a finished
// one. PING and RST_STREAM frames carry nothing and are passed over.
//
// Some clients watch for nothing but an end of stream. They are sent a GOAWAY
// before the error; its payload, which such clients do not look at, says why,
// so that those which do look can wait for the error.
package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc/mem"
)

// Frames is one side of the RPC: both of gRPC's ServerStream and ClientStream.
// Its messages are [*Frame]. SendMsg and RecvMsg may be called concurrently
// with each other, each from one goroutine at a time.
type Frames interface {
	SendMsg(m any) error
	RecvMsg(m any) error
}

// goAway ends this side's direction.
func goAway(f Frames, why string) error {
	return f.SendMsg(NewFrame(pb.FrameType_FRAME_TYPE_GOAWAY, []byte(why)))
}

// Buffer sizes of the pump. It starts small, because most streams idle, and
// grows while reads fill it.
const (
	leastBuffer = 16 << 10
	mostBuffer  = 256 << 10
	maxPacket   = 64 << 10 // more than the largest datagram
	maxChunk    = 1 << 20  // of what a client sends: receivers take 4 MiB at most
)

// ErrPeer wraps errors of the driver's stream, to tell them from those of the
// RPC.
var ErrPeer = errors.New("driver stream")

type peerError struct {
	op  string
	err error
}

func (e *peerError) Error() string   { return e.op + ": " + e.err.Error() }
func (e *peerError) Unwrap() []error { return []error{ErrPeer, e.err} }

// closeLimit is how long a driver's stream may take to close. A serial port
// that cannot get rid of its output takes longer than that; its client is not
// kept waiting for the error.
const closeLimit = 2 * time.Second

// PanicError is a panic of a driver's stream. It is returned as an error, so
// that the process and the other drivers go on.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("the driver failed: %v", e.Value) }

// guard calls f, which may run code of a driver in a goroutine of ours.
func guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &peerError{"panic", &PanicError{v, debug.Stack()}}
		}
	}()
	return f()
}

// Serve pumps between the frames of a client and a driver's stream until both
// directions have ended, one breaks, or the context is done. The stream is
// closed when Serve returns, unless its Close takes longer than two seconds.
// goaway asks for a GOAWAY frame before the error of a broken stream.
//
// When the frames break, or the stream does, a goroutine may still be in Recv
// or Send: both must return when the RPC ends.
func Serve(ctx context.Context, f Frames, s io.ReadWriteCloser, goaway bool) error {
	closed := make(chan error, 1)
	shut := sync.OnceFunc(func() { go func() { closed <- guard(s.Close) }() })
	defer context.AfterFunc(ctx, shut)()

	out := &sender{Frames: f}
	up, down := make(chan error, 1), make(chan error, 1)
	go func() { up <- guard(func() error { return receive(f, s) }) }()
	go func() { down <- guard(func() error { return send(out, s) }) }()
	var err, refused error
	for err == nil && (up != nil || down != nil) {
		select {
		case err = <-up:
			up = nil
			if down != nil && errors.Is(err, syscall.EPIPE) {
				refused, err = err, nil // takes no more, but may have more to say
			}
		case err = <-down:
			down = nil
		}
	}
	if err == nil {
		err = refused
	}

	shut() // ends a Read or Write that the other direction is in
	slow, stop := context.WithTimeout(context.WithoutCancel(ctx), closeLimit)
	defer stop()
	select {
	case cerr := <-closed:
		if err == nil && cerr != nil {
			err = &peerError{"close", cerr}
		}
	case <-slow.Done():
		err = errors.Join(err, &peerError{"close", fmt.Errorf("not done after %v", closeLimit)})
	}
	if goaway && errors.Is(err, ErrPeer) && ctx.Err() == nil {
		if down != nil { // what it has read comes first; its Read ends with Close
			select {
			case <-down:
			case <-ctx.Done():
				return err
			case <-slow.Done():
			}
		}
		why := err.Error()
		out.last(why[:min(len(why), 1024)])
	}
	return err
}

// sender is the frames that are sent. Only one may be sent at a time, and none
// after the last.
type sender struct {
	Frames
	mu   sync.Mutex
	over bool
}

func (s *sender) SendMsg(m any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return errClosed
	}
	return s.Frames.SendMsg(m)
}

// last ends this side's direction, unless a frame is stuck on its way to a client
// that does not read.
func (s *sender) last(why string) {
	if s.mu.TryLock() {
		defer s.mu.Unlock()
		s.over = true
		_ = goAway(s.Frames, why)
	}
}

// receive writes to s what the client sends.
func receive(f Frames, s io.ReadWriteCloser) error {
	_, packets := s.(driver.PacketStream)
	half := func() error {
		if h, ok := s.(interface{ CloseWrite() error }); ok {
			if err := h.CloseWrite(); err != nil && !gone(err) {
				return &peerError{"close for writing", err}
			}
		}
		return nil
	}
	var bufs net.Buffers
	for {
		var in Frame
		err := f.RecvMsg(&in)
		switch {
		case err == io.EOF:
			return half()
		case err != nil:
			return err
		case in.Type == pb.FrameType_FRAME_TYPE_GOAWAY:
			in.Free()
			return half() // the RPC ends later, which ends the context
		case in.Type != pb.FrameType_FRAME_TYPE_DATA:
		case packets:
			_, err = s.Write(in.Payload())
		case in.Len() > 0:
			bufs = in.pieces(bufs[:0])
			out := bufs // WriteTo consumes it
			_, err = out.WriteTo(s)
			clear(bufs)
		}
		in.Free()
		if err != nil {
			return &peerError{"write", err}
		}
	}
}

// gone reports errors of closing a direction that the peer has closed already.
func gone(err error) bool { return driver.Classify(err) == driver.Unavailable || notConnected(err) }

// send sends what comes out of s.
func send(f Frames, s io.Reader) error {
	_, packets := s.(driver.PacketStream)
	p := &pump{r: s, size: leastBuffer}
	if packets {
		p.size = maxPacket
	}
	defer p.free()
	for {
		out, err := p.next()
		n := out.Len()
		if n > 0 || packets && err == nil {
			serr := f.SendMsg(out)
			out.Free()
			if serr != nil {
				return serr
			}
		}
		switch {
		case err == io.EOF:
			return goAway(f, "")
		case err != nil:
			return &peerError{"read", err}
		}
		if !packets {
			p.adapt(n)
		}
	}
}

// Stream is a byte stream made of the frames of an RPC. Read and Write may be
// called concurrently with each other.
type Stream struct {
	f      Frames
	cancel func()
	shut   atomic.Bool // Close was called
	whole  atomic.Bool // a direction came to its end

	rmu  sync.Mutex
	rest *mem.Reader // of the chunk that is being read
	got  int64       // bytes so far
	rerr error

	wmu    sync.Mutex
	werr   error
	closed bool
}

// New makes a stream; cancel ends the RPC at once.
func New(f Frames, cancel func()) *Stream { return &Stream{f: f, cancel: cancel} }

// Read yields what the other side sent, one chunk or a part of it; an empty
// chunk, as streams of packets have them, is a Read of nothing without an error.
// It returns io.EOF after the other side's GOAWAY or the RPC's orderly end, and
// never after a stream that broke.
func (s *Stream) Read(p []byte) (int, error) {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	if s.rest == nil || s.rest.Remaining() == 0 {
		in, err := s.recv()
		if err != nil {
			return 0, err
		}
		if in.Len() == 0 {
			in.Free() // it may have come with a header
			return 0, nil
		}
		s.rest = in.reader()
	}
	return s.rest.Read(p)
}

// ReadPacket yields one chunk whole, which may be empty.
func (s *Stream) ReadPacket() ([]byte, error) {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	in, err := s.recv()
	if err != nil {
		return nil, err
	}
	defer in.Free()
	return append([]byte{}, in.Payload()...), nil
}

// recv waits for the next chunk. The caller holds rmu.
func (s *Stream) recv() (*Frame, error) {
	broken := false
	for s.rerr == nil {
		in := new(Frame)
		err := s.f.RecvMsg(in)
		switch {
		case err != nil && s.shut.Load():
			s.rerr = errClosed
		case err == io.EOF && !broken:
			s.rerr = io.EOF
		case err == io.EOF:
			s.rerr = fmt.Errorf("stream broke off after %d bytes: %w", s.got, io.ErrUnexpectedEOF)
		case err != nil:
			s.rerr = fmt.Errorf("stream broke off after %d bytes: %w", s.got, err)
		case in.Type == pb.FrameType_FRAME_TYPE_GOAWAY && in.Len() == 0:
			s.rerr = io.EOF
			s.whole.Store(true)
		case in.Type == pb.FrameType_FRAME_TYPE_GOAWAY:
			broken = true // the error follows
		case in.Type == pb.FrameType_FRAME_TYPE_DATA:
			s.got += int64(in.Len())
			return in, nil
		}
		in.Free()
	}
	return nil, s.rerr
}

var errClosed = fmt.Errorf("stream: %w", net.ErrClosed)

// Write sends p, as one chunk when it is not above 1 MiB. An empty p is an
// empty chunk.
func (s *Stream) Write(p []byte) (int, error) {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	sent := 0
	for {
		switch {
		case s.shut.Load():
			return sent, errClosed
		case s.closed:
			return sent, fmt.Errorf("stream: write after its end: %w", io.ErrClosedPipe)
		case s.werr != nil:
			return sent, s.werr
		}
		chunk := p[sent:min(len(p), sent+maxChunk)]
		if s.werr = s.send(chunk); s.werr != nil {
			continue // why: our own Close, or theirs
		}
		if sent += len(chunk); sent == len(p) {
			return sent, nil
		}
	}
}

// send copies, because p belongs to the caller again when Write returns, and
// the transport may not have written it by then.
func (s *Stream) send(p []byte) error {
	out := &Frame{size: len(p)}
	if len(p) > 0 {
		out.data = mem.BufferSlice{mem.Copy(p, buffers)}
	}
	defer out.Free()
	return s.f.SendMsg(out)
}

// CloseWrite ends this side's direction; what the other side sends can still be
// read.
func (s *Stream) CloseWrite() error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	switch {
	case s.closed:
		return nil
	case s.shut.Load():
		return errClosed
	case s.werr != nil: // not all that was written has gone out
		return s.werr
	}
	s.closed = true
	if err := goAway(s.f, ""); err != nil && err != io.EOF {
		return err
	}
	s.whole.Store(true)
	if c, ok := s.f.(interface{ CloseSend() error }); ok {
		return c.CloseSend()
	}
	return nil
}

// Whole reports whether one direction came to its end: all was read, or all was
// written. A stream that was closed before that was given up.
func (s *Stream) Whole() bool { return s.whole.Load() }

// Drain passes over what the other side still sends, until it has closed its
// direction of the RPC or the RPC has ended.
func (s *Stream) Drain() {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	for {
		var in Frame
		err := s.f.RecvMsg(&in)
		in.Free()
		if err != nil {
			return
		}
	}
}

// Close ends the stream in both directions. A Read or Write in progress
// returns.
func (s *Stream) Close() error {
	s.shut.Store(true)
	s.cancel()
	return nil
}
