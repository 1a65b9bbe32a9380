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

// PackedOfferer is an [Offerer] whose streams may carry packed data: what is
// written to such a stream the method reads unpacked, and what the method writes
// is read from it packed. The encodings are gzip, xz, bz2 and zstd. One that
// neither side knows is [errors.ErrUnsupported].
type PackedOfferer interface {
	Offerer
	OfferPacked(ctx context.Context, encoding string) (Resource, Handle, error)
}

// Transfer says how the data of a call travels. The zero Transfer moves it as it
// is, and tells nobody.
type Transfer struct {
	// Encoding is how the data is packed at this end, as [PackedOfferer] has it:
	// what an Upload sends is unpacked by the other side, and what a Download gets
	// was packed there. "" is data that is not packed.
	Encoding string

	// Progress is told how many bytes have moved at this end, packed if they are,
	// and how many there will be; -1 if that is not known. It is called from one
	// goroutine at a time, often, and the transfer waits for it.
	Progress func(done, total int64)
}

// Upload is [Transfer.Upload] of data as it is.
func Upload(ctx context.Context, c Caller, src io.Reader, call func(context.Context, Handle) error) error {
	return Transfer{}.Upload(ctx, c, src, call)
}

// Download is [Transfer.Download] of data as it is.
func Download(ctx context.Context, c Caller, dst io.Writer, call func(context.Context, Handle) error) error {
	return Transfer{}.Download(ctx, c, dst, call)
}

// Upload makes a call that reads a stream, and sends it what src yields up to
// io.EOF. It succeeds only when all was sent and the call succeeded. The
// transfer overlaps the call, and ends with it: but a Read of src in which it
// is then has to return before Upload does. A [PresignedRequest] as src is
// fetched by the other side.
func (t Transfer) Upload(ctx context.Context, c Caller, src io.Reader, call func(context.Context, Handle) error) error {
	var all atomic.Bool
	err := t.presigned(ctx, src, "GET", call)
	if err == errNotPresigned {
		from := t.source(src)
		err = t.beside(ctx, c, call, func(ctx context.Context, r Resource) (ours, theirs error) {
			_, ours, theirs = pump(ctx, r, from)
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
	}
	if err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	return nil
}

// Download makes a call that writes a stream, and writes to dst what comes. It
// succeeds only when the stream came to its end and the call succeeded; when it
// fails, dst has got a part. A [PresignedRequest] as dst is sent to by the other
// side.
func (t Transfer) Download(ctx context.Context, c Caller, dst io.Writer, call func(context.Context, Handle) error) error {
	err := t.presigned(ctx, dst, "PUT", call)
	if err == errNotPresigned {
		to := dst
		if t.Progress != nil {
			to = &counted{told: t.Progress, total: -1, w: dst}
		}
		err = t.beside(ctx, c, call, func(ctx context.Context, r Resource) (ours, theirs error) {
			_, theirs, ours = pump(ctx, to, r)
			return ours, theirs
		}, func() error { return nil })
	}
	if err != nil {
		return fmt.Errorf("download: %w", err)
	}
	return nil
}

// PresignedRequest is an HTTP request that needs no other credentials, for the
// other side of a call to make: data then goes straight from a server to the
// device, or back. It is given to an Upload as its source (GET) or to a Download
// as its destination (PUT), and to all that is built on them; nothing comes by
// here, so that no progress is told. The data cannot be packed.
type PresignedRequest struct {
	URL     string            `json:"url"`     // http or https
	Method  string            `json:"method"`  // "" : the one that is needed
	Headers map[string]string `json:"headers"` // may be nil
}

// Read fails: an Upload knows a PresignedRequest, and does not read it.
func (r PresignedRequest) Read([]byte) (int, error) { return 0, errElsewhere }

// Write fails: a Download knows a PresignedRequest, and does not write to it.
func (r PresignedRequest) Write([]byte) (int, error) { return 0, errElsewhere }

var (
	errElsewhere    = fmt.Errorf("presigned request: the other side of a call makes it: %w", errors.ErrUnsupported)
	errNotPresigned = errors.New("not presigned")
)

// presigned makes a call whose data the other side moves by itself, if end is a
// request for that.
func (t Transfer) presigned(ctx context.Context, end any, method string, call func(context.Context, Handle) error) error {
	r, ok := end.(PresignedRequest)
	if !ok {
		return errNotPresigned
	}
	if r.Method != "" && r.Method != method {
		return fmt.Errorf("presigned request: %s where %s is needed", r.Method, method)
	}
	if t.Encoding != "" {
		return fmt.Errorf("presigned request: what the server has is moved as it is, not %s: %w", t.Encoding, errors.ErrUnsupported)
	}
	headers := r.Headers
	if headers == nil {
		headers = map[string]string{}
	}
	return call(ctx, NewHandle(map[string]any{"kind": "presigned_request", "url": r.URL, "method": method, "headers": headers}))
}

// source is what is read in place of src.
func (t Transfer) source(src io.Reader) io.Reader {
	if t.Progress == nil {
		return src
	}
	return &counted{told: t.Progress, total: length(src), r: src}
}

// length is how much a reader has left, or -1.
func length(src io.Reader) int64 {
	if l, ok := src.(interface{ Len() int }); ok {
		return int64(l.Len())
	}
	s, ok := src.(io.Seeker)
	if !ok {
		return -1
	}
	at, err := s.Seek(0, io.SeekCurrent)
	if err != nil {
		return -1
	}
	end, err := s.Seek(0, io.SeekEnd)
	if _, back := s.Seek(at, io.SeekStart); err != nil || back != nil || end <= at { // a device, perhaps
		return -1
	}
	return end - at
}

// counted tells how much was read or written.
type counted struct {
	told        func(done, total int64)
	done, total int64
	r           io.Reader
	w           io.Writer
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.count(n)
	return n, err
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.count(n)
	return n, err
}

func (c *counted) count(n int) {
	if n > 0 {
		c.done += int64(n)
		c.told(c.done, c.total)
	}
}

// offer opens a stream for a call.
func (t Transfer) offer(ctx context.Context, c Caller) (Resource, Handle, error) {
	if t.Encoding != "" {
		if o, ok := c.(PackedOfferer); ok {
			return o.OfferPacked(ctx, t.Encoding)
		}
		return nil, Handle{}, fmt.Errorf("%T cannot offer streams of packed data: %w", c, errors.ErrUnsupported)
	}
	if o, ok := c.(Offerer); ok {
		return o.Offer(ctx)
	}
	return nil, Handle{}, fmt.Errorf("%T cannot offer streams: %w", c, errors.ErrUnsupported)
}

// beside makes a call while move runs. An error of our own end ends the call,
// and comes first, as it is the cause of the others; then what the call says,
// then what is odd about its end, then the stream's.
func (t Transfer) beside(ctx context.Context, c Caller, call func(context.Context, Handle) error,
	move func(context.Context, Resource) (ours, theirs error), check func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, h, err := t.offer(ctx, c)
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
