package local

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/shell"
)

// reading reads one pipe. What is written to the pipe's other end comes out of
// the channel, which is closed with the reader.
func reading(t *testing.T, before func(r, w *os.File)) (*run, <-chan string, *os.File) {
	t.Helper()
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r := &run{pipes: [2]*os.File{nil, from}, out: make(chan shell.Output), shut: make(chan struct{})}
	r.open.Store(1)
	if before != nil {
		before(from, to)
	}
	ctx, cancel := context.WithCancel(context.Background())
	texts, done := make(chan string), make(chan struct{})
	go func() {
		defer close(done)
		r.read(ctx, 1)
	}()
	go func() {
		defer close(texts)
		for {
			select {
			case o := <-r.out:
				if o.Stdout != "" {
					t.Errorf("read() = %q on standard output; want nothing", o.Stdout)
				}
				texts <- o.Stderr
			case <-r.shut:
				return
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		to.Close()
		<-done
		from.Close()
	})
	return r, texts, to
}

// A character that is written in two goes is one.
func TestReadJoins(t *testing.T) {
	drivertest.NoLeaks(t)
	_, texts, w := reading(t, nil)
	for _, step := range []struct{ in, want string }{
		{"a\xe2", "a"}, {"\x82\xacb\xf0\x9f", "€b"}, {"\x98\x80\xe2", "😀"}, {"(", "\uFFFD("}, {"z\xe2\x82", "z"},
	} {
		w.WriteString(step.in)
		if got := <-texts; got != step.want {
			t.Errorf("read(%q) = %q; want %q", step.in, got, step.want)
		}
	}
	w.Close()
	if got := <-texts; got != "\uFFFD" {
		t.Errorf("read() at the end = %q; want the rest", got)
	}
	if got, more := <-texts; more {
		t.Errorf("read() = %q behind the end; want nothing", got)
	}
}

// When a reader has to come to an end, what is in the pipe still counts, to the
// last byte.
func TestReadSweeps(t *testing.T) {
	drivertest.NoLeaks(t)
	full := strings.Repeat("0123456789abcdef", 4096)
	for _, in := range []string{"", "x", full, full[:9999] + "\xe2\x82"} {
		for _, open := range []bool{true, false} {
			r, texts, w := reading(t, func(r, w *os.File) {
				w.WriteString(in)
				if !open {
					w.Close()
				}
				r.SetReadDeadline(time.Unix(1, 0))
			})
			var got strings.Builder
			for s := range texts {
				got.WriteString(s)
			}
			if want := strings.ToValidUTF8(in, "\uFFFD"); got.String() != want {
				t.Errorf("read() = %d bytes; want %d", got.Len(), len(want))
			}
			if left := r.left.Load(); left != open {
				t.Errorf("left = %t; want %t", left, open)
			}
			if !open {
				continue
			}
			for range 3 { // more than the pipe holds: somebody goes on reading
				if _, err := w.WriteString(full); err != nil {
					t.Errorf("Write() to a pipe that was left = %v; want nil", err)
				}
			}
		}
	}
}
