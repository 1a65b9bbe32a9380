package codec

import (
	"encoding/binary"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/jumplead/jumplead/exporter/stream/codec/internal/lzma2"
)

// An xzWriter makes a stream of one block, with a CRC-64, as the program xz does
// with one thread.
type xzWriter struct {
	w      io.Writer
	n      int64 // bytes written
	block  int64 // where the block starts
	lzma   *lzma2.Encoder
	check  hash.Hash64
	size   int64
	header bool // has been written
}

func newXZWriter(w io.Writer) *xzWriter {
	x := &xzWriter{w: w, check: crc64.New(crc64Table)}
	x.lzma = lzma2.NewEncoder(countWriter{x})
	return x
}

// countWriter writes to x.w, and counts.
type countWriter struct{ x *xzWriter }

func (c countWriter) Write(p []byte) (int, error) {
	n, err := c.x.w.Write(p)
	c.x.n += int64(n)
	return n, err
}

func (x *xzWriter) begin() error {
	if x.header {
		return nil
	}
	x.header = true
	flags := []byte{0, xzCRC64}
	h := append([]byte(xzMagic), flags...)
	h = binary.LittleEndian.AppendUint32(h, crc32.ChecksumIEEE(flags))
	if _, err := (countWriter{x}).Write(h); err != nil {
		return err
	}
	x.block = x.n
	// Its size in words less one, no sizes, one filter: LZMA2 with one byte of
	// properties, which says how large the dictionary is.
	b := []byte{2, 0, xzLZMA2, 1, xzDictSize(lzma2.DictSize), 0, 0, 0}
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	_, err := countWriter{x}.Write(b)
	return err
}

// xzDictSize is how a power of two is said as the size of a dictionary.
func xzDictSize(n int) (b byte) {
	for n > 1<<12 {
		n /= 2
		b += 2
	}
	return b
}

func (x *xzWriter) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := x.begin(); err != nil {
		return 0, err
	}
	n, err := x.lzma.Write(p)
	x.check.Write(p[:n])
	x.size += int64(n)
	return n, err
}

func (x *xzWriter) Close() error {
	if err := x.begin(); err != nil {
		return err
	}
	if err := x.lzma.Close(); err != nil {
		return err
	}
	unpadded := x.n - x.block + int64(x.check.Size())
	tail := make([]byte, -x.n&3)
	tail = binary.LittleEndian.AppendUint64(tail, x.check.Sum64())

	index := []byte{0, 1}
	index = binary.AppendUvarint(index, uint64(unpadded))
	index = binary.AppendUvarint(index, uint64(x.size))
	index = append(index, make([]byte, -len(index)&3)...)
	index = binary.LittleEndian.AppendUint32(index, crc32.ChecksumIEEE(index))

	footer := binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4-1))
	footer = append(footer, 0, xzCRC64)
	tail = append(tail, index...)
	tail = binary.LittleEndian.AppendUint32(tail, crc32.ChecksumIEEE(footer))
	tail = append(tail, footer...)
	tail = append(tail, xzFooterMagic...)
	_, err := countWriter{x}.Write(tail)
	return err
}
