package lzma2

import "runtime"

// memory is a piece of it from the kernel, beside Go's heap. A page of it costs
// nothing before it is written to, so that a header may ask for much that its
// data never fills; the whole is given back at once; and the collector, which
// lets garbage grow with the heap, does not count it.
type memory struct {
	bytes   []byte
	cleanup runtime.Cleanup
}

// need makes sure that there are n bytes. What was in them is lost.
func (d *Decoder) need(n int) error {
	if len(d.memory.bytes) >= n {
		return nil
	}
	d.Close()
	b, err := obtain(n)
	if err != nil {
		return err
	}
	// A decoder that is dropped without a Close does not keep it.
	d.memory = memory{bytes: b, cleanup: runtime.AddCleanup(d, unmap, b)}
	return nil
}

// Close gives the window back. What is left to do with the decoder is to Reset it.
func (d *Decoder) Close() {
	m := d.memory
	d.memory, d.window = memory{}, nil
	if m.bytes != nil {
		m.cleanup.Stop()
		unmap(m.bytes)
	}
}
