// Package storage puts images where a device under test finds them, and gets
// back what the device made of them.
//
// There are three contracts, all upstream's.
//
// A [Mux] is a medium, an SD card or a USB disk, that is wired either to this
// machine (the host) or to the DUT, never to both. It can be read and written
// while it is on the host's side. Its flashing client does the round in one go:
// host, write, dut.
//
// A [Flasher] writes an image to a DUT by whatever means, to one of several
// partitions where it has them, and reads one back.
//
// An [Opendal] is a folder of files, for images that a server hands out or that
// scripts work with. Its name is that of the library whose calls it mirrors,
// https://opendal.apache.org.
//
// # Data
//
// Data travels in a stream beside the call. A write has succeeded only when the
// call has: it fails when the stream breaks off, is cancelled or cannot be
// decompressed, and names how many bytes had come by then. A medium then has an
// undefined content. A file has its old one: what is written gets a name that
// says partial, and takes the place of the old file when it is whole (see
// [Partial]).
//
// The clients move data as their Transfer says: packed at this end, if it is a
// .xz file that they send or want, and with a word on the progress. In place of a
// reader or a writer they take a [driver.PresignedRequest], for an image that the
// exporter fetches or stores by itself:
//
//	c := storage.NewFlasherClient(node)
//	err := c.Flash(ctx, driver.PresignedRequest{URL: "https://images/board.img"}, "")
package storage

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
)

// The contracts, by the clients that upstream has for them.
var (
	MuxContract = driver.Contract{
		Name:   "storage",
		Client: "jumpstarter_driver_opendal.client.StorageMuxClient",
		Kind:   "storage",

		Exports: muxTable,
	}
	// MuxFlasherContract is MuxContract with a client that also flashes.
	MuxFlasherContract = driver.Contract{
		Name:   "storage",
		Client: "jumpstarter_driver_opendal.client.StorageMuxFlasherClient",
		Kind:   "storage",

		Exports: muxTable,
	}
	FlasherContract = driver.Contract{
		Name:   "storage",
		Client: "jumpstarter_driver_opendal.client.FlasherClient",
		Kind:   "storage",

		Exports: flasherTable,
	}
	// CoreFlasherContract is FlasherContract with the client that comes with
	// upstream's core package: a client machine needs no driver package for it.
	CoreFlasherContract = driver.Contract{
		Name:   "storage",
		Client: "jumpstarter.client.flasher.FlasherClient",
		Kind:   "storage",

		Exports: flasherTable,
	}
)

func flasherTable() []driver.Export { return FlasherExports(nil, (*FlasherClient)(nil)) }

func muxTable() []driver.Export { return MuxExports(nil, (*MuxClient)(nil)) }

// Mux is a medium that is switched between the host and the DUT.
type Mux interface {
	Host(context.Context) error // connect it to this machine
	DUT(context.Context) error  // connect it to the DUT
	Off(context.Context) error  // connect it to neither, where the hardware can

	// Write puts what src yields, up to io.EOF, at the start of the medium.
	Write(ctx context.Context, src io.Reader) error
	// Read writes the content of the medium to dst.
	Read(ctx context.Context, dst io.Writer) error
}

// MuxExports is the contract of a mux on the wire.
func MuxExports(env *driver.Env, m Mux) []driver.Export {
	return []driver.Export{
		driver.Do("host", m.Host).Help("Connect storage to the host"),
		driver.Do("dut", m.DUT).Help("Connect storage to the DUT"),
		driver.Do("off", m.Off).Help("Disconnect storage"),
		driver.Do1("write", func(ctx context.Context, h driver.Handle) error {
			return env.Take(ctx, h, func(r io.Reader) error { return m.Write(ctx, r) })
		}).Args("src").Help("Write to the storage"),
		driver.Do1("read", func(ctx context.Context, h driver.Handle) error {
			return env.Give(ctx, h, func(w io.Writer) error { return m.Read(ctx, w) })
		}).Args("dst").Help("Read the storage"),
	}
}

// Flasher writes images to a DUT and reads them back. An empty partition is the
// one that the flasher has for this case.
type Flasher interface {
	// Flash writes what src yields, up to io.EOF.
	Flash(ctx context.Context, src io.Reader, partition string) error
	// Dump writes the content to dst.
	Dump(ctx context.Context, dst io.Writer, partition string) error
}

// FlasherExports is the contract of a flasher on the wire.
func FlasherExports(env *driver.Env, f Flasher) []driver.Export {
	return []driver.Export{
		driver.Do2("flash", func(ctx context.Context, h driver.Handle, partition string) error {
			return env.Take(ctx, h, func(r io.Reader) error { return f.Flash(ctx, r, partition) })
		}).Args("source", "partition=null").Help("Flash an image"),
		driver.Do2("dump", func(ctx context.Context, h driver.Handle, partition string) error {
			return env.Give(ctx, h, func(w io.Writer) error { return f.Dump(ctx, w, partition) })
		}).Args("target", "partition=null").Help("Dump an image"),
	}
}

// MuxFlasher makes a flasher of a mux, as upstream's client does: switch to the
// host, transfer, switch to the DUT. The DUT gets the medium also when the
// transfer failed, and when the context is done.
type MuxFlasher struct{ Mux }

var _ Flasher = MuxFlasher{}

func (f MuxFlasher) Flash(ctx context.Context, src io.Reader, partition string) error {
	return f.round(ctx, partition, func() error { return f.Write(ctx, src) })
}

func (f MuxFlasher) Dump(ctx context.Context, dst io.Writer, partition string) error {
	return f.round(ctx, partition, func() error { return f.Read(ctx, dst) })
}

// tidyLimit is how long tidying up may take after a transfer: switching back to
// the DUT, closing a file. The context of the transfer may be done by then.
const tidyLimit = 30 * time.Second

func (f MuxFlasher) round(ctx context.Context, partition string, transfer func() error) error {
	if partition != "" {
		return driver.BadArg("partition", "%q: a storage mux has no partitions", partition)
	}
	if err := f.Host(ctx); err != nil {
		return err
	}
	err := transfer()
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyLimit)
	defer cancel()
	return errors.Join(err, f.DUT(back))
}

// Uploads and downloads of the clients.

func upload(ctx context.Context, c driver.Caller, t driver.Transfer, src io.Reader, method string, args func(driver.Handle) []any) error {
	return t.Upload(ctx, c, src, func(ctx context.Context, h driver.Handle) error {
		return driver.Run(ctx, c, method, args(h)...)
	})
}

func download(ctx context.Context, c driver.Caller, t driver.Transfer, dst io.Writer, method string, args func(driver.Handle) []any) error {
	return t.Download(ctx, c, dst, func(ctx context.Context, h driver.Handle) error {
		return driver.Run(ctx, c, method, args(h)...)
	})
}

// MuxClient is a mux behind a [driver.Offerer]. For flashing, wrap it in a
// [MuxFlasher].
type MuxClient struct {
	Transfer driver.Transfer // how Write and Read move data

	c driver.Caller
}

var _ Mux = (*MuxClient)(nil)

// NewMuxClient makes a client of a mux node.
func NewMuxClient(c driver.Caller) *MuxClient { return &MuxClient{c: c} }

func (c *MuxClient) Host(ctx context.Context) error { return driver.Run(ctx, c.c, "host") }
func (c *MuxClient) DUT(ctx context.Context) error  { return driver.Run(ctx, c.c, "dut") }
func (c *MuxClient) Off(ctx context.Context) error  { return driver.Run(ctx, c.c, "off") }

func (c *MuxClient) Write(ctx context.Context, src io.Reader) error {
	return upload(ctx, c.c, c.Transfer, src, "write", func(h driver.Handle) []any { return []any{h} })
}

func (c *MuxClient) Read(ctx context.Context, dst io.Writer) error {
	return download(ctx, c.c, c.Transfer, dst, "read", func(h driver.Handle) []any { return []any{h} })
}

// FlasherClient is a flasher behind a [driver.Offerer].
type FlasherClient struct {
	Transfer driver.Transfer // how Flash and Dump move data

	c driver.Caller
}

var _ Flasher = (*FlasherClient)(nil)

// NewFlasherClient makes a client of a flasher node.
func NewFlasherClient(c driver.Caller) *FlasherClient { return &FlasherClient{c: c} }

func (c *FlasherClient) Flash(ctx context.Context, src io.Reader, partition string) error {
	return upload(ctx, c.c, c.Transfer, src, "flash", withPartition(partition))
}

func (c *FlasherClient) Dump(ctx context.Context, dst io.Writer, partition string) error {
	return download(ctx, c.c, c.Transfer, dst, "dump", withPartition(partition))
}

// withPartition leaves the partition to the flasher as upstream's clients do.
func withPartition(partition string) func(driver.Handle) []any {
	return func(h driver.Handle) []any {
		if partition == "" {
			return []any{h, nil}
		}
		return []any{h, partition}
	}
}
