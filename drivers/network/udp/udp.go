// Package udp exchanges datagrams with a UDP service.
//
// The socket is connected: it sends to one peer and hears only that one. Each
// Write sends a datagram and each Read yields one, empty ones included. There
// is no end of sending to signal, so a stream has no CloseWrite and never ends
// by itself.
//
// # What is lost, and what is an error
//
// UDP promises nothing, and a stream that outlives its peer is normal: a device
// that boots answers "port unreachable" (ICMP) until its service listens. Linux
// reports such an answer at the next system call, as an error of a send or a
// receive that has nothing to do with it. These errors, and a route or a buffer
// that is missing for the moment, therefore do not end a stream: a receive goes
// on waiting, a send is tried once more and then counts as sent and lost, as it
// might be anywhere on its way. The first of a row is logged.
//
// A datagram that no network carries is the caller's mistake: Write refuses it
// with an error, and the stream remains usable.
package udp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"syscall"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/network"
)

// MaxDatagram is what one datagram over IPv4 holds: 65,535 bytes less the
// headers of IP (20) and UDP (8). IPv6 counts its header apart and carries 20
// bytes more.
const MaxDatagram = 65507

// Network is the UDP backend of the network contract.
var Network = driver.Define(driver.Spec{
	Type:     "jumpstarter_driver_network.driver.UdpNetwork",
	Contract: network.Contract,
	Doc:      "a UDP service that the exporter can reach",
}, func(_ context.Context, env *driver.Env, cfg network.Endpoint) (driver.Driver, error) {
	return network.Driver(&service{cfg, env.Log}), nil
})

type service struct {
	at  network.Endpoint
	log *slog.Logger
}

func (s *service) Connect(ctx context.Context) (io.ReadWriteCloser, error) {
	s.log.Debug("connecting", "protocol", "udp", "address", s.at.String())
	c, err := network.Dial(ctx, "udp", s.at.String())
	if err != nil {
		return nil, err
	}
	return &stream{conn: c.(*net.UDPConn), log: s.log.With("peer", s.at.String())}, nil
}

func (s *service) Address(ctx context.Context) (string, error) { return s.at.URL(ctx, "udp") }

type stream struct {
	conn *net.UDPConn
	log  *slog.Logger
	lost atomic.Bool // the last news of the peer was bad, and was logged
}

var _ driver.PacketStream = (*stream)(nil)

// PacketStream marks that datagrams keep their boundaries.
func (s *stream) PacketStream() {}

func (s *stream) Close() error { return s.conn.Close() }

// Read waits for a datagram. If p does not hold all of it, Read yields what it
// holds and io.ErrShortBuffer; the rest is gone.
func (s *stream) Read(p []byte) (int, error) {
	for {
		n, _, flags, _, err := s.conn.ReadMsgUDPAddrPort(p, nil)
		switch {
		case err == nil && flags&truncated != 0:
			return n, fmt.Errorf("receive datagram: more than %d bytes: %w", len(p), io.ErrShortBuffer)
		case err == nil:
			s.lost.Store(false)
			return n, nil
		case !passing(err):
			return 0, err // not n: with an error it is -1
		}
		s.note(err)
	}
}

// Write sends p as one datagram.
func (s *stream) Write(p []byte) (int, error) {
	n, err := s.conn.Write(p)
	if !passing(err) {
		return n, err
	}
	first := err
	n, err = s.conn.Write(p) // the error may have been an earlier datagram's
	if errors.Is(err, syscall.EMSGSIZE) {
		return 0, fmt.Errorf("send datagram: %d bytes are too many, at most %d fit: %w", len(p), MaxDatagram, err)
	}
	s.note(first)
	if passing(err) {
		return len(p), nil
	}
	return n, err
}

func (s *stream) note(err error) {
	if !s.lost.Swap(true) {
		s.log.Warn("datagrams are lost", "error", err)
	}
}

// passing reports whether an error is about the way to the peer, or about an
// earlier datagram, and not about the socket. EMSGSIZE is one when a router
// found a datagram too large for its next link; the kernel then learns to send
// smaller fragments.
func passing(err error) bool {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		switch errno {
		case syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN,
			syscall.ENOPROTOOPT, syscall.EPROTO, syscall.EMSGSIZE, syscall.ENOBUFS:
			return true
		}
	}
	return false
}
