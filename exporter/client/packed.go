package client

import (
	"fmt"
	"io"
	"sync"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/stream"
	"github.com/jumplead/jumplead/exporter/stream/codec"
)

// agree finds out who packs and unpacks: the exporter, if it has accepted the
// encoding and its handle says so; or we.
func agree(s *stream.Stream, encoding string, named any, accepted bool) (driver.Resource, error) {
	switch {
	case accepted && named == encoding:
		return s, nil
	case accepted || named != nil:
		return nil, fmt.Errorf("resource: the exporter was asked for %s and its answer contradicts itself: accepted %t, handle for %v", encoding, accepted, named)
	}
	// both look at the name before anything is read or written
	if _, err := codec.NewWriter(encoding, io.Discard); err != nil {
		return nil, fmt.Errorf("resource: the exporter does not know content encoding %q: %w", encoding, err)
	}
	return &recoded{Resource: s, encoding: encoding}, nil
}

// recoded is a stream to an exporter that moves data as it is: what is written
// is unpacked before it goes, and what comes is packed before it is read.
type recoded struct {
	driver.Resource
	encoding string

	mu     sync.Mutex
	closed bool
	up     *io.PipeWriter // to what unpacks; made by the first Write
	down   *io.PipeReader // from what packs; made by the first Read
	sent   chan error     // what became of the upload
	work   sync.WaitGroup
}

func (c *recoded) writer() (*io.PipeWriter, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, io.ErrClosedPipe
	}
	if c.up == nil {
		var packed *io.PipeReader
		packed, c.up = io.Pipe()
		c.sent = make(chan error, 1)
		c.work.Go(func() {
			err := c.unpack(packed)
			packed.CloseWithError(err)
			c.sent <- err
		})
	}
	return c.up, nil
}

func (c *recoded) unpack(packed io.Reader) error {
	r, err := codec.NewReader(c.encoding, packed)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(c.Resource, r)
	return err
}

func (c *recoded) Write(p []byte) (int, error) {
	w, err := c.writer()
	if err != nil {
		return 0, err
	}
	return w.Write(p)
}

// CloseWrite ends the data, if it is whole. It is called once.
func (c *recoded) CloseWrite() error {
	w, err := c.writer()
	if err != nil {
		return err
	}
	w.Close()
	if err := <-c.sent; err != nil {
		return err
	}
	return c.Resource.CloseWrite()
}

func (c *recoded) Read(p []byte) (int, error) {
	r, err := c.reader()
	if err != nil {
		return 0, err
	}
	return r.Read(p)
}

func (c *recoded) reader() (*io.PipeReader, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, io.ErrClosedPipe
	}
	if c.down == nil {
		var packed *io.PipeWriter
		c.down, packed = io.Pipe()
		c.work.Go(func() { packed.CloseWithError(c.pack(packed)) })
	}
	return c.down, nil
}

func (c *recoded) pack(packed io.Writer) error {
	w, err := codec.NewWriter(c.encoding, packed)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, c.Resource); err != nil {
		return err
	}
	return w.Close()
}

// Close ends the stream, and what works for it.
func (c *recoded) Close() error {
	c.mu.Lock()
	c.closed = true
	if c.up != nil {
		c.up.CloseWithError(io.ErrClosedPipe)
	}
	if c.down != nil {
		c.down.Close()
	}
	c.mu.Unlock()
	err := c.Resource.Close()
	c.work.Wait()
	return err
}
