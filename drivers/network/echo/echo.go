// Package echo is a network service that needs no network: it sends back what
// it is sent. Configurations use it to try streams out.
//
// What is written comes back packet by packet, empty packets included. At most
// 32 packets are under way; a writer that is further ahead waits for its
// reader. After CloseWrite the reader gets what is under way, and then io.EOF.
package echo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/network"
)

// depth is how many packets are under way at most; upstream's number.
const depth = 32

// Network is the echo backend of the network contract.
var Network = driver.Define(driver.Spec{
	Type:     "jumpstarter_driver_network.driver.EchoNetwork",
	Contract: network.Contract,
	Doc:      "a service that sends back what it is sent, for trials and tests",
	Lenient:  true,
}, func(_ context.Context, env *driver.Env, _ struct{}) (driver.Driver, error) {
	return network.Driver(&service{env}), nil
})

type service struct{ env *driver.Env }

func (s *service) Connect(ctx context.Context) (io.ReadWriteCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("connect to echo: %w", err)
	}
	s.env.Log.Debug("connecting", "protocol", "echo")
	return newStream(), nil
}

var errFinished = errors.New("sending is finished")

// stream is one connection: a queue of packets and how it ends.
type stream struct {
	mu       sync.Mutex
	changed  sync.Cond
	queue    [][]byte
	finished bool // CloseWrite
	closed   bool
}

var _ driver.PacketStream = (*stream)(nil)

func newStream() *stream {
	s := &stream{}
	s.changed.L = &s.mu
	return s
}

// PacketStream marks that packets keep their boundaries.
func (s *stream) PacketStream() {}

// Write queues a copy of p. It waits while the queue is full.
func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) >= depth && !s.finished && !s.closed {
		s.changed.Wait()
	}
	switch {
	case s.closed:
		return 0, fmt.Errorf("write: %w", net.ErrClosed)
	case s.finished:
		return 0, fmt.Errorf("write: %w", errFinished)
	}
	s.queue = append(s.queue, slices.Clone(p))
	s.changed.Broadcast()
	return len(p), nil
}

// Read takes the next packet. One that is larger than p comes in parts: nothing
// is lost, though its boundary is.
func (s *stream) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) == 0 && !s.finished && !s.closed {
		s.changed.Wait()
	}
	switch {
	case s.closed:
		return 0, fmt.Errorf("read: %w", net.ErrClosed)
	case len(s.queue) == 0:
		return 0, io.EOF
	}
	n := copy(p, s.queue[0])
	if n < len(s.queue[0]) {
		s.queue[0] = s.queue[0][n:]
		return n, nil
	}
	s.queue[0] = nil // the array outlives the packet
	s.queue = s.queue[1:]
	s.changed.Broadcast()
	return n, nil
}

// CloseWrite ends the sending half.
func (s *stream) CloseWrite() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished = true
	s.changed.Broadcast()
	return nil
}

// Close ends both halves and drops what is under way.
func (s *stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.queue = nil
	s.changed.Broadcast()
	return nil
}
