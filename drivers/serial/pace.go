package serial

import (
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// tick is the shortest time that timers are trusted with. Bytes that follow
// each other faster go out in batches of one tick, and what a timer was late is
// made up for up to one tick, so that the average rate holds.
const tick = 2 * time.Millisecond

// Paced returns a writer to w that lets cps bytes per second pass, for devices
// that cannot take their input as fast as the line brings it. A byte that comes
// to an idle line leaves at once; the rate holds over the borders of writes.
// Closing done ends a Write that waits, with [net.ErrClosed]. Without a positive
// cps the writer is w itself.
func Paced(w io.Writer, cps float64, done <-chan struct{}) io.Writer {
	if !(cps > 0) {
		return w
	}
	return &paced{w: w, cps: cps, done: done}
}

type paced struct {
	w    io.Writer
	cps  float64
	done <-chan struct{}

	mu  sync.Mutex // one writer after another
	due time.Time  // when the next byte may leave
}

func (p *paced) Write(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	batch := int(min(max(1, p.cps*tick.Seconds()), 1<<20))
	for n < len(b) {
		if err := p.wait(); err != nil {
			return n, err
		}
		m, err := p.w.Write(b[n:min(n+batch, len(b))])
		n += m
		const ages = float64(100 * 365 * 24 * time.Hour)
		p.due = p.due.Add(time.Duration(min(float64(m)/p.cps*float64(time.Second), ages)))
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// wait waits until the next byte may leave.
func (p *paced) wait() error {
	now := time.Now()
	if now.Sub(p.due) > tick { // idle until now, or the line itself is slower
		p.due = now
	}
	t := time.NewTimer(p.due.Sub(now))
	defer t.Stop()
	select {
	case <-p.done:
	case <-t.C:
		select {
		case <-p.done:
		default:
			return nil
		}
	}
	return fmt.Errorf("paced write: %w", net.ErrClosed)
}
