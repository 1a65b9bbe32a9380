package main

import (
	"context"
	"fmt"
	"os"
)

// hosted measures drivers that jumplead hosts in Python against the same drivers in
// the Python exporter: what it costs to be forwarded.
func (b *bench) hosted(ctx context.Context) error {
	if !b.wanted("hosted") {
		return nil
	}
	text, err := os.ReadFile(b.config)
	if err != nil {
		return err
	}
	config, err := b.write("hosted.yaml", string(text)+fmt.Sprintf("x-jumplead: {hosted: [power, tcp], python: %s}\n", b.env.Bin("python")))
	if err != nil {
		return err
	}
	ours, err := b.launch(ctx, b.ours(config))
	if err != nil {
		return err
	}
	theirs, err := b.launch(ctx, b.theirs(b.config))
	if err != nil {
		return err
	}
	call := func(e *exporter) func() (float64, error) {
		return func() (float64, error) { return b.python.do(e.addr, "call", 300, 0) }
	}
	m, err := b.interleave(call(ours), call(theirs))
	if err != nil {
		return err
	}
	b.below("call on a hosted driver, stock client, against Python", m[0], m[1], 1.3, "s")
	const total, chunk = 32 << 20, 64 << 10
	for _, op := range []string{"up", "down"} {
		tunnel := func(e *exporter) func() (float64, error) {
			return func() (float64, error) {
				s, err := b.python.do(e.addr, op, total, chunk)
				return total / s, err
			}
		}
		m, err := b.interleave(tunnel(ours), tunnel(theirs))
		if err != nil {
			return err
		}
		b.above("tunnel "+op+" through a hosted driver, chunks of 64 KiB, stock client, against Python", m[0], m[1], 0.8, "B/s")
	}
	return nil
}
