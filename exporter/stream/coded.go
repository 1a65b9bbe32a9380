package stream

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/stream/codec"
)

// Agrees reports whether content of an encoding can be unpacked and packed here.
func Agrees(encoding string) bool { return slices.Contains(codec.Encodings(), encoding) }

// Coded is a resource whose content travels packed: what the driver reads is
// unpacked, what it writes is packed.
func Coded(r driver.Resource, encoding string) (driver.Resource, error) {
	if !Agrees(encoding) {
		return nil, fmt.Errorf("content encoding %q: %w", encoding, errors.ErrUnsupported)
	}
	in, err := codec.NewReader(encoding, r)
	if err != nil {
		return nil, err
	}
	return &coded{Resource: r, encoding: encoding, in: in}, nil
}

type coded struct {
	driver.Resource
	encoding string
	in       io.ReadCloser
	taking   atomic.Bool // the driver reads: there is nothing for the client

	rmu    sync.Mutex // of in, which cannot be closed under a Read
	closed bool

	mu  sync.Mutex
	out io.WriteCloser // made by the first Write: most transfers go one way
}

func (c *coded) Read(p []byte) (int, error) {
	c.taking.Store(true)
	c.rmu.Lock()
	defer c.rmu.Unlock()
	if c.closed {
		return 0, errClosed
	}
	return c.in.Read(p)
}

// writer packs into the resource. The caller holds mu.
func (c *coded) writer() (io.WriteCloser, error) {
	if c.out == nil {
		w, err := codec.NewWriter(c.encoding, struct{ io.Writer }{c.Resource})
		if err != nil {
			return nil, err
		}
		c.out = w
	}
	return c.out, nil
}

func (c *coded) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w, err := c.writer()
	if err != nil {
		return 0, err
	}
	return w.Write(p)
}

// CloseWrite ends the packed content, which has a form also when it is empty. A
// client that sends gets none.
func (c *coded) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out == nil && c.taking.Load() {
		return c.Resource.CloseWrite()
	}
	w, err := c.writer()
	if err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return c.Resource.CloseWrite()
}

// Close leaves packed content that was not ended without its end.
func (c *coded) Close() error {
	err := c.Resource.Close() // a Read or Write in progress returns
	c.rmu.Lock()
	defer c.rmu.Unlock()
	if c.closed {
		return err
	}
	c.closed = true
	return errors.Join(c.in.Close(), err)
}
