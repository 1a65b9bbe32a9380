package websocket

import (
	"bufio"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
)

// MaxMessage is the size of the largest message. Messages travel between the
// exporter and its clients as they are, each in one gRPC message, and receivers
// of those take 4 MiB, the few bytes around ours included.
const MaxMessage = 4<<20 - 16

const (
	pingEvery  = 20 * time.Second
	closeLimit = time.Second // how long Close waits for the peer
)

// The kinds of frames.
const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
	opPing         = 9
	opPong         = 10
)

// The statuses that a connection is closed with. No status has a number, which
// is never sent.
const (
	statusNormal   = 1000
	statusProtocol = 1002
	statusNone     = 1005
	statusTooBig   = 1009
)

// stream is one connection, after the handshake.
//
// One goroutine may read, any may write. Reading answers pings, so that a peer's
// pings are answered while somebody reads. The answers are left to a goroutine
// of the stream's own: a reader must not wait for a peer that reads nothing, and
// that perhaps just because we do not.
type stream struct {
	conn  io.ReadWriteCloser
	cut   io.Closer     // what conn stands on: closing it takes no time
	limit time.Duration // for closing

	closing atomic.Bool
	status  atomic.Uint32 // of our farewell
	once    sync.Once
	done    chan struct{}
	keeper  sync.WaitGroup
	replies chan frame // one that keep is to send

	rmu     sync.Mutex
	br      *bufio.Reader
	message []byte // as far as it came
	partial bool   // more of it is to come
	rest    []byte // what Read has left of a message
	rerr    error

	wmu  sync.Mutex
	out  []byte
	werr error
}

type frame struct {
	op      byte
	payload []byte
}

var _ driver.PacketReader = (*stream)(nil)

func newStream(conn io.ReadWriteCloser, cut io.Closer) *stream {
	s := &stream{conn: conn, cut: cut, limit: closeLimit, br: bufio.NewReader(conn), done: make(chan struct{}), replies: make(chan frame, 1)}
	s.status.Store(statusNormal)
	s.keeper.Go(s.keep)
	return s
}

// keep sends what is due: pings, and the answers of the reader.
func (s *stream) keep() {
	pings := time.NewTicker(pingEvery)
	defer pings.Stop()
	for {
		f := frame{op: opPing}
		select {
		case f = <-s.replies:
		case <-pings.C:
		case <-s.done:
			return
		}
		if s.send(f) != nil {
			return // a reader or writer will meet the error, too
		}
	}
}

// reply leaves a frame to keep. A later one takes the place of one that was not
// sent yet: of several pings only the last wants an answer, and nothing follows
// a farewell. The caller holds rmu.
func (s *stream) reply(f frame) {
	select {
	case <-s.replies:
	default:
	}
	s.replies <- f
}

// PacketStream marks that messages keep their boundaries.
func (s *stream) PacketStream() {}

// ReadPacket yields the next message whole.
func (s *stream) ReadPacket() ([]byte, error) {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	return s.read()
}

// Read yields the next message, or what p holds of it; the rest comes next.
func (s *stream) Read(p []byte) (n int, err error) {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	if len(s.rest) == 0 {
		if s.rest, err = s.read(); err != nil {
			return 0, err
		}
	}
	n = copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *stream) read() (m []byte, err error) {
	if !s.closing.Load() {
		m, err = s.next()
	}
	if s.closing.Load() {
		return nil, fmt.Errorf("read: %w", net.ErrClosed)
	}
	return m, err
}

// next waits for a message. Once it has failed it fails alike. The caller holds
// rmu.
func (s *stream) next() ([]byte, error) {
	for s.rerr == nil {
		var whole bool
		if whole, s.rerr = s.frame(); whole {
			m := s.message
			s.message = nil
			return m, nil
		}
	}
	return nil, s.rerr
}

// frame reads a frame, and reports whether a message is complete with it.
func (s *stream) frame() (whole bool, err error) {
	op, last, size, err := s.head()
	if err != nil {
		return false, err
	}
	switch {
	case op >= opClose:
		if size > 125 || !last {
			return false, s.violation("a control frame of %d bytes, final: %t", size, last)
		}
		return false, s.control(op, size)
	case op > opBinary:
		return false, s.violation("a frame of the unknown kind %d", op)
	case s.partial != (op == opContinuation):
		return false, s.violation("a frame of kind %d within a message: %t", op, s.partial)
	}
	if total := uint64(len(s.message)) + size; total > MaxMessage {
		what := "a message of"
		if !last {
			what = "a message of at least"
		}
		return false, s.farewell(statusTooBig, fmt.Errorf("read: %s %d bytes: at most %d can be passed on", what, total, MaxMessage))
	}
	if s.message == nil {
		s.message = []byte{}
	}
	for left := int(size); left > 0; {
		// Memory is for what has come, not for what was announced.
		n := min(left, max(len(s.message), 64<<10))
		s.message = slices.Grow(s.message, n)
		got, err := io.ReadFull(s.br, s.message[len(s.message):len(s.message)+n])
		if s.message = s.message[:len(s.message)+got]; err != nil {
			return false, broken(err)
		}
		left -= n
	}
	s.partial = !last
	return last, nil
}

// head reads what comes before a frame's payload.
func (s *stream) head() (op byte, last bool, size uint64, err error) {
	var b [8]byte
	if _, err := io.ReadFull(s.br, b[:2]); err != nil {
		return 0, false, 0, broken(err)
	}
	first, second := b[0], b[1]
	extra := 0
	switch size = uint64(second & 0x7f); size {
	case 126:
		extra = 2
	case 127:
		extra = 8
	}
	if extra > 0 {
		b = [8]byte{}
		if _, err := io.ReadFull(s.br, b[8-extra:]); err != nil {
			return 0, false, 0, broken(err)
		}
		size = binary.BigEndian.Uint64(b[:])
	}
	switch {
	case first&0x70 != 0:
		return 0, false, 0, s.violation("a frame with the reserved bits %#x", first&0x70)
	case second&0x80 != 0:
		return 0, false, 0, s.violation("a frame that is masked as a client's")
	case size>>63 != 0:
		return 0, false, 0, s.violation("a frame of %d bytes", size)
	}
	return first & 0x0f, first&0x80 != 0, size, nil
}

// control handles a frame between those of messages.
func (s *stream) control(op byte, size uint64) error {
	payload := make([]byte, size)
	if _, err := io.ReadFull(s.br, payload); err != nil {
		return broken(err)
	}
	switch op {
	case opPing:
		s.reply(frame{opPong, payload})
	case opPong:
	case opClose:
		return s.closed(payload)
	default:
		return s.violation("a frame of the unknown kind %d", op)
	}
	return nil
}

// closed answers the peer's farewell and says how the stream ends.
func (s *stream) closed(payload []byte) error {
	status, why := uint32(statusNone), ""
	switch {
	case len(payload) == 1:
		return s.violation("half a status")
	case len(payload) > 1:
		status, why = uint32(binary.BigEndian.Uint16(payload)), string(payload[2:])
		if status < 1000 || status >= 1004 && status <= 1006 || status >= 1015 && status < 3000 || status >= 5000 {
			return s.violation("the status %d", status)
		}
	}
	switch {
	case s.partial:
		return s.farewell(status, fmt.Errorf("read: the peer closed within a message, after %d bytes of it (status %d %q): %w",
			len(s.message), status, why, io.ErrUnexpectedEOF))
	case status == statusNormal, status == statusNone:
		return s.farewell(status, io.EOF)
	}
	return s.farewell(status, fmt.Errorf("read: the peer closed with status %d %q", status, why))
}

// violation ends the stream for what no peer may send.
func (s *stream) violation(format string, args ...any) error {
	return s.farewell(statusProtocol, fmt.Errorf("read: the peer breaks the protocol: it sent "+format, args...))
}

// farewell sends a status to the peer, and returns why.
func (s *stream) farewell(status uint32, why error) error {
	s.status.Store(status)
	s.reply(frame{op: opClose})
	return why
}

// broken is the error of a connection that ended, in whatever way, without a
// farewell.
func broken(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("read: the connection ended without being closed (%w): %w", io.ErrUnexpectedEOF, driver.ErrUnavailable)
	}
	return fmt.Errorf("read: %w", err)
}

// Write sends p as one binary message.
func (s *stream) Write(p []byte) (int, error) {
	if len(p) > MaxMessage {
		return 0, fmt.Errorf("write: a message of %d bytes: at most %d can be passed on", len(p), MaxMessage)
	}
	err := s.send(frame{opBinary, p})
	switch {
	case err == nil:
		return len(p), nil
	case s.closing.Load():
		err = net.ErrClosed
	}
	return 0, fmt.Errorf("write: %w", err)
}

// errFinished is what a peer that has said farewell gets no more of.
var errFinished = fmt.Errorf("the peer has closed: %w", syscall.EPIPE)

// send writes a frame. Nothing follows a farewell, and none follows an error.
func (s *stream) send(f frame) error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if s.werr != nil {
		return s.werr
	}
	if f.op == opClose {
		if status := s.status.Load(); status != statusNone {
			f.payload = binary.BigEndian.AppendUint16(nil, uint16(status))
		}
	}
	s.out = appendFrame(s.out[:0], f)
	if _, err := s.conn.Write(s.out); err != nil {
		s.werr = err
	} else if f.op == opClose {
		s.werr = errFinished
		return nil
	}
	if cap(s.out) > 128<<10 {
		s.out = nil // a large message must not keep its memory busy
	}
	return s.werr
}

// appendFrame appends a whole frame, masked as those of clients are.
func appendFrame(out []byte, f frame) []byte {
	const last, masked = 0x80, 0x80
	out = slices.Grow(out, 14+len(f.payload))
	out = append(out, last|f.op)
	switch n := len(f.payload); {
	case n < 126:
		out = append(out, masked|byte(n))
	case n < 1<<16:
		out = binary.BigEndian.AppendUint16(append(out, masked|126), uint16(n))
	default:
		out = binary.BigEndian.AppendUint64(append(out, masked|127), uint64(n))
	}
	var mask [512]byte // the key, again and again
	rand.Read(mask[:4])
	out = append(out, mask[:4]...)
	for n := 4; n < len(mask); n *= 2 {
		copy(mask[n:], mask[:n])
	}
	for p := f.payload; len(p) > 0; {
		at := len(out)
		n := min(len(p), len(mask))
		out = out[:at+n]
		subtle.XORBytes(out[at:], p[:n], mask[:n])
		p = p[n:]
	}
	return out
}

// Close says farewell, waits until the peer has done so as well, or a second,
// and closes the connection. A Read or Write in progress returns.
func (s *stream) Close() error {
	s.once.Do(func() {
		s.closing.Store(true)
		limit := time.AfterFunc(s.limit, func() { s.cut.Close() })
		defer limit.Stop()
		if err := s.send(frame{op: opClose}); err == nil || errors.Is(err, errFinished) {
			s.rmu.Lock()
			for err = nil; err == nil; {
				_, err = s.next() // what still comes is not wanted
			}
			s.rmu.Unlock()
		}
		s.conn.Close()
		close(s.done)
		s.keeper.Wait()
	})
	return nil
}
