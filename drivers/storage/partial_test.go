package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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
