package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// sealed is a header with its checksum behind it.
func sealed(b ...byte) []byte { return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b)) }

func xzStart(check byte, block ...byte) []byte {
	h := append([]byte(xzMagic), 0, check)
	h = binary.LittleEndian.AppendUint32(h, crc32.ChecksumIEEE(h[6:]))
	return append(h, sealed(block...)...)
}

// What is not read says what it is.
func TestNotRead(t *testing.T) {
	const dict64MiB = 28
	for _, c := range []struct {
		name, encoding string
		data           []byte
		kind           error
		at             int64
		says           string
	}{
		{"a dictionary of 64 MiB", XZ, xzStart(xzCRC64, 2, 0, 0x21, 1, dict64MiB, 0, 0, 0), ErrTruncated, 24, "within a block"},
		{"a dictionary of 96 MiB", XZ, xzStart(xzCRC64, 2, 0, 0x21, 1, dict64MiB+1, 0, 0, 0), ErrTooLarge, 12, "a window of 96 MiB to unpack this; the limit is 64 MiB"},
		{"a dictionary of 4 GiB", XZ, xzStart(xzCRC64, 2, 0, 0x21, 1, 40, 0, 0, 0), ErrTooLarge, 12, "4096 MiB"},
		{"a dictionary of any size", XZ, xzStart(xzCRC64, 2, 0, 0x21, 1, 41, 0, 0, 0), ErrCorrupt, 12, "dictionary"},
		{"an unknown check", XZ, xzStart(2), errors.ErrUnsupported, 7, "check 0x2"},
		{"an unknown flag of a stream", XZ, xzStart(0x14), errors.ErrUnsupported, 6, "flags 0014"},
		{"an unknown flag of a block", XZ, xzStart(xzCRC64, 2, 4, 0x21, 1, 0, 0, 0, 0), errors.ErrUnsupported, 13, "flags 0x4"},
		{"a filter", XZ, xzStart(xzCRC64, 2, 1, 4, 0, 0x21, 1, 0, 0), errors.ErrUnsupported, 12, "x86"},
		{"an unknown filter", XZ, xzStart(xzCRC64, 2, 0, 0x7f, 1, 0, 0, 0, 0), errors.ErrUnsupported, 12, "0x7f"},
		{"something new in a block's header", XZ, xzStart(xzCRC64, 2, 0, 0x21, 1, 0, 0, 0, 1), errors.ErrUnsupported, 12, "new"},
		{"a number in too many bytes", XZ, xzStart(xzCRC64, 3, 0x40, 0x80, 0, 0x21, 1, 0, 0, 0, 0, 0, 0), ErrCorrupt, 12, "no number"},
		{"a window of 64 MiB", Zstd, []byte(zstdMagic + "\x00\x80"), ErrTruncated, 6, "within a block"},
		{"a window of 72 MiB", Zstd, []byte(zstdMagic + "\x00\x81"), ErrTooLarge, 0, "a window of 72 MiB to unpack this; the limit is 64 MiB"},
		{"a window of 3.75 TiB", Zstd, []byte(zstdMagic + "\x00\xff"), ErrTooLarge, 0, "3932160 MiB"},
		{"a single piece of 64 MiB and a byte", Zstd, []byte(zstdMagic + "\xa0\x01\x00\x00\x04"), ErrTooLarge, 0, "65 MiB"},
		{"a single piece of 2^64-1 bytes", Zstd, []byte(zstdMagic + "\xe0\xff\xff\xff\xff\xff\xff\xff\xff"), ErrTooLarge, 0, "17592186044416 MiB"},
		{"a dictionary", Zstd, []byte(zstdMagic + "\x21\x07\x01"), errors.ErrUnsupported, 0, "dictionary 7"},
		{"an unknown flag of a frame", Zstd, []byte(zstdMagic + "\x08\x00"), errors.ErrUnsupported, 4, "flags 0x8"},
		{"a block of no type", Zstd, []byte(zstdMagic + "\x00\x00\x07\x00\x00"), ErrCorrupt, 6, "no type"},
		{"an unknown flag of a member", Gzip, []byte("\x1f\x8b\x08\x20\x00\x00\x00\x00\x00\x03"), errors.ErrUnsupported, 3, "flags 0x20"},
		{"a method that is not deflate", Gzip, []byte("\x1f\x8b\x07\x00\x00\x00\x00\x00\x00\x03"), ErrCorrupt, 0, "no gzip"},
	} {
		_, err := unpack(t, c.encoding, c.data)
		if !isOf(err, c.kind, c.at) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s, %s: %v; want kind %q at byte %d, with %q", c.encoding, c.name, err, c.kind, c.at, c.says)
		}
	}
}

// All that a gzip header may have, in any length.
func TestGzipHeader(t *testing.T) {
	for _, n := range []int{0, 1, 10, 600, 40_000} {
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		w.Name, w.Comment, w.Extra = strings.Repeat("n", n), strings.Repeat("c", n), bytes.Repeat([]byte("e"), n)
		w.Write([]byte("data"))
		w.Close()
		packed := out.Bytes()
		if got, err := unpack(t, Gzip, packed); err != nil || string(got) != "data" {
			t.Errorf("a header with %d bytes of everything: %q, %v; want the data", n, got, err)
		}
		// The same with a checksum of the header.
		packed[3] |= gzipHeaderCRC
		end := len(packed) - len(gzipBody(t, "data"))
		crc := binary.LittleEndian.AppendUint16(nil, uint16(crc32.ChecksumIEEE(packed[:end])))
		withCRC := append(append(bytes.Clone(packed[:end]), crc...), packed[end:]...)
		if got, err := unpack(t, Gzip, withCRC); err != nil || string(got) != "data" {
			t.Errorf("a header with %d bytes of everything and a checksum: %q, %v; want the data", n, got, err)
		}
		withCRC[end] ^= 1
		if _, err := unpack(t, Gzip, withCRC); !isOf(err, ErrCorrupt, int64(end)) {
			t.Errorf("a header with %d bytes of everything and a wrong checksum: %v; want ErrCorrupt at byte %d", n, err, end)
		}
	}
}

// gzipBody is a member without its header.
func gzipBody(t *testing.T, s string) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write([]byte(s))
	w.Close()
	return out.Bytes()[10:]
}

func TestSkippableFrames(t *testing.T) {
	data := sample(1000)
	frame := pack(t, Zstd, data)
	skippable := func(kind byte, content string) []byte {
		b := append([]byte{kind}, zstdSkippable...)
		return append(binary.LittleEndian.AppendUint32(b, uint32(len(content))), content...)
	}
	for _, c := range []struct {
		name  string
		parts [][]byte
		want  int   // how often the data is there
		kind  error // of what is wrong, or nil
	}{
		{"before", [][]byte{skippable(0x50, "x"), frame}, 1, nil},
		{"behind", [][]byte{frame, skippable(0x5f, strings.Repeat("x", 100_000))}, 1, nil},
		{"between", [][]byte{frame, skippable(0x57, ""), skippable(0x5e, "1234"), frame}, 2, nil},
		{"alone", [][]byte{skippable(0x50, "xy")}, 0, nil},
		{"announcing", [][]byte{skippable(0x50, "1234"), frame}, 1, nil},
		{"announcing nothing", [][]byte{frame, skippable(0x50, "1234")}, 1, ErrTruncated},
		{"without its magic", [][]byte{frame, skippable(0x51, "x")[:3]}, 1, ErrTruncated},
		{"without its size", [][]byte{frame, skippable(0x51, "x")[:6]}, 1, ErrTruncated},
		{"without its content", [][]byte{frame, skippable(0x51, "x")[:8]}, 1, ErrTruncated},
		{"of another kind", [][]byte{frame, skippable(0x60, "x")}, 1, ErrCorrupt},
	} {
		got, err := unpack(t, Zstd, bytes.Join(c.parts, nil))
		if c.kind == nil && err != nil || c.kind != nil && !isOf(err, c.kind, -1) {
			t.Errorf("a skippable frame %s: %v; want %v", c.name, err, c.kind)
		}
		if !bytes.Equal(got, bytes.Repeat(data, c.want)) {
			t.Errorf("a skippable frame %s: %d bytes; want %d", c.name, len(got), c.want*len(data))
		}
	}
}

func TestXZPadding(t *testing.T) {
	data := sample(1000)
	stream := pack(t, XZ, data)
	zeros := make([]byte, 1<<17)
	for n := range 20 {
		for _, n := range []int{n, 1<<17 - n} {
			between := append(append(bytes.Clone(stream), zeros[:n]...), stream...)
			behind := append(between, zeros[:n]...)
			for name, packed := range map[string][]byte{"between": between, "behind": behind} {
				got, err := unpack(t, XZ, packed)
				var e *Error
				switch {
				case n%4 == 0 && (err != nil || len(got) != 2*len(data)):
					t.Errorf("%d bytes of padding %s streams: %d bytes, %v; want %d, nil", n, name, len(got), err, 2*len(data))
				case n%4 != 0 && (!errors.As(err, &e) || e.Offset != int64(len(stream)+n)):
					t.Errorf("%d bytes of padding %s streams: %v; want an error at byte %d", n, name, err, len(stream)+n)
				}
			}
		}
	}
	if _, err := unpack(t, XZ, append(make([]byte, 4), stream...)); !isOf(err, ErrCorrupt, 0) {
		t.Errorf("padding before the first stream: %v; want ErrCorrupt at byte 0", err)
	}
}

// A file may say that it takes much. What it is given is what it fills.
func TestMemory(t *testing.T) {
	for _, c := range []struct {
		encoding string
		packed   []byte
		most     uint64
	}{
		{XZ, xzStart(xzCRC64, 2, 0, 0x21, 1, 28, 0, 0, 0), 1 << 20},
		{XZ, bytes.Repeat(pack(t, XZ, nil), 10_000), 6 << 20},
		{Gzip, bytes.Repeat(pack(t, Gzip, nil), 10_000), 1 << 20},
		{Bzip2, bytes.Repeat(pack(t, Bzip2, nil), 10_000), 6 << 20},
		{Zstd, bytes.Repeat(pack(t, Zstd, nil), 10_000), 6 << 20},
		{Zstd, bytes.Repeat([]byte(zstdMagic+"\x00\x80\x01\x00\x00"), 10_000), MaxWindow + 6<<20},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		unpack(t, c.encoding, c.packed)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > c.most {
			t.Errorf("%s of %d bytes: %d bytes of memory were taken; want at most %d", c.encoding, len(c.packed), n, c.most)
		}
	}
}

// A sender that flushes and then waits for an answer gets one: no more is read
// than it takes to unpack what is there.
func TestReadsNoFurther(t *testing.T) {
	type flusher interface {
		io.WriteCloser
		Flush() error
	}
	for e, open := range map[string]func(w io.Writer) flusher{
		Gzip: func(w io.Writer) flusher { return gzip.NewWriter(w) },
		Zstd: func(w io.Writer) flusher {
			z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
			if err != nil {
				t.Fatal(err)
			}
			return z
		},
	} {
		var sent bytes.Buffer
		r, err := NewReader(e, iotest.OneByteReader(io.MultiReader(&sent, waits{t, e})))
		if err != nil {
			t.Fatal(err)
		}
		w := open(&sent)
		for n := range 20 {
			data := sample(1 + n*1000)
			w.Write(data)
			w.Flush()
			got := make([]byte, len(data))
			if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s: %d bytes, flushed: %v; want the bytes, nil", e, len(data), err)
			}
		}
	}
	// Whole members have no need of a flush.
	each(t, func(t *testing.T, e string) {
		data := sample(100_000)
		packed := pack(t, e, data)
		r, err := NewReader(e, io.MultiReader(bytes.NewReader(packed), bytes.NewReader(packed), waits{t, e}))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, 2*len(data))); err != nil {
			t.Errorf("%s: two members: %v; want nil", e, err)
		}
	})
}

// waits is a sender that waits.
type waits struct {
	t *testing.T
	e string
}

func (w waits) Read([]byte) (int, error) {
	w.t.Errorf("%s: more was read than was needed", w.e)
	return 0, io.ErrClosedPipe
}
