package session

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
)

type offered struct {
	io.ReadWriter
	closed atomic.Int32
}

func (o *offered) CloseWrite() error { return nil }

func (o *offered) Close() error { o.closed.Add(1); return nil }

func handle(kind string, id any) driver.Handle {
	return driver.NewHandle(map[string]any{"kind": kind, "uuid": id, "x_jmp_content_encoding": nil})
}

func TestOffers(t *testing.T) {
	o := NewOffers()
	node, other := uuid.New(), uuid.New()
	s := new(offered)
	id, err := o.Add(node, s)
	if err != nil {
		t.Fatalf("Add() = %v; want nil", err)
	}
	if _, err := o.OpenHandle(t.Context(), other, handle("client_stream", id.String())); err == nil || driver.Classify(err) != driver.Internal {
		t.Errorf("OpenHandle(another driver's) = %v; want an error without a class", err)
	}
	// in any spelling, and once
	got, err := o.OpenHandle(t.Context(), node, handle("client_stream", "{"+strings.ToUpper(id.String())+"}"))
	if b, ok := got.(*bound); err != nil || !ok || b.Resource != s {
		t.Errorf("OpenHandle() = %v, %v; want the stream", got, err)
	}
	if _, err := o.OpenHandle(t.Context(), node, handle("client_stream", id.String())); err == nil || driver.Classify(err) != driver.Internal {
		t.Errorf("OpenHandle(used) = %v; want an error without a class", err)
	}
	o.Remove(id)
	o.Close()
	if n := s.closed.Load(); n != 0 {
		t.Errorf("a stream that was taken has been closed %d times; want 0: it is the taker's", n)
	}
}

func TestOffersRemove(t *testing.T) {
	o := NewOffers()
	node := uuid.New()
	id, _ := o.Add(node, new(offered))
	if n := o.Len(); n != 1 {
		t.Errorf("Len() = %d; want 1", n)
	}
	o.Remove(id)
	if n := o.Len(); n != 0 {
		t.Errorf("Len() after Remove = %d; want 0", n)
	}
	if _, err := o.OpenHandle(t.Context(), node, handle("client_stream", id.String())); err == nil {
		t.Error("OpenHandle(removed) = nil; want an error")
	}
}

func TestOffersClose(t *testing.T) {
	o := NewOffers()
	s := new(offered)
	id, _ := o.Add(uuid.Nil, s)
	o.Close()
	o.Close()
	if n := s.closed.Load(); n != 1 {
		t.Errorf("a stream that nobody took has been closed %d times; want 1", n)
	}
	if _, err := o.OpenHandle(t.Context(), uuid.Nil, handle("client_stream", id.String())); err == nil {
		t.Error("OpenHandle() after Close = nil; want an error")
	}
	if _, err := o.Add(uuid.Nil, s); !errors.Is(err, driver.ErrUnavailable) {
		t.Errorf("Add() after Close = %v; want %v", err, driver.ErrUnavailable)
	}
}

func TestOpenHandleErrors(t *testing.T) {
	o := NewOffers()
	node := uuid.New()
	id, _ := o.Add(node, new(offered))
	tests := []struct {
		name string
		raw  any
		want driver.Class
	}{
		{"null", nil, driver.Invalid},
		{"text", id.String(), driver.Invalid},
		{"empty", map[string]any{}, driver.Invalid},
		{"kind", map[string]any{"kind": "client-stream", "uuid": id.String()}, driver.Invalid},
		{"kind of another type", map[string]any{"kind": 1.0, "uuid": id.String()}, driver.Invalid},
		{"no uuid", map[string]any{"kind": "client_stream"}, driver.Invalid},
		{"uuid of another type", map[string]any{"kind": "client_stream", "uuid": 5.0}, driver.Invalid},
		{"no uuid at all", map[string]any{"kind": "client_stream", "uuid": strings.Repeat("x", 1000)}, driver.Invalid},
		{"another method", map[string]any{"kind": "presigned_request", "method": "POST", "url": "http://127.0.0.1/", "headers": map[string]any{}}, driver.Invalid},
		{"no url", map[string]any{"kind": "presigned_request", "method": "GET", "headers": map[string]any{}}, driver.Invalid},
		{"headers of another type", map[string]any{"kind": "presigned_request", "method": "GET", "url": "http://127.0.0.1/", "headers": []any{}}, driver.Invalid},
		{"an encoding", map[string]any{"kind": "presigned_request", "method": "GET", "url": "http://127.0.0.1/", "headers": map[string]any{}, "x_jmp_content_encoding": "xz"}, driver.Invalid},
		{"unknown", map[string]any{"kind": "client_stream", "uuid": uuid.NewString()}, driver.Internal},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, err := o.OpenHandle(t.Context(), node, driver.NewHandle(test.raw))
			if got := driver.Classify(err); s != nil || got != test.want {
				t.Errorf("OpenHandle(%v) = %v, %v of class %v; want class %v", test.raw, s, err, got, test.want)
			}
			if len(err.Error()) > 300 {
				t.Errorf("the error is %d bytes long; want what is asked for cut short", len(err.Error()))
			}
		})
	}
	if s, err := o.OpenHandle(t.Context(), node, handle("client_stream", id.String())); s == nil || err != nil {
		t.Errorf("OpenHandle() after all that = %v, %v; want the stream", s, err)
	}
}

// Of those who ask for one stream at once, one gets it.
func TestOpenHandleOnce(t *testing.T) {
	o := NewOffers()
	node := uuid.New()
	id, _ := o.Add(node, new(offered))
	var all sync.WaitGroup
	var got atomic.Int32
	for range 16 {
		all.Go(func() {
			if _, err := o.OpenHandle(t.Context(), node, handle("client_stream", id.String())); err == nil {
				got.Add(1)
			}
		})
	}
	all.Wait()
	if n := got.Load(); n != 1 {
		t.Errorf("%d callers got the stream; want 1", n)
	}
}

// A call that ends without closing what it took must not keep the client.
func TestOpenHandleContext(t *testing.T) {
	o := NewOffers()
	node, s := uuid.New(), new(offered)
	id, _ := o.Add(node, s)
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := o.OpenHandle(ctx, node, handle("client_stream", id.String())); err != nil {
		t.Fatalf("OpenHandle() = %v; want nil", err)
	}
	cancel()
	drivertest.Until(t, "the stream is closed", func() bool { return s.closed.Load() == 1 })
}
