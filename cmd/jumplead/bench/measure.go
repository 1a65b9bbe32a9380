package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/jumplead/jumplead/exporter/client"
)

// start measures from exec to the first report.
func (b *bench) start(ctx context.Context) error {
	if !b.wanted("start") {
		return nil
	}
	timed := func(k kind) func() (float64, error) {
		return func() (float64, error) {
			e, err := b.spawn(ctx, k)
			if err != nil {
				return 0, err
			}
			e.stop()
			return e.first.Seconds(), nil
		}
	}
	m, err := b.interleave(timed(b.ours(b.config)), timed(b.theirs(b.config)), timed(b.bare()))
	if err != nil {
		return err
	}
	b.below("start: exec to the first report, against Python", m[0], m[1], 1.0/80, "s")
	b.below("start: a bare server, against Python", m[2], m[1], 1, "s")
	return nil
}

// memory measures the contenders at rest.
func (b *bench) memory(_ context.Context, ours, theirs, _ *exporter) error {
	if !b.wanted("memory at rest") {
		return nil
	}
	m, err := b.interleave(ours.pss, theirs.pss)
	if err != nil {
		return err
	}
	b.below("memory at rest, ten nodes (PSS), against Python", m[0], m[1], 1.0/8, "B")
	return nil
}

// calls measures unary calls.
func (b *bench) calls(ctx context.Context, ours, theirs, bare *exporter) error {
	if b.wanted("stock call") {
		at := func(e *exporter) func() (float64, error) {
			return func() (float64, error) { return b.python.do(e.addr, "call", 300, 0) }
		}
		m, err := b.interleave(at(ours), at(theirs))
		if err != nil {
			return err
		}
		b.below("call, stock client, against Python", m[0], m[1], 0.65, "s")
	}
	if !b.wanted("go call") {
		return nil
	}
	at := func(e *exporter, path string) (func() (float64, error), error) {
		c, err := client.Dial(ctx, e.addr, client.Options{})
		if err != nil {
			return nil, err
		}
		b.ends = append(b.ends, func() { c.Close() })
		n, err := c.Find(path)
		if err != nil {
			return nil, err
		}
		return func() (float64, error) {
			times := make([]float64, 2000)
			for i := range times {
				start := time.Now()
				if _, err := n.Call(ctx, "on"); err != nil {
					return 0, err
				}
				times[i] = time.Since(start).Seconds()
			}
			return median(times), nil
		}, nil
	}
	us, err := at(ours, "power")
	if err != nil {
		return err
	}
	it, err := at(bare, "")
	if err != nil {
		return err
	}
	m, err := b.interleave(us, it)
	if err != nil {
		return err
	}
	b.below("call, Go client, p50, against a bare server", m[0], m[1], 1.2, "s")
	return nil
}

// tunnels measures the throughput of byte streams.
func (b *bench) tunnels(ctx context.Context, ours, theirs, bare *exporter) error {
	const total = 64 << 20
	for _, dir := range []struct {
		op    string
		wants map[int]float64
	}{
		{"up", map[int]float64{4 << 10: 1.15, 64 << 10: 1, 1 << 20: 1.4}},
		{"down", map[int]float64{4 << 10: 2, 64 << 10: 2, 1 << 20: 2}},
	} {
		for _, chunk := range []int{4 << 10, 64 << 10, 1 << 20} {
			size := fmt.Sprintf("%d KiB", chunk>>10)
			n := total
			if chunk == 4<<10 {
				n /= 4
			}
			if b.wanted("stock tunnel " + dir.op + " " + size) {
				at := func(e *exporter) func() (float64, error) {
					return func() (float64, error) {
						s, err := b.python.do(e.addr, dir.op, n, chunk)
						return float64(n) / s, err
					}
				}
				m, err := b.interleave(at(ours), at(theirs))
				if err != nil {
					return err
				}
				b.above("tunnel "+dir.op+", chunks of "+size+", stock client, against Python", m[0], m[1], dir.wants[chunk], "B/s")
			}
			if b.wanted("go tunnel " + dir.op + " " + size) {
				at := func(e *exporter, path string) func() (float64, error) {
					return func() (float64, error) { return tunnel(ctx, e.addr, path, dir.op, n, chunk) }
				}
				m, err := b.interleave(at(ours, "tcp"), at(bare, ""))
				if err != nil {
					return err
				}
				b.above("tunnel "+dir.op+", chunks of "+size+", Go client, against a bare server", m[0], m[1], 0.9, "B/s")
			}
		}
	}
	return nil
}

// tunnel moves n bytes through a new connection and returns the rate.
func tunnel(ctx context.Context, addr, path, op string, n, chunk int) (float64, error) {
	c, err := client.Dial(ctx, addr, client.Options{})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	node, err := c.Find(path)
	if err != nil {
		return 0, err
	}
	s, err := node.Stream(ctx, "connect")
	if err != nil {
		return 0, err
	}
	defer s.Close()
	start := time.Now()
	if err := move(s, op, n, chunk); err != nil {
		return 0, err
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

// move asks the peer for a transfer and does the client's part of it.
func move(s io.ReadWriter, op string, n, chunk int) error {
	head := binary.BigEndian.AppendUint64(nil, uint64(n))
	buf := make([]byte, max(chunk, 64<<10))
	if op == "down" {
		head = binary.BigEndian.AppendUint64(append([]byte("D"), head...), uint64(chunk))
		if _, err := s.Write(head); err != nil {
			return err
		}
		_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(s, int64(n)), buf)
		return err
	}
	if _, err := s.Write(append([]byte("U"), head...)); err != nil {
		return err
	}
	for range n / chunk {
		if _, err := s.Write(buf[:chunk]); err != nil {
			return err
		}
	}
	_, err := io.ReadFull(s, buf[:1])
	return err
}

// load measures the memory under four tunnels that are busy both ways.
func (b *bench) load(ctx context.Context, ours, _, _ *exporter) error {
	if !b.wanted("memory under load") {
		return nil
	}
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() {
			op := []string{"up", "down"}[i%2]
			_, errs[i] = tunnel(ctx, ours.addr, "tcp", op, 1<<30, 64<<10)
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	most := 0.0
	for busy := true; busy; {
		select {
		case <-tick.C:
			pss, err := ours.pss()
			if err != nil {
				return err
			}
			most = max(most, pss)
		case <-done:
			busy = false
		}
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	b.below("memory under four tunnels of 64 KiB chunks (most PSS), against 30 MB", most, 30e6, 1, "B")
	return nil
}
