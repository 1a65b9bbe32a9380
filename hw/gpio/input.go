package gpio

import (
	"context"
	"iter"
	"log/slog"
	"os"
	"sync"

	"github.com/jumplead/jumplead/hw"
)

// Event is an edge as an [Input] tells of it.
type Event struct {
	hw.Edge
	Lost int // edges that came before this one and after the one that was told last, and were dropped on the way
}

// How many edges wait to be told.
const (
	untold = 16   // to the next wait, while there is none: as many as the kernel itself keeps by default
	queued = 4096 // to a reader of all
)

// Input is an input with edges that is held for long, and may be watched by several at once.
type Input struct {
	holder
	readers sync.WaitGroup
	since   *queue // the end of the last wait
	queues  map[*queue]bool
}

// NewInput makes an input; nothing is requested before its first use, for which there is Open.
func NewInput(h hw.Host, at hw.LineRef, o hw.LineOptions, log *slog.Logger) *Input {
	o.Output, o.Active, o.Edges = false, false, true
	x := &Input{holder: hold(h, at, o, log), since: newQueue(untold), queues: map[*queue]bool{}}
	x.queues[x.since] = true
	x.begun = func(line hw.Line) {
		x.since.reset()
		x.readers.Go(func() { x.read(line) })
	}
	x.release = func(line hw.Line) error { return line.Close() }
	return x
}

// read hands out the edges of a line until that ends.
func (x *Input) read(line hw.Line) {
	buf := make([]hw.Edge, 64)
	var last uint32
	for {
		n, err := line.ReadEdges(buf)
		x.mu.Lock()
		for _, e := range buf[:n] {
			event := Event{e, int(e.Seqno - last - 1)} // wraps as the count does
			last = e.Seqno
			for q := range x.queues {
				q.push(event)
			}
		}
		if err != nil {
			x.drop(line)
			for q := range x.queues {
				q.fail(err)
			}
			x.mu.Unlock()
			return
		}
		x.mu.Unlock()
	}
}

// Get reads whether the line is active.
func (x *Input) Get(ctx context.Context) (active bool, err error) {
	err = x.use(ctx, false, func(line hw.Line) error {
		active, err = line.Value()
		return err
	})
	return active, err
}

// Wait waits for an edge. One that came after the end of the last Wait and before this one counts, as far as the last 16
// of these go: who causes something and then waits for it does not miss it.
func (x *Input) Wait(ctx context.Context, rising bool) error {
	q, _, err := x.watch(ctx, true)
	if err != nil {
		return err
	}
	defer func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.since.reset()
		delete(x.queues, q)
	}()
	for {
		e, err := x.next(ctx, q)
		if err != nil {
			return err
		}
		// Edges alternate: if one is missing before one of the other kind, it was what is waited for.
		if e.Rising == rising || e.Lost > 0 {
			return nil
		}
	}
}

// Edges tells of all edges from now on, until ctx is done or the caller stops. What comes first is no edge but the line's
// value as it begins, with a Seqno of 0, so that whoever waits for the first item knows that no edge is missed from then on.
// Who reads too slowly loses some, and is told how many.
func (x *Input) Edges(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		q, active, err := x.watch(ctx, false)
		if err != nil {
			yield(Event{}, err)
			return
		}
		defer func() {
			x.mu.Lock()
			defer x.mu.Unlock()
			delete(x.queues, q)
		}()
		if !yield(Event{Edge: hw.Edge{Rising: active}}, nil) {
			return
		}
		for {
			e, err := x.next(ctx, q)
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// watch adds a queue for edges, with those that are untold or else with none, and reads the line's value.
func (x *Input) watch(ctx context.Context, untold bool) (q *queue, active bool, err error) {
	q = newQueue(queued)
	err = x.use(ctx, false, func(line hw.Line) (err error) {
		if untold {
			q.events = x.since.events
			x.since.reset()
		} else {
			active, err = line.Value()
		}
		if err == nil {
			x.queues[q] = true
		}
		return err
	})
	return q, active, err
}

// next waits for the next edge of a queue.
func (x *Input) next(ctx context.Context, q *queue) (Event, error) {
	for {
		x.mu.Lock()
		e, ok, err := q.pop()
		x.mu.Unlock()
		if ok || err != nil {
			return e, err
		}
		select {
		case <-q.ready:
		case <-ctx.Done():
			return Event{}, ctx.Err()
		case <-x.done:
			return Event{}, os.ErrClosed
		}
	}
}

// Close lets the line go, and ends who waits.
func (x *Input) Close() error {
	err := x.holder.Close()
	x.readers.Wait()
	return err
}

// queue is the edges that somebody was not told yet: the last ones, up to a number.
type queue struct {
	events []Event
	max    int
	err    error         // behind the events
	ready  chan struct{} // has a token when there is something new
}

func newQueue(max int) *queue { return &queue{max: max, ready: make(chan struct{}, 1)} }

func (q *queue) push(e Event) {
	if len(q.events) == q.max {
		dropped := q.events[0].Lost + 1
		if q.events = q.events[1:]; len(q.events) > 0 {
			q.events[0].Lost += dropped
		} else {
			e.Lost += dropped
		}
	}
	q.events = append(q.events, e)
	q.signal()
}

func (q *queue) fail(err error) {
	q.err = err
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

func (q *queue) pop() (Event, bool, error) {
	if len(q.events) == 0 {
		return Event{}, false, q.err
	}
	e := q.events[0]
	q.events = q.events[1:]
	return e, true, nil
}

func (q *queue) reset() { q.events, q.err = nil, nil }
