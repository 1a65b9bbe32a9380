package network

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"

	"github.com/jumplead/jumplead/drivers/driver"
)

// What may be under way in a loop: upstream's number of packets, and no more
// bytes than a small board can spare. One packet may always be.
const (
	loopDepth = 32
	loopBytes = 1 << 20
)

var errFinished = errors.New("sending is finished")

// Loop is a stream that sends back what it is sent, packet by packet, empty
// ones included. A writer that is 32 packets or a mebibyte ahead waits for the
// reader. After CloseWrite the reader gets what is under way, and then io.EOF.
type Loop struct {
	mu       sync.Mutex
	changed  sync.Cond
	queue    [][]byte
	bytes    int  // in the queue
	finished bool // CloseWrite
	closed   bool
}

var _ driver.PacketReader = (*Loop)(nil)

// NewLoop makes an empty loop.
func NewLoop() *Loop {
	l := &Loop{}
	l.changed.L = &l.mu
	return l
}

// PacketStream marks that packets keep their boundaries.
func (l *Loop) PacketStream() {}

// Write queues a copy of p. It waits while the queue is full.
func (l *Loop) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.full(len(p)) && !l.finished && !l.closed {
		l.changed.Wait()
	}
	switch {
	case l.closed:
		return 0, fmt.Errorf("write: %w", net.ErrClosed)
	case l.finished:
		return 0, fmt.Errorf("write: %w", errFinished)
	}
	l.queue = append(l.queue, slices.Clone(p))
	l.bytes += len(p)
	l.changed.Broadcast()
	return len(p), nil
}

// full reports whether a packet of n bytes has to wait. The caller holds mu.
func (l *Loop) full(n int) bool {
	return len(l.queue) >= loopDepth || len(l.queue) > 0 && l.bytes+n > loopBytes
}

// next waits for a packet. The caller holds mu.
func (l *Loop) next() error {
	for len(l.queue) == 0 && !l.finished && !l.closed {
		l.changed.Wait()
	}
	switch {
	case l.closed:
		return fmt.Errorf("read: %w", net.ErrClosed)
	case len(l.queue) == 0:
		return io.EOF
	}
	return nil
}

// pop drops the packet that was read. The caller holds mu.
func (l *Loop) pop() {
	l.queue[0] = nil // the array outlives the packet
	l.queue = l.queue[1:]
	l.changed.Broadcast()
}

// Read takes the next packet. One that is larger than p comes in parts: nothing
// is lost, though its boundary is.
func (l *Loop) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.next(); err != nil {
		return 0, err
	}
	n := copy(p, l.queue[0])
	l.bytes -= n
	if n < len(l.queue[0]) {
		l.queue[0] = l.queue[0][n:]
		return n, nil
	}
	l.pop()
	return n, nil
}

// ReadPacket takes the next packet whole.
func (l *Loop) ReadPacket() ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.next(); err != nil {
		return nil, err
	}
	p := l.queue[0]
	l.bytes -= len(p)
	l.pop()
	return p, nil
}

// CloseWrite ends the sending half.
func (l *Loop) CloseWrite() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.finished = true
	l.changed.Broadcast()
	return nil
}

// Close ends both halves and drops what is under way.
func (l *Loop) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.queue = nil
	l.changed.Broadcast()
	return nil
}
