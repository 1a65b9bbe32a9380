package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
)

// Forward connects each client of a listener to a service, until the context is
// done; it returns nil then, and an error when the listener fails. On return
// the listener and all connections are closed. What happens to a single
// connection is logged and stops none of the others.
//
// The ends of a connection travel: an orderly end of sending becomes a
// half-close on the far side, anything else, a failed Connect included, resets
// the local TCP connection and drops the service's. A stream that cannot be
// half-closed ends whole with the other side's sending.
func Forward(ctx context.Context, ln net.Listener, n Interface, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	defer ln.Close()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	for {
		local, err := ln.Accept()
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil
		default:
			return fmt.Errorf("forward from %s: %w", ln.Addr(), err)
		}
		conns.Go(func() {
			if err := serve(ctx, local, n); err != nil && ctx.Err() == nil {
				log.Warn("forwarded connection broke off", "client", local.RemoteAddr().String(), "error", err)
			}
		})
	}
}

func serve(ctx context.Context, local net.Conn, n Interface) error {
	remote, err := n.Connect(ctx)
	if err != nil {
		abort(local)
		return err
	}
	return join(ctx, local, remote)
}

// join carries data both ways until both sides have ended in order; it closes
// both. When one direction fails, or ctx is done, it aborts both and returns
// why.
func join(ctx context.Context, a, b io.ReadWriteCloser) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	aborted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(aborted)
		abort(a)
		abort(b)
	})
	var both sync.WaitGroup
	way := func(dst io.Writer, src io.Reader) {
		if err := carry(dst, src); err != nil {
			fail(err)
		}
	}
	both.Go(func() { way(b, a) })
	both.Go(func() { way(a, b) })
	both.Wait()
	if stop() {
		return errors.Join(a.Close(), b.Close())
	}
	<-aborted
	return context.Cause(ctx)
}

// chunk holds the largest datagram, and as much of a stream as upstream moves
// at once.
const chunk = 64 << 10

var errWhole = errors.New("the other side finished sending, and this one cannot be half-closed")

// carry copies src to dst and passes its end on. It is not io.Copy because a
// read of nothing is an empty packet, which is to be written.
func carry(dst io.Writer, src io.Reader) error {
	buf := make([]byte, chunk)
	for {
		n, err := src.Read(buf)
		if n > 0 || err == nil {
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if half, ok := dst.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errWhole
}

// abort closes a stream so that its peer does not take it for an orderly end,
// where the stream's kind can express that.
func abort(s io.Closer) {
	if tcp, ok := s.(*net.TCPConn); ok {
		tcp.SetLinger(0) // makes Close send RST
	}
	s.Close()
}
