package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/stream"
)

// Offers are the byte streams that clients hold open for a coming call. A call
// names one by its handle; it is good once, for the driver it was opened on,
// and while the client's stream lasts.
type Offers struct {
	Log   *slog.Logger  // nil: nobody is told what goes on with a doubt
	Stall time.Duration // see [stream.Presigned]

	mu     sync.Mutex
	closed bool
	open   map[uuid.UUID]*offer
}

type offer struct {
	node   uuid.UUID
	stream driver.Resource
}

// NewOffers makes an empty set.
func NewOffers() *Offers { return &Offers{open: map[uuid.UUID]*offer{}} }

// Add enters a stream that was opened on a node, and returns the UUID that its
// handle carries. Remove must follow when the client's stream has ended.
func (o *Offers) Add(node uuid.UUID, s driver.Resource) (uuid.UUID, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return id, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return id, fmt.Errorf("resource: the session is over: %w", driver.ErrUnavailable)
	}
	o.open[id] = &offer{node, s}
	return id, nil
}

// Remove takes an offer back. One that a call has taken is the call's to close.
func (o *Offers) Remove(id uuid.UUID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.open, id)
}

// Len is how many streams wait for a call that names them.
func (o *Offers) Len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.open)
}

// Close closes the offers that nobody took.
func (o *Offers) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	for id, x := range o.open {
		x.stream.Close()
		delete(o.open, id)
	}
}

// OpenHandle takes the stream that a handle names. It ends with the context.
func (o *Offers) OpenHandle(ctx context.Context, node uuid.UUID, h driver.Handle) (driver.Resource, error) {
	m, ok := h.Raw().(map[string]any)
	if !ok {
		return nil, driver.BadArg("handle", "wants a resource handle, a mapping with a kind")
	}
	switch kind, _ := m["kind"].(string); kind {
	case "client_stream":
		s, err := o.take(node, m)
		if err != nil {
			return nil, err
		}
		return &bound{s, context.AfterFunc(ctx, func() { s.Close() })}, nil
	case "presigned_request":
		var r struct {
			Method  string            `json:"method"`
			URL     string            `json:"url"`
			Headers map[string]string `json:"headers,omitempty"`
			Packed  any               `json:"x_jmp_content_encoding,omitempty"`
		}
		if err := driver.Decode(&r, m, false); err != nil {
			return nil, fmt.Errorf("handle: %w", err)
		}
		if r.Packed != nil { // to write it as it is would be no error, and wrong
			return nil, driver.BadArg("handle.x_jmp_content_encoding", "a presigned request has none: what the server has is what is moved")
		}
		p := stream.Presigned{Method: r.Method, URL: r.URL, Header: r.Headers, Stall: o.Stall}
		if o.Log != nil {
			p.Log = func(text string) { o.Log.Warn(text) }
		}
		return p.Open(ctx)
	default:
		return nil, driver.BadArg("handle.kind", "%q is none of client_stream, presigned_request", clip(kind))
	}
}

// take finds the client's stream of a handle, once.
func (o *Offers) take(node uuid.UUID, m map[string]any) (driver.Resource, error) {
	text, _ := m["uuid"].(string)
	id, err := uuid.Parse(text)
	if err != nil {
		return nil, driver.BadArg("handle.uuid", "%q: %v", clip(text), err)
	}
	encoding, ok := m["x_jmp_content_encoding"].(string)
	if enc := m["x_jmp_content_encoding"]; enc != nil && !ok {
		return nil, driver.BadArg("handle.x_jmp_content_encoding", "wants the name of an encoding or null")
	}
	if encoding != "" && !stream.Agrees(encoding) {
		return nil, fmt.Errorf("handle: content encoding %q was not agreed on: %w", clip(encoding), errors.ErrUnsupported)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	x := o.open[id]
	if x == nil {
		return nil, fmt.Errorf("handle: no open stream has the uuid %s: it may be used up, or its client gone", id)
	}
	if x.node != node {
		return nil, fmt.Errorf("handle: the stream %s was opened on another driver", id)
	}
	delete(o.open, id)
	if encoding != "" {
		return stream.Coded(x.stream, encoding)
	}
	return x.stream, nil
}

// bound is a stream that ends with the call that took it.
type bound struct {
	driver.Resource
	stop func() bool
}

func (b *bound) Close() error {
	b.stop()
	return b.Resource.Close()
}
