package codec

import (
	"bytes"
	stdgzip "compress/gzip"
	"encoding/binary"
	"hash/crc32"
	"io"
	"runtime/metrics"
	"testing"
	"testing/iotest"
)

// Whatever comes: no panic, an end, no more memory than windows and some, and
// the same however the bytes come. What is taken for whole is not when it is cut.
func fuzzReader(f *testing.F, encoding string) {
	const most = 4 << 20 // a few bytes can stand for many
	for _, n := range []int{0, 1, 100, 3000} {
		packed := pack(f, encoding, sample(n))
		f.Add(packed, uint16(len(packed)/2))
		f.Add(append(packed, packed...), uint16(len(packed)))
	}
	f.Fuzz(func(t *testing.T, packed []byte, cut uint16) {
		read := func(in io.Reader) ([]byte, error) {
			r, err := NewReader(encoding, in)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			return io.ReadAll(io.LimitReader(r, most))
		}
		before := allocated()
		got, err := read(bytes.NewReader(packed))
		// A window for each frame of zstd, one after another; and ReadAll takes up to six times what it returns.
		windows := 1 + bytes.Count(packed, []byte(zstdMagic))
		if n, limit := allocated()-before, uint64(windows*MaxWindow+8<<20+6*len(got)); n > limit {
			t.Errorf("%d bytes of memory for %d that make %d; want at most %d", n, len(packed), len(got), limit)
		}
		if e, ok := err.(*Error); err != nil && (!ok || e.Offset < 0 || e.Offset > int64(len(packed))) {
			t.Errorf("%v (%T); want an *Error at a byte from 0 to %d", err, err, len(packed))
		}
		again, errAgain := read(iotest.HalfReader(bytes.NewReader(packed)))
		if !bytes.Equal(got, again) || (err == nil) != (errAgain == nil) || err != nil && err.Error() != errAgain.Error() {
			t.Errorf("in other pieces: %d bytes, %v; want %d bytes, %v", len(again), errAgain, len(got), err)
		}
		if err != nil || len(got) == most {
			return
		}
		checkCut(t, encoding, packed, got, int(cut)%len(packed))
		if encoding != Gzip {
			return
		}
		std, err := stdgzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			t.Fatalf("the standard library: %v; want nil", err)
		}
		if want, err := io.ReadAll(std); err != nil || !bytes.Equal(got, want) {
			t.Errorf("the standard library: %d bytes, %v; here %d, nil", len(want), err, len(got))
		}
	})
}

// allocated is how many bytes the heap has handed out so far.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

func FuzzGzip(f *testing.F)  { fuzzReader(f, Gzip) }
func FuzzXZ(f *testing.F)    { fuzzReader(f, XZ) }
func FuzzBzip2(f *testing.F) { fuzzReader(f, Bzip2) }
func FuzzZstd(f *testing.F)  { fuzzReader(f, Zstd) }

// Headers and indexes of xz with a right checksum, behind which a change of bytes
// alone does not get.
func FuzzXZHeaders(f *testing.F) {
	packed := pack(f, XZ, []byte("data"))
	const dataAt, indexSize, footerSize = 24, 8, 12
	indexAt := len(packed) - footerSize - indexSize
	f.Add(byte(xzCRC64), packed[12:20], packed[dataAt:indexAt], packed[indexAt:indexAt+4])
	f.Add(byte(xzNone), packed[12:20], []byte{1, 0, 0, 'x', 0, 0, 0, 0}, []byte{0, 1, 17, 1})
	f.Add(byte(xzNone), []byte{2, 0xc0, 5, 1, 0x21, 1, 0, 0}, []byte{1, 0, 0, 'x', 0, 0, 0, 0}, []byte{0, 1, 17, 1})
	f.Add(byte(xzCRC32), []byte{}, []byte{}, []byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, check byte, header, data, index []byte) {
		var in []byte
		if len(header) == 0 {
			in = xzStart(check)[:12]
		} else {
			header = append(header, make([]byte, -len(header)&3)...)
			header[0] = byte(len(header) / 4)
			in = append(xzStart(check, header...), data...)
		}
		index = append(index, make([]byte, -len(index)&3)...)
		in = append(in, sealed(index...)...)
		size := binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4))
		footer := append(size, 0, check)
		in = binary.LittleEndian.AppendUint32(in, crc32.ChecksumIEEE(footer))
		in = append(append(in, footer...), xzFooterMagic...)

		got, err := unpack(t, XZ, in)
		if e, ok := err.(*Error); err != nil && (!ok || e.Offset < 0 || e.Offset > int64(len(in))) {
			t.Errorf("%v (%T); want an *Error at a byte from 0 to %d", err, err, len(in))
		}
		if err == nil {
			for n := range in {
				checkCut(t, XZ, in, got, n)
			}
		}
	})
}

// What is written can be read.
func FuzzWriter(f *testing.F) {
	for _, n := range []int{0, 1, 100, 3000} {
		f.Add(sample(n), uint8(3))
	}
	f.Fuzz(func(t *testing.T, data []byte, times uint8) {
		all := bytes.Repeat(data[:min(len(data), 1<<12)], int(times))
		for _, e := range Encodings() {
			if got, err := unpack(t, e, pack(t, e, all)); err != nil || !bytes.Equal(got, all) {
				t.Errorf("%s: got %d bytes, %v; want %d, nil", e, len(got), err, len(all))
			}
		}
	})
}
