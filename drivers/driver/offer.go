package driver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// Offerer is a [Caller] that can open a stream beside a call. The typed clients
// of contracts that move data ask their caller for it, through [Upload] and
// [Download].
type Offerer interface {
	Caller

	// Offer opens a stream for one call on this node, and the handle that names
	// it. What the method reads is written to the stream and ended with
	// CloseWrite; what the method writes is read from it. The context bounds the
	// opening. Close must follow.
	Offer(ctx context.Context) (Resource, Handle, error)
}

// Upload makes a call that reads a stream, and sends it what src yields up to
// io.EOF. It succeeds only when all was sent and the call succeeded. The
// transfer overlaps the call, and ends with it: but a Read of src in which it
// is then has to return before Upload does.
func Upload(ctx context.Context, c Caller, src io.Reader, call func(context.Context, Handle) error) error {
	var all atomic.Bool
	err := beside(ctx, c, call, func(ctx context.Context, r Resource) (ours, theirs error) {
		_, ours, theirs = pump(ctx, r, src)
		if ours == nil && theirs == nil {
			all.Store(true) // before the other side can know
			theirs = r.CloseWrite()
		}
		return ours, theirs
	}, func() error {
		if !all.Load() {
			return errors.New("the call ended before all was sent")
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	return nil
}

// Download makes a call that writes a stream, and writes to dst what comes. It
// succeeds only when the stream came to its end and the call succeeded; when it
// fails, dst has got a part.
func Download(ctx context.Context, c Caller, dst io.Writer, call func(context.Context, Handle) error) error {
	err := beside(ctx, c, call, func(ctx context.Context, r Resource) (ours, theirs error) {
		_, theirs, ours = pump(ctx, dst, r)
		return ours, theirs
	}, func() error { return nil })
	if err != nil {
		return fmt.Errorf("download: %w", err)
	}
	return nil
}

// beside makes a call while move runs. An error of our own end ends the call,
// and comes first, as it is the cause of the others; then what the call says,
// then what is odd about its end, then the stream's.
func beside(ctx context.Context, c Caller, call func(context.Context, Handle) error,
	move func(context.Context, Resource) (ours, theirs error), check func() error) error {
	o, ok := c.(Offerer)
	if !ok {
		return fmt.Errorf("%T cannot offer streams: %w", c, errors.ErrUnsupported)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, h, err := o.Offer(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	defer context.AfterFunc(ctx, func() { r.Close() })()

	var ours, theirs error
	moved := make(chan struct{})
	go func() {
		defer close(moved)
		ours, theirs = move(ctx, r)
		if ours != nil || theirs != nil {
			r.Close()
		}
		if ours != nil {
			cancel()
		}
	}()
	err = call(ctx, h)
	odd := check()
	if err != nil || odd != nil {
		r.Close()
	}
	<-moved
	switch {
	case ours != nil:
		return ours
	case err != nil:
		return err
	case odd != nil:
		return odd
	}
	return theirs
}

// Take opens the stream that a caller's handle names and lets f read it. The
// stream yields io.EOF only when all of it has come; f must read so far and
// return any other error, or have its own reason to fail.
func (e *Env) Take(ctx context.Context, h Handle, f func(io.Reader) error) error {
	r, err := e.Open(ctx, h)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := f(r); err != nil {
		return err
	}
	_ = r.CloseWrite() // an end in good order; all has come whether or not it arrives
	return nil
}

// Give opens the stream that a caller's handle names and lets f write it. The
// caller sees its end only when f returned nil, and otherwise a stream that
// broke off.
func (e *Env) Give(ctx context.Context, h Handle, f func(io.Writer) error) error {
	r, err := e.Open(ctx, h)
	if err != nil {
		return err
	}
	if err = f(r); err == nil {
		err = r.CloseWrite()
	}
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	return err
}

// Copy moves bytes from src to dst until src is at its end, the context is done
// or either fails. The error tells which of the two it was, and after how many
// bytes.
func Copy(ctx context.Context, dst io.Writer, src io.Reader) (int64, error) {
	n, rerr, werr := pump(ctx, dst, src)
	if rerr != nil {
		return n, rerr
	}
	return n, werr
}

// pieces is what is moved at once: a multiple of what the streams of clients
// send as one chunk.
const pieces = 256 << 10

var pieceBuffers = sync.Pool{New: func() any { return new([pieces]byte) }}

// pump is [Copy] with the two errors apart. The context counts as the source's.
func pump(ctx context.Context, dst io.Writer, src io.Reader) (n int64, rerr, werr error) {
	buf := pieceBuffers.Get().(*[pieces]byte)
	defer pieceBuffers.Put(buf)
	for {
		if ctx.Err() != nil {
			return n, fmt.Errorf("stopped after %d bytes: %w", n, context.Cause(ctx)), nil
		}
		got, err := src.Read(buf[:])
		if got > 0 {
			put, werr := dst.Write(buf[:got])
			n += int64(put)
			if werr == nil && put < got {
				werr = io.ErrShortWrite
			}
			if werr != nil {
				return n, nil, fmt.Errorf("write after %d bytes: %w", n, werr)
			}
		}
		switch {
		case err == io.EOF:
			return n, nil, nil
		case err != nil:
			return n, fmt.Errorf("read after %d bytes: %w", n, err), nil
		}
	}
}
