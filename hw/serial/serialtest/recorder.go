package serialtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
)

// signal wakes everybody who waits for a change. Its methods are called with the lock held that guards what changes.
type signal struct{ ch chan struct{} }

func (s *signal) next() <-chan struct{} {
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) broadcast() {
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

// Recorder keeps every byte that is written to it. A test asks for them all with Bytes, waits for some with Await, or
// takes them one after another with Read, as a model of a device does that answers to what it hears. The zero Recorder is
// ready for use.
type Recorder struct {
	mu      sync.Mutex
	all     []byte
	taken   int // how far Read has come
	closed  bool
	changed signal
}

// Write records p. It does not fail before Close.
func (r *Recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0, io.ErrClosedPipe
	}
	r.all = append(r.all, p...)
	r.changed.broadcast()
	return len(p), nil
}

// Bytes returns all that was recorded so far.
func (r *Recorder) Bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

// Await waits until want is part of what was recorded. When ctx is done before, the error quotes the end of what came
// instead.
func (r *Recorder) Await(ctx context.Context, want string) error {
	from := 0
	for {
		r.mu.Lock()
		found := bytes.Contains(r.all[from:], []byte(want))
		from = max(0, len(r.all)-len(want)) // a part of want may be there already
		tail := r.all[max(0, len(r.all)-80):]
		changed, closed := r.changed.next(), r.closed
		r.mu.Unlock()
		if found {
			return nil
		}
		if closed {
			return fmt.Errorf("await %q: closed; the last that came is %q", want, tail)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("await %q: %w; the last that came is %q", want, ctx.Err(), tail)
		}
	}
}

// Read takes the next recorded bytes, and waits for one at least. After Close and the last byte it is io.EOF.
func (r *Recorder) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		r.mu.Lock()
		n := copy(p, r.all[r.taken:])
		r.taken += n
		changed, closed := r.changed.next(), r.closed
		r.mu.Unlock()
		if n > 0 {
			return n, nil
		}
		if closed {
			return 0, io.EOF
		}
		<-changed
	}
}

// Close ends every Read and Await once they have seen what is there. The recorded bytes stay.
func (r *Recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.changed.broadcast()
	return nil
}
