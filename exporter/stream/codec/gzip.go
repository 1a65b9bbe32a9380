package codec

import (
	"bufio"
	"encoding/binary"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/flate"
)

// A .gz file is a row of members: a header, deflated data, and a trailer with a
// checksum and the size of what was packed. RFC 1952.
const gzipMagic = "\x1f\x8b\x08" // the last byte says that it is deflated

// Flags of a header.
const (
	gzipHeaderCRC = 1 << 1
	gzipExtra     = 1 << 2
	gzipName      = 1 << 3
	gzipComment   = 1 << 4
	gzipReserved  = 0xe0
)

const gzipTrailer = 8

// gunzip unpacks gzip. It reads headers and trailers itself: a library's errors
// would not tell what was found where.
type gunzip struct {
	in       *input
	inflate  io.ReadCloser
	members  int
	inMember bool
	crc      uint32
	size     uint32
}

func (g *gunzip) close() {}

func (g *gunzip) Read(p []byte) (int, error) {
	for {
		if !g.inMember {
			if err := g.header(); err != nil {
				return 0, err
			}
		}
		n, err := g.inflate.Read(p)
		g.crc = crc32.Update(g.crc, crc32.IEEETable, p[:n])
		g.size += uint32(n)
		if err == io.EOF {
			err = g.trailer()
		} else if err != nil {
			err = g.in.failed(err, g.in.offset(), "deflated data")
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (g *gunzip) header() error {
	const what = "a member's header"
	in := g.in
	if err := in.begins(gzipMagic, "member", g.members); err != nil {
		return err
	}
	start := in.offset()
	var h [10]byte
	if err := in.full(h[:], what); err != nil {
		return err
	}
	crc := crc32.ChecksumIEEE(h[:])
	flags := h[3]
	if flags&gzipReserved != 0 {
		return in.unsupported(start+3, "flags %#x of a member", flags)
	}
	if flags&gzipExtra != 0 {
		var n [2]byte
		if err := in.full(n[:], what); err != nil {
			return err
		}
		crc = crc32.Update(crc, crc32.IEEETable, n[:])
		for left := int(binary.LittleEndian.Uint16(n[:])); left > 0; {
			b := h[:min(left, len(h))]
			if err := in.full(b, what); err != nil {
				return err
			}
			crc = crc32.Update(crc, crc32.IEEETable, b)
			left -= len(b)
		}
	}
	for _, flag := range []byte{gzipName, gzipComment} {
		for flags&flag != 0 {
			b, err := in.ReadSlice(0)
			crc = crc32.Update(crc, crc32.IEEETable, b)
			if err == nil {
				break
			}
			if err != bufio.ErrBufferFull {
				return in.failed(err, in.offset(), what)
			}
		}
	}
	if flags&gzipHeaderCRC != 0 {
		at := in.offset()
		var sum [2]byte
		if err := in.full(sum[:], what); err != nil {
			return err
		}
		if binary.LittleEndian.Uint16(sum[:]) != uint16(crc) {
			return in.corrupt(at, "the checksum of %s is wrong", what)
		}
	}
	if g.inflate == nil {
		g.inflate = flate.NewReader(in.Reader)
	} else if err := g.inflate.(flate.Resetter).Reset(in.Reader, nil); err != nil {
		return err
	}
	g.inMember, g.crc, g.size = true, 0, 0
	return nil
}

func (g *gunzip) trailer() error {
	at := g.in.offset()
	var t [gzipTrailer]byte
	if err := g.in.full(t[:], "a member's trailer"); err != nil {
		return err
	}
	if crc := binary.LittleEndian.Uint32(t[:]); crc != g.crc {
		return g.in.corrupt(at, "the checksum of a member is %08x; what is unpacked has %08x", crc, g.crc)
	}
	if size := binary.LittleEndian.Uint32(t[4:]); size != g.size {
		return g.in.corrupt(at+4, "the size of a member is %d; what is unpacked has %d (modulo 4 GiB)", size, g.size)
	}
	g.inMember = false
	g.members++
	return nil
}
