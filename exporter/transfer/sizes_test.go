package transfer_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/storage/storagetest"
	"github.com/jumplead/jumplead/exporter/stream/codec"
)

// image is content as disk images have it, most of it the same again and again.
func image(n int) []byte {
	b := make([]byte, 0, n+64<<10)
	for block := storagetest.Image(64<<10, byte(n)); len(b) < n; {
		b = append(b, block[:7<<10]...)
		b = append(b, make([]byte, 57<<10)...)
	}
	return b[:n]
}

// TestSizes moves contents of all sizes, by every encoding and both ways.
func TestSizes(t *testing.T) {
	drivertest.NoLeaks(t)
	b := openBench(t)
	c := dial(t, b.listen(t), nil)
	g := newGrid(t, b)
	for _, n := range storagetest.Sizes {
		content := image(n)
		want := sha256.Sum256(content)
		for _, e := range encodings {
			tr := driver.Transfer{Encoding: e}
			g.add(kind{"moved", true, nil}, fmt.Sprintf("%d bytes, %s", n, name(e)), func(w *worker, cell *cell) {
				ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
				defer cancel()
				p := g.place(w, c)
				delete(w.holds, p.name)
				if err := p.write(ctx, tr, bytes.NewReader(pack(t, e, content))); err != nil {
					t.Errorf("%s, %s: write() = %v; want nil", cell.name, p.name, err)
				}
				got, err := p.content(ctx)
				g.judge(cell, p, err, sha256.Sum256(got) == want)
				var packed bytes.Buffer
				if err := p.read(ctx, tr, &packed); err != nil {
					t.Errorf("%s, %s: read() = %v; want nil", cell.name, p.name, err)
				}
				got, err = unpack(e, packed.Bytes())
				g.judge(cell, p, err, sha256.Sum256(got) == want)
			})
		}
	}
	g.all()
}

// TestFullDisk sends more than there is room for.
func TestFullDisk(t *testing.T) {
	drivertest.NoLeaks(t)
	const room = 64 << 10
	b, addr, _ := startExporter(t, room)
	c := dial(t, addr, nil)
	g := newGrid(t, b)
	for _, e := range encodings {
		for _, n := range []int{room + 1, 3 * room} {
			content := random(g.rand, n)
			packed := pack(t, e, content)
			for _, p := range []place{flasherPlace(b, c, "cell"+e), muxPlace(c, 0), filePlace(b, c, "cell"+e)} {
				old := []byte("the old content")
				if err := p.write(t.Context(), driver.Transfer{}, bytes.NewReader(old)); err != nil {
					t.Fatalf("%s: write() = %v; want nil", p.name, err)
				}
				err := p.write(t.Context(), driver.Transfer{Encoding: e}, bytes.NewReader(packed))
				if c := driver.Classify(err); c != driver.Device && c != driver.Internal || !strings.Contains(err.Error(), "file too large") {
					t.Errorf("%s, %s: write() of %d bytes where %d fit = %v; want that it is too large", p.name, name(e), n, room, err)
				}
				if got, err := p.content(t.Context()); err != nil || !bytes.Equal(got, old) {
					t.Errorf("%s, %s: %d bytes are there, %v; want the old content", p.name, name(e), len(got), err)
				}
				if err := p.write(t.Context(), driver.Transfer{Encoding: e}, bytes.NewReader(pack(t, e, content[:room]))); err != nil {
					t.Errorf("%s, %s: the next write() = %v; want nil", p.name, name(e), err)
				}
				if got, err := p.content(t.Context()); err != nil || !bytes.Equal(got, content[:room]) {
					t.Errorf("%s, %s: %d bytes are there, %v; want %d", p.name, name(e), len(got), err, room)
				}
			}
		}
	}
	for _, dir := range append(glob(t, filepath.Join(b.dir, "jumplead-storage-*")), b.root) {
		if left := glob(t, filepath.Join(dir, ".*")); len(left) != 0 {
			t.Errorf("%v are left; want nothing", left)
		}
	}
}

// TestLarge moves 3 GB through an exporter with a process of its own, and looks
// at how much memory that takes. The race detector takes memory for itself; a
// test program that has it makes one that has not. On an idle machine of two
// cores that takes a quarter of a minute.
func TestLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("moves 12 GB")
	}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		program := filepath.Join(t.TempDir(), "test")
		if out, err := exec.Command("go", "test", "-c", "-o", program, ".").CombinedOutput(); err != nil {
			t.Fatalf("go test -c = %v; want nil\n%s", err, out)
		}
		out, err := exec.Command(program, "-test.run=^TestLarge$", "-test.v").CombinedOutput()
		t.Logf("%s", out)
		if err != nil || !bytes.Contains(out, []byte("--- PASS: TestLarge")) {
			t.Errorf("without the race detector: %v; want nil", err)
		}
		return
	}
	const size, most = 3 << 30, 32 << 20
	b, addr, pid := startExporter(t, 0)
	before := memory(t, pid, "VmRSS")
	c := dial(t, addr, nil)
	f := disk{size, storagetest.Image(1<<20, 1)}
	p := flasherPlace(b, c, "large")
	for _, e := range []string{"", codec.Zstd} {
		tr := driver.Transfer{Encoding: e}
		src := io.Reader(io.NewSectionReader(f, 0, size))
		if e != "" {
			packed, err := os.Create(filepath.Join(t.TempDir(), "packed"))
			if err != nil {
				t.Fatal(err)
			}
			defer packed.Close()
			w, err := codec.NewWriter(e, packed)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(w, src); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := packed.Seek(0, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			src = packed
		}
		start := time.Now()
		if err := p.write(t.Context(), tr, src); err != nil {
			t.Fatalf("%s: write() = %v; want nil", name(e), err)
		}
		wrote := time.Since(start)
		found := glob(t, p.disk)
		if len(found) != 1 {
			t.Fatalf("%s is %v; want one file", p.disk, found)
		}
		stored, err := os.Open(found[0])
		if err != nil {
			t.Fatal(err)
		}
		equal(t, name(e)+", written", stored, io.NewSectionReader(f, 0, size))
		stored.Close()

		start = time.Now()
		r, w := io.Pipe()
		read := make(chan error, 1)
		go func() {
			err := p.read(t.Context(), tr, w)
			w.CloseWithError(err)
			read <- err
		}()
		content := io.Reader(r)
		if e != "" {
			var err error
			if content, err = codec.NewReader(e, r); err != nil {
				t.Fatal(err)
			}
		}
		equal(t, name(e)+", read", content, io.NewSectionReader(f, 0, size))
		if err := <-read; err != nil {
			t.Errorf("%s: read() = %v; want nil", name(e), err)
		}
		grown := memory(t, pid, "VmHWM") - before
		t.Logf("%s: written in %v, read in %v; memory has grown by %d KiB", name(e), wrote, time.Since(start), grown>>10)
		if grown > most {
			t.Errorf("%s: memory has grown by %d KiB; want at most %d", name(e), grown>>10, most>>10)
		}
	}
}

// disk is mostly nothing: every 300 MB there is a piece of data.
type disk struct {
	size  int64
	piece []byte
}

func (d disk) ReadAt(p []byte, off int64) (int, error) {
	p = p[:min(int64(len(p)), d.size-off)]
	clear(p)
	for at := off / (300 << 20) * (300 << 20); at < off+int64(len(p)); at += 300 << 20 {
		if at >= off {
			copy(p[at-off:], d.piece)
		} else if off-at < int64(len(d.piece)) {
			copy(p, d.piece[off-at:])
		}
	}
	if len(p) == 0 {
		return 0, io.EOF
	}
	return len(p), nil
}

// equal compares what two readers have.
func equal(t *testing.T, what string, got, want io.Reader) {
	t.Helper()
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); ; at += int64(len(a)) {
		n, err := io.ReadFull(got, a)
		m, werr := io.ReadFull(want, b)
		if n != m || !bytes.Equal(a[:n], b[:m]) || (err == nil) != (werr == nil) || err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			t.Fatalf("%s: what comes behind %d bytes differs: %d bytes, %v; want %d, %v", what, at, n, err, m, werr)
		}
		if err != nil {
			return
		}
	}
}

// memory is a figure from what the kernel tells of a process, in bytes: VmRSS is
// what it has in memory, VmHWM the most that it ever had.
func memory(t *testing.T, pid int, figure string) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	var kb int64
	_, rest, found := strings.Cut(string(text), figure+":")
	if _, err := fmt.Sscan(rest, &kb); !found || err != nil {
		t.Fatalf("%s is not in the status of %d: %v", figure, pid, err)
	}
	return kb << 10
}
