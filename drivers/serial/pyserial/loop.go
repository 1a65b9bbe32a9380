package pyserial

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/network"
	"github.com/jumplead/jumplead/drivers/serial"
)

// loops hands out loops.
type loops struct {
	cps float64

	mu   sync.Mutex
	open []*loopback
	over bool
}

var _ serial.Interface = (*loops)(nil)

func (p *loops) Connect(context.Context) (io.ReadWriteCloser, error) {
	l := &loopback{Loop: network.NewLoop(), line: p, done: make(chan struct{})}
	l.in = serial.Paced(l.Loop, p.cps, l.done)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return nil, fmt.Errorf("loop: %w: the session is over", driver.ErrUnavailable)
	}
	p.open = append(p.open, l)
	return l, nil
}

// Close, SetDTR and SetRTS are accepted and do nothing, as upstream's.
func (p *loops) Close(context.Context) error        { return nil }
func (p *loops) SetDTR(context.Context, bool) error { return nil }
func (p *loops) SetRTS(context.Context, bool) error { return nil }

// release ends all loops.
func (p *loops) release() error {
	p.mu.Lock()
	p.over = true
	open := p.open
	p.open = nil
	p.mu.Unlock()
	for _, l := range open {
		l.Close()
	}
	return nil
}

// loopback is a client's loop. Chunks come out as they were written, empty ones
// too, unless the line is paced: then byte by byte.
type loopback struct {
	*network.Loop
	line *loops
	in   io.Writer // to the loop, at the line's pace
	shut sync.Once
	done chan struct{} // closed by Close
}

// Write waits while the loop is full.
func (l *loopback) Write(b []byte) (int, error) { return l.in.Write(b) }

// Close drops what is under way.
func (l *loopback) Close() error {
	l.shut.Do(func() { close(l.done) })
	l.Loop.Close()
	l.line.mu.Lock()
	defer l.line.mu.Unlock()
	l.line.open = slices.DeleteFunc(l.line.open, func(o *loopback) bool { return o == l })
	return nil
}
