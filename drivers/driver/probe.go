package driver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/jumplead/jumplead/hw"
)

// Prober is a config that can look for what its node needs. It changes nothing,
// takes nothing from others, and leaves no trace on the wires: a serial port is
// not opened, as that moves DTR; a line is not requested; nobody is connected to.
//
// Probe says what there is. Its error is the one that opening or using the node
// would give, so that people read the same words whenever they meet it.
type Prober interface {
	Probe(context.Context, *Env) (string, error)
}

// Condition is how the hardware of a node is found.
type Condition string

const (
	Healthy   Condition = "ok"
	Absent    Condition = "absent"    // not there
	Busy      Condition = "busy"      // somebody else has it
	Forbidden Condition = "forbidden" // this user may not have it
	Wrong     Condition = "wrong"     // something else is there, or it does not answer as it should
)

// ConditionOf is the condition that an error tells of.
func ConditionOf(err error) Condition {
	switch {
	case err == nil:
		return Healthy
	case errors.Is(err, hw.ErrWrong):
		return Wrong
	case errors.Is(err, ErrBusy), errors.Is(err, hw.ErrBusy):
		return Busy
	case errors.Is(err, fs.ErrPermission):
		return Forbidden
	case errors.Is(err, ErrUnavailable), errors.Is(err, hw.ErrAbsent), errors.Is(err, fs.ErrNotExist):
		return Absent
	}
	return Wrong
}

// Finding is what was found of a node.
type Finding struct {
	Node      *Node
	Condition Condition
	Text      string // what there is, or what is wrong and what to do
}

// Probe looks for what the nodes need whose configs are [Prober], all at the same
// time, and lists what was found in the order of the file. One that takes longer
// than the limit is left behind, and that is what is found of it. The tree need
// not be open.
func (t *Tree) Probe(ctx context.Context, limit time.Duration) []Finding {
	findings := make([]*Finding, len(t.nodes))
	var all sync.WaitGroup
	for i, n := range t.nodes {
		if p, ok := n.Config.(Prober); ok && n.mount == nil && n.env != nil {
			all.Go(func() { findings[i] = n.probe(ctx, p, limit) })
		}
	}
	all.Wait()
	var list []Finding
	for _, f := range findings {
		if f != nil {
			list = append(list, *f)
		}
	}
	return list
}

func (n *Node) probe(ctx context.Context, p Prober, limit time.Duration) *Finding {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	type answer struct {
		text string
		err  error
	}
	answered := make(chan answer, 1) // what is late goes nowhere
	go func() {
		var a answer
		a.err = guard(func() (err error) {
			a.text, err = p.Probe(limited, n.env)
			return err
		})
		answered <- a
	}()
	var a answer
	select {
	case a = <-answered:
	case <-limited.Done():
		a.err = limited.Err()
	}
	if limited.Err() != nil && errors.Is(a.err, context.DeadlineExceeded) {
		a.err = fmt.Errorf("no answer within %v: %w", limit, a.err)
	}
	if a.err != nil {
		a.text = a.err.Error()
	}
	return &Finding{n, ConditionOf(a.err), a.text}
}

// guard makes a panic an error.
func guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return f()
}
