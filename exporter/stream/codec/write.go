package codec

import (
	"io"
	"io/fs"

	"github.com/dsnet/compress/bzip2"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Packing is for boards: fast rather than tight, with little memory. On one core
// of a server (2026), for an image of programs and text, it is about this; the
// benchmarks compare it with the programs.
//
//	        packs like  speed
//	gzip    gzip -4     190 MB/s
//	xz      xz -1        35 MB/s
//	bz2     bzip2 -2     17 MB/s
//	zstd    zstd -2     320 MB/s
const (
	gzipLevel  = 5
	bzip2Level = 3
	zstdLevel  = zstd.SpeedDefault
	zstdWindow = 2 << 20
)

// NewWriter returns a writer that packs into w. What it makes is complete only
// when Close has returned nil; Close does not close w, and fails if a Write has
// failed. A writer that is not wanted any more need not be closed. Errors of w
// are returned as they are.
func NewWriter(encoding string, w io.Writer) (io.WriteCloser, error) {
	out := &sink{w: w}
	var z io.WriteCloser
	var err error
	switch encoding {
	case Gzip:
		z, err = gzip.NewWriterLevel(out, gzipLevel)
	case XZ:
		z = newXZWriter(out)
	case Bzip2:
		z, err = bzip2.NewWriter(out, &bzip2.WriterConfig{Level: bzip2Level})
	case Zstd:
		z, err = zstd.NewWriter(out, zstd.WithEncoderLevel(zstdLevel), zstd.WithWindowSize(zstdWindow),
			zstd.WithEncoderConcurrency(1), zstd.WithZeroFrames(true)) // nothing makes a frame, too
	default:
		return nil, unknown(encoding)
	}
	if err != nil {
		return nil, err
	}
	return &writer{z: z, out: out}, nil
}

type writer struct {
	z   io.WriteCloser // nil after Close
	out *sink
	err error // of a Write or of Close
}

func (w *writer) Write(p []byte) (int, error) {
	if w.z == nil {
		return 0, fs.ErrClosed
	}
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.z.Write(p)
	return n, w.keep(err)
}

func (w *writer) Close() error {
	if w.z != nil {
		if w.err == nil {
			w.keep(w.z.Close())
		}
		w.z = nil
	}
	return w.err
}

// keep is the error of the sink, if there is one: a packer may not pass it on.
func (w *writer) keep(err error) error {
	if w.err = err; w.out.err != nil {
		w.err = w.out.err
	}
	return w.err
}

// sink keeps the error of a writer.
type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.w.Write(p)
	if n < len(p) && err == nil {
		err = io.ErrShortWrite
	}
	s.err = err
	return n, err
}
