// Package codec packs and unpacks byte streams in the four content encodings
// that clients send and ask for: gzip, xz, bz2 and zstd.
//
// What is at stake is an image on its way to or from a device. A file that came
// short and is taken for whole is worse than one that fails, so a reader is
// stricter than some of the programs that people use by hand:
//
//   - It ends with io.EOF in one place only: where the input ends and a member
//     (gzip), stream (xz, bz2) or frame (zstd) has just ended, with every
//     checksum and size in it found right.
//   - Members are joined, as what they are called is only a matter of the
//     format: pigz, pbzip2, pzstd, `xz -T` and `cat a.gz b.gz` make such files.
//   - An input without a byte in it is truncated. All four programs refuse it,
//     and pack nothing into something.
//   - What follows the last member and is no member is an error. The programs
//     bzip2 and gzip pass over it, and gzip says nothing if it is zeros; but
//     zeros are also what a file has at its end whose last pages were never
//     written. Only the padding between and behind the streams of xz (zero
//     bytes, four at a time) is part of the format.
//
// What no reader of these formats can see is an input that lacks whole members
// at its end. Of those that pzstd makes it can: they announce the next one.
// Nor can it see what was changed where a file carries no checksum, which the
// programs xz and zstd write only when told to.
//
// # Memory
//
// A reader has buffers, and the window into which the format refers back. A
// file says how large its window is before anything is unpacked. Above
// [MaxWindow] it is refused; below, the window takes what the data fills, and the
// process grows by that and some 3 MB. A large window is given back where the
// data ends, or by Close.
//
//	        window          that is
//	gzip    32 KiB
//	bz2     4 MB            (-9)
//	xz      256 KiB-64 MiB  -0 to -9; 8 MiB as xz does it by default
//	zstd    512 KiB-8 MiB   -1 to -19; 2 MiB by default; 64 MiB with --long=26
//
// A writer takes 3 MB (gzip) to 9 MB.
//
// Neither reader nor writer starts a goroutine. A reader reads from its input
// only when it has nothing left to hand out, so that what a sender flushed
// arrives before it sends on.
package codec

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// The content encodings, as they are named on the wire.
const (
	Gzip  = "gzip"
	XZ    = "xz"
	Bzip2 = "bz2"
	Zstd  = "zstd"
)

// Encodings lists the content encodings.
func Encodings() []string { return []string{Gzip, XZ, Bzip2, Zstd} }

// MaxWindow is the largest window or dictionary that a reader provides, in
// bytes: that of `xz -9` and `zstd --long=26`.
const MaxWindow = 64 << 20

// The kinds of [Error]. Data in a variant of the format that is not read here
// has the kind [errors.ErrUnsupported].
var (
	ErrCorrupt   = errors.New("corrupt")
	ErrTruncated = fmt.Errorf("truncated (%w)", io.ErrUnexpectedEOF)
	ErrTooLarge  = errors.New("too large a window")
)

// An Error says what is wrong with packed data.
type Error struct {
	Encoding string
	Offset   int64  // in the packed data, from 0: where it was found out
	Kind     error  // ErrCorrupt, ErrTruncated, ErrTooLarge or errors.ErrUnsupported
	Reason   string // what was found
}

func (e *Error) Error() string {
	kind := e.Kind.Error()
	switch e.Kind {
	case ErrTruncated:
		kind = "truncated"
	case errors.ErrUnsupported:
		kind = "not supported"
	}
	return fmt.Sprintf("%s data: %s at byte %d: %s", e.Encoding, kind, e.Offset, e.Reason)
}

func (e *Error) Unwrap() error { return e.Kind }

func unknown(encoding string) error {
	return fmt.Errorf("content encoding %q is none of %s: %w", encoding, strings.Join(Encodings(), ", "), errors.ErrUnsupported)
}

// NewReader returns a reader of what is packed in r. It reads nothing before
// the first Read. Errors of r are returned as they are; all others are of type
// *[Error]. What was unpacked up to an error is handed out before it. Close
// does not close r, and is not for use while a Read goes on.
func NewReader(encoding string, r io.Reader) (io.ReadCloser, error) {
	in := newInput(encoding, r)
	var u unpacker
	switch encoding {
	case Gzip:
		u = &gunzip{in: in}
	case XZ:
		u = &unxz{in: in}
	case Bzip2:
		u = &bunzip2{in: in}
	case Zstd:
		u = newUnzstd(in)
	default:
		return nil, unknown(encoding)
	}
	return &reader{unpacker: u}, nil
}

// An unpacker returns io.EOF where the input may end; its error is final. It is
// not asked for no bytes.
type unpacker interface {
	Read(p []byte) (int, error)
	close()
}

type reader struct {
	unpacker
	err error
}

func (r *reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := r.unpacker.Read(p)
	if err != nil {
		r.end(err)
	}
	return n, err
}

func (r *reader) Close() error {
	r.end(fs.ErrClosed)
	return nil
}

// end gives back the memory.
func (r *reader) end(err error) {
	if r.unpacker != nil {
		r.unpacker.close()
	}
	r.unpacker, r.err = nil, err
}

// inputBuffer is how much a reader asks of its input at a time.
const inputBuffer = 32 << 10

// input is packed data on its way in.
type input struct {
	*bufio.Reader
	src      source
	encoding string
}

func newInput(encoding string, r io.Reader) *input {
	in := &input{encoding: encoding, src: source{r: r}}
	in.Reader = bufio.NewReaderSize(&in.src, inputBuffer)
	return in
}

// offset is where the next byte is.
func (in *input) offset() int64 { return in.src.n - int64(in.Buffered()) }

// source counts what comes, and keeps the error that it ends with.
type source struct {
	r      io.Reader
	n      int64
	err    error // is set once whoever reads has seen it
	coming error
	idle   int
}

func (s *source) Read(p []byte) (int, error) {
	if s.err == nil && s.coming == nil {
		var n int
		n, s.coming = s.r.Read(p)
		s.n += int64(n)
		if n > 0 {
			s.idle = 0
			return n, nil
		}
		if s.idle++; s.idle >= 100 && s.coming == nil { // then bufio would give up, too
			s.coming = io.ErrNoProgress
		}
	}
	s.err = s.coming
	return 0, s.err
}

func (in *input) corrupt(at int64, format string, args ...any) error {
	return &Error{Encoding: in.encoding, Offset: at, Kind: ErrCorrupt, Reason: fmt.Sprintf(format, args...)}
}

func (in *input) unsupported(at int64, format string, args ...any) error {
	return &Error{Encoding: in.encoding, Offset: at, Kind: errors.ErrUnsupported, Reason: fmt.Sprintf(format, args...)}
}

// tooLarge refuses a window.
func (in *input) tooLarge(at int64, window uint64) error {
	return &Error{Encoding: in.encoding, Offset: at, Kind: ErrTooLarge,
		Reason: fmt.Sprintf("it takes a window of %d MiB to unpack this; the limit is %d MiB", (window-1)>>20+1, MaxWindow>>20)}
}

// failed is why an attempt to read or unpack what failed with err: the input
// ended, or broke, or what it says makes no sense; that was found out at a byte.
func (in *input) failed(err error, at int64, what string) error {
	switch broke := in.src.err; {
	case broke == io.EOF && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)):
		return &Error{Encoding: in.encoding, Offset: in.src.n, Kind: ErrTruncated, Reason: "it ends within " + what}
	case broke != nil && broke != io.EOF && (errors.Is(err, broke) || in.Buffered() == 0):
		return broke
	}
	return in.corrupt(at, "%s: %v", what, err)
}

// full reads all of p, a part of what.
func (in *input) full(p []byte, what string) error {
	if _, err := io.ReadFull(in, p); err != nil {
		return in.failed(err, in.offset(), what)
	}
	return nil
}

// begins looks whether magic is next, which a unit (a member, a stream) begins
// with, and leaves it there. After at least one unit the input may end here:
// that is io.EOF.
func (in *input) begins(magic string, unit string, count int) error {
	got, err := in.Peek(len(magic))
	switch {
	case string(got) == magic:
		return nil
	case in.src.err != nil && in.src.err != io.EOF:
		return in.src.err
	case len(got) == 0 && count > 0:
		return io.EOF
	case len(got) == 0:
		return &Error{Encoding: in.encoding, Kind: ErrTruncated, Reason: "it is empty"}
	case strings.HasPrefix(magic, string(got)):
		return in.failed(err, in.offset(), "the header of a "+unit)
	case count > 0:
		return in.corrupt(in.offset(), "trailing garbage: what follows %s %d is no %[1]s", unit, count)
	}
	return in.corrupt(in.offset(), "it is no %s: it begins with %x", in.encoding, got)
}
