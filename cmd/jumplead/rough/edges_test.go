package rough_test

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/gpio"
	"github.com/jumplead/jumplead/drivers/gpio/gpiod"
	"github.com/jumplead/jumplead/hw"
)

// flood is a line that changes as fast as it is read, so many times.
type flood struct {
	edges  uint32
	begin  chan struct{} // closed to begin
	over   chan struct{} // closed by the last edge
	closed chan struct{}
	close  sync.Once // closes closed
	n      uint32
}

func (f *flood) RequestLine(context.Context, hw.LineRef, hw.LineOptions) (hw.Line, error) {
	return f, nil
}

func (f *flood) Info() hw.LineInfo    { return hw.LineInfo{Chip: "gpiochip0", Label: "flood"} }
func (f *flood) Value() (bool, error) { return false, nil }
func (f *flood) SetValue(bool) error  { return os.ErrPermission }
func (f *flood) Close() error         { f.close.Do(func() { close(f.closed) }); return nil }

func (f *flood) ReadEdges(buf []hw.Edge) (int, error) {
	select {
	case <-f.begin:
	case <-f.closed:
		return 0, os.ErrClosed
	}
	if f.n == f.edges {
		<-f.closed
		return 0, os.ErrClosed
	}
	for i := range buf {
		if f.n == f.edges {
			return i, nil
		}
		f.n++
		buf[i] = hw.Edge{Seqno: f.n, Rising: f.n%2 == 1, Time: time.Duration(f.n) * time.Microsecond}
	}
	if f.n == f.edges {
		close(f.over)
	}
	return len(buf), nil
}

// A client that does not read costs the exporter no more than some thousand
// edges, and is told how many it has missed when it reads on.
func TestSlowReader(t *testing.T) {
	drivertest.NoLeaks(t)
	const total = 1 << 16
	line := &flood{edges: total, begin: make(chan struct{}), over: make(chan struct{}), closed: make(chan struct{})}
	c := serve(t, hw.Host{GPIO: line}, node{"in", gpiod.Input, "line: 1"})
	in := gpio.NewInput(find(t, c, "in"))
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	told, lost := 0, 0
	var last float64
	for e, err := range in.Edges(ctx) {
		if err != nil {
			t.Fatalf("Edges() = %v after %d; want edges", err, told)
		}
		if e.Seqno == 0 {
			before := holds(t)
			close(line.begin)
			<-line.over
			if grown := int64(holds(t).heap) - int64(before.heap); grown > 4<<20 {
				t.Errorf("%d edges that nobody reads cost %d bytes; want at most 4 MiB", total, grown)
			}
			continue
		}
		told++
		lost += e.Lost
		if int(e.Seqno) != told+lost || e.Active != (e.Seqno%2 == 1) || e.Timestamp < last {
			t.Fatalf("edge = %+v after %d told, %d lost and %v s; want one that fits", e, told-1, lost, last)
		}
		if last = e.Timestamp; e.Seqno == total {
			break
		}
	}
	if told+lost != total || told < 4096 {
		t.Errorf("told of %d edges, and of %d that are lost; want %d together, and a queue's worth told", told, lost, total)
	}
	t.Logf("of %d edges %d were told and %d lost, each one counted", total, told, lost)
}
