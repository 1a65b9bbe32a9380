package codec

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/jumplead/jumplead/exporter/stream/codec/internal/lzma2"
)

// An .xz file is a row of streams, with zeros between them if need be. A stream
// is a header, blocks, an index that repeats the sizes of the blocks, and a
// footer; everything is a multiple of four bytes long. A block is a header,
// packed data, and a check of what was packed.
// https://tukaani.org/xz/xz-file-format.txt
const (
	xzMagic       = "\xfd7zXZ\x00"
	xzFooterMagic = "YZ"
)

// The checks of a stream, by their number.
const (
	xzNone   = 0x0
	xzCRC32  = 0x1
	xzCRC64  = 0x4
	xzSHA256 = 0xa
)

// Filters change data so that it packs better, and are chained before LZMA2.
const xzLZMA2 = 0x21

func xzFilter(id uint64) string {
	names := map[uint64]string{3: "delta", 4: "x86", 5: "powerpc", 6: "ia64", 7: "arm", 8: "armthumb", 9: "sparc", 10: "arm64", 11: "riscv"}
	if name, ok := names[id]; ok {
		return name
	}
	return fmt.Sprintf("%#x", id)
}

var crc64Table = crc64.MakeTable(crc64.ECMA)

// xzCheck is the check of that number, or nil if there is none.
func xzCheck(number byte) (h hash.Hash, known bool) {
	switch number {
	case xzNone:
		return nil, true
	case xzCRC32:
		return crc32.NewIEEE(), true
	case xzCRC64:
		return crc64.New(crc64Table), true
	case xzSHA256:
		return sha256.New(), true
	}
	return nil, false
}

// xzSum is the value of a check as it is stored.
func xzSum(h hash.Hash) []byte {
	sum := h.Sum(nil)
	if h.Size() <= 8 { // Go's CRCs have the highest byte first
		for i, j := 0, len(sum)-1; i < j; i, j = i+1, j-1 {
			sum[i], sum[j] = sum[j], sum[i]
		}
	}
	return sum
}

// An xzIndex is what a stream's index has to say: so many records, with this
// hash. The records themselves could be any number.
type xzIndex struct {
	n   uint64
	sum hash.Hash
}

func (x *xzIndex) add(unpadded, unpacked uint64) {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], unpadded)
	binary.LittleEndian.PutUint64(b[8:], unpacked)
	x.n++
	x.sum.Write(b[:])
}

// take returns the index, and begins a new one.
func (x *xzIndex) take() (n uint64, sum [sha256.Size]byte) {
	if x.sum == nil {
		x.sum = sha256.New()
	}
	n = x.n
	x.sum.Sum(sum[:0])
	x.n = 0
	x.sum.Reset()
	return n, sum
}

// unxz unpacks xz.
type unxz struct {
	in       *input
	streams  int
	inStream bool
	flags    [2]byte
	check    hash.Hash // of the stream, nil if there is none
	index    xzIndex

	header   [1024]byte // of a block
	inBlock  bool
	start    int64 // of the block, its header included
	data     int64 // where the block's packed data starts
	packed   int64 // how much of it there is, as the header says, or -1
	size     int64 // how much that makes, as the header says, or -1
	unpacked int64
	chunk    int64 // where the last chunk of packed data starts
	lzma     lzma2.Decoder
}

func (x *unxz) close() { x.lzma.Close() }

func (x *unxz) Read(p []byte) (int, error) {
	for {
		if x.inBlock {
			n, err := x.readBlock(p)
			if n > 0 || err != nil {
				return n, err
			}
			continue
		}
		if !x.inStream {
			if err := x.nextStream(); err != nil {
				return 0, err
			}
		}
		if err := x.nextBlock(); err != nil {
			return 0, err
		}
	}
}

// nextStream reads a stream's header, and the padding before it.
func (x *unxz) nextStream() error {
	in := x.in
	for padding := 0; x.streams > 0; padding++ {
		b, err := in.Peek(1)
		if err != nil || b[0] != 0 {
			if padding%4 == 0 {
				break
			}
			if err == nil {
				err = errors.New("it is not a multiple of 4 bytes")
			}
			return in.failed(err, in.offset(), "the padding of a stream")
		}
		in.Discard(1)
	}
	at := in.offset()
	if err := in.begins(xzMagic, "stream", x.streams); err != nil {
		return err
	}
	const what = "a stream's header"
	var h [12]byte
	if err := in.full(h[:], what); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(h[8:]) != crc32.ChecksumIEEE(h[6:8]) {
		return in.corrupt(at+8, "the checksum of %s is wrong", what)
	}
	x.flags = [2]byte(h[6:])
	if h[6] != 0 || h[7]&0xf0 != 0 {
		return in.unsupported(at+6, "flags %x of a stream", x.flags)
	}
	var known bool
	if x.check, known = xzCheck(h[7]); !known {
		return in.unsupported(at+7, "check %#x, so that nothing would tell damaged data from good", h[7])
	}
	x.index.take()
	x.inStream = true
	return nil
}

// nextBlock reads a block's header, or the end of a stream.
func (x *unxz) nextBlock() error {
	const what = "a block's header"
	in := x.in
	x.start = in.offset()
	size, err := in.ReadByte()
	if err != nil {
		return in.failed(err, x.start, "a stream")
	}
	if size == 0 {
		return x.endStream()
	}
	h := x.header[:4*(int(size)+1)]
	h[0] = size
	if err := in.full(h[1:], what); err != nil {
		return err
	}
	h, crc := h[:len(h)-4], h[len(h)-4:]
	if binary.LittleEndian.Uint32(crc) != crc32.ChecksumIEEE(h) {
		return in.corrupt(x.start+int64(len(h)), "the checksum of %s is wrong", what)
	}
	// The rest is as it was written. What does not fit was written wrongly.
	odd := func(why string) error { return in.corrupt(x.start, "%s: %s", what, why) }
	flags, r := h[1], bytes.NewReader(h[2:])
	if flags&0x3c != 0 {
		return in.unsupported(x.start+1, "flags %#x of a block", flags)
	}
	x.packed, x.size = -1, -1
	for _, f := range []struct {
		flag byte
		size *int64
	}{{0x40, &x.packed}, {0x80, &x.size}} {
		if flags&f.flag != 0 {
			v, ok := xzNumber(r)
			if !ok {
				return odd("a size that is no number")
			}
			*f.size = int64(v)
		}
	}
	if x.packed == 0 {
		return odd("a block without data")
	}
	if n := flags&3 + 1; n > 1 {
		id, _ := xzNumber(r)
		return in.unsupported(x.start, "a chain of %d filters, of which the first is %s: only LZMA2 alone is read", n, xzFilter(id))
	}
	id, ok1 := xzNumber(r)
	n, ok2 := xzNumber(r)
	bits, err := r.ReadByte()
	if ok1 && id != xzLZMA2 {
		return in.unsupported(x.start, "filter %s: only LZMA2 is read", xzFilter(id))
	}
	if !ok1 || !ok2 || n != 1 || err != nil || bits > 40 {
		return odd("a dictionary of no size")
	}
	dict := uint64(1)<<32 - 1
	if bits < 40 {
		dict = (2 | uint64(bits&1)) << (bits/2 + 11)
	}
	if dict > MaxWindow {
		return in.tooLarge(x.start, dict)
	}
	if err := x.lzma.Reset(int(dict)); err != nil {
		return &Error{Encoding: XZ, Offset: x.start, Kind: ErrTooLarge,
			Reason: fmt.Sprintf("it takes a window of %d MiB to unpack this, which this machine does not give: %v", (dict-1)>>20+1, err)}
	}
	for r.Len() > 0 {
		if b, _ := r.ReadByte(); b != 0 {
			return in.unsupported(x.start, "something new in %s", what)
		}
	}
	x.inBlock, x.data, x.unpacked = true, in.offset(), 0
	if x.check != nil {
		x.check.Reset()
	}
	return nil
}

// readBlock reads from a block, and its end, if that is what is next.
func (x *unxz) readBlock(p []byte) (int, error) {
	in := x.in
	if !x.lzma.InChunk() {
		x.chunk = in.offset()
	}
	n, err := x.lzma.Read(in, p)
	x.unpacked += int64(n)
	if x.check != nil {
		x.check.Write(p[:n])
	}
	packed := in.offset() - x.data
	switch {
	case err != nil && err != io.EOF:
		return n, in.failed(err, x.chunk, "a block")
	case x.packed >= 0 && packed > x.packed, x.size >= 0 && x.unpacked > x.size:
		return n, in.corrupt(in.offset(), "a block is longer than its header says")
	case err == nil:
		return n, nil
	case x.packed >= 0 && packed != x.packed, x.size >= 0 && x.unpacked != x.size:
		return n, in.corrupt(in.offset(), "a block is shorter than its header says")
	}
	var zeros [3]byte
	padding := zeros[:-packed&3]
	at := in.offset()
	if err := in.full(padding, "a block's padding"); err != nil {
		return n, err
	}
	if zeros != [3]byte{} {
		return n, in.corrupt(at, "a block's padding is not zero")
	}
	unpadded := in.offset() - int64(len(padding)) - x.start
	if x.check != nil {
		at := in.offset()
		sum := make([]byte, x.check.Size())
		if err := in.full(sum, "a block's check"); err != nil {
			return n, err
		}
		if !bytes.Equal(sum, xzSum(x.check)) {
			return n, in.corrupt(at, "the check of a block that starts at byte %d is wrong", x.start)
		}
		unpadded += int64(len(sum))
	}
	x.index.add(uint64(unpadded), uint64(x.unpacked))
	x.inBlock = false
	return n, nil
}

// endStream reads the index and the footer. The zero byte, which tells the index
// from a block, has been read.
func (x *unxz) endStream() error {
	const what = "a stream's index"
	in := x.in
	start := in.offset() - 1
	crc := crc32.NewIEEE()
	crc.Write([]byte{0})
	r := io.TeeReader(in, crc)
	var failed error
	number := func() uint64 {
		v, ok := xzNumber(byteReader{r, &failed})
		if !ok && failed == nil {
			failed = errors.New("there is a size that is no number")
		}
		return v
	}
	differs := errors.New("the sizes are not those of the blocks")
	blocks, want := x.index.take()
	if n := number(); failed == nil && n != blocks {
		failed = differs
	}
	for i := uint64(0); i < blocks && failed == nil; i++ {
		x.index.add(number(), number())
	}
	if _, got := x.index.take(); failed == nil && got != want {
		failed = differs
	}
	for failed == nil && (in.offset()-start)%4 != 0 {
		if b, err := (byteReader{r, &failed}).ReadByte(); err == nil && b != 0 {
			failed = errors.New("the padding is not zero")
		}
	}
	if failed != nil {
		return in.failed(failed, start, what)
	}
	size := in.offset() - start

	at := in.offset()
	var sum [4]byte
	if err := in.full(sum[:], what); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(sum[:]) != crc.Sum32() {
		return in.corrupt(at, "the checksum of %s is wrong", what)
	}

	at = in.offset()
	var f [12]byte
	if err := in.full(f[:], "a stream's footer"); err != nil {
		return err
	}
	switch {
	case string(f[10:]) != xzFooterMagic:
		return in.corrupt(at+10, "there is no footer at the end of a stream")
	case binary.LittleEndian.Uint32(f[:]) != crc32.ChecksumIEEE(f[4:10]):
		return in.corrupt(at, "the checksum of a stream's footer is wrong")
	case int64(binary.LittleEndian.Uint32(f[4:])) != size/4 || [2]byte(f[8:]) != x.flags:
		return in.corrupt(at+4, "a stream's footer does not fit to the stream")
	}
	x.inStream = false
	x.streams++
	return nil
}

// byteReader reads bytes one by one, and keeps the first error.
type byteReader struct {
	io.Reader
	err *error
}

func (r byteReader) ReadByte() (byte, error) {
	var b [1]byte
	_, err := io.ReadFull(r.Reader, b[:])
	if err != nil && *r.err == nil {
		*r.err = err
	}
	return b[0], err
}

// xzNumber reads a number: seven bits a byte, the lowest first, and the eighth
// says that it goes on. There is only one way to write each.
func xzNumber(r io.ByteReader) (v uint64, ok bool) {
	for i := range 9 {
		b, err := r.ReadByte()
		if err != nil || b == 0 && i > 0 {
			return 0, false
		}
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			return v, true
		}
	}
	return 0, false
}
