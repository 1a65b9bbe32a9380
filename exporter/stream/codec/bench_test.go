//go:build unix

package codec

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The benchmarks measure processor time, that of this process and that of the
// program, with one thread each, on the same data: x-program is how many times
// as fast as the program it is. Each line of them also says how large the packed
// data is, as a share of the data. Run them with -cpu 1 -benchtime 3x.

// corpus is somewhat like an image: this test's own program, and source.
var corpus = sync.OnceValue(func() []byte {
	const size, programSize = 32 << 20, 12 << 20
	var b []byte
	if self, err := os.Executable(); err == nil {
		b, _ = os.ReadFile(self)
		b = b[:min(len(b), programSize)]
	}
	filepath.WalkDir(filepath.Join(runtime.GOROOT(), "src"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			text, _ := os.ReadFile(path)
			b = append(b, text...)
		}
		if len(b) >= size {
			return fs.SkipAll
		}
		return nil
	})
	return b
})

func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// runProgram runs a program on the data, and says how long it took. What it makes goes to out, or nowhere.
func runProgram(b *testing.B, line string, data []byte, out io.Writer) time.Duration {
	b.Helper()
	args := strings.Fields(line)
	needProgram(b, args[0])
	in := filepath.Join(b.TempDir(), "in")
	if err := os.WriteFile(in, data, 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(args[0], append(args[1:], in)...)
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	if err := cmd.Run(); err != nil {
		b.Fatalf("%s: %v", line, err)
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// measure runs f until the benchmark has enough, with the data and in turn with
// the program, so that both meet the same machine.
func measure(b *testing.B, program string, in []byte, size int, f func()) {
	var ours, theirs time.Duration
	for b.Loop() {
		start := cpuTime()
		f()
		ours += cpuTime() - start
		theirs += runProgram(b, program, in, nil)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(size)*float64(b.N)/1e6/ours.Seconds(), "MB/s")
	b.ReportMetric(theirs.Seconds()/ours.Seconds(), "x-program")
}

func BenchmarkReader(b *testing.B) {
	for _, c := range []struct{ encoding, pack, unpack string }{
		{Gzip, "gzip -6 -c", "gzip -dc"},
		{XZ, "xz -1 -T1 -c", "xz -dc -T1"},
		{XZ, "xz -6 -T1 -c", "xz -dc -T1"},
		{Bzip2, "bzip2 -9 -c", "bzip2 -dc"},
		{Zstd, "zstd -1 -q --single-thread -c", "zstd -dcq --single-thread"},
		{Zstd, "zstd -3 -q --single-thread -c", "zstd -dcq --single-thread"},
		{Zstd, "zstd -12 -q --single-thread -c", "zstd -dcq --single-thread"},
	} {
		b.Run(strings.Join(strings.Fields(c.pack)[:2], ""), func(b *testing.B) {
			var out bytes.Buffer
			runProgram(b, c.pack, corpus(), &out)
			packed := out.Bytes()
			buf := make([]byte, 64<<10)
			measure(b, c.unpack, packed, len(corpus()), func() {
				r, err := NewReader(c.encoding, bytes.NewReader(packed))
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, buf)
				if n != int64(len(corpus())) || err != nil {
					b.Fatalf("%s: %d bytes, %v; want %d, nil", c.encoding, n, err, len(corpus()))
				}
			})
			b.ReportMetric(float64(len(packed))/float64(len(corpus())), "packed")
		})
	}
}

func BenchmarkWriter(b *testing.B) {
	for _, c := range []struct{ encoding, program string }{
		{Gzip, "gzip -4 -c"},
		{XZ, "xz -1 -T1 -c"},
		{Bzip2, "bzip2 -2 -c"},
		{Zstd, "zstd -1 -q --single-thread -c"},
		{Zstd, "zstd -3 -q --single-thread -c"},
	} {
		b.Run(c.encoding+"/"+strings.Join(strings.Fields(c.program)[:2], ""), func(b *testing.B) {
			var out countingDiscard
			measure(b, c.program, corpus(), len(corpus()), func() {
				out = 0
				w, err := NewWriter(c.encoding, &out)
				if err != nil {
					b.Fatal(err)
				}
				for rest := corpus(); len(rest) > 0; {
					n := min(len(rest), 64<<10)
					if _, err := w.Write(rest[:n]); err != nil {
						b.Fatal(err)
					}
					rest = rest[n:]
				}
				if err := w.Close(); err != nil {
					b.Fatal(err)
				}
			})
			b.ReportMetric(float64(out)/float64(len(corpus())), "packed")
			out = 0
			runProgram(b, c.program, corpus(), &out)
			b.ReportMetric(float64(out)/float64(len(corpus())), "packed-by-program")
		})
	}
}

type countingDiscard int64

func (c *countingDiscard) Write(p []byte) (int, error) {
	*c += countingDiscard(len(p))
	return len(p), nil
}
