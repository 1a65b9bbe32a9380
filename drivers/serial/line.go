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
	"sync/atomic"
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

// Connect opens the port for a client. One that is connected and has finished
// writing gives way: the stock client leaves its streams in that state when it
// is done with them, until its garbage is collected.
func (l *Line) Connect(ctx context.Context) (io.ReadWriteCloser, error) {
	patient, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
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
		case <-before.finished:
			before.end(io.EOF)
			go l.finish(before)
		case <-patient.Done():
			if ctx.Err() == nil {
				return nil, fmt.Errorf("connect: %w: a client is already connected; it must end its stream first, or be dropped by close", driver.ErrBusy)
			}
		}
		if err := before.await(ctx); err != nil {
			return nil, fmt.Errorf("connect: %w", err)
		}
	}
}

// connect opens the port, unless another client is before this one.
func (l *Line) connect(ctx context.Context) (c, before *conn, err error) {
	if err := l.lock(ctx); err != nil {
		return nil, nil, err
	}
	defer l.unlock()
	if before := l.first(); before != nil && !l.o.Many {
		return nil, before, nil
	}
	port, err := l.start(ctx)
	if err != nil {
		return nil, nil, err
	}
	c = &conn{line: l, port: port, finished: make(chan struct{}), done: make(chan struct{}), closed: make(chan struct{})}
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

var errOver = fmt.Errorf("serial line: %w: the session is over", driver.ErrUnavailable)

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

func (l *Line) clients() []*conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.conns)
}

// first is the client that has been connected for longest, or nil.
func (l *Line) first() *conn {
	if c := l.clients(); len(c) > 0 {
		return c[0]
	}
	return nil
}

// Close drops every client that is connected. It returns when the port can be
// opened again.
func (l *Line) Close(ctx context.Context) error {
	for _, c := range l.clients() {
		c.end(io.EOF)
		go l.finish(c)
		if err := c.await(ctx); err != nil {
			return fmt.Errorf("close: %w", err)
		}
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
	for c := l.first(); c != nil; c = l.first() {
		if err := f(c.port); err == nil || !c.ended() {
			return err
		}
		if err := c.await(ctx); err != nil { // it is going, or went meanwhile
			return err
		}
	}
	port, err := l.start(ctx)
	if err != nil {
		return err
	}
	return errors.Join(f(port), port.Close())
}

// finish closes the port of a client that has ended. It returns when the port is
// closed, and its error once.
func (l *Line) finish(c *conn) error {
	if !c.closing.CompareAndSwap(false, true) {
		<-c.closed
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.o.Linger)
	defer cancel()
	if err := c.port.Drain(ctx); errors.Is(err, context.DeadlineExceeded) {
		l.o.Log.Warn("output that the device did not take is lost", "waited", l.o.Linger)
		c.port.DiscardOutput()
	}
	err := c.port.Close()
	l.mu.Lock()
	l.conns = slices.DeleteFunc(l.conns, func(o *conn) bool { return o == c })
	l.mu.Unlock()
	l.o.Log.Info("disconnected")
	close(c.closed)
	return err
}

// conn is a client's stream.
type conn struct {
	line *Line
	port Port
	w    io.Writer // to port, at the line's pace

	finish   sync.Once
	finished chan struct{} // closed when the client has finished writing
	ending   sync.Once
	done     chan struct{} // closed when the stream ends
	cause    error         // why: what Read answers; set before done is closed
	closing  atomic.Bool
	closed   chan struct{} // closed when the port is
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

// CloseWrite does nothing to the port, which has no end of file to send: what
// comes in can still be read. But the next client need not wait.
func (c *conn) CloseWrite() error {
	c.finish.Do(func() { close(c.finished) })
	return nil
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

// await waits until the port of a client that has ended is closed.
func (c *conn) await(ctx context.Context) error {
	select {
	case <-c.closed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the client that was connected: %w", ctx.Err())
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
