package driver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// Mounted is the Impl of a node whose drivers are elsewhere: in another process,
// or on another machine. It is open for as long as the tree is, also while the
// other side is gone.
type Mounted interface {
	// Remote is the node and all below it, as they were last known, or nil. It
	// does not change.
	Remote() *Remote
	// Caller reaches one of the nodes.
	Caller(id uuid.UUID) Caller
}

// Remote is a node that is mounted. Its UUID is what [Env.ID] gives for its names.
type Remote struct {
	Name        string
	UUID        uuid.UUID
	Labels      map[string]string
	Description string
	Methods     map[string]string
	Children    []*Remote
}

// find finds a node by the names that lead to it.
func (r *Remote) find(names []string) *Remote {
	for _, name := range names {
		if r == nil {
			return nil
		}
		i := slices.IndexFunc(r.Children, func(c *Remote) bool { return c.Name == name })
		if i < 0 {
			return nil
		}
		r = r.Children[i]
	}
	return r
}

// class is the client's class of a node, or "".
func (r *Remote) class(id uuid.UUID) string {
	if r == nil {
		return ""
	}
	if r.UUID == id {
		return r.Labels[LabelClient]
	}
	for _, c := range r.Children {
		if class := c.class(id); class != "" {
			return class
		}
	}
	return ""
}

func (r *Remote) has(id uuid.UUID) bool {
	return r != nil && (r.UUID == id || slices.ContainsFunc(r.Children, func(c *Remote) bool { return c.has(id) }))
}

// Mount makes the spec of a node that is mounted together with what is declared
// below it. Its config is for the other side to understand. The function is as
// that of [Define]; the driver's Impl is a [Mounted].
func Mount(s Spec, open func(context.Context, *Env) (Driver, error)) Spec {
	s.Role = Mounting
	s.open = func(ctx context.Context, env *Env, _ any) (Driver, error) { return open(ctx, env) }
	return s
}

// Hosting says how a node is run that has no driver in this program, or is not to
// be run by it. Nodes have what is said of the nodes above them.
type Hosting struct {
	Wanted bool   // also where there is a driver in this program
	Python string // the interpreter; "" leaves it to the environment
	User   string // whom it runs as; "" is the exporter's own
}

// Mount is the node at whose place the mount begins that this node is part of, or
// nil.
func (n *Node) Mount() *Node { return n.Resolve().mount }

// hosted reports whether the node's driver is one that [Mount] made: its program is
// started as its Hosting says.
func (n *Node) hosted() bool { return n.mount != nil && n.mount.Spec.config == nil }

// Mounted is the other side of a node that is mounted.
func (n *Node) Mounted(ctx context.Context) (Mounted, error) {
	m := n.Mount()
	if m == nil {
		return nil, fmt.Errorf("%s: it is not mounted", n.where())
	}
	d, err := m.Driver(ctx)
	if err != nil {
		return nil, err
	}
	x, ok := d.Impl.(Mounted)
	if !ok {
		return nil, fmt.Errorf("%s: it is not mounted", n.where())
	}
	return x, nil
}

// Forwarded reports whether clients forward local connections into the streams of a
// node, which is this one or one that is mounted below it. Of a mounted one its
// client's class tells.
func (n *Node) Forwarded(id string) bool {
	n = n.Resolve()
	if n.mount == nil {
		return n.Spec.Contract.Forwarded
	}
	class := n.Spec.Contract.Client
	if d := n.mount.open.Load(); d != nil {
		if m, ok := d.Impl.(Mounted); ok {
			if u, err := uuid.Parse(id); err == nil {
				class = orElse(m.Remote().class(u), class)
			}
		}
	}
	return slices.ContainsFunc(n.mount.env.tree.opt.Specs, func(s Spec) bool {
		return s.Contract.Forwarded && s.Contract.Client == class
	})
}

// resolve is the node that does the work, and the names that lead from there to a
// mounted node that is not declared.
func (n *Node) resolve() (_ *Node, rest []string) {
	for n.target != nil {
		n, rest = n.target, append(slices.Clip(n.rest), rest...)
	}
	return n, rest
}

// remote is what is known of a node that is mounted.
func (n *Node) remote() *Remote {
	if d := n.mount.open.Load(); d != nil {
		if m, ok := d.Impl.(Mounted); ok {
			return m.Remote().find(n.names()[len(n.mount.names()):])
		}
	}
	return nil
}

// mounted finds the mount that a node is part of without being declared.
func (t *Tree) mounted(id uuid.UUID) (*Node, bool) {
	for _, n := range t.nodes {
		if n.mount == n && n.remote().has(id) {
			return n, true
		}
	}
	return nil, false
}

// child finds a declared child.
func (n *Node) child(name string) *Node {
	if n == nil {
		return nil
	}
	for _, c := range n.Children {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// id is the identity of a node below this one, declared or not. A ref has that of
// what it stands for.
func (n *Node) id(names []string) uuid.UUID {
	at, rest := n.resolve()
	names = append(slices.Clip(rest), names...)
	if len(names) == 0 {
		return at.UUID
	}
	if c := at.child(names[0]); c != nil {
		return c.id(names[1:])
	}
	all := append(at.names(), names...)
	return uuid.NewSHA1(at.env.tree.opt.Namespace, []byte(strings.Join(all, "\x00")))
}

// ID is the identity of a node below that of the environment, by the names that
// lead to it. It is the same after each start.
func (e *Env) ID(names ...string) uuid.UUID { return e.node.id(names) }

// IsRef reports whether a node below that of the environment is declared as a
// second name for another.
func (e *Env) IsRef(names ...string) bool {
	at := e.node
	for _, name := range names {
		if at = at.child(name); at == nil {
			return false
		}
	}
	return at.target != nil
}

// Exporter is the log for what is no driver's business.
func (e *Env) Exporter() *slog.Logger { return e.tree.opt.Log }

// Logger is the log of a node below that of the environment.
func (e *Env) Logger(names ...string) *slog.Logger {
	return e.tree.opt.Log.With("driver", strings.Join(append(e.Names(), names...), "."))
}

// OpenRefs opens the mounts that the node refers to from below. Errors are theirs
// to tell.
func (e *Env) OpenRefs(ctx context.Context) {
	type key struct{}
	waiting, _ := ctx.Value(key{}).([]*Node) // they wait for us: not for them, too
	waiting = append(slices.Clip(waiting), e.node)
	for n := range e.node.upward() {
		if m := n.Mount(); m != nil && !slices.Contains(waiting, m) {
			_, _ = m.Driver(context.WithValue(ctx, key{}, waiting))
		}
	}
}

// Names lead from the root to the node.
func (e *Env) Names() []string { return e.node.names() }

// far calls a mounted node. Where it is, is asked for each call.
type far struct {
	node *Node
	rest []string
}

func (f far) caller(ctx context.Context) (Caller, error) {
	m, err := f.node.Mounted(ctx)
	if err != nil {
		return nil, err
	}
	return m.Caller(f.node.id(f.rest)), nil
}

func (f far) Call(ctx context.Context, method string, args ...any) (any, error) {
	c, err := f.caller(ctx)
	if err != nil {
		return nil, err
	}
	return c.Call(ctx, method, args...)
}

func (f far) Feed(ctx context.Context, method string, args ...any) iter.Seq2[any, error] {
	return func(yield func(any, error) bool) {
		c, err := f.caller(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		c.Feed(ctx, method, args...)(yield)
	}
}

func (f far) Stream(ctx context.Context, method string) (io.ReadWriteCloser, error) {
	c, err := f.caller(ctx)
	if err != nil {
		return nil, err
	}
	return c.Stream(ctx, method)
}

func (f far) Offer(ctx context.Context) (Resource, Handle, error) {
	c, err := f.caller(ctx)
	if err != nil {
		return nil, Handle{}, err
	}
	o, ok := c.(Offerer)
	if !ok {
		return nil, Handle{}, fmt.Errorf("%s: resource: %w", f.node.where(), errors.ErrUnsupported)
	}
	return o.Offer(ctx)
}
