package codec

import (
	"encoding/binary"
	"errors"
	"io"
	"runtime/debug"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// A .zst file is a row of frames. A frame is a header, blocks, each with its
// size before it, and a checksum, if the header says so. Between them there may
// be skippable frames, which hold something that concerns others. RFC 8878.
const (
	zstdMagic     = "\x28\xb5\x2f\xfd"
	zstdSkippable = "\x2a\x4d\x18" // after a byte 0x50 to 0x5f
)

// unzstd unpacks zstd. Its decoder reads through a framer, which knows where
// frames and blocks start and end, and lets nothing else through.
type unzstd struct {
	in *input
	f  zstdFramer
	d  *zstd.Decoder
}

// zstdLarge is a window that is worth a collection of garbage once it is no
// longer needed: that takes a few milliseconds, and would else come in minutes.
const zstdLarge = 8 << 20

// errWider is the framer's before a frame with a larger window than those before.
var errWider = errors.New("a wider window")

func newUnzstd(in *input) *unzstd { return &unzstd{in: in, f: zstdFramer{in: in}} }

func (u *unzstd) close() {
	if u.d == nil {
		return
	}
	u.d.Close()
	u.d = nil
	if u.f.window > zstdLarge {
		debug.FreeOSMemory()
	}
}

func (u *unzstd) Read(p []byte) (int, error) {
	for {
		if u.d == nil {
			// With a concurrency of one it decodes in Read. The framer sees to the
			// window; the decoder's own limit need only let that through.
			d, err := zstd.NewReader(&u.f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(MaxWindow))
			if err != nil {
				return 0, err
			}
			u.d = d
		}
		n, err := u.d.Read(p)
		switch {
		case err == nil || u.f.err == errWider && n > 0:
			return n, nil
		case u.f.err == errWider:
			u.close() // so that there are never two large windows
			u.f.err, u.f.window = nil, u.f.wider
			continue
		case u.f.err != nil: // io.EOF included, if the input may end there
			return n, u.f.err
		case err == io.EOF:
			err = errors.New("the decoder ended early")
		}
		return n, u.in.corrupt(u.f.unit, "%s: %v", u.f.what, err)
	}
}

// A zstdFramer passes frames on, and takes out skippable ones.
type zstdFramer struct {
	in     *input
	frames int
	window uint64 // the largest so far,
	wider  uint64 // and the next one, with errWider
	unit   int64  // where the unit starts that was passed on last,
	what   string // and what that is
	err    error

	head     [18]byte // of a frame or a block; what is to be passed on of it:
	pass     []byte
	left     int64 // and of what follows it
	inFrame  bool
	last     bool // the block was the frame's last
	checksum bool // the frame has one, which has not been passed on
}

func (f *zstdFramer) Read(p []byte) (int, error) {
	if len(p) == 0 || f.err != nil {
		return 0, f.err
	}
	for len(f.pass) == 0 && f.left == 0 {
		if f.err = f.next(); f.err != nil {
			return 0, f.err
		}
	}
	if len(f.pass) > 0 {
		n := copy(p, f.pass)
		f.pass = f.pass[n:]
		return n, nil
	}
	n, err := f.in.Read(p[:min(int64(len(p)), f.left)])
	if f.left -= int64(n); n == 0 && err != nil {
		f.err = f.in.failed(err, f.in.offset(), f.what)
	}
	return n, f.err
}

// next takes in the header of what comes next.
func (f *zstdFramer) next() error {
	switch {
	case !f.inFrame:
		return f.frame()
	case !f.last:
		return f.block()
	case f.checksum:
		f.checksum = false
		f.unit, f.what, f.left = f.in.offset(), "a frame's checksum", 4
	default:
		f.inFrame = false
		f.frames++
	}
	return nil
}

// take reads n further bytes of what is passed on.
func (f *zstdFramer) take(n int) ([]byte, error) {
	b := f.head[len(f.pass) : len(f.pass)+n]
	if err := f.in.full(b, f.what); err != nil {
		return nil, err
	}
	f.pass = f.head[:len(f.pass)+n]
	return b, nil
}

func (f *zstdFramer) frame() error {
	f.unit, f.what = f.in.offset(), "a frame's header"
	if skipped, err := f.skip(); skipped || err != nil {
		return err
	}
	if err := f.in.begins(zstdMagic, "frame", f.frames); err != nil {
		return err
	}
	f.pass = nil
	b, err := f.take(5)
	if err != nil {
		return err
	}
	flags := b[4]
	single := flags&(1<<5) != 0
	f.checksum = flags&(1<<2) != 0
	if flags&(1<<3) != 0 {
		return f.in.unsupported(f.unit+4, "flags %#x of a frame", flags)
	}
	var window uint64
	if !single {
		if b, err = f.take(1); err != nil {
			return err
		}
		window = 1 << (10 + b[0]>>3)
		window += window / 8 * uint64(b[0]&7)
	}
	if b, err = f.take([]int{0, 1, 2, 4}[flags&3]); err != nil {
		return err
	}
	var id [4]byte
	copy(id[:], b)
	if id != [4]byte{} {
		return f.in.unsupported(f.unit, "a frame that was packed with dictionary %d, which is needed to unpack it",
			binary.LittleEndian.Uint32(id[:]))
	}
	size := []int{0, 2, 4, 8}[flags>>6]
	if single && size == 0 {
		size = 1
	}
	if b, err = f.take(size); err != nil {
		return err
	}
	if single { // the whole of the frame is the window
		var n [8]byte
		copy(n[:], b)
		window = binary.LittleEndian.Uint64(n[:])
		if size == 2 {
			window += 256
		}
	}
	if window > MaxWindow {
		return f.in.tooLarge(f.unit, window)
	}
	f.inFrame, f.last = true, false
	if window > zstdLarge && window > f.window && f.frames > 0 {
		f.wider = window
		return errWider
	}
	f.window = max(f.window, window)
	return nil
}

// skip passes over a skippable frame.
func (f *zstdFramer) skip() (bool, error) {
	in := f.in
	magic, _ := in.Peek(4)
	if len(magic) == 0 || magic[0]&0xf0 != 0x50 || !strings.HasPrefix(zstdSkippable, string(magic[1:])) {
		return false, nil
	}
	var h [8]byte
	if err := in.full(h[:], "a skippable frame"); err != nil {
		return true, err
	}
	n := int64(binary.LittleEndian.Uint32(h[4:]))
	announces := h[0] == 0x50 && n == 4 // by pzstd, the size of the frame behind it
	for n > 0 {
		k, err := in.Discard(int(min(n, inputBuffer)))
		n -= int64(k)
		if err != nil {
			return true, in.failed(err, in.offset(), "a skippable frame")
		}
	}
	f.frames++
	if announces {
		if _, err := in.Peek(1); err != nil {
			return true, in.failed(err, in.offset(), "what a skippable frame announces")
		}
	}
	return true, nil
}

func (f *zstdFramer) block() error {
	f.unit, f.what = f.in.offset(), "a block"
	f.pass = nil
	b, err := f.take(3)
	if err != nil {
		return err
	}
	h := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
	f.last = h&1 != 0
	f.left = int64(h >> 3)
	switch h >> 1 & 3 {
	case 1: // one byte, repeated
		f.left = 1
	case 3:
		return f.in.corrupt(f.unit, "a block of no type")
	}
	return nil
}
