// Package storagetest has the conformance suites of the storage contracts. The
// same suites serve a backend, its in-process round trip, a client behind a wire
// and a medium on a bench.
package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/storage"
)

// Sizes are the lengths at which transfers are tested, in bytes: nothing, and
// both sides of the chunks and messages that data travels in.
var Sizes = []int{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 4<<20 - 1, 4 << 20, 4<<20 + 1}

// Image makes up content that is no other image's, with runs of zeros in it as
// disk images have them, at the end as well.
func Image(n int, seed byte) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	if n > 1<<20 {
		clear(b[200<<10 : 700<<10])
		clear(b[n-300<<10:])
	}
	return b
}

// Store is what the suites of muxes and flashers have in common.
type Store struct {
	// Whole says that what is read ends where the last write ended. The content
	// of a disk goes on to its end.
	Whole bool
	// Keeps says that a write that fails leaves the old content.
	Keeps bool
}

// Mux is a mux under test, switched to the host.
type Mux struct {
	storage.Mux
	Store

	// Guarded says that the medium is refused while it is not on the host's
	// side. Other muxes switch to the host by themselves.
	Guarded bool
}

// Flasher is a flasher under test.
type Flasher struct {
	storage.Flasher
	Store

	Partitions []string // some that it has; none when it knows no names
}

// TestMux runs the suite of muxes. Open makes a fresh one and registers its
// cleanup.
func TestMux(t *testing.T, open func(t *testing.T) Mux) {
	transfers(t, func(t *testing.T) medium {
		m := open(t)
		return medium{m.Store, m.Write, m.Read}
	})
	t.Run("sides", func(t *testing.T) {
		m, ctx, want := open(t), t.Context(), Image(1000, 1)
		succeed(t, "Write", m.Write(ctx, bytes.NewReader(want)))
		for _, turn := range []struct {
			name string
			to   func(context.Context) error
		}{{"DUT", m.DUT}, {"Off", m.Off}} {
			for range 2 { // to where it is already
				succeed(t, turn.name, turn.to(ctx))
			}
			if m.Guarded {
				if err := m.Write(ctx, bytes.NewReader([]byte("x"))); err == nil {
					t.Errorf("Write() after %s = nil; want an error", turn.name)
				}
				if err := m.Read(ctx, io.Discard); err == nil {
					t.Errorf("Read() after %s = nil; want an error", turn.name)
				}
			}
			succeed(t, "Host", m.Host(ctx))
			medium{m.Store, m.Write, m.Read}.holds(t, want)
		}
	})
	t.Run("flash and dump", func(t *testing.T) {
		m := open(t)
		f := storage.MuxFlasher{Mux: m}
		transfer(t, medium{m.Store, part(f.Flash, ""), part(f.Dump, "")}, Image(100_000, 1))
		if m.Guarded { // left at the DUT
			if err := m.Read(t.Context(), io.Discard); err == nil {
				t.Error("Read() after Dump = nil; want an error")
			}
		}
		if err := f.Flash(t.Context(), failing(10, 100), ""); !errors.Is(err, errTest) {
			t.Errorf("Flash() of what cannot be read = %v; want %v", err, errTest)
		}
		if m.Guarded {
			if err := m.Read(t.Context(), io.Discard); err == nil {
				t.Error("Read() after a Flash that failed = nil; want an error")
			}
		}
		if bad := (*driver.ArgError)(nil); !errors.As(f.Flash(t.Context(), bytes.NewReader(nil), "x"), &bad) {
			t.Error("Flash() to a partition = nil; want an ArgError")
		}
	})
}

// TestFlasher runs the suite of flashers. Open makes a fresh one and registers
// its cleanup.
func TestFlasher(t *testing.T, open func(t *testing.T) Flasher) {
	transfers(t, func(t *testing.T) medium {
		f := open(t)
		return medium{f.Store, part(f.Flash, ""), part(f.Dump, "")}
	})
	t.Run("partitions", func(t *testing.T) {
		f := open(t)
		names := append([]string{""}, f.Partitions...)
		for i, name := range names {
			succeed(t, "Flash", f.Flash(t.Context(), bytes.NewReader(Image(1000, byte(i))), name))
		}
		for i, name := range names {
			medium{f.Store, nil, part(f.Dump, name)}.holds(t, Image(1000, byte(i)))
		}
	})
}

func part[T any](f func(context.Context, T, string) error, name string) func(context.Context, T) error {
	return func(ctx context.Context, x T) error { return f(ctx, x, name) }
}

// medium is anything that can be written and read.
type medium struct {
	Store
	write func(context.Context, io.Reader) error
	read  func(context.Context, io.Writer) error
}

func transfers(t *testing.T, open func(t *testing.T) medium) {
	t.Run("sizes", func(t *testing.T) {
		m := open(t)
		for _, n := range Sizes {
			transfer(t, m, Image(n, byte(n)))
		}
		transfer(t, m, make([]byte, 1<<20)) // nothing but a hole
		transfer(t, m, Image(10, 1))        // shorter than before
	})
	t.Run("broken write", func(t *testing.T) {
		m := open(t)
		old := Image(100_000, 1)
		transfer(t, m, old)
		for _, at := range []int{0, 1, 64 << 10, 1 << 20} {
			if err := m.write(t.Context(), failing(at, 2<<20)); !errors.Is(err, errTest) {
				t.Errorf("write of what fails after %d bytes = %v; want %v", at, err, errTest)
			}
			if m.Keeps {
				m.holds(t, old)
			}
		}
		transfer(t, m, Image(1000, 2))
	})
	t.Run("cancelled write", func(t *testing.T) {
		m := open(t)
		old := Image(100_000, 1)
		transfer(t, m, old)
		for _, at := range []int{0, 1 << 20} {
			ctx, cancel := context.WithCancel(t.Context())
			endless := io.MultiReader(bytes.NewReader(Image(at, 2)), readerFunc(func(p []byte) (int, error) {
				cancel()
				return len(p), nil
			}))
			if err := m.write(ctx, endless); err == nil {
				t.Errorf("write cancelled after %d bytes = nil; want an error", at)
			}
			if m.Keeps {
				m.holds(t, old)
			}
		}
		transfer(t, m, Image(1000, 3))
	})
	t.Run("broken read", func(t *testing.T) {
		m := open(t)
		want := Image(2<<20, 1)
		transfer(t, m, want)
		for _, at := range []int{0, 1, 1 << 20} {
			if err := m.read(t.Context(), &full{at}); !errors.Is(err, errTest) {
				t.Errorf("read into what is full after %d bytes = %v; want %v", at, err, errTest)
			}
		}
		m.holds(t, want)
	})
	t.Run("overlap", func(t *testing.T) {
		m := open(t)
		const writers = 3
		transfer(t, m, Image(300_000, 0))
		var wg sync.WaitGroup
		for i := range writers {
			wg.Go(func() {
				if err := m.write(t.Context(), bytes.NewReader(Image(300_000, byte(i)))); err != nil {
					t.Errorf("write() = %v; want nil", err)
				}
			})
			wg.Go(func() {
				var got bytes.Buffer
				if err := m.read(t.Context(), &got); err != nil {
					t.Errorf("read() = %v; want nil", err)
				}
				if !m.Keeps {
					return
				}
				for i := range writers {
					if m.is(got.Bytes(), Image(300_000, byte(i))) {
						return
					}
				}
				t.Errorf("read() during writes = %d bytes that nobody wrote; want one of the images", got.Len())
			})
		}
		wg.Wait()
	})
}

// transfer writes content and reads it back.
func transfer(t *testing.T, m medium, content []byte) {
	t.Helper()
	if err := m.write(t.Context(), bytes.NewReader(content)); err != nil {
		t.Fatalf("write(%d bytes) = %v; want nil", len(content), err)
	}
	m.holds(t, content)
}

func (m medium) holds(t *testing.T, want []byte) {
	t.Helper()
	var got bytes.Buffer
	if err := m.read(t.Context(), &got); err != nil {
		t.Fatalf("read() = %v; want %d bytes", err, len(want))
	}
	if !m.is(got.Bytes(), want) {
		t.Fatalf("read() = %s; want %s", describe(got.Bytes()), describe(want))
	}
}

func (m medium) is(got, want []byte) bool {
	return bytes.Equal(got, want) || !m.Whole && bytes.HasPrefix(got, want)
}

func describe(b []byte) string { return fmt.Sprintf("%d bytes, %x...", len(b), b[:min(len(b), 8)]) }

func succeed(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s() = %v; want nil", what, err)
	}
}

var errTest = errors.New("this was made to fail")

// failing yields at bytes of the image of n, then fails.
func failing(at, n int) io.Reader {
	return io.MultiReader(bytes.NewReader(Image(n, 9)[:at]), readerFunc(func([]byte) (int, error) { return 0, errTest }))
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// full takes so many bytes, then fails.
type full struct{ left int }

func (f *full) Write(p []byte) (int, error) {
	n := min(len(p), f.left)
	if f.left -= n; n < len(p) {
		return n, errTest
	}
	return n, nil
}
