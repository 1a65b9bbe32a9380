// Package lzma2 is the coder inside .xz files: it packs and unpacks LZMA2, one chunk at a time.
//
// LZMA2 is a row of chunks, each with a header that says how many bytes it holds and how many it makes: at most 64 KiB
// and 2 MiB. A chunk is either stored, or packed with LZMA. LZMA takes the bytes apart into literals and matches (a
// length, and a distance back into what came before), and writes every choice that it makes on the way, bit by bit, with
// an adaptive binary range coder: for each bit there is a probability, chosen by what came before it, that learns.
//
// The headers are what makes damage tellable and memory bounded. A packed chunk is read as a whole before any of it is
// unpacked, so that the inner loop never waits and knows where its input ends.
//
// The package exists because of what the libraries in pure Go were in November 2026, next to the xz program with one
// thread on 32 MB of programs and text. This package unpacks at 0.8 to 0.9 of the program's rate, and packs at 1.3 to 1.5
// of that of `xz -1`, to the same size. The others:
//
//   - github.com/ulikunitz/xz v0.5.17 unpacks at 0.52, and packs at about 0.6, 7 % larger. It takes a file for whole that
//     is cut before or within the header of a block, of which those of `xz -T` have many, and sets no limit to the
//     dictionary that a file may ask for.
//   - The same, v0.6.0-alpha.3 of 2023, packs faster than `xz -1`, and a quarter larger; with one worker, it fails to
//     unpack what `xz -1` and `xz -6` make ("buffer is full").
//   - github.com/therootcompany/xz v1.0.1 of 2020 unpacks at 0.7, and is nearly as strict. It does not pack, does not say
//     where damage is, and is not worked on; github.com/mikelolasagasti/xz v1.0.1 of 2025 is the same code.
//
// The benchmarks beside the codecs compare with the program; once a library gets there, this package should go.
package lzma2

import "math/bits"

// What the format allows.
const (
	maxPacked   = 1 << 16 // bytes of a chunk
	maxUnpacked = 1 << 21 // bytes that a packed chunk makes
	minDict     = 1 << 12
	minMatch    = 2
	maxMatch    = minMatch + 8 + 8 + 256 - 1
)

// The first byte of a chunk.
const (
	ctlEnd         = 0x00 // there is no further chunk
	ctlStoredReset = 0x01 // stored, and nothing before it is referred to any more
	ctlStored      = 0x02
	ctlPacked      = 0x80 // from here on: packed; bits 0 to 4 are the top of the size
)

// What a packed chunk does before it starts, in bits 5 and 6 of its first byte.
const (
	resetNothing = iota
	resetState
	resetProps // the state, and a byte of properties follows
	resetDict  // and nothing before it is referred to any more
)

// The state is which of literal, match and repeated match the last few steps were: below firstMatchState the last one was
// a literal.
const (
	states          = 12
	firstMatchState = 7
)

func afterLiteral(s uint32) uint32 {
	switch {
	case s < 4:
		return 0
	case s < 10:
		return s - 3
	}
	return s - 6
}

// after is the state after a step that has one number if the step before it was a literal, and the other if not.
func after(s, literal, match uint32) uint32 {
	if s < firstMatchState {
		return literal
	}
	return match
}

func afterMatch(s uint32) uint32    { return after(s, 7, 10) }
func afterRep(s uint32) uint32      { return after(s, 8, 11) }
func afterShortRep(s uint32) uint32 { return after(s, 9, 11) }

// A probability is that of a 0, in 1/2048. It moves by a 32nd of what it was wrong by.
const (
	probBits  = 11
	probStart = 1 << probBits / 2
	moveBits  = 5
	topValue  = 1 << 24 // a range below it takes in another byte
)

// Where the probabilities of each kind of bit are. They are all in one array, the size of which is a power of two, so that
// to reset them is one loop and no index needs a check.
const (
	posStates = 16 // of the position, what the lowest bits (pb of them) may matter
	maxLits   = 16 // sets of probabilities of literals, lc+lp bits

	pMatch     = 0
	pRep       = pMatch + states*posStates
	pRepG0     = pRep + states
	pRepG1     = pRepG0 + states
	pRepG2     = pRepG1 + states
	pRep0Long  = pRepG2 + states
	pSlot      = pRep0Long + states*posStates
	pSpecial   = pSlot + 4*64
	pAlign     = pSpecial + 128
	pMatchLen  = pAlign + 16
	pRepLen    = pMatchLen + lenProbs
	pLiteral   = pRepLen + lenProbs
	probsUsed  = pLiteral + 0x300*maxLits
	probsMask  = 1<<14 - 1
	lenChoice  = 0
	lenChoice2 = 1
	lenLow     = 2
	lenMid     = lenLow + posStates*8
	lenHigh    = lenMid + posStates*8
	lenProbs   = lenHigh + 256
)

// Distances: a slot of 6 bits, which says how long the distance is and its top two bits; then the other bits, each with a
// probability if there are few of them; else plain, but for the lowest four.
const (
	firstSpecialSlot = 4
	firstPlainSlot   = 14
	alignBits        = 4
)

type probs [probsMask + 1]uint16

func (p *probs) reset() {
	for i := range p[:probsUsed] {
		p[i] = probStart
	}
}

// props are the properties of packed chunks: how many bits of the byte before (lc) and of the position (lp) choose a
// literal's probabilities, and how many of the position (pb) choose those of the rest.
type props struct{ lc, lp, pb uint32 }

func (p props) byte() byte { return byte((p.pb*5+p.lp)*9 + p.lc) }

func propsOf(b byte) (p props, ok bool) {
	n := uint32(b)
	p = props{lc: n % 9, lp: n / 9 % 5, pb: n / 45}
	return p, p.pb <= 4 && p.lc+p.lp <= 4
}

// literalSet is where the probabilities of a literal start, by the position and the byte before it.
func (p props) literalSet(pos uint32, prev byte) uint32 {
	return pLiteral + 0x300*((pos&(1<<p.lp-1))<<p.lc+uint32(prev)>>(8-p.lc))
}

// lenClass chooses the probabilities of a distance's slot by the length of the match.
func lenClass(length uint32) uint32 { return min(length-minMatch, 3) }

// slotOf is the slot of a distance, which counts from 0.
func slotOf(dist uint32) uint32 {
	if dist < firstSpecialSlot {
		return dist
	}
	n := uint32(bits.Len32(dist)) - 1
	return n<<1 | dist>>(n-1)&1
}
