package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/jumplead/jumplead/drivers/driver/drivertest"
)

func openRoot(t testing.TB) (*os.Root, string) {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root, dir
}

// names are those in a directory.
func names(t testing.TB, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestPartial(t *testing.T) {
	drivertest.NoLeaks(t)
	root, dir := openRoot(t)
	for _, durable := range []bool{false, true} {
		p, err := NewPartial(root, "d/file")
		if err != nil {
			t.Fatal(err)
		}
		p.Durable = durable
		io.WriteString(p, "content")
		if got := names(t, dir+"/d"); !strings.HasPrefix(got[0], ".file.partial-") {
			t.Errorf("before Commit there are %q; want a partial name", got)
		}
		if err := p.Commit(t.Context()); err != nil {
			t.Errorf("Commit() = %v; want nil", err)
		}
		if err := errors.Join(p.Discard()); err != nil {
			t.Errorf("Discard() after Commit = %v; want nil", err)
		}
		if name, err := p.Keep(); name != "" || err != nil {
			t.Errorf("Keep() after Commit = %q, %v; want nothing", name, err)
		}
		if err := p.Commit(t.Context()); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("Commit() after Commit = %v; want %v", err, fs.ErrClosed)
		}
		if got, err := os.ReadFile(dir + "/d/file"); string(got) != "content" || err != nil {
			t.Errorf("file = %q, %v; want content", got, err)
		}
		if got := names(t, dir+"/d"); len(got) != 1 {
			t.Errorf("after Commit there are %q; want the file alone", got)
		}
	}
}

func TestHoles(t *testing.T) {
	root, dir := openRoot(t)
	const mega = 1 << 20
	data := bytes.Repeat([]byte{1}, mega)
	tests := []struct {
		pieces []int // in MiB; zeros when negative
		blocks int64 // that it may take, in MiB
	}{
		{[]int{-64}, 0},
		{[]int{-64, 1}, 1},
		{[]int{1, -64}, 1},
		{[]int{1, -32, 1, -32}, 2},
		{[]int{2}, 2},
		{nil, 0},
	}
	for _, test := range tests {
		p, err := NewPartial(root, "file")
		if err != nil {
			t.Fatal(err)
		}
		var want []byte
		for _, n := range test.pieces {
			piece := make([]byte, max(n, -n)*mega)
			if n > 0 {
				piece = bytes.Repeat(data, n)
			}
			want = append(want, piece...)
			if got, err := p.Write(piece); got != len(piece) || err != nil {
				t.Fatalf("Write(%d) = %d, %v; want all", len(piece), got, err)
			}
		}
		p.Write([]byte{0, 0, 0}) // not worth a hole
		want = append(want, 0, 0, 0)
		if p.Size() != int64(len(want)) {
			t.Errorf("Size() = %d; want %d", p.Size(), len(want))
		}
		if err := p.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(dir + "/file")
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("pieces %d: file has %d bytes, %v; want %d equal ones", test.pieces, len(got), err, len(want))
		}
		info, err := os.Stat(dir + "/file")
		if err != nil {
			t.Fatal(err)
		}
		if took := info.Sys().(*syscall.Stat_t).Blocks * 512; took > (test.blocks+1)*mega {
			t.Errorf("pieces %d take %d bytes on the disk; want at most %d MiB", test.pieces, took, test.blocks+1)
		}
	}
}

// A hole at the end is there also in what is kept as a part.
func TestKeep(t *testing.T) {
	drivertest.NoLeaks(t)
	root, dir := openRoot(t)
	p, err := NewPartial(root, "d/file")
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(p, "content")
	p.Write(make([]byte, 1<<20))
	name, err := p.Keep()
	if err != nil || !strings.HasPrefix(name, "d/.file.partial-") {
		t.Errorf("Keep() = %q, %v; want a partial name", name, err)
	}
	if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() != 1<<20+7 {
		t.Errorf("Stat(%s) = %v, %v; want %d bytes", name, info, err, 1<<20+7)
	}
}

func TestNewPartialRefuses(t *testing.T) {
	drivertest.NoLeaks(t)
	root, dir := openRoot(t)
	if err := errors.Join(
		os.Mkdir(dir+"/dir", 0o777),
		syscall.Mkfifo(dir+"/fifo", 0o666),
		os.WriteFile(dir+"/file", nil, 0o666),
		os.WriteFile(dir+"/readonly", nil, 0o444),
		os.Symlink("loop", dir+"/loop"),
		os.Symlink("/etc/passwd", dir+"/abs"),
		os.Symlink("../outside", dir+"/out"),
		os.Symlink("dir", dir+"/todir"),
	); err != nil {
		t.Fatal(err)
	}
	want := len(names(t, dir))
	for _, name := range []string{"dir", "todir", "fifo", "loop", "abs", "out", "file/x", "../x", ".", strings.Repeat("x", 256), "/etc/passwd"} {
		if p, err := NewPartial(root, name); err == nil {
			t.Errorf("NewPartial(%.20q) = nil; want an error", name)
			p.Discard()
		}
	}
	if os.Geteuid() != 0 { // whom permissions do not stop
		if _, err := NewPartial(root, "readonly"); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("NewPartial(readonly) = %v; want %v", err, fs.ErrPermission)
		}
	}
	if got := names(t, dir); len(got) != want {
		t.Errorf("there are %q; want what was there before", got)
	}
}

func TestPartialName(t *testing.T) {
	for name, want := range map[string]string{
		"disk.img":               ".disk.img.partial-0123abcd",
		strings.Repeat("x", 255): "." + strings.Repeat("x", 237) + ".partial-0123abcd",
	} {
		if got := partialName(name, "0123abcd"); got != want || len(got) > maxName {
			t.Errorf("partialName(%.20s) = %s with %d bytes; want %s", name, got, len(got), want)
		}
	}
}

func TestReplaceFails(t *testing.T) {
	drivertest.NoLeaks(t)
	root, dir := openRoot(t)
	if err := os.WriteFile(dir+"/file", []byte("old"), 0o666); err != nil {
		t.Fatal(err)
	}
	lost := errors.New("lost")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		ctx  context.Context
		src  io.Reader
		want error
		n    int64
	}{
		{t.Context(), iotest.ErrReader(lost), lost, 0},
		{t.Context(), io.MultiReader(strings.NewReader("12345"), iotest.ErrReader(lost)), lost, 5},
		{t.Context(), io.MultiReader(strings.NewReader("12345"), iotest.ErrReader(io.ErrUnexpectedEOF)), io.ErrUnexpectedEOF, 5},
		{cancelled, strings.NewReader("12345"), context.Canceled, 0},
	} {
		n, err := Replace(test.ctx, root, "file", test.src)
		if n != test.n || !errors.Is(err, test.want) || !strings.Contains(err.Error(), fmt.Sprintf("after %d bytes", n)) {
			t.Errorf("Replace() = %d, %v; want %d, %v", n, err, test.n, test.want)
		}
		if got, _ := os.ReadFile(dir + "/file"); string(got) != "old" || len(names(t, dir)) != 1 {
			t.Errorf("file = %q among %q; want the old one alone", got, names(t, dir))
		}
	}
	// Cancelled between the last byte and the name.
	p, err := NewPartial(root, "file")
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(p, "new")
	if err := p.Commit(cancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("Commit() = %v; want %v", err, context.Canceled)
	}
	if got, _ := os.ReadFile(dir + "/file"); string(got) != "old" {
		t.Errorf("file = %q; want the old content", got)
	}
	if err := p.Commit(t.Context()); err != nil {
		t.Errorf("Commit() again = %v; want nil", err)
	}
}

// TestFull runs in a process of its own, in which files cannot grow beyond
// fullAt: the disk is full for it, wherever it is.
func TestFull(t *testing.T) {
	const fullAt = 1 << 20
	if os.Getenv("STORAGE_TEST_FULL") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestFull$", "-test.v")
		cmd.Env = append(os.Environ(), "STORAGE_TEST_FULL=1")
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: TestFull")) {
			t.Errorf("in a process with limited files: %v:\n%s", err, out)
		}
		return
	}
	root, dir := openRoot(t)
	signal.Ignore(syscall.SIGXFSZ)
	if err := os.WriteFile(dir+"/file", []byte("old"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: fullAt, Max: fullAt}); err != nil {
		t.Fatal(err)
	}
	for what, src := range map[string][]byte{
		"data":                     bytes.Repeat([]byte{1}, fullAt+1),
		"data behind a hole":       append(make([]byte, 2*fullAt), bytes.Repeat([]byte{1}, 1000)...),
		"nothing but a hole":       make([]byte, 2*fullAt),
		"data, and a hole at last": append(bytes.Repeat([]byte{1}, 1000), make([]byte, 2*fullAt)...),
	} {
		if n, err := Replace(t.Context(), root, "file", bytes.NewReader(src)); !errors.Is(err, syscall.EFBIG) {
			t.Errorf("Replace(%s) = %d, %v; want %v", what, n, err, syscall.EFBIG)
		}
		if got, _ := os.ReadFile(dir + "/file"); string(got) != "old" || len(names(t, dir)) != 1 {
			t.Errorf("%s: file = %q among %q; want the old one alone", what, got, names(t, dir))
		}
	}
	if _, err := Replace(t.Context(), root, "file", bytes.NewReader(make([]byte, fullAt))); err != nil {
		t.Errorf("Replace() with what fits = %v; want nil", err)
	}
}

func TestSendFile(t *testing.T) {
	drivertest.NoLeaks(t)
	root, dir := openRoot(t)
	if err := os.WriteFile(dir+"/file", make([]byte, 1<<20), 0o666); err != nil {
		t.Fatal(err)
	}
	f, err := OpenRegular(root, "file")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Seek(1000, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	n, err := SendFile(t.Context(), writerFunc(func(p []byte) (int, error) {
		return len(p), os.Truncate(dir+"/file", 5000)
	}), f)
	if err == nil || !strings.Contains(err.Error(), "was cut") {
		t.Errorf("SendFile() of a file that is cut = %d, %v; want an error that says so", n, err)
	}
	if n, err := SendFile(t.Context(), io.Discard, f); n != 0 || err != nil {
		t.Errorf("SendFile() from behind the end = %d, %v; want 0", n, err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// card is a mux that remembers what it was asked.
type card struct {
	Mux
	calls []string
	fail  map[string]error
}

func (c *card) call(ctx context.Context, name string) error {
	if ctx.Err() != nil {
		name += " (too late)"
	}
	c.calls = append(c.calls, name)
	return errors.Join(ctx.Err(), c.fail[name])
}

func (c *card) Host(ctx context.Context) error               { return c.call(ctx, "host") }
func (c *card) DUT(ctx context.Context) error                { return c.call(ctx, "dut") }
func (c *card) Write(ctx context.Context, _ io.Reader) error { return c.call(ctx, "write") }
func (c *card) Read(ctx context.Context, _ io.Writer) error  { return c.call(ctx, "read") }
func (c *card) flash(ctx context.Context, partition string) error {
	return MuxFlasher{c}.Flash(ctx, nil, partition)
}

func TestMuxFlasher(t *testing.T) {
	broken, stuck := errors.New("broken"), errors.New("stuck")
	tests := []struct {
		fail  map[string]error
		calls string
	}{
		{nil, "host write dut"},
		{map[string]error{"host": stuck}, "host"},
		{map[string]error{"write": broken}, "host write dut"},
		{map[string]error{"dut": stuck}, "host write dut"},
		{map[string]error{"write": broken, "dut": stuck}, "host write dut"},
	}
	for _, test := range tests {
		c := &card{fail: test.fail}
		err := c.flash(t.Context(), "")
		if got := strings.Join(c.calls, " "); got != test.calls || (err == nil) != (test.fail == nil) {
			t.Errorf("Flash() with %v = %v, calls %s; want calls %s", test.fail, err, got, test.calls)
		}
		for _, want := range test.fail {
			if !errors.Is(err, want) {
				t.Errorf("Flash() with %v = %v; want %v in it", test.fail, err, want)
			}
		}
	}
	// Cancelled during the transfer, the DUT gets its medium back.
	ctx, cancel := context.WithCancel(t.Context())
	c := &card{}
	cancelling := &cancelling{c, cancel}
	if err := (MuxFlasher{cancelling}).Dump(ctx, io.Discard, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("Dump() = %v; want %v", err, context.Canceled)
	}
	if got := strings.Join(c.calls, " "); got != "host read (too late) dut" {
		t.Errorf("calls = %s; want host read (too late) dut", got)
	}
}

type cancelling struct {
	*card
	cancel func()
}

func (c *cancelling) Read(ctx context.Context, w io.Writer) error {
	c.cancel()
	return c.card.Read(ctx, w)
}
