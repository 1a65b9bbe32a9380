package lzma2

import (
	"encoding/binary"
	"io"
	"math/bits"
)

// What the encoder spends. It is made for boards: about 8 MB of memory, and the
// speed and the result of the lower levels of the xz program.
const (
	DictSize = 1 << 20 // how far back it refers, in bytes

	chunkSize = 1 << 17 // it packs so much at a time
	nice      = 96      // a match of this length is taken as it is
	depth     = 6       // places that are looked at for a match
	hash3Bits = 13
	hash4Bits = 16
	near      = 1 << 12 // how far a match of three bytes may be away
)

// An Encoder packs into LZMA2.
type Encoder struct {
	w io.Writer

	// win is what was written: up to from it has been packed, and stays for as
	// long as it may be referred to. The position in it, modulo 16, is that since
	// the start.
	win      []byte
	from, to int

	// Places of the last three and four bytes that hash to a number, and for each
	// place the one before it with the same four; from 1, as 0 is none.
	hash3 [1 << hash3Bits]int32
	hash4 [1 << hash4Bits]int32
	chain [DictSize]int32

	reset int // what the next packed chunk resets
	state uint32
	reps  [4]uint32
	probs probs
	out   rangeOutput
}

// NewEncoder returns an encoder that writes to w.
func NewEncoder(w io.Writer) *Encoder {
	return &Encoder{w: w, win: make([]byte, 2*DictSize+chunkSize), reset: resetDict}
}

// The properties that are used, which are those that xz uses by default.
var encoderProps = props{lc: 3, lp: 0, pb: 2}

// Write packs p. What it writes are whole chunks, so that the rest waits for
// more, or for Close.
func (e *Encoder) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		if e.to == len(e.win) {
			e.slide()
		}
		n := copy(e.win[e.to:], p)
		e.to += n
		p = p[n:]
		written += n
		for e.to-e.from >= chunkSize {
			if err := e.chunk(e.from + chunkSize); err != nil {
				return written, err
			}
		}
	}
	return written, nil
}

// Close packs the rest, and writes the end.
func (e *Encoder) Close() error {
	for e.from < e.to {
		if err := e.chunk(e.to); err != nil {
			return err
		}
	}
	_, err := e.w.Write([]byte{ctlEnd})
	return err
}

// slide forgets what is too far back. The places in the chain stay where they are.
func (e *Encoder) slide() {
	copy(e.win, e.win[DictSize:e.to])
	e.from -= DictSize
	e.to -= DictSize
	for _, table := range [][]int32{e.hash3[:], e.hash4[:], e.chain[:]} {
		for i, p := range table {
			table[i] = max(p-DictSize, 0)
		}
	}
}

// chunk packs at most what is before to, and writes it.
func (e *Encoder) chunk(to int) error {
	if e.reset >= resetState {
		e.probs.reset()
		e.state, e.reps = 0, [4]uint32{}
	}
	start := e.from
	e.pack(to)
	unpacked := e.from - start
	packed := e.out.buf[:e.out.n]

	if len(packed) < unpacked {
		var h [6]byte
		size := h[:5]
		h[0] = ctlPacked | byte(e.reset<<5) | byte((unpacked-1)>>16)
		binary.BigEndian.PutUint16(h[1:], uint16(unpacked-1))
		binary.BigEndian.PutUint16(h[3:], uint16(len(packed)-1))
		if e.reset >= resetProps {
			h[5] = encoderProps.byte()
			size = h[:6]
		}
		e.reset = resetNothing
		return e.write(size, packed)
	}

	for start < e.from {
		data := e.win[start:min(start+maxPacked, e.from)]
		start += len(data)
		var h [3]byte
		h[0] = ctlStored
		if e.reset == resetDict {
			h[0] = ctlStoredReset
			e.reset = resetProps
		}
		binary.BigEndian.PutUint16(h[1:], uint16(len(data)-1))
		if err := e.write(h[:], data); err != nil {
			return err
		}
	}
	e.reset = max(e.reset, resetState)
	return nil
}

func (e *Encoder) write(header, data []byte) error {
	if _, err := e.w.Write(header); err != nil {
		return err
	}
	_, err := e.w.Write(data)
	return err
}

// A step is what can be done at a place: a match, of a distance from 0, or, if
// rep is not negative, of one of the last four distances. It saves about so many
// bits.
type step struct {
	length uint32
	dist   uint32
	rep    int32
	saves  int32
}

// Rough prices, in bits.
const (
	priceLiteral  = 6
	priceMatch    = 8
	priceRep      = 6
	priceShortRep = 5
)

// find enters a place and looks for the best step there. No match goes beyond
// limit.
func (e *Encoder) find(pos, limit int) step {
	w := e.win
	best := step{rep: -1}
	left := limit - pos
	if left < 4 {
		return best
	}
	left = min(left, maxMatch)
	here := binary.LittleEndian.Uint32(w[pos:])

	h3 := here << 8 * 0x9e3779b1 >> (32 - hash3Bits)
	h4 := here * 0x9e3779b1 >> (32 - hash4Bits)
	p3, p4 := e.hash3[h3], e.hash4[h4]
	if p4 == int32(pos)+1 { // it was entered when the last chunk was full
		p4 = e.chain[pos&(DictSize-1)]
	}
	e.hash3[h3] = int32(pos) + 1
	e.hash4[h4] = int32(pos) + 1
	e.chain[pos&(DictSize-1)] = p4

	for i, dist := range e.reps {
		from := pos - int(dist) - 1
		if from < 0 || w[from] != w[pos] || w[from+1] != w[pos+1] {
			continue
		}
		n := same(w, from, pos, left)
		if s := int32(n*priceLiteral - priceRep - i); s > best.saves {
			best = step{length: uint32(n), dist: dist, rep: int32(i), saves: s}
		}
	}
	if best.length >= nice {
		return best
	}
	length := 2
	if from := int(p3) - 1; from >= 0 && from < pos && pos-from <= near && (binary.LittleEndian.Uint32(w[from:])^here)<<8 == 0 {
		length = same(w, from, pos, left)
		best = better(best, length, pos-from-1)
	}
	for i := 0; i < depth && length < left; i++ {
		from := int(p4) - 1
		if from < 0 || pos-from > DictSize {
			break
		}
		if w[from+length] == w[pos+length] && binary.LittleEndian.Uint32(w[from:]) == here {
			if n := same(w, from, pos, left); n > length {
				length = n
				best = better(best, n, pos-from-1)
				if n >= nice {
					break
				}
			}
		}
		p4 = e.chain[from&(DictSize-1)]
	}
	return best
}

// better is a match, or what there was.
func better(best step, length, dist int) step {
	price := priceMatch + max(bits.Len32(uint32(dist)), 4)
	if s := int32(length*priceLiteral - price); s > best.saves {
		return step{length: uint32(length), dist: uint32(dist), rep: -1, saves: s}
	}
	return best
}

// same is how many bytes from two places on are, up to n. At least two are.
func same(w []byte, a, b, n int) int {
	x, y := w[a:a+n], w[b:b+n]
	i := 0
	for i+8 <= len(x) && i+8 <= len(y) {
		if d := binary.LittleEndian.Uint64(x[i:]) ^ binary.LittleEndian.Uint64(y[i:]); d != 0 {
			return i + bits.TrailingZeros64(d)>>3
		}
		i += 8
	}
	for i < len(x) && i < len(y) && x[i] == y[i] {
		i++
	}
	return i
}

// pack packs what is before to, as far as it fits into a chunk.
func (e *Encoder) pack(to int) {
	o, p := &e.out, &e.probs
	o.n, o.cache, o.run = 0, 0, 1
	c := rangeEncoder{rng: 1<<32 - 1}
	w := e.win
	pos := e.from
	mask := uint32(1)<<encoderProps.pb - 1

	next := e.find(pos, to)
	for pos < to && o.n+o.run < maxPacked-slack {
		here := next
		known := false // next is that of pos+1
		if here.length > 0 && here.length < nice {
			// A literal first may be worth it.
			next = e.find(pos+1, to)
			known = true
			if next.saves > here.saves+2 {
				here = step{}
			}
		}

		posState := uint32(pos) & mask
		var prev byte
		if pos > 0 {
			prev = w[pos-1]
		}
		isMatch := &p[(pMatch+e.state<<4+posState)&probsMask]
		if here.length == 0 {
			with := uint32(0)
			if i := pos - int(e.reps[0]) - 1; i >= 0 {
				with = uint32(w[i])
			}
			if e.state >= firstMatchState && with == uint32(w[pos]) && pos > int(e.reps[0]) {
				// The byte at the last distance, as it is.
				c = c.bit(isMatch, 1).norm(o)
				c = c.bit(&p[(pRep+e.state)&probsMask], 1).norm(o)
				c = c.bit(&p[(pRepG0+e.state)&probsMask], 0).norm(o)
				c = c.bit(&p[(pRep0Long+e.state<<4+posState)&probsMask], 0).norm(o)
				e.state = afterShortRep(e.state)
			} else {
				c = c.bit(isMatch, 0).norm(o)
				base := encoderProps.literalSet(uint32(pos), prev)
				if e.state < firstMatchState {
					c = c.tree(o, p, base, uint32(w[pos]), 8)
				} else {
					c = c.literal(o, p, base, uint32(w[pos]), with)
				}
				e.state = afterLiteral(e.state)
			}
			pos++
			if !known {
				next = e.find(pos, to)
			}
			continue
		}

		c = c.bit(isMatch, 1).norm(o)
		if here.rep < 0 {
			c = c.bit(&p[(pRep+e.state)&probsMask], 0).norm(o)
			c = c.length(o, p, pMatchLen, here.length, posState)
			c = c.distance(o, p, here.dist, here.length)
			e.reps = [4]uint32{here.dist, e.reps[0], e.reps[1], e.reps[2]}
			e.state = afterMatch(e.state)
		} else {
			c = c.bit(&p[(pRep+e.state)&probsMask], 1).norm(o)
			if here.rep == 0 {
				c = c.bit(&p[(pRepG0+e.state)&probsMask], 0).norm(o)
				c = c.bit(&p[(pRep0Long+e.state<<4+posState)&probsMask], 1).norm(o)
			} else {
				c = c.bit(&p[(pRepG0+e.state)&probsMask], 1).norm(o)
				if here.rep == 1 {
					c = c.bit(&p[(pRepG1+e.state)&probsMask], 0).norm(o)
				} else {
					c = c.bit(&p[(pRepG1+e.state)&probsMask], 1).norm(o)
					c = c.bit(&p[(pRepG2+e.state)&probsMask], uint32(here.rep)-2).norm(o)
				}
				copy(e.reps[1:here.rep+1], e.reps[:here.rep])
				e.reps[0] = here.dist
			}
			c = c.length(o, p, pRepLen, here.length, posState)
			e.state = afterRep(e.state)
		}
		// Enter the places that are passed.
		end := pos + int(here.length)
		pos++
		if known {
			pos++
		}
		for ; pos < min(end, to-3); pos++ {
			e.enter(pos)
		}
		pos = end
		next = e.find(pos, to)
	}
	e.from = pos
	for range 5 {
		c = c.shift(o)
	}
}

// enter is find without looking.
func (e *Encoder) enter(pos int) {
	here := binary.LittleEndian.Uint32(e.win[pos:])
	h3 := here << 8 * 0x9e3779b1 >> (32 - hash3Bits)
	h4 := here * 0x9e3779b1 >> (32 - hash4Bits)
	e.hash3[h3] = int32(pos) + 1
	e.chain[pos&(DictSize-1)] = e.hash4[h4]
	e.hash4[h4] = int32(pos) + 1
}

// A rangeEncoder is handed on by value, as a rangeDecoder is. low is the lower
// end of the range; its 33rd bit is a carry.
type rangeEncoder struct {
	low uint64
	rng uint32
}

// rangeOutput is what a range encoder has made. Its last bytes are held back: a
// carry would change a byte and the run of 0xff behind it.
type rangeOutput struct {
	n     int // bytes of buf
	cache byte
	run   int // of held back bytes, the cache included
	buf   [maxPacked + slack]byte
}

// bit puts a bit in, with the probability p, and teaches p. norm has to follow.
func (c rangeEncoder) bit(p *uint16, bit uint32) rangeEncoder {
	v := *p
	b := (c.rng >> probBits) * uint32(v)
	one := -bit // all ones
	*p = v - uint16(int16(v+uint16(^one)&(1<<16-1<<probBits+1<<moveBits-1))>>moveBits)
	c.low += uint64(b & one)
	c.rng = b&^one | (c.rng-b)&one
	return c
}

func (c rangeEncoder) norm(o *rangeOutput) rangeEncoder {
	if c.rng < topValue {
		c.rng <<= 8
		return c.shift(o)
	}
	return c
}

// shift puts a byte out.
//
//go:noinline
func (c rangeEncoder) shift(o *rangeOutput) rangeEncoder {
	if uint32(c.low) < 0xff000000 || c.low>>32 != 0 {
		carry := byte(c.low >> 32)
		b := o.cache + carry
		for ; o.run > 0; o.run-- {
			o.buf[o.n] = b
			o.n++
			b = 0xff + carry
		}
		o.cache = byte(c.low >> 24)
	}
	o.run++
	c.low = c.low & 0x00ffffff << 8
	return c
}

// tree puts in the lowest n bits of v, the highest first.
func (c rangeEncoder) tree(o *rangeOutput, p *probs, base, v, n uint32) rangeEncoder {
	for v |= 1 << n; n > 0; n-- {
		c = c.bit(&p[(base+v>>n)&probsMask], v>>(n-1)&1).norm(o)
	}
	return c
}

// literal puts in a byte behind a match, which is not, or not surely, with.
func (c rangeEncoder) literal(o *rangeOutput, p *probs, base, v, with uint32) rangeEncoder {
	agree := uint32(0x100)
	for v |= 0x100; v < 0x10000; {
		with <<= 1
		bit := v >> 7 & 1
		c = c.bit(&p[(base+agree+with&agree+v>>8)&probsMask], bit).norm(o)
		v <<= 1
		agree &= ^(with ^ -bit)
	}
	return c
}

func (c rangeEncoder) length(o *rangeOutput, p *probs, base, n, posState uint32) rangeEncoder {
	n -= minMatch
	if n < 8 {
		c = c.bit(&p[(base+lenChoice)&probsMask], 0).norm(o)
		return c.tree(o, p, base+lenLow+posState<<3, n, 3)
	}
	c = c.bit(&p[(base+lenChoice)&probsMask], 1).norm(o)
	if n < 16 {
		c = c.bit(&p[(base+lenChoice2)&probsMask], 0).norm(o)
		return c.tree(o, p, base+lenMid+posState<<3, n-8, 3)
	}
	c = c.bit(&p[(base+lenChoice2)&probsMask], 1).norm(o)
	return c.tree(o, p, base+lenHigh, n-16, 8)
}

func (c rangeEncoder) distance(o *rangeOutput, p *probs, dist, length uint32) rangeEncoder {
	slot := slotOf(dist)
	c = c.tree(o, p, pSlot+lenClass(length)<<6, slot, 6)
	if slot < firstSpecialSlot {
		return c
	}
	n := slot>>1 - 1
	base := pSpecial + (2|slot&1)<<n - slot
	if slot >= firstPlainSlot {
		for i := n; i > alignBits; i-- {
			c.rng >>= 1
			c.low += uint64(c.rng & -(dist >> (i - 1) & 1))
			c = c.norm(o)
		}
		base, n = pAlign, alignBits
	}
	sym := uint32(1)
	for i := range n {
		bit := dist >> i & 1
		c = c.bit(&p[(base+sym)&probsMask], bit).norm(o)
		sym = sym<<1 | bit
	}
	return c
}
