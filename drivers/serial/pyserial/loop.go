package pyserial

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/serial"
)

// A loop holds what is written until it is read: so many chunks, each of them
// up to so long.
const (
	loopChunks  = 32 // as upstream
	loopLongest = 64 << 10
)

// loops hands out loops.
type loops struct {
	cps float64

	mu   sync.Mutex
	open []*loopback
	over bool
}

var _ serial.Interface = (*loops)(nil)

func (p *loops) Connect(context.Context) (io.ReadWriteCloser, error) {
	l := &loopback{line: p, done: make(chan struct{})}
	l.changed.L = &l.mu
	l.in = serial.Paced((*loopInput)(l), p.cps, l.done)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return nil, fmt.Errorf("loop: %w: the session is over", driver.ErrUnavailable)
	}
	p.open = append(p.open, l)
	return l, nil
}

// Close, SetDTR and SetRTS are accepted and do nothing, as upstream's.
func (p *loops) Close(context.Context) error        { return nil }
func (p *loops) SetDTR(context.Context, bool) error { return nil }
func (p *loops) SetRTS(context.Context, bool) error { return nil }

// release ends all loops.
func (p *loops) release() error {
	p.mu.Lock()
	p.over = true
	open := p.open
	p.open = nil
	p.mu.Unlock()
	for _, l := range open {
		l.Close()
	}
	return nil
}

// loopback is a client's loop. Chunks come out as they were written, empty ones
// too, unless the line is paced: then byte by byte.
type loopback struct {
	line *loops
	in   io.Writer     // to loopInput, at the line's pace
	done chan struct{} // closed by Close

	mu       sync.Mutex
	changed  sync.Cond
	chunks   [][]byte
	finished bool // by CloseWrite
	closed   bool
}

var _ driver.PacketStream = (*loopback)(nil)

func (*loopback) PacketStream() {}

// Write waits while the loop is full.
func (l *loopback) Write(b []byte) (int, error) { return l.in.Write(b) }

// loopInput is a loop as it is written without a pace.
type loopInput loopback

func (l *loopInput) Write(b []byte) (n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		for len(l.chunks) >= loopChunks && !l.finished && !l.closed {
			l.changed.Wait()
		}
		if l.finished || l.closed {
			return n, fmt.Errorf("loop: write: %w", net.ErrClosed)
		}
		chunk := slices.Clone(b[n:min(n+loopLongest, len(b))])
		l.chunks = append(l.chunks, chunk)
		l.changed.Broadcast()
		if n += len(chunk); n == len(b) {
			return n, nil
		}
	}
}

// Read yields one chunk, or a part of one that is longer than b.
func (l *loopback) Read(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.chunks) == 0 && !l.finished && !l.closed {
		l.changed.Wait()
	}
	switch {
	case l.closed:
		return 0, fmt.Errorf("loop: read: %w", net.ErrClosed)
	case len(l.chunks) == 0:
		return 0, io.EOF
	}
	n := copy(b, l.chunks[0])
	if l.chunks[0] = l.chunks[0][n:]; len(l.chunks[0]) == 0 {
		l.chunks = slices.Delete(l.chunks, 0, 1)
		l.changed.Broadcast()
	}
	return n, nil
}

// CloseWrite makes the reader find the end after what is under way.
func (l *loopback) CloseWrite() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.finished = true
	l.changed.Broadcast()
	return nil
}

// Close drops what is under way.
func (l *loopback) Close() error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.done)
		l.chunks = nil
		l.changed.Broadcast()
	}
	l.mu.Unlock()
	l.line.mu.Lock()
	defer l.line.mu.Unlock()
	l.line.open = slices.DeleteFunc(l.line.open, func(o *loopback) bool { return o == l })
	return nil
}
