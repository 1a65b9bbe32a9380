package codec

import (
	"compress/bzip2"
	"errors"
	"io"
)

// A .bz2 file is a row of streams, each of them a row of blocks with a checksum
// each, and a checksum over those. Nothing in it is aligned to bytes but the
// start of a stream.
const bzip2Magic = "BZh"

// bunzip2 unpacks bz2. The standard library's reader joins streams, looks at
// every checksum, and takes what follows a stream and is none for an error.
type bunzip2 struct {
	in *input
	r  io.Reader
}

func (b *bunzip2) close() {}

func (b *bunzip2) Read(p []byte) (int, error) {
	if b.r == nil {
		if err := b.in.begins(bzip2Magic, "stream", 0); err != nil {
			return 0, err
		}
		b.r = bzip2.NewReader(b.in.Reader)
	}
	n, err := b.r.Read(p)
	if err == nil || err == io.EOF {
		return n, err
	}
	// What comes with an error was unpacked from bits that were never read.
	var odd bzip2.StructuralError
	if errors.As(err, &odd) {
		return 0, b.in.corrupt(b.in.offset(), "%s", string(odd))
	}
	return 0, b.in.failed(err, b.in.offset(), "a stream")
}
