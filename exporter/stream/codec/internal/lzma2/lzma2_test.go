package lzma2

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"syscall"
	"testing"
	"testing/iotest"
	"time"
)

// kinds of data: what repeats at all distances and lengths, what does not, and
// what is in between.
var kinds = map[string]func(r *rand.Rand, b []byte) []byte{
	"zeros": func(r *rand.Rand, b []byte) []byte { return append(b, make([]byte, 1<<16)...) },
	"noise": func(r *rand.Rand, b []byte) []byte { return noise(r, b, 1<<14) },
	"text": func(r *rand.Rand, b []byte) []byte {
		return fmt.Appendf(b, "%d bottles of %d\n", r.IntN(99), r.IntN(1e6))
	},
	"few":    func(r *rand.Rand, b []byte) []byte { return append(b, byte(r.IntN(3))) },
	"record": func(r *rand.Rand, b []byte) []byte { return append(b, 1, 2, 3, 4, byte(r.IntN(256)), 6, 7, 8) },
	"short":  func(r *rand.Rand, b []byte) []byte { return repeat(r, noise(r, b, 3), 5, 1<<13) },
	"any": func(r *rand.Rand, b []byte) []byte {
		return repeat(r, noise(r, b, r.IntN(40)), 1+r.IntN(400), DictSize+10)
	},
	"far": func(r *rand.Rand, b []byte) []byte { return repeat(r, noise(r, b, 64), 4096, 4*DictSize) },
	"mixed": func(r *rand.Rand, b []byte) []byte {
		if r.IntN(2) == 0 {
			return noise(r, b, r.IntN(3*chunkSize))
		}
		return append(b, make([]byte, r.IntN(3*chunkSize))...)
	},
}

func noise(r *rand.Rand, b []byte, n int) []byte {
	for range n {
		b = append(b, byte(r.Uint32()))
	}
	return b
}

// repeat appends n bytes of what there is, from at most that far back.
func repeat(r *rand.Rand, b []byte, n, back int) []byte {
	from := len(b) - 1 - r.IntN(min(len(b), back))
	for i := range n {
		b = append(b, b[from+i])
	}
	return b
}

func some(kind string, seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	b := []byte{1, 2, 3}
	for len(b) < n {
		b = kinds[kind](r, b)
	}
	return b[:n]
}

func encode(t testing.TB, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	e := NewEncoder(&out)
	for rest := data; len(rest) > 0; {
		n := min(len(rest), 1<<16-3)
		if k, err := e.Write(rest[:n]); k != n || err != nil {
			t.Fatalf("Write of %d bytes = %d, %v; want nil", n, k, err)
		}
		rest = rest[n:]
	}
	if err := e.Close(); err != nil {
		t.Fatalf("Close() = %v; want nil", err)
	}
	return out.Bytes()
}

type decoder struct {
	*Decoder
	src Source
}

func (d decoder) Read(p []byte) (int, error) { return d.Decoder.Read(d.src, p) }

// reset begins with a new row of chunks.
func reset(t testing.TB, d *Decoder, dict int) {
	t.Helper()
	if err := d.Reset(dict); err != nil {
		t.Fatalf("Reset(%d) = %v; want nil", dict, err)
	}
}

func decode(packed []byte, dict int) ([]byte, error) {
	var d Decoder
	defer d.Close()
	if err := d.Reset(dict); err != nil {
		return nil, err
	}
	src := bufio.NewReader(bytes.NewReader(packed))
	data, err := io.ReadAll(decoder{&d, src})
	if err == nil && src.Buffered() > 0 {
		err = errors.New("it ended early")
	}
	return data, err
}

func TestRoundTrip(t *testing.T) {
	for kind := range kinds {
		sizes := []int{0, 1, 2, 3, 4, 5, 100, chunkSize - 1, chunkSize, chunkSize + 1, 300_001}
		switch kind {
		case "zeros", "text", "far": // and beyond the window
			if !testing.Short() {
				sizes = append(sizes, 2*DictSize+chunkSize, 3*DictSize+1)
			}
		}
		for i, n := range sizes {
			data := some(kind, uint64(i), n)
			packed := encode(t, data)
			if got, err := decode(packed, DictSize); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes of %s: got %d bytes, %v; want the same, nil", n, kind, len(got), err)
			}
			if most := n + n>>16*3 + 10; len(packed) > most {
				t.Errorf("%d bytes of %s: packed into %d; want at most %d", n, kind, len(packed), most)
			}
		}
	}
}

// A decoder that is used again owes nothing to what it decoded before.
func TestReset(t *testing.T) {
	data := some("any", 1, 300_000)
	packed := encode(t, data)
	var d Decoder
	defer d.Close()
	for i, dict := range []int{DictSize, 64 * DictSize, DictSize, 2 * DictSize} {
		reset(t, &d, dict)
		got, err := io.ReadAll(iotest.OneByteReader(decoder{&d, bufio.NewReader(bytes.NewReader(packed))}))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("with a dictionary of %d: got %d bytes, %v; want %d, nil", dict, len(got), err, len(data))
		}
		reset(t, &d, dict)
		io.CopyN(io.Discard, decoder{&d, bufio.NewReader(bytes.NewReader(packed))}, 70_000)
		if i == 2 {
			d.Close()
		}
	}
}

// size is how much memory the process has asked the kernel for, and how much of that it got, in bytes.
func size(t *testing.T) (virtual, resident int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(b), &virtual, &resident); err != nil {
		t.Fatal(err)
	}
	return virtual * os.Getpagesize(), resident * os.Getpagesize()
}

// The window takes what the data fills, and is given back at once, or when the decoder is garbage.
func TestMemory(t *testing.T) {
	const dict = 256 << 20
	const other = 32 << 20 // that other things may take or give back meanwhile
	packed := encode(t, some("text", 1, 300_000))
	virtual, resident := size(t)
	read := func() *Decoder {
		d := new(Decoder)
		reset(t, d, dict)
		if _, err := io.ReadAll(decoder{d, bufio.NewReader(bytes.NewReader(packed))}); err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := read()
	if v, r := size(t); v < virtual+dict-other || r > resident+other {
		t.Errorf("300,000 bytes in a window of %d: the process grew by %d bytes, %d of them used; want %[1]d, few of them", dict, v-virtual, r-resident)
	}
	d.Close()
	d.Close()
	if v, _ := size(t); v > virtual+other {
		t.Errorf("after Close the process is still larger by %d bytes; want none", v-virtual)
	}
	if n, err := d.Read(bytes.NewReader(packed), make([]byte, 1)); n != 0 || err != fs.ErrClosed {
		t.Errorf("Read after Close = %d, %v; want %v", n, err, fs.ErrClosed)
	}
	if err := d.Reset(math.MaxInt - 15); !errors.Is(err, syscall.ENOMEM) {
		t.Errorf("Reset to more than there can be = %v; want %v", err, syscall.ENOMEM)
	}

	read()
	for deadline := time.Now().Add(10 * time.Second); ; {
		runtime.GC()
		v, _ := size(t)
		if v <= virtual+other {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the window of a dropped decoder is still there: the process is larger by %d bytes", v-virtual)
		}
	}
}

func TestCorrupt(t *testing.T) {
	stored := []byte{ctlStoredReset, 0, 2, 'a', 'b', 'c'}
	packed := encode(t, make([]byte, 1000))
	for _, c := range []struct {
		name string
		data []byte
		want error
	}{
		{"nothing", nil, io.ErrUnexpectedEOF},
		{"no end", stored, io.ErrUnexpectedEOF},
		{"half a header", stored[:2], io.ErrUnexpectedEOF},
		{"half the data", stored[:4], io.ErrUnexpectedEOF},
		{"half packed", packed[:len(packed)/2], io.ErrUnexpectedEOF},
		{"no such chunk", []byte{3, 0, 0, 0}, ErrCorrupt},
		{"stored, but no reset", []byte{ctlStored, 0, 0, 'a', 0}, ErrCorrupt},
		{"packed, but no reset", append([]byte{ctlPacked}, packed[1:]...), ErrCorrupt},
		{"no properties", append(stored[:6:6], ctlPacked|resetState<<5, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0), ErrCorrupt},
		{"bad properties", append(stored[:6:6], ctlPacked|resetProps<<5, 0, 0, 0, 9, 225, 0, 0, 0, 0, 0), ErrCorrupt},
		{"lc+lp above 4", append(stored[:6:6], ctlPacked|resetProps<<5, 0, 0, 0, 9, 3+9*2, 0, 0, 0, 0, 0), ErrCorrupt},
		{"too little data", append(stored[:6:6], ctlPacked|resetProps<<5, 0, 0, 0, 3, 93, 0, 0, 0, 0), ErrCorrupt},
		{"no zero first", append(stored[:6:6], ctlPacked|resetProps<<5, 0, 0, 0, 4, 93, 1, 0, 0, 0, 0), ErrCorrupt},
	} {
		if _, err := decode(c.data, DictSize); err != c.want {
			t.Errorf("%s: %v; want %v", c.name, err, c.want)
		}
	}
	// Sizes in the header that are not those of the chunk.
	for i := 1; i <= 4; i++ {
		for _, by := range []byte{1, 0xff} {
			bad := bytes.Clone(packed)
			bad[i] += by
			if _, err := decode(bad, DictSize); err == nil {
				t.Errorf("byte %d of a header changed by %d: nil; want an error", i, int8(by))
			}
		}
	}
}

// A match may not reach behind the dictionary, or behind what there is.
func TestDistance(t *testing.T) {
	data := append(some("noise", 1, 6000), some("noise", 1, 6000)...)
	packed := encode(t, data)
	if _, err := decode(packed, 8<<10); err != nil {
		t.Errorf("a match 6000 back, in a dictionary of 8 KiB: %v; want nil", err)
	}
	if _, err := decode(packed, 4<<10); err != ErrCorrupt {
		t.Errorf("a match 6000 back, in a dictionary of 4 KiB: %v; want %v", err, ErrCorrupt)
	}
}

// Whatever is decoded: no panic, and an end.
func FuzzDecoder(f *testing.F) {
	for kind := range kinds {
		f.Add(encode(f, some(kind, 7, 3000)), uint16(1))
	}
	f.Fuzz(func(t *testing.T, packed []byte, dict uint16) {
		var d Decoder
		defer d.Close()
		reset(t, &d, int(dict)<<4+minDict)
		src := bufio.NewReader(bytes.NewReader(packed))
		n, _ := io.Copy(io.Discard, struct{ io.Reader }{decoder{&d, src}})
		if n > int64(len(packed))*maxUnpacked {
			t.Errorf("%d bytes from %d", n, len(packed))
		}
	})
}

// Whatever is encoded can be decoded.
func FuzzEncoder(f *testing.F) {
	for kind := range kinds {
		f.Add(some(kind, 8, 5000), uint8(1), uint32(100))
	}
	f.Fuzz(func(t *testing.T, data []byte, times uint8, zeros uint32) {
		all := bytes.Repeat(data[:min(len(data), 1<<12)], int(times))
		all = append(append(all, make([]byte, zeros%(1<<18))...), data...)
		if got, err := decode(encode(t, all), DictSize); err != nil || !bytes.Equal(got, all) {
			t.Errorf("got %d bytes, %v; want %d, nil", len(got), err, len(all))
		}
	})
}
