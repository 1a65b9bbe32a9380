package fakestorage

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/storage"
	"github.com/jumplead/jumplead/drivers/storage/storagetest"
)

var keeping = storagetest.Store{Whole: true, Keeps: true}

// open opens a spec on a bench, in a place for temporary files that has to be
// empty when the test ends.
func open(t *testing.T, spec driver.Spec) driver.Caller {
	t.Helper()
	drivertest.NoLeaks(t)
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	o := &drivertest.Offers{}
	t.Cleanup(func() {
		if n := o.Held(); n != 0 {
			t.Errorf("%d streams are held; want none", n)
		}
		if left, _ := filepath.Glob(tmp + "/*"); len(left) != 0 {
			t.Errorf("%v are left; want nothing", left)
		}
	})
	return drivertest.Bench{Resources: o}.Open(t, "", spec)
}

func TestSpecs(t *testing.T) {
	for _, spec := range []driver.Spec{Mux, MuxFlasher, Flasher} {
		t.Run(spec.Type, func(t *testing.T) {
			drivertest.Spec(t, spec, "")
			drivertest.Bench{Resources: &drivertest.Offers{}}.Lifecycle(t, "", spec)
		})
	}
}

func TestMuxConformance(t *testing.T) {
	for _, spec := range []driver.Spec{Mux, MuxFlasher} {
		t.Run(spec.Type, func(t *testing.T) {
			storagetest.TestMux(t, func(t *testing.T) storagetest.Mux {
				return storagetest.Mux{Mux: storage.NewMuxClient(open(t, spec)), Store: keeping, Guarded: true}
			})
		})
	}
}

func TestFlasherConformance(t *testing.T) {
	storagetest.TestFlasher(t, func(t *testing.T) storagetest.Flasher {
		return storagetest.Flasher{Flasher: storage.NewFlasherClient(open(t, Flasher)), Store: keeping,
			Partitions: []string{"uboot", "a.b", "mit Leerzeichen", strings.Repeat("x", maxPartition)}}
	})
}

func TestPartitionNames(t *testing.T) {
	c := storage.NewFlasherClient(open(t, Flasher))
	for _, name := range []string{"../x", "/etc/passwd", "a/b", ".", "..", ".default.partial-0", "a\x00b", strings.Repeat("x", maxPartition+1)} {
		var bad *driver.ArgError
		if err := c.Flash(t.Context(), strings.NewReader("x"), name); !errors.As(err, &bad) {
			t.Errorf("Flash(%.20q) = %v; want an ArgError", name, err)
		}
		if err := c.Dump(t.Context(), io.Discard, name); !errors.As(err, &bad) {
			t.Errorf("Dump(%.20q) = %v; want an ArgError", name, err)
		}
	}
	if err := c.Dump(t.Context(), io.Discard, ""); driver.Classify(err) != driver.Device {
		t.Errorf("Dump() of what was never flashed = %v; want a file that does not exist", err)
	}
}

func TestErrorsTell(t *testing.T) {
	c := storage.NewMuxClient(open(t, Mux))
	if err := c.DUT(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := c.Write(t.Context(), strings.NewReader("x"))
	if want := "write: the storage is switched to the DUT: call host first"; err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("Write() = %v; want %s", err, want)
	}
}

// A client that goes away half way is told, in the exporter's log, what came.
func TestBrokenStream(t *testing.T) {
	drivertest.NoLeaks(t)
	o := &drivertest.Offers{}
	c := drivertest.Bench{Resources: o}.Open(t, "", Flasher)
	r, h := o.Stream()
	wrote := make(chan error, 1)
	go func() { wrote <- driver.Run(t.Context(), c, "flash", h) }()
	if _, err := r.Write(make([]byte, 1234)); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if err := <-wrote; !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "after 1234 bytes") {
		t.Errorf("flash() = %v; want %v after 1234 bytes", err, io.ErrUnexpectedEOF)
	}
}

func TestProgress(t *testing.T) {
	c := storage.NewFlasherClient(open(t, Flasher))
	image := storagetest.Image(1<<20, 1)
	var last, calls int64
	total := int64(len(image))
	c.Transfer.Progress = func(n, of int64) {
		if n <= last || of != total {
			t.Errorf("Progress(%d, %d) after %d; want more, of %d", n, of, last, total)
		}
		last = n
		calls++
	}
	if err := c.Flash(t.Context(), bytes.NewReader(image), ""); err != nil {
		t.Fatal(err)
	}
	if last != int64(len(image)) || calls < 2 {
		t.Errorf("Progress() says %d in %d calls; want %d in several", last, calls, len(image))
	}
	last, calls, total = 0, 0, -1
	if err := c.Dump(t.Context(), io.Discard, ""); err != nil {
		t.Fatal(err)
	}
	if last != int64(len(image)) || calls < 2 {
		t.Errorf("Progress() says %d in %d calls; want %d in several", last, calls, len(image))
	}
}

// While a transfer has the mux, others wait for it, but not for ever.
func TestMuxWaits(t *testing.T) {
	f, err := newFiles(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	synctest.Test(t, func(t *testing.T) {
		m := &mux{files: f, turn: storage.NewTurn(), side: host}
		r, w := io.Pipe()
		wrote := make(chan error, 1)
		go func() { wrote <- m.Write(t.Context(), r) }()
		io.WriteString(w, "half")

		start := time.Now()
		if err := m.DUT(t.Context()); !errors.Is(err, driver.ErrBusy) || time.Since(start) != storage.Patience {
			t.Errorf("DUT() during a transfer = %v after %v; want ErrBusy after %v", err, time.Since(start), storage.Patience)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := m.Read(ctx, io.Discard); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Read() during a transfer = %v; want %v", err, context.DeadlineExceeded)
		}
		go func() {
			time.Sleep(time.Second)
			w.Close()
		}()
		if err := m.DUT(t.Context()); err != nil {
			t.Errorf("DUT() = %v; want nil once the transfer has ended", err)
		}
		if err := <-wrote; err != nil {
			t.Errorf("Write() = %v; want nil", err)
		}
		if m.side != dut {
			t.Errorf("the storage is %s; want it %s", m.side, dut)
		}
	})
}

// What a transfer has begun ends when the driver is closed under it.
func TestCloseDuringTransfer(t *testing.T) {
	drivertest.NoLeaks(t)
	t.Setenv("TMPDIR", t.TempDir())
	o := &drivertest.Offers{}
	tree := drivertest.Bench{Resources: o}.Tree(t, "", Flasher)
	r, h := o.Stream()
	wrote := make(chan error, 1)
	go func() { wrote <- driver.Run(t.Context(), tree.Root.Caller(), "flash", h) }()
	if _, err := r.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	if err := tree.Close(); err != nil {
		t.Errorf("Close() = %v; want nil", err)
	}
	if err := r.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := <-wrote; err == nil {
		t.Error("flash() on a driver that was closed = nil; want an error")
	}
	r.Close()
	if left, _ := filepath.Glob(os.TempDir() + "/*"); len(left) != 0 {
		t.Errorf("%v are left; want nothing", left)
	}
}
