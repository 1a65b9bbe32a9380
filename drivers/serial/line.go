package serial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
)

// Port is what a [Line] needs of an open port. That of the serial bus, in
// package hw, is one.
type Port interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	SetDTR(asserted bool) error
	SetRTS(asserted bool) error
	// Drain waits until what was written has left; DiscardOutput drops it.
	Drain(context.Context) error
	DiscardOutput() error
}

// Options say how a [Line] behaves. Log is required.
type Options struct {
	// CPS is the rate in bytes per second at which a stream is written; 0 means
	// as fast as the port takes it.
	CPS float64

	// Linger is how long closing a stream waits for its output to leave. What
	// is still there afterwards is discarded.
	Linger time.Duration

	// Many lets several clients connect at once, each to a port of its own.
	Many bool

	Log *slog.Logger
}

// patience is how long a new client waits for the one before it. A client that
// closes its stream and connects again can overtake its own ending stream.
const patience = time.Second

// Line is a serial line that is opened for each client. It is an [Interface].
type Line struct {
	open func(context.Context) (Port, error)
	o    Options
	turn chan struct{} // holds one token; nil when many may open the port

	mu    sync.Mutex
	conns []*conn
	over  bool
}

var _ Interface = (*Line)(nil)

// NewLine makes a line of a function that opens its port.
func NewLine(open func(context.Context) (Port, error), o Options) *Line {
	l := &Line{open: open, o: o}
	if !o.Many {
		l.turn = make(chan struct{}, 1)
	}
	return l
}

// Connect opens the port for a client.
func (l *Line) Connect(ctx context.Context) (io.ReadWriteCloser, error) {
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		c, before, err := l.connect(ctx)
		switch {
		case err != nil:
			return nil, err
		case c != nil:
			return c, nil
		}
		select {
		case <-before.done:
		case <-late.C:
			return nil, fmt.Errorf("connect: a client is already connected; it must end its stream first, or be dropped by close: %w", driver.ErrBusy)
		case <-ctx.Done():
			return nil, fmt.Errorf("connect: waiting for the client that is connected: %w", ctx.Err())
		}
	}
}

// connect opens the port, unless another client is before this one.
func (l *Line) connect(ctx context.Context) (c, before *conn, err error) {
	if err := l.lock(ctx); err != nil {
		return nil, nil, err
	}
	defer l.unlock()
	if before := l.active(); before != nil && !l.o.Many {
		return nil, before, nil
	}
	port, err := l.start(ctx)
	if err != nil {
		return nil, nil, err
	}
	c = &conn{line: l, port: port, done: make(chan struct{})}
	c.w = Paced(port, l.o.CPS, c.done)
	l.mu.Lock()
	over := l.over
	if !over {
		l.conns = append(l.conns, c)
	}
	l.mu.Unlock()
	if over {
		port.Close()
		return nil, nil, errOver
	}
	l.o.Log.Info("connected")
	return c, nil, nil
}

var errOver = fmt.Errorf("serial line: the session is over: %w", driver.ErrUnavailable)

// start opens the port if the line is still in use.
func (l *Line) start(ctx context.Context) (Port, error) {
	l.mu.Lock()
	over := l.over
	l.mu.Unlock()
	if over {
		return nil, errOver
	}
	return l.open(ctx)
}

// lock waits for its turn to open the port.
func (l *Line) lock(ctx context.Context) error {
	if l.turn == nil {
		return nil
	}
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("serial line: waiting for another to open or close it: %w", ctx.Err())
	}
}

func (l *Line) unlock() {
	if l.turn != nil {
		<-l.turn
	}
}

// active is a connected client, or nil. Clients that are going are seen off
// first.
func (l *Line) active() *conn {
	for _, c := range l.clients() {
		if !c.ended() {
			return c
		}
		l.finish(c)
	}
	return nil
}

func (l *Line) clients() []*conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.conns)
}

// Close drops every client that is connected. It waits until the port can be
// opened again.
func (l *Line) Close(context.Context) error {
	for _, c := range l.clients() {
		c.end(io.EOF)
		l.finish(c)
	}
	return nil
}

// Release closes what is open, without waiting for output to leave. The line
// cannot be opened any more.
func (l *Line) Release() error {
	l.mu.Lock()
	l.over = true
	l.mu.Unlock()
	var errs []error
	for _, c := range l.clients() {
		c.end(errOver)
		c.port.DiscardOutput() // ends a Drain, too; when it fails, the port is closed or gone
		errs = append(errs, l.finish(c))
	}
	return errors.Join(errs...)
}

// SetDTR sets the line on the port that a client has open, or else opens the
// port for a moment.
func (l *Line) SetDTR(ctx context.Context, asserted bool) error {
	return l.set(ctx, func(p Port) error { return p.SetDTR(asserted) })
}

// SetRTS is as [Line.SetDTR].
func (l *Line) SetRTS(ctx context.Context, asserted bool) error {
	return l.set(ctx, func(p Port) error { return p.SetRTS(asserted) })
}

func (l *Line) set(ctx context.Context, f func(Port) error) error {
	if err := l.lock(ctx); err != nil {
		return err
	}
	defer l.unlock()
	if c := l.active(); c != nil {
		err := f(c.port)
		if err == nil || !c.ended() {
			return err
		}
		l.finish(c) // it went away meanwhile
	}
	port, err := l.start(ctx)
	if err != nil {
		return err
	}
	return errors.Join(f(port), port.Close())
}

// finish closes the port of a client that has ended, once. It returns when the
// port is closed, whoever does it.
func (l *Line) finish(c *conn) (err error) {
	c.closing.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), l.o.Linger)
		defer cancel()
		if err := c.port.Drain(ctx); errors.Is(err, context.DeadlineExceeded) {
			l.o.Log.Warn("output that the device did not take is lost", "waited", l.o.Linger)
			c.port.DiscardOutput()
		}
		err = c.port.Close()
		l.mu.Lock()
		l.conns = slices.DeleteFunc(l.conns, func(o *conn) bool { return o == c })
		l.mu.Unlock()
		l.o.Log.Info("disconnected")
	})
	return err
}

// conn is a client's stream. It has no CloseWrite: the port has no end of file
// to send.
type conn struct {
	line *Line
	port Port
	w    io.Writer // to port, at the line's pace

	ending  sync.Once
	done    chan struct{} // closed when the stream ends
	cause   error         // why: what Read answers; set before done is closed
	closing sync.Once     // closes the port
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.port.Read(b)
	if err != nil && c.ended() {
		return n, c.cause
	}
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	if err != nil && c.ended() {
		return n, fmt.Errorf("write: the connection was closed: %w", net.ErrClosed)
	}
	return n, err
}

// Close waits until what was written has left, up to the line's linger time.
func (c *conn) Close() error {
	c.end(fmt.Errorf("read: the connection was closed: %w", net.ErrClosed))
	return c.line.finish(c)
}

func (c *conn) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// end ends every Read and Write, for good. The port stays open: there may be
// output that has not left. An error of the deadlines says that the port is
// gone, which ends the waiting too.
func (c *conn) end(cause error) {
	c.ending.Do(func() {
		c.cause = cause
		close(c.done)
		past := time.Unix(1, 0)
		c.port.SetReadDeadline(past)
		c.port.SetWriteDeadline(past)
	})
}
