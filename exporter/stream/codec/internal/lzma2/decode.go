package lzma2

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
)

// ErrCorrupt is a chunk that is none, or whose bytes do not fit together.
var ErrCorrupt = errors.New("corrupt LZMA2 chunk")

// Source is what chunks are read from.
type Source interface {
	io.Reader
	io.ByteReader
}

// slack is how far behind a chunk's end a single step may read before it is found out: a step has at most 48 bits, and
// takes in at most a byte for each of them.
const slack = 64

// A Decoder unpacks LZMA2. The zero Decoder has to be Reset.
type Decoder struct {
	// window is a ring of the last bytes that were made, up to pos; full says that it has gone round. Those from out on
	// have not been handed out.
	memory   memory
	window   []byte // of memory
	out, pos int
	full     bool

	inChunk   bool
	packed    bool // the chunk is packed
	left      int  // bytes that the chunk has still to make
	needDict  bool // the next chunk must reset the window
	needProps bool // the next packed chunk must have properties
	ended     bool

	props props
	rc    rangeDecoder
	state uint32
	reps  [4]uint32 // the last four distances, from 0
	copy  int       // bytes that the last match has still to make
	probs probs

	in  int // bytes of chunk
	buf [maxPacked + slack]byte
}

// Reset begins with a new row of chunks, which refer to at most dict bytes back, a multiple of 16. It fails if the kernel
// has no memory for that; a decoder that has some needs a Close.
func (d *Decoder) Reset(dict int) error {
	dict = max(dict, minDict)
	if err := d.need(dict); err != nil {
		return err
	}
	d.window = d.memory.bytes[:dict]
	d.out, d.pos, d.full = 0, 0, false
	d.inChunk, d.ended, d.left = false, false, 0
	d.needDict, d.needProps = true, true
	return nil
}

// Read unpacks into p what src has. It reads from src only what it needs in order to make at least one byte, and returns
// io.EOF behind the last chunk. An error of src is returned as it is, but io.EOF as io.ErrUnexpectedEOF.
func (d *Decoder) Read(src Source, p []byte) (int, error) {
	if d.window == nil {
		return 0, fs.ErrClosed
	}
	for len(p) > 0 {
		if d.out < d.pos {
			n := copy(p, d.window[d.out:d.pos])
			d.out += n
			return n, nil
		}
		if d.ended {
			return 0, io.EOF
		}
		if !d.inChunk {
			if err := d.next(src); err != nil {
				return 0, unexpected(err)
			}
			continue
		}
		if d.pos == len(d.window) { // everything up to there has been handed out
			d.out, d.pos, d.full = 0, 0, true
		}
		n := min(d.left, len(d.window)-d.pos)
		if d.packed {
			if err := d.unpack(d.pos + n); err != nil {
				return 0, err
			}
		} else {
			var err error
			if n, err = src.Read(d.window[d.pos : d.pos+n]); n == 0 && err != nil {
				return 0, unexpected(err)
			}
			d.pos += n
		}
		if d.left -= n; d.left > 0 {
			continue
		}
		d.inChunk = false
		if d.packed && !d.finished() {
			return 0, ErrCorrupt
		}
	}
	return 0, nil
}

// InChunk says whether a chunk has begun and not ended. If not, Read begins one,
// once it has handed out what there is.
func (d *Decoder) InChunk() bool { return d.inChunk }

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// next reads a chunk's header and, if it is packed, the chunk.
func (d *Decoder) next(src Source) error {
	ctl, err := src.ReadByte()
	if err != nil {
		return err
	}
	if ctl == ctlEnd {
		d.ended = true
		return nil
	}
	d.packed = ctl >= ctlPacked
	reset := int(ctl >> 5 & 3)
	if !d.packed && ctl > ctlStored {
		return ErrCorrupt
	}
	if ctl == ctlStoredReset || d.packed && reset == resetDict {
		d.needDict, d.needProps = false, true
		d.out, d.pos, d.full = 0, 0, false
	} else if d.needDict {
		return ErrCorrupt
	}

	var h [5]byte
	size := h[:2]
	if d.packed {
		if size = h[:4]; reset >= resetProps {
			size = h[:5]
		}
	}
	if _, err := io.ReadFull(src, size); err != nil {
		return err
	}
	d.inChunk = true
	d.left = int(binary.BigEndian.Uint16(h[:])) + 1
	if !d.packed {
		return nil
	}

	d.left += int(ctl&0x1f) << 16
	d.in = int(binary.BigEndian.Uint16(h[2:])) + 1
	if reset >= resetProps {
		var ok bool
		if d.props, ok = propsOf(h[4]); !ok {
			return ErrCorrupt
		}
		d.needProps = false
	}
	if reset >= resetState {
		d.probs.reset()
		d.state, d.reps = 0, [4]uint32{}
	}
	if d.needProps || d.in < 5 {
		return ErrCorrupt
	}
	if _, err := io.ReadFull(src, d.buf[:d.in]); err != nil {
		return err
	}
	clear(d.buf[d.in : d.in+slack])
	if d.buf[0] != 0 {
		return ErrCorrupt
	}
	d.rc = rangeDecoder{rng: 1<<32 - 1, code: binary.BigEndian.Uint32(d.buf[1:]), pos: 5}
	d.copy = 0
	return nil
}

// finished says whether a packed chunk that has made all its bytes is also at its end.
func (d *Decoder) finished() bool {
	c := d.rc.norm(d.buf[:])
	return d.copy == 0 && c.code == 0 && c.pos == d.in
}

// A rangeDecoder is handed on by value, so that its parts are in registers wherever it matters. Its code, as a share of
// its range, is what is left of the input.
type rangeDecoder struct {
	rng, code uint32
	pos       int
}

// norm takes in a byte when the range has become small. Each bit has one before it.
func (c rangeDecoder) norm(in []byte) rangeDecoder {
	if c.rng < topValue {
		c.rng <<= 8
		c.code = c.code<<8 | uint32(in[c.pos])
		c.pos++
	}
	return c
}

// bit takes a bit with the probability p, and teaches p.
func (c rangeDecoder) bit(p *uint16) (rangeDecoder, uint32) {
	v := *p
	b := (c.rng >> probBits) * uint32(v)
	if c.code < b {
		*p = v + (1<<probBits-v)>>moveBits
		c.rng = b
		return c, 0
	}
	*p = v - v>>moveBits
	c.rng -= b
	c.code -= b
	return c, 1
}

// coin is bit without a branch, for bits that are hard to guess.
func (c rangeDecoder) coin(p *uint16) (rangeDecoder, uint32) {
	v := *p
	b := (c.rng >> probBits) * uint32(v)
	zero := uint32(int64(uint64(c.code)-uint64(b)) >> 63) // all ones if the bit is 0
	*p = v - uint16(int16(v+uint16(zero)&(1<<16-1<<probBits+1<<moveBits-1))>>moveBits)
	c.rng = b&zero | (c.rng-b)&^zero
	c.code -= b &^ zero
	return c, zero + 1
}

// tree takes the bits of a number, the highest first, until sym, which began with a 1, has reached end. Each bit has its
// own probability for each row of bits before it.
func (c rangeDecoder) tree(in []byte, p *probs, base, sym, end uint32) (rangeDecoder, uint32) {
	for sym < end {
		var b uint32
		c, b = c.norm(in).coin(&p[(base+sym)&probsMask])
		sym = sym<<1 | b
	}
	return c, sym
}

// literal takes a byte. Behind a match it is known that it is not the byte that would have come next there (with), and
// the bits of that are part of the choice of probabilities for as long as they agree.
func (c rangeDecoder) literal(in []byte, p *probs, base, with uint32) (rangeDecoder, uint32) {
	sym, agree := uint32(1), uint32(0x100)
	for sym < 0x100 {
		with <<= 1
		var b uint32
		c, b = c.norm(in).coin(&p[(base+agree+with&agree+sym)&probsMask])
		sym = sym<<1 | b
		agree &= ^(with ^ -b)
	}
	return c, sym
}

// length takes that of a match: a choice of three ranges, and the place in it.
func (c rangeDecoder) length(in []byte, p *probs, base, posState uint32) (rangeDecoder, uint32) {
	var b, n uint32
	if c, b = c.norm(in).bit(&p[(base+lenChoice)&probsMask]); b == 0 {
		c, n = c.tree(in, p, base+lenLow+posState<<3, 1, 8)
		return c, n - 8 + minMatch
	}
	if c, b = c.norm(in).bit(&p[(base+lenChoice2)&probsMask]); b == 0 {
		c, n = c.tree(in, p, base+lenMid+posState<<3, 1, 8)
		return c, n - 8 + minMatch + 8
	}
	c, n = c.tree(in, p, base+lenHigh, 1, 256)
	return c, n - 256 + minMatch + 16
}

// distance takes that of a match, from 0.
func (c rangeDecoder) distance(in []byte, p *probs, length uint32) (rangeDecoder, uint32) {
	c, slot := c.tree(in, p, pSlot+lenClass(length)<<6, 1, 64)
	slot -= 64
	if slot < firstSpecialSlot {
		return c, slot
	}
	n := slot>>1 - 1
	dist := (2 | slot&1) << n
	base := pSpecial + dist - slot
	if slot >= firstPlainSlot {
		plain := uint32(0)
		for range n - alignBits {
			c = c.norm(in)
			c.rng >>= 1
			c.code -= c.rng
			neg := -(c.code >> 31)
			c.code += c.rng & neg
			plain = plain<<1 + neg + 1
		}
		dist += plain << alignBits
		base, n = pAlign, alignBits
	}
	// the lowest bit first
	sym := uint32(1)
	for i := range n {
		var b uint32
		c, b = c.norm(in).bit(&p[(base+sym)&probsMask])
		sym = sym<<1 | b
		dist += b << i
	}
	return c, dist
}

// unpack makes the bytes of a packed chunk up to limit, in one piece of the window.
func (d *Decoder) unpack(limit int) error {
	var (
		p            = &d.probs
		in           = d.buf[:d.in+slack]
		c            = d.rc
		w            = d.window
		pos          = d.pos
		state        = d.state
		props        = d.props
		mask         = uint32(1)<<props.pb - 1
		r0, r1       = d.reps[0], d.reps[1]
		r2, r3       = d.reps[2], d.reps[3]
		length, b, n uint32
	)
	if d.copy > 0 {
		pos = d.match(pos, limit, r0, d.copy)
	}
	for pos < limit {
		if c.pos > d.in {
			return ErrCorrupt // it ends too early
		}
		posState := uint32(pos) & mask
		if c, b = c.norm(in).bit(&p[(pMatch+state<<4+posState)&probsMask]); b == 0 {
			var prev byte
			if pos > 0 {
				prev = w[pos-1]
			} else if d.full {
				prev = w[len(w)-1]
			}
			base := props.literalSet(uint32(pos), prev)
			if state < firstMatchState {
				c, n = c.tree(in, p, base, 1, 0x100)
			} else {
				from := pos - int(r0) - 1
				if from < 0 {
					from += len(w)
				}
				c, n = c.literal(in, p, base, uint32(w[from]))
			}
			w[pos] = byte(n)
			pos++
			state = afterLiteral(state)
			continue
		}
		if c, b = c.norm(in).bit(&p[(pRep+state)&probsMask]); b == 0 {
			r1, r2, r3 = r0, r1, r2
			c, length = c.length(in, p, pMatchLen, posState)
			c, r0 = c.distance(in, p, length)
			state = afterMatch(state)
		} else {
			if c, b = c.norm(in).bit(&p[(pRepG0+state)&probsMask]); b == 0 {
				if c, b = c.norm(in).bit(&p[(pRep0Long+state<<4+posState)&probsMask]); b == 0 {
					length = 1
				}
			} else if c, b = c.norm(in).bit(&p[(pRepG1+state)&probsMask]); b == 0 {
				r0, r1 = r1, r0
				b = 1
			} else if c, b = c.norm(in).bit(&p[(pRepG2+state)&probsMask]); b == 0 {
				r0, r1, r2 = r2, r0, r1
				b = 1
			} else {
				r0, r1, r2, r3 = r3, r0, r1, r2
			}
			if b == 0 {
				state = afterShortRep(state)
			} else {
				c, length = c.length(in, p, pRepLen, posState)
				state = afterRep(state)
			}
		}
		if r0 >= uint32(pos) && (!d.full || r0 >= uint32(len(w))) {
			return ErrCorrupt // it refers to what never was
		}
		pos = d.match(pos, limit, r0, int(length))
	}
	d.rc, d.pos, d.state = c, pos, state
	d.reps = [4]uint32{r0, r1, r2, r3}
	return nil
}

// match copies length bytes from dist+1 back to pos, up to limit, and returns where it is then. The rest is for later.
func (d *Decoder) match(pos, limit int, dist uint32, length int) int {
	n := min(length, limit-pos)
	d.copy = length - n
	w := d.window
	from := pos - int(dist) - 1
	if from < 0 { // it begins in the ring's last round
		from += len(w)
		k := copy(w[pos:pos+n], w[from:])
		pos, n, from = pos+k, n-k, 0
	}
	end := pos + n
	for pos < end { // where it overlaps, what was copied doubles with each step
		pos += copy(w[pos:end], w[from:pos])
	}
	return end
}
