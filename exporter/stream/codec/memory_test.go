package codec

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
)

// The tests of memory run in a process of their own each: this test's program
// once more, which unpacks what it is sent, or packs what it makes, and says by
// how much it has grown: at most, and at the end.
const (
	childEnv  = "JUMPLEAD_CODEC_CHILD" // read or write, the encoding, and the size of what is written
	childSays = "grown by"
)

// filler is much content that packs well: a little of it does not repeat.
func filler(n int) io.Reader {
	return io.LimitReader(&repeater{piece: append(make([]byte, 1<<20), sample(64<<10)...)}, int64(n))
}

type repeater struct {
	piece []byte
	at    int
}

func (r *repeater) Read(p []byte) (int, error) {
	n := copy(p, r.piece[r.at:])
	r.at = (r.at + n) % len(r.piece)
	return n, nil
}

// resident is what the process has now, and had at most, in KiB.
func resident() (now, most int) {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		switch f := strings.Fields(line); f[0] {
		case "VmRSS:":
			now, _ = strconv.Atoi(f[1])
		case "VmHWM:":
			most, _ = strconv.Atoi(f[1])
		}
	}
	return now, most
}

func memoryChild(t *testing.T, do string) {
	var way, encoding string
	var size int
	if _, err := fmt.Sscan(do, &way, &encoding, &size); err != nil {
		t.Fatal(err)
	}
	content := filler(size)
	debug.FreeOSMemory()
	before, _ := resident()
	var n int64
	if way == "read" {
		r, err := NewReader(encoding, os.Stdin)
		if err == nil {
			n, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, make([]byte, 64<<10))
		}
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
	} else {
		w, err := NewWriter(encoding, struct{ io.Writer }{io.Discard})
		if err != nil {
			t.Fatal(err)
		}
		n, err = io.CopyBuffer(struct{ io.Writer }{w}, content, make([]byte, 64<<10))
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	after, most := resident()
	fmt.Println(childSays, most-before, after-before, "KiB for", n)
}

// grows runs a child with an input, and returns by how many KiB it grows, at most
// and at the end, and how much it unpacked or packed.
func grows(t *testing.T, do string, in io.Reader) (most, after int, n int64) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestResident$")
	cmd.Env = append(os.Environ(), childEnv+"="+do, "GORACE=atexit_sleep_ms=0")
	cmd.Stdin = in
	out, err := cmd.CombinedOutput()
	_, says, found := strings.Cut(string(out), childSays)
	if _, scanErr := fmt.Sscanf(says, "%d %d KiB for %d", &most, &after, &n); err != nil || !found || scanErr != nil {
		t.Fatalf("the child for %q: %v, %v: %s", do, err, scanErr, out)
	}
	return most, after, n
}

// instrumented says whether this is built with the race detector, which keeps
// books of each byte of Go's heap.
func instrumented() bool {
	info, _ := debug.ReadBuildInfo()
	for _, s := range info.Settings {
		if s.Key == "-race" && s.Value == "true" {
			return true
		}
	}
	return false
}

// A process grows by the window and a few MB, however much passes through, and
// gives a large window back.
func TestResident(t *testing.T) {
	if do := os.Getenv(childEnv); do != "" {
		memoryChild(t, do)
		return
	}
	// frame is one of zstd that asks for a window of 1<<exp bytes, with n bytes of content.
	frame := func(exp int, n int) []byte {
		b := append([]byte(zstdMagic), 0, byte(exp-10)<<3)
		for last := byte(0); last == 0; n -= 128 << 10 {
			k := min(n, 128<<10)
			if n == k {
				last = 1
			}
			b = append(b, last|1<<1|byte(k<<3), byte(k>>5), byte(k>>13), 'x')
		}
		return b
	}
	growing := frame(20, 1<<20)
	for exp := 21; exp <= 26; exp++ {
		growing = append(growing, frame(exp, 1<<exp)...)
	}
	const large = 96 << 20 // content that fills the largest window
	many, slow := large, instrumented()
	if slow {
		many = 12 << 20
	}
	for _, c := range []struct {
		do   string
		what string
		line string // packs the filler, or
		in   []byte // this is read
		size int
		most int // MiB
	}{
		{"write gzip", "", "", nil, many, 5},
		{"write xz", "", "", nil, many, 12},
		{"write bz2", "", "", nil, many, 12},
		{"write zstd", "", "", nil, many, 12},
		{"read gzip", "", "gzip -1", nil, many, 4},
		{"read xz", "", "xz -6 -T1", nil, many, 8 + 3},
		{"read xz", "", "xz -1 -T2", nil, many, 1 + 3},
		{"read xz", "the window of xz -9,", "xz -0 -T1 --lzma2=preset=0,dict=64MiB", nil, large, 64 + 3},
		{"read bz2", "", "bzip2 -9", nil, many, 8},
		{"read zstd", "", "zstd -3", nil, many, 2 + 4},
		{"read zstd", "", "zstd -19", nil, many, 8 + 4},
		{"read zstd", "", "zstd -3 --long=26", nil, large, 64 + 4},
		{"read xz", "10 bytes that ask for 64 MiB", "", repack(t, 64<<20), 10, 5},
		{"read zstd", "10 bytes that ask for 64 MiB", "", frame(26, 10), 10, 5},
		{"read zstd", "frames that ask for more and more", "", growing, 127 << 20, 64 + 4},
	} {
		t.Run(strings.Join(strings.Fields(c.do+" "+c.what+" "+c.line), " "), func(t *testing.T) {
			t.Parallel()
			in := c.in
			if c.line != "" {
				args := append(strings.Fields(c.line), "-c")
				needProgram(t, args[0])
				packer := exec.Command(args[0], args[1:]...)
				packer.Stdin = filler(c.size)
				var err error
				if in, err = packer.Output(); err != nil {
					t.Fatalf("%s: %v", c.line, err)
				}
			}
			most, after, n := grows(t, fmt.Sprint(c.do, " ", c.size), bytes.NewReader(in))
			if n != int64(c.size) {
				t.Errorf("it was %d bytes; want %d", n, c.size)
			}
			limit := c.most << 10
			if slow {
				limit = 3*limit + 8<<10
			}
			if most > limit {
				t.Errorf("grows by %d KiB for %d bytes; want at most %d", most, n, limit)
			}
			// The detector's books are never given back.
			if limit := 12 << 10; after > limit && !slow {
				t.Errorf("is larger by %d KiB at the end; want at most %d", after, limit)
			}
		})
	}
}

// repack is a little content in xz that asks for a larger window.
func repack(t *testing.T, window int) []byte {
	packed := pack(t, XZ, sample(10))
	header := packed[12:20]
	header[4] = xzDictSize(window)
	copy(packed[12:], sealed(header...))
	return packed
}
