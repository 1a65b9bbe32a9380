package codec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/jumplead/jumplead/drivers/driver/drivertest"
)

// sample is n bytes of which some repeat and some do not, always the same.
func sample(n int) []byte { return slices.Clone(wholeSample()[:n]) }

var wholeSample = sync.OnceValue(func() []byte {
	const n = 4<<20 + 1
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 0, n+1<<12)
	for len(b) < n {
		switch k := r.IntN(1 << 10); r.IntN(5) {
		case 0:
			b = append(b, make([]byte, 8*k)...)
		case 1:
			for range k {
				b = append(b, byte(r.Uint32()))
			}
		case 2:
			for range k / 4 {
				b = fmt.Appendf(b, "line %d of %s\n", r.IntN(1000), []string{"a log", "the source", "some text"}[r.IntN(3)])
			}
		default:
			if len(b) > 0 {
				from := r.IntN(len(b))
				b = append(b, b[from:min(from+k, len(b))]...)
			}
		}
	}
	return b
})

// sizes are what goes wrong when a buffer is full to the byte.
func sizes() []int { return append([]int{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1}, largeSizes()...) }

// largeSizes are more than any window of what is written. The race detector makes
// them slow, and nothing here runs side by side that it could find.
func largeSizes() []int {
	switch {
	case testing.Short():
		return nil
	case instrumented():
		return []int{4<<20 + 1}
	}
	return []int{4<<20 - 1, 4 << 20, 4<<20 + 1}
}

func pack(t testing.TB, encoding string, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewWriter(encoding, &out)
	if err != nil {
		t.Fatalf("NewWriter(%q) = %v; want nil", encoding, err)
	}
	if n, err := w.Write(data); n != len(data) || err != nil {
		t.Fatalf("%s: Write of %d bytes = %d, %v; want nil", encoding, len(data), n, err)
	}
	if err := w.Close(); err != nil {
		t.Fatalf("%s: Close() = %v; want nil", encoding, err)
	}
	return out.Bytes()
}

// packedSample is sample(n), packed. It is made once: to pack is what takes long.
func packedSample(t testing.TB, encoding string, n int) []byte {
	t.Helper()
	type key struct {
		encoding string
		n        int
	}
	once, _ := packedSamples.LoadOrStore(key{encoding, n}, sync.OnceValue(func() []byte { return pack(t, encoding, sample(n)) }))
	return slices.Clone(once.(func() []byte)())
}

var packedSamples sync.Map

func unpackFrom(t testing.TB, encoding string, r io.Reader) ([]byte, error) {
	t.Helper()
	z, err := NewReader(encoding, r)
	if err != nil {
		t.Fatalf("NewReader(%q) = %v; want nil", encoding, err)
	}
	data, err := io.ReadAll(z)
	if n, again := z.Read(make([]byte, 1)); n != 0 || (again != err && !(err == nil && again == io.EOF)) {
		t.Errorf("%s: Read after %v = %d, %v; want the same", encoding, err, n, again)
	}
	if err := z.Close(); err != nil {
		t.Errorf("%s: Close() = %v; want nil", encoding, err)
	}
	if _, err := z.Read(make([]byte, 1)); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("%s: Read after Close = %v; want %v", encoding, err, fs.ErrClosed)
	}
	return data, err
}

func unpack(t testing.TB, encoding string, packed []byte) ([]byte, error) {
	t.Helper()
	return unpackFrom(t, encoding, bytes.NewReader(packed))
}

// each runs a test for each encoding, side by side.
func each(t *testing.T, f func(t *testing.T, encoding string)) {
	for _, e := range Encodings() {
		t.Run(e, func(t *testing.T) {
			t.Parallel()
			f(t, e)
		})
	}
}

func TestRoundTrip(t *testing.T) {
	each(t, func(t *testing.T, e string) {
		for _, n := range sizes() {
			data := sample(n)
			packed := packedSample(t, e, n)
			if got, err := unpack(t, e, packed); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s of %d bytes: got %d bytes, %v; want the same, nil", e, n, len(got), err)
			}
			if len(packed) > n+n/50+200 || n > 1<<16 && len(packed) > n/2 {
				t.Errorf("%s of %d bytes: packed it has %d", e, n, len(packed))
			}
		}
	})
}

// However the bytes come, and in whatever pieces they are fetched and written.
func TestPieces(t *testing.T) {
	data := sample(100_000)
	each(t, func(t *testing.T, e string) {
		packed := pack(t, e, data)
		for name, r := range map[string]io.Reader{
			"byte by byte":        iotest.OneByteReader(bytes.NewReader(packed)),
			"halves":              iotest.HalfReader(bytes.NewReader(packed)),
			"the end with data":   iotest.DataErrReader(bytes.NewReader(packed)),
			"nothing in between":  &stutterer{r: bytes.NewReader(packed)},
			"fetched bit for bit": bytes.NewReader(packed),
		} {
			z, err := NewReader(e, r)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(name, "fetched") {
				z = io.NopCloser(iotest.OneByteReader(z))
			}
			if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s, %s: got %d bytes, %v; want %d, nil", e, name, len(got), err, len(data))
			}
		}
		var out bytes.Buffer
		w, err := NewWriter(e, &out)
		if err != nil {
			t.Fatal(err)
		}
		for rest := data; len(rest) > 0; {
			n := min(len(rest), 1+len(rest)%3011)
			if _, err := w.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Bytes(), packed) {
			t.Errorf("%s: what is made depends on the pieces that were written", e)
		}
	})
}

// A stutterer has nothing every other time.
type stutterer struct {
	r    io.Reader
	skip bool
}

func (s *stutterer) Read(p []byte) (int, error) {
	if s.skip = !s.skip; s.skip {
		return 0, nil
	}
	return s.r.Read(p[:min(len(p), 100)])
}

func TestUnknownEncoding(t *testing.T) {
	for _, e := range []string{"", "GZIP", "bzip2", "br", "deflate"} {
		_, err := NewReader(e, nil)
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("NewReader(%q) = %v; want errors.ErrUnsupported", e, err)
		}
		if _, err := NewWriter(e, nil); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("NewWriter(%q) = %v; want errors.ErrUnsupported", e, err)
		}
	}
}

// isOf says whether err is an Error of that kind at that byte, if there is one.
func isOf(err, kind error, at int64) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == kind && (at < 0 || e.Offset == at)
}

// checkCut looks at the first n bytes of packed data, which stands for data. They
// may be taken for whole only if they are: then so is the rest, by itself.
func checkCut(t testing.TB, encoding string, packed, data []byte, n int) {
	t.Helper()
	got, err := unpack(t, encoding, packed[:n])
	if !bytes.HasPrefix(data, got) {
		t.Errorf("%s, cut from %d to %d: what came is not how it starts", encoding, len(packed), n)
	}
	if err != nil {
		if !isOf(err, ErrTruncated, int64(n)) {
			t.Errorf("%s, cut from %d to %d: %v; want ErrTruncated at byte %[3]d", encoding, len(packed), n, err)
		}
		return
	}
	rest := packed[n:]
	for encoding == XZ && bytes.HasPrefix(rest, make([]byte, 4)) { // padding
		rest = rest[4:]
	}
	if len(rest) == 0 && len(got) == len(data) {
		return
	}
	if more, err := unpack(t, encoding, rest); err != nil || !bytes.Equal(append(got, more...), data) {
		t.Errorf("%s, cut from %d to %d: %d bytes and no error; the rest: %v", encoding, len(packed), n, len(got), err)
	}
}

// A prefix of a file is never taken for a file.
func TestTruncated(t *testing.T) {
	each(t, func(t *testing.T, e string) {
		for _, data := range [][]byte{nil, []byte("x"), sample(3000)} {
			packed := pack(t, e, data)
			for n := range packed {
				got, err := unpack(t, e, packed[:n])
				if !isOf(err, ErrTruncated, int64(n)) || !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("%s of %d bytes, cut from %d to %d: %v; want ErrTruncated at byte %[4]d", e, len(data), len(packed), n, err)
				}
				if !bytes.HasPrefix(data, got) {
					t.Errorf("%s of %d bytes, cut from %d to %d: what came is not how it starts", e, len(data), len(packed), n)
				}
			}
			// The second one, too.
			for n := range packed {
				_, err := unpack(t, e, append(packed[:len(packed):len(packed)], packed[:n]...))
				if n == 0 && err != nil || n > 0 && !isOf(err, ErrTruncated, int64(len(packed)+n)) {
					t.Errorf("%s of %d bytes, twice, the second one cut to %d: %v; want ErrTruncated at byte %d", e, len(data), n, err, len(packed)+n)
				}
			}
		}
	})
}

// A large file that is cut gives what is there, and then the error.
func TestTruncatedLarge(t *testing.T) {
	data := sample(1 << 20)
	each(t, func(t *testing.T, e string) {
		packed := packedSample(t, e, len(data))
		for _, n := range []int{1, len(packed) / 3, len(packed) / 2, len(packed) - 1} {
			got, err := unpack(t, e, packed[:n])
			if !isOf(err, ErrTruncated, int64(n)) {
				t.Errorf("%s, %d of %d bytes: %v; want ErrTruncated at byte %[2]d", e, n, len(packed), err)
			}
			if !bytes.HasPrefix(data, got) {
				t.Errorf("%s, %d of %d bytes: what came is not how it starts", e, n, len(packed))
			}
			// A block of bz2 holds most of it, and the sample does not pack evenly.
			if least := len(data)*n/len(packed) - 600_000; len(got) < least {
				t.Errorf("%s, %d of %d bytes: got %d bytes; want at least %d", e, n, len(packed), len(got), least)
			}
		}
	})
}

// A changed byte is an error, unless it changes nothing that is unpacked.
func TestFlipped(t *testing.T) {
	each(t, func(t *testing.T, e string) {
		for _, data := range [][]byte{nil, []byte("x"), sample(1500)} {
			packed := pack(t, e, data)
			ignored := 0
			for i := range packed {
				for bit := range 8 {
					bad := slices.Clone(packed)
					bad[i] ^= 1 << bit
					got, err := unpack(t, e, bad)
					var as *Error
					switch {
					case err == nil && !bytes.Equal(got, data):
						t.Fatalf("%s of %d bytes, bit %d of byte %d flipped: other bytes and no error", e, len(data), bit, i)
					case err == nil:
						ignored++
					case !errors.As(err, &as) || as.Offset > int64(len(bad)):
						t.Fatalf("%s of %d bytes, bit %d of byte %d flipped: %v; want an *Error within the input", e, len(data), bit, i, err)
					}
				}
			}
			// Of gzip's header: time, compression, system, and a flag that says it is text; and padding before stored
			// blocks. Of bz2: sizes of blocks that are large enough, tables that are not used, and padding. Of zstd:
			// windows that are large enough. Of xz: a distance back into many equal bytes.
			if limit := map[string]int{Gzip: 4*8 + 8 + 8 + 1 + 14, Bzip2: 3 + 14 + 7, Zstd: 16, XZ: 4}[e]; ignored > limit {
				t.Errorf("%s of %d bytes: %d flipped bits were not noticed; want at most %d", e, len(data), ignored, limit)
			}
		}
	})
}

func TestConcatenated(t *testing.T) {
	var parts [][]byte
	var want []byte
	for _, n := range []int{10, 0, 70_000, 1, 0, 0, 5000} {
		parts = append(parts, sample(n))
		want = append(want, parts[len(parts)-1]...)
	}
	each(t, func(t *testing.T, e string) {
		var packed []byte
		for _, p := range parts {
			packed = append(packed, pack(t, e, p)...)
		}
		if got, err := unpack(t, e, packed); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s of %d parts: got %d bytes, %v; want %d, nil", e, len(parts), len(got), err, len(want))
		}
	})
}

func TestTrailingGarbage(t *testing.T) {
	data := []byte("what was packed")
	each(t, func(t *testing.T, e string) {
		packed := pack(t, e, data)
		at := int64(len(packed))
		for _, garbage := range []string{"x", "\x00", "\x00\x00", "\x00\x00\x00", "\x00\x00\x00\x00\x00", "garbage", strings.Repeat("z", 100_000),
			"BZx", "\x1f\x8b\x07", "\xfd7zXy", "\x28\xb5\x2f\xfe", "\x00\x00\x00\x00x", strings.Repeat("\x00", 4096) + "\x01"} {
			got, err := unpack(t, e, append(slices.Clone(packed), garbage...))
			var as *Error
			if !errors.As(err, &as) || as.Offset < at || as.Offset > at+int64(len(garbage)) {
				t.Errorf("%s and %.10q: %v; want an *Error behind byte %d", e, garbage, err, at)
			}
			if !bytes.Equal(got, data) {
				t.Errorf("%s and %.10q: got %q; want %q", e, garbage, got, data)
			}
		}
		_, err := unpack(t, e, []byte("This is text."))
		if !isOf(err, ErrCorrupt, 0) {
			t.Errorf("%s: text = %v; want ErrCorrupt at byte 0", e, err)
		}
		for _, other := range Encodings() {
			if other != e {
				if _, err := unpack(t, e, pack(t, other, data)); !isOf(err, ErrCorrupt, 0) {
					t.Errorf("%s: what is %s = %v; want ErrCorrupt at byte 0", e, other, err)
				}
			}
		}
	})
}

// An error of the input stays what it is, wherever it comes.
func TestInputError(t *testing.T) {
	broke := errors.New("the cable is out")
	data := sample(2000)
	each(t, func(t *testing.T, e string) {
		packed := pack(t, e, data)
		for n := range len(packed) + 1 {
			for _, why := range []error{broke, io.ErrUnexpectedEOF, fs.ErrClosed} {
				for name, r := range map[string]io.Reader{
					"after": io.MultiReader(bytes.NewReader(packed[:n]), iotest.ErrReader(why)),
					"with":  iotest.DataErrReader(io.MultiReader(bytes.NewReader(packed[:n]), iotest.ErrReader(why))),
				} {
					if _, err := unpackFrom(t, e, r); err != why {
						t.Fatalf("%s: an error %s byte %d: %v; want %v", e, name, n, err, why)
					}
				}
			}
		}
		if _, err := unpackFrom(t, e, iotest.TimeoutReader(iotest.OneByteReader(bytes.NewReader(packed)))); err != iotest.ErrTimeout {
			t.Errorf("%s: a timeout: %v; want %v", e, err, iotest.ErrTimeout)
		}
		if _, err := unpackFrom(t, e, idle{}); err != io.ErrNoProgress {
			t.Errorf("%s: a reader that has nothing: %v; want %v", e, err, io.ErrNoProgress)
		}
	})
}

type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

// An error of the output is reported by Write or Close, whichever comes to know
// of it, and from then on by both.
func TestOutputError(t *testing.T) {
	full := errors.New("no space")
	data := sample(70_000)
	each(t, func(t *testing.T, e string) {
		size := len(pack(t, e, data))
		for _, n := range []int{0, 1, 5, 12, 20, size / 2, size - 20, size - 12, size - 8, size - 4, size - 1, size} {
			for _, short := range []bool{false, true} {
				want := full
				if short {
					want = io.ErrShortWrite
				}
				w, err := NewWriter(e, &disk{left: n, err: full, short: short})
				if err != nil {
					t.Fatal(err)
				}
				_, err = w.Write(data)
				if again := w.Close(); n == size && (err != nil || again != nil) {
					t.Errorf("%s: room for all of %d bytes: Write = %v, Close = %v; want nil", e, size, err, again)
				} else if n < size && (again != want || err != nil && err != want) {
					t.Errorf("%s: room for %d of %d bytes: Write = %v, Close = %v; want %v", e, n, size, err, again, want)
				} else if third := w.Close(); third != again {
					t.Errorf("%s: the second Close() = %v; want %v, as the first", e, third, again)
				}
				if _, err := w.Write(data); !errors.Is(err, fs.ErrClosed) {
					t.Errorf("%s: Write after Close = %v; want %v", e, err, fs.ErrClosed)
				}
			}
		}
	})
}

// A disk has room for so much.
type disk struct {
	left  int
	err   error
	short bool
}

func (d *disk) Write(p []byte) (int, error) {
	n := min(len(p), d.left)
	d.left -= n
	if n < len(p) && !d.short {
		return n, d.err
	}
	return n, nil
}

// Nothing runs beside a reader or writer, used up or left.
func TestNoGoroutines(t *testing.T) {
	data := sample(300_000)
	before := runtime.NumGoroutine()
	for _, e := range Encodings() {
		r, err := NewReader(e, bytes.NewReader(pack(t, e, data)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		w, err := NewWriter(e, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if n := runtime.NumGoroutine(); n > before {
			t.Errorf("%s: %d goroutines while it is used; want %d as before", e, n, before)
		}
		r.Close()
	}
	drivertest.Until(t, "there are as many goroutines as before", func() bool { return runtime.NumGoroutine() <= before })
}
