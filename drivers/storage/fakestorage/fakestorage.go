// Package fakestorage has storage that is files in a temporary directory. They
// keep what is written, and nothing else reads them: configurations try a
// harness out with it, and test suites check that every byte arrives.
//
// The directory is made where temporary files go (TMPDIR, or /tmp) when a
// session begins, and removed when it ends. Images need as much room there as
// they have bytes other than long runs of zeros.
//
// # The mux
//
// The mux minds its side as hardware does, which upstream's mock does not: it
// begins on the host's side, and while it is switched to the DUT, or off, it
// cannot be written or read. A transfer holds it where it is: switching waits
// for the end of one, for some seconds, and then answers that it is busy.
//
// # Partitions
//
// The flasher keeps one image for each partition, under the name that the client
// gives; without a name it is "default".
package fakestorage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/storage"
)

// Config has no keys of its own.
type Config struct{}

// The specs are upstream's three mocks.
var (
	Mux = driver.Define(driver.Spec{
		Type:     "jumpstarter_driver_opendal.driver.MockStorageMux",
		Contract: storage.MuxContract,
		Doc:      "a storage mux whose medium is a temporary file",
		Lenient:  true,
	}, openMux)
	MuxFlasher = driver.Define(driver.Spec{
		Type:     "jumpstarter_driver_opendal.driver.MockStorageMuxFlasher",
		Contract: storage.MuxFlasherContract,
		Doc:      "a storage mux whose medium is a temporary file, with a client that flashes",
		Lenient:  true,
	}, openMux)
	Flasher = driver.Define(driver.Spec{
		Type:     "jumpstarter_driver_opendal.driver.MockFlasher",
		Contract: storage.FlasherContract,
		Doc:      "a flasher that keeps a temporary file for each partition",
		Lenient:  true,
	}, openFlasher)
)

// files are the contents of a driver, in a directory of their own.
type files struct {
	root *os.Root
	log  *slog.Logger
}

func newFiles(log *slog.Logger) (files, error) {
	dir, err := os.MkdirTemp("", "jumplead-storage-")
	if err != nil {
		return files{}, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		os.RemoveAll(dir)
		return files{}, err
	}
	return files{root, log}, nil
}

// Close ends a transfer that goes on regardless, and removes everything.
func (f files) Close() error {
	return errors.Join(f.root.Close(), os.RemoveAll(f.root.Name()))
}

func (f files) put(ctx context.Context, name string, src io.Reader) error {
	n, err := storage.Replace(ctx, f.root, name, src)
	if err != nil {
		return fmt.Errorf("write %s: %w; it has its old content", name, err)
	}
	f.log.Info("written", "file", name, "bytes", n)
	return nil
}

func (f files) get(ctx context.Context, name string, dst io.Writer) error {
	file, err := storage.OpenRegular(f.root, name)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	defer file.Close()
	n, err := storage.SendFile(ctx, dst, file)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	f.log.Info("read", "file", name, "bytes", n)
	return nil
}

func openFlasher(_ context.Context, env *driver.Env, _ Config) (driver.Driver, error) {
	f, err := newFiles(env.Log)
	if err != nil {
		return driver.Driver{}, err
	}
	return driver.Driver{Exports: storage.FlasherExports(env, flasher{f}), Impl: f}, nil
}

type flasher struct{ files }

func (f flasher) Flash(ctx context.Context, src io.Reader, partition string) error {
	name, err := partitionName(partition)
	if err != nil {
		return err
	}
	return f.put(ctx, name, src)
}

func (f flasher) Dump(ctx context.Context, dst io.Writer, partition string) error {
	name, err := partitionName(partition)
	if err != nil {
		return err
	}
	return f.get(ctx, name, dst)
}

// maxPartition is below what the names of files can have, in bytes.
const maxPartition = 200

// partitionName is the name of a partition's file.
func partitionName(partition string) (string, error) {
	switch {
	case partition == "":
		return "default", nil
	case strings.HasPrefix(partition, "."), strings.ContainsAny(partition, "/\x00"), len(partition) > maxPartition:
		return "", driver.BadArg("partition", "%.40q: wants a name of at most %d bytes, without slashes and not beginning with a dot", partition, maxPartition)
	}
	return partition, nil
}

func openMux(ctx context.Context, env *driver.Env, _ Config) (driver.Driver, error) {
	f, err := newFiles(env.Log)
	if err != nil {
		return driver.Driver{}, err
	}
	if err := f.put(ctx, medium, strings.NewReader("")); err != nil {
		return driver.Driver{}, errors.Join(err, f.Close())
	}
	m := &mux{files: f, turn: storage.NewTurn(), side: host}
	return driver.Driver{Exports: storage.MuxExports(env, m), Impl: f}, nil
}

// medium is the name of the mux's file.
const medium = "medium"

// side is what a mux is switched to.
type side string

const (
	host side = "switched to the host"
	dut  side = "switched to the DUT"
	off  side = "switched off"
)

type mux struct {
	files
	turn storage.Turn
	side side
}

func (m *mux) Host(ctx context.Context) error { return m.turnTo(ctx, host) }
func (m *mux) DUT(ctx context.Context) error  { return m.turnTo(ctx, dut) }
func (m *mux) Off(ctx context.Context) error  { return m.turnTo(ctx, off) }

func (m *mux) turnTo(ctx context.Context, s side) error {
	letGo, err := m.turn.Hold(ctx)
	if err != nil {
		return err
	}
	defer letGo()
	m.side = s
	m.log.Info("storage is " + string(s))
	return nil
}

func (m *mux) Write(ctx context.Context, src io.Reader) error {
	return m.transfer(ctx, "write", func() error { return m.put(ctx, medium, src) })
}

func (m *mux) Read(ctx context.Context, dst io.Writer) error {
	return m.transfer(ctx, "read", func() error { return m.get(ctx, medium, dst) })
}

func (m *mux) transfer(ctx context.Context, what string, f func() error) error {
	letGo, err := m.turn.Hold(ctx)
	if err != nil {
		return err
	}
	defer letGo()
	if m.side != host {
		return fmt.Errorf("%s: the storage is %s: call host first", what, m.side)
	}
	return f()
}
