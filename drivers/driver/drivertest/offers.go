package drivertest

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"sync"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/drivers/driver"
)

// Offers are streams beside calls, in memory: what an exporter has of its
// clients' streams, and the client's end of them. On a [Bench] they make the
// callers that it opens a [driver.Offerer]. As over a wire, a handle is good
// once, a stream ends with the call, and one that is closed without CloseWrite
// looks broken to the other side. The zero Offers is ready to use.
type Offers struct {
	mu   sync.Mutex
	last int
	open map[string]*end // the driver's ends that no call has taken yet
	held int             // those that a call has taken and not closed
}

// Over makes a caller an Offerer.
func (o *Offers) Over(c driver.Caller) driver.Offerer { return &offering{c, o} }

type offering struct {
	driver.Caller
	offers *Offers
}

func (c *offering) Offer(ctx context.Context) (driver.Resource, driver.Handle, error) {
	if err := ctx.Err(); err != nil {
		return nil, driver.Handle{}, err
	}
	r, h := c.offers.Stream()
	return r, h, nil
}

// Stream opens a stream: its client's end, and the handle of the other.
func (o *Offers) Stream() (driver.Resource, driver.Handle) {
	up, upw := io.Pipe()
	down, downw := io.Pipe()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last++
	name := strconv.Itoa(o.last)
	if o.open == nil {
		o.open = map[string]*end{}
	}
	client := &end{r: down, w: upw, closed: func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.open, name)
	}}
	o.open[name] = &end{r: up, w: downw, peer: client, closed: func() { o.hold(-1) }}
	return client, driver.NewHandle(map[string]any{"kind": "test", "name": name})
}

// OpenHandle implements [driver.Opener].
func (o *Offers) OpenHandle(ctx context.Context, _ uuid.UUID, h driver.Handle) (driver.Resource, error) {
	m, _ := h.Raw().(map[string]any)
	name, ok := m["name"].(string)
	if !ok {
		return nil, driver.BadArg("handle", "is not one of this test: %v", h.Raw())
	}
	o.mu.Lock()
	e := o.open[name]
	delete(o.open, name)
	o.mu.Unlock()
	if e == nil {
		return nil, fmt.Errorf("handle: no open stream has the name %s", name)
	}
	o.hold(1)
	stop := context.AfterFunc(ctx, func() {
		e.cut(context.Cause(ctx))
		e.peer.cut(context.Cause(ctx))
	})
	give := e.closed
	e.closed = func() { stop(); give() }
	return e, nil
}

func (o *Offers) hold(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.held += n
}

// Held is how many streams calls have opened and not closed.
func (o *Offers) Held() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.held
}

// end is one end of a stream.
type end struct {
	r      *io.PipeReader
	w      *io.PipeWriter
	peer   *end // of the driver's end
	once   sync.Once
	closed func()
}

func (e *end) Read(p []byte) (int, error)  { return e.r.Read(p) }
func (e *end) Write(p []byte) (int, error) { return e.w.Write(p) }
func (e *end) CloseWrite() error           { return e.w.Close() }

func (e *end) Close() error {
	e.cut(fmt.Errorf("the other side broke it off: %w", io.ErrUnexpectedEOF))
	e.once.Do(e.closed)
	return nil
}

// cut ends both directions for the other end, which sees the error. One that was
// ended in good order stays so.
func (e *end) cut(err error) {
	e.w.CloseWithError(err)
	e.r.CloseWithError(err)
}
