package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// hosted measures drivers that jumplead hosts in Python against the same drivers in
// the Python exporter: what it costs to be forwarded. What a bare gRPC server costs
// that does nothing but forward to the Python exporter is measured beside it.
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
	bare, err := b.launch(ctx, kind{name: "bare forwarder", argv: func(addr string) []string {
		return []string{filepath.Join(b.build, "bare"), addr, "forward", theirs.addr}
	}})
	if err != nil {
		return err
	}
	m, err := b.interleave(ours.pss, theirs.pss)
	if err != nil {
		return err
	}
	b.aside("memory at rest, two of ten nodes hosted (PSS), against Python", m[0], m[1], "B")
	call := func(e *exporter) func() (float64, error) {
		return func() (float64, error) { return b.python.do(e.addr, "call", 300, 0) }
	}
	if m, err = b.interleave(call(ours), call(theirs), call(bare)); err != nil {
		return err
	}
	b.below("call on a hosted driver, stock client, against Python", m[0], m[1], 1.3, "s")
	b.aside("call through a bare forwarder to Python, stock client, against Python", m[2], m[1], "s")
	const total, chunk = 64 << 20, 64 << 10
	for _, op := range []string{"up", "down"} {
		tunnel := func(e *exporter) func() (float64, error) {
			return func() (float64, error) {
				s, err := b.python.do(e.addr, op, total, chunk)
				return total / s, err
			}
		}
		m, err := b.interleave(tunnel(ours), tunnel(theirs), tunnel(bare))
		if err != nil {
			return err
		}
		b.above("tunnel "+op+" through a hosted driver, chunks of 64 KiB, stock client, against Python", m[0], m[1], 0.8, "B/s")
		b.aside("tunnel "+op+" through a bare forwarder to Python, chunks of 64 KiB, stock client, against Python", m[2], m[1], "B/s")
	}
	return nil
}

// aside adds a line for which there is no limit.
func (b *bench) aside(what string, ours, base float64, unit string) {
	b.rows = append(b.rows, row{what, format(ours, unit), format(base, unit), ratio(ours / base), "", true})
}
