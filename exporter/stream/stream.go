// Package stream carries byte streams in router frames.
//
// One bidirectional RPC carries one stream. A DATA frame is a chunk; its
// boundaries are kept from end to end, which is how datagrams travel. A GOAWAY
// frame ends the sender's direction and leaves the other open. When both have
// ended the RPC ends with OK; a stream that breaks ends it with an error, which
// is the only way for the other side to tell a broken stream from a finished
// one. PING and RST_STREAM frames carry nothing and are passed over.
package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/jumplead/jumplead/drivers/driver"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
)

// Frames is one side of the RPC. Send and Recv may be called concurrently with
// each other, each from one goroutine at a time.
type Frames interface {
	Send(payload []byte, t pb.FrameType) error
	Recv() (payload []byte, t pb.FrameType, err error)
}

// Buffer sizes of the pump. It starts small, because most streams idle, and
// grows while reads fill it.
const (
	leastBuffer = 16 << 10
	mostBuffer  = 256 << 10
	maxPacket   = 64 << 10 // more than the largest datagram
	maxChunk    = 1 << 20  // of what we send: receivers take 4 MiB at most
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

// Serve pumps between the frames of a client and a driver's stream until both
// directions have ended, one breaks, or the context is done. The stream is
// closed when Serve returns. goaway asks for a GOAWAY frame before the error of
// a broken stream, for clients that watch for nothing else.
func Serve(ctx context.Context, f Frames, s io.ReadWriteCloser, goaway bool) error {
	var once sync.Once
	var closed error
	shut := func() { once.Do(func() { closed = s.Close() }) }
	defer shut()
	defer context.AfterFunc(ctx, shut)()

	up, down := make(chan error, 1), make(chan error, 1)
	go func() { up <- receive(f, s) }()
	go func() { down <- send(f, s) }()
	for up != nil || down != nil {
		var err error
		select {
		case err = <-up:
			up = nil
		case err = <-down:
			down = nil
		}
		if err == nil {
			continue
		}
		shut() // ends a Read or Write that the other direction is in
		if goaway && errors.Is(err, ErrPeer) && ctx.Err() == nil {
			if down != nil { // only one may send: the writer's Read has ended now
				select {
				case <-down:
				case <-ctx.Done():
					return err
				}
			}
			_ = f.Send(nil, pb.FrameType_FRAME_TYPE_GOAWAY) // the RPC's status tells all
		}
		return err
	}
	shut()
	if closed != nil {
		return &peerError{"close", closed}
	}
	return nil
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
	for {
		payload, t, err := f.Recv()
		switch {
		case err == io.EOF:
			return half()
		case err != nil:
			return err
		case t == pb.FrameType_FRAME_TYPE_GOAWAY:
			return half() // the RPC ends later, which ends the context
		case t == pb.FrameType_FRAME_TYPE_DATA && (len(payload) > 0 || packets):
			if _, err := s.Write(payload); err != nil {
				return &peerError{"write", err}
			}
		}
	}
}

// gone reports errors of closing a direction that the peer has closed already.
func gone(err error) bool { return driver.Classify(err) == driver.Unavailable || notConnected(err) }

// send sends what comes out of s.
func send(f Frames, s io.Reader) error {
	_, packets := s.(driver.PacketStream)
	size := leastBuffer
	if packets {
		size = maxPacket
	}
	buf := make([]byte, size)
	for {
		n, err := s.Read(buf)
		if n > 0 || packets && err == nil {
			if err := f.Send(buf[:n], pb.FrameType_FRAME_TYPE_DATA); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF:
			return f.Send(nil, pb.FrameType_FRAME_TYPE_GOAWAY)
		case err != nil:
			return &peerError{"read", err}
		}
		if n == len(buf) && size < mostBuffer && !packets {
			size *= 4
			buf = make([]byte, size)
		}
	}
}

// Stream is a byte stream made of the frames of an RPC. Read and Write may be
// called concurrently with each other.
type Stream struct {
	f      Frames
	cancel func()

	rmu  sync.Mutex
	rest []byte
	rerr error

	wmu    sync.Mutex
	werr   error
	closed bool
}

// New makes a stream; cancel ends the RPC at once.
func New(f Frames, cancel func()) *Stream { return &Stream{f: f, cancel: cancel} }

// Read yields what the other side sent, one chunk or a part of it. It returns
// io.EOF after the other side's GOAWAY or the RPC's orderly end.
func (s *Stream) Read(p []byte) (int, error) {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	for len(s.rest) == 0 {
		if s.rerr != nil {
			return 0, s.rerr
		}
		payload, t, err := s.f.Recv()
		switch {
		case err != nil:
			s.rerr = err
		case t == pb.FrameType_FRAME_TYPE_GOAWAY:
			s.rerr = io.EOF
		case t == pb.FrameType_FRAME_TYPE_DATA:
			s.rest = payload
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// ReadPacket yields one chunk whole, which may be empty. The slice is valid
// until the next call.
func (s *Stream) ReadPacket() ([]byte, error) {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	for s.rerr == nil {
		payload, t, err := s.f.Recv()
		switch {
		case err != nil:
			s.rerr = err
		case t == pb.FrameType_FRAME_TYPE_GOAWAY:
			s.rerr = io.EOF
		case t == pb.FrameType_FRAME_TYPE_DATA:
			return payload, nil
		}
	}
	return nil, s.rerr
}

// Write sends p, as one chunk when it is not above 1 MiB. An empty p is an
// empty chunk.
func (s *Stream) Write(p []byte) (int, error) {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	sent := 0
	for {
		if s.closed || s.werr != nil {
			if s.werr == nil {
				s.werr = fmt.Errorf("stream: write after close: %w", io.ErrClosedPipe)
			}
			return sent, s.werr
		}
		chunk := p[sent:min(len(p), sent+maxChunk)]
		if s.werr = s.f.Send(chunk, pb.FrameType_FRAME_TYPE_DATA); s.werr != nil {
			return sent, s.werr
		}
		if sent += len(chunk); sent == len(p) {
			return sent, nil
		}
	}
}

// CloseWrite ends this side's direction; what the other side sends can still be
// read.
func (s *Stream) CloseWrite() error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if s.closed || s.werr != nil {
		return nil
	}
	s.closed = true
	if err := s.f.Send(nil, pb.FrameType_FRAME_TYPE_GOAWAY); err != nil && err != io.EOF {
		return err
	}
	if c, ok := s.f.(interface{ CloseSend() error }); ok {
		return c.CloseSend()
	}
	return nil
}

// Close ends the stream in both directions. A Read or Write in progress
// returns.
func (s *Stream) Close() error {
	s.cancel()
	return nil
}
