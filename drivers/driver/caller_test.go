package driver_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"net"
	"reflect"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
)

type reading struct {
	Voltage float64 `json:"voltage"`
}

func local() driver.Caller {
	rows := append([]driver.Export{
		driver.Call("reading", func(context.Context) (reading, error) { return reading{5}, nil }),
		driver.Call1("bytes", func(_ context.Context, b driver.Base64) (driver.Base64, error) { return append(b, 0), nil }),
		driver.Call1("wait", func(_ context.Context, d time.Duration) (time.Duration, error) { return d * 2, nil }),
		driver.Stream("connect", func(context.Context) (net.Conn, error) {
			near, far := net.Pipe()
			go func() {
				defer far.Close()
				_, _ = io.Copy(far, far)
			}()
			return near, nil
		}),
	}, calls...)
	return driver.Local(driver.Driver{Exports: append(rows, feeds[0], feeds[1], feeds[4], feeds[6])})
}

// What goes through Local is what goes through a wire: rows see decoded values,
// callers see JSON-shaped ones.
func TestLocal(t *testing.T) {
	c := local()
	tests := []struct {
		method string
		args   []any
		want   any
		err    error
	}{
		{"do", nil, nil, nil},
		{"seek", []any{mode("f"), uint8(1), ptr(0)}, []any{"f", 1.0, 0.0}, nil},
		{"seek", []any{"f", int64(1)}, []any{"f", 1.0, 2.0}, nil},
		{"bytes", []any{driver.Base64{1, 2}}, "AQIA", nil},
		{"wait", []any{time.Second}, 2.0, nil},
		{"reading", nil, map[string]any{"voltage": 5.0}, nil},
		{"call1", []any{[]int{1, 2}}, []any{1.0, 2.0}, nil},
		{"do", []any{1}, nil, badArg("do(): arguments given: 1")},
		{"call1", []any{[]byte{1}}, nil, errors.New("call1: argument 1: encode: []uint8 travels only as driver.Base64")},
		{"off", nil, nil, errors.New("method off not found on driver: no such method")},
		{"", nil, nil, errors.New("method  not found on driver: no such method")},
		{"feed", nil, nil, errors.New("feed is a feed: no such method")},
		{"connect", nil, nil, errors.New("connect is a stream: no such method")},
		{"unsupported", nil, nil, errors.ErrUnsupported},
	}
	for _, test := range tests {
		got, err := c.Call(t.Context(), test.method, test.args...)
		if !failed(err, test.err) || !reflect.DeepEqual(got, test.want) {
			t.Errorf("Call(%s, %v) = %v, %v; want %v, %v", test.method, test.args, got, err, test.want, test.err)
		}
	}
	for _, test := range []struct {
		method string
		args   []any
		want   []any
		err    error
	}{
		{"feed", nil, []any{"a", "b"}, nil},
		{"feed1", []any{7}, []any{7.0}, errLate},
		{"feed1", nil, nil, badArg("feed1(a): arguments given: 0")},
		{"feed1", []any{make(chan int)}, nil, errors.New("feed1: argument 1: encode: chan int has no form on the wire")},
		{"tail", []any{"m", map[string]string{"A": "b"}, "x"}, []any{"m", map[string]any{"A": "b"}, []any{"x"}}, nil},
		{"do", nil, nil, errors.New("do is a call: no such method")},
		{"off", nil, nil, errors.New("method off not found on driver: no such method")},
	} {
		got, err := collect(c.Feed(t.Context(), test.method, test.args...))
		if !failed(err, test.err) || !reflect.DeepEqual(got, test.want) {
			t.Errorf("Feed(%s, %v) = %v, %v; want %v, %v", test.method, test.args, got, err, test.want, test.err)
		}
	}
	s, err := c.Stream(t.Context(), "connect")
	if err != nil {
		t.Fatalf("Stream(connect) = %v; want a stream", err)
	}
	defer s.Close()
	go func() { _, _ = io.WriteString(s, "hi") }()
	buf := make([]byte, 2)
	if _, err := io.ReadFull(s, buf); err != nil || string(buf) != "hi" {
		t.Errorf("Read() = %q, %v; want hi", buf, err)
	}
	for method, want := range map[string]string{
		"do":  "do is a call: no such method",
		"off": "method off not found on driver: no such method",
	} {
		if _, err := c.Stream(t.Context(), method); !failed(err, errors.New(want)) || !errors.Is(err, driver.ErrNoMethod) {
			t.Errorf("Stream(%s) = %v; want %s", method, err, want)
		}
	}
}

func TestInvoke(t *testing.T) {
	c := local()
	if got, err := driver.Invoke[reading](t.Context(), c, "reading"); err != nil || got != (reading{5}) {
		t.Errorf("Invoke(reading) = %v, %v; want {5}", got, err)
	}
	if got, err := driver.Invoke[driver.Base64](t.Context(), c, "bytes", driver.Base64(nil)); err != nil || string(got) != "\x00" {
		t.Errorf("Invoke(bytes) = %q, %v; want one zero", got, err)
	}
	if got, err := driver.Invoke[time.Duration](t.Context(), c, "wait", 300*time.Millisecond); err != nil || got != 600*time.Millisecond {
		t.Errorf("Invoke(wait) = %v, %v; want 600ms", got, err)
	}
	if err := driver.Run(t.Context(), c, "do1", "x"); !failed(err, errors.New("did x")) {
		t.Errorf("Run(do1) = %v; want did x", err)
	}
	if _, err := driver.Invoke[reading](t.Context(), c, "do1", "x"); !failed(err, errors.New("did x")) {
		t.Errorf("Invoke(do1) = %v; want did x", err)
	}
	// A bad answer is not the caller's bad argument.
	want := errors.New("call: result: unexpected: wants a mapping, got \"answer\"")
	if _, err := driver.Invoke[reading](t.Context(), c, "call"); !failed(err, want) {
		t.Errorf("Invoke(call) = %v; want %v", err, want)
	}
}

func gather[T any](seq iter.Seq2[T, error]) (list []T, err error) {
	for v, err := range seq {
		if err != nil {
			return list, err
		}
		list = append(list, v)
	}
	return list, nil
}

func TestIterate(t *testing.T) {
	c := local()
	if got, err := gather(driver.Iterate[string](t.Context(), c, "feed")); err != nil || !reflect.DeepEqual(got, []string{"a", "b"}) {
		t.Errorf("Iterate(feed) = %v, %v; want [a b]", got, err)
	}
	if got, err := gather(driver.Iterate[int](t.Context(), c, "feed1", 3)); err != errLate || !reflect.DeepEqual(got, []int{3}) {
		t.Errorf("Iterate(feed1) = %v, %v; want [3], late", got, err)
	}
	want := errors.New(`feed: result: unexpected: wants an integer, got "a"`)
	if got, err := gather(driver.Iterate[int](t.Context(), c, "feed")); !failed(err, want) || got != nil {
		t.Errorf("Iterate(feed) = %v, %v; want none, %v", got, err, want)
	}
	n := 0
	for range driver.Iterate[int](t.Context(), c, "count") {
		if n++; n == 3 {
			break
		}
	}
	if n != 3 {
		t.Errorf("Iterate(count) yielded %d until the loop ended; want 3", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := gather(driver.Iterate[int](ctx, c, "count")); !errors.Is(err, context.Canceled) || got != nil {
		t.Errorf("Iterate(count) of one who left = %v, %v; want none, canceled", got, err)
	}
}

type closer struct{ err error }

func (c closer) Close() error { return c.err }

func TestDriverClose(t *testing.T) {
	for _, test := range []struct {
		impl any
		want error
	}{
		{nil, nil}, {3, nil}, {closer{}, nil}, {closer{errLate}, errLate},
	} {
		if got := (driver.Driver{Impl: test.impl}).Close(); got != test.want {
			t.Errorf("Close() of %v = %v; want %v", test.impl, got, test.want)
		}
	}
}
