package driver

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Reloaded tells what became of the nodes of a tree that was reloaded, by their
// paths. What is in none of the lists is as it was.
type Reloaded struct {
	Added   []string
	Changed []string // closed, and opened anew
	Removed []string
	Busy    []string // to be changed or removed, but in use: left as they were
}

// Reload makes a tree of a new declaration that takes this one's place while
// clients go on. A driver that is declared as before stays open, one that is
// new or different is opened, one that is gone is closed. What is in use, or
// serves a driver that is, stays as it was and is reported: a flash that is
// under way does not lose its device to an edit.
//
// Drivers are compared together with what is below them. Groups and refs have
// nothing to lose, and follow the declaration at once.
//
// When the declaration has mistakes, or asks for a removal that would tear what
// is in use out of its group, nothing happens and the tree that is returned is
// nil. Otherwise put is called with the new tree, which has to be served from
// then on, before anything is closed; calls on nodes that are about to be opened
// wait. The old tree must not be used afterwards. A device that fails to open is
// logged, and tried again when it is asked for.
func (t *Tree) Reload(ctx context.Context, root Decl, put func(*Tree)) (*Tree, Reloaded, Problems) {
	r := &reload{old: map[string]*Node{}, held: map[*Node]bool{}}
	for n := range t.units {
		r.old[n.key()] = n
	}
	for _, n := range r.old {
		if n.busy() {
			r.hold(n)
		}
	}
	for { // until nothing that goes is in use
		next, done, problems := r.plan(t, root)
		if next == nil {
			return nil, done, problems
		}
		if late := r.retire(); late != nil {
			r.hold(late)
			continue
		}
		r.commit(ctx, t, next, put)
		return next, done, problems
	}
}

// reload is one round of exchanging a tree. Its units are the drivers below
// groups, each with what is below it.
type reload struct {
	old  map[string]*Node
	held map[*Node]bool // old units that are in use: they stay

	kept  map[*Node]*Node // planned nodes, and the old ones that take their places
	going []*Node         // old units that are closed
	fresh []*Node         // planned nodes that are opened, children first
}

// plan finds what stays and what goes.
func (r *reload) plan(t *Tree, root Decl) (*Tree, Reloaded, Problems) {
	var done Reloaded
	opt := t.opt
	planned, problems := Plan(root, opt)
	if planned == nil {
		return nil, done, problems
	}
	// What is in use keeps its old declaration.
	decls := root
	for key, n := range r.old {
		if !r.held[n] {
			continue
		}
		names := strings.Split(key, "\x00")
		if n.declared(find(&decls, names)) {
			continue
		}
		done.Busy = append(done.Busy, n.Path)
		if decls = graft(decls, names, *n.decl); !n.declared(find(&decls, names)) {
			return nil, done, Problems{{Pos: root.Pos, Node: n.Path,
				Text: fmt.Sprintf("%s: it is in use, and the configuration has no group any more where it can stay: reload again when it is free", n.Path)}}
		}
	}
	slices.Sort(done.Busy)
	if done.Busy != nil {
		if planned, problems = Plan(decls, opt); planned == nil {
			return nil, done, problems
		}
	}

	// A unit that stays must find all it refers to as it was.
	stays := map[*Node]*Node{} // planned unit: old unit
	for n := range planned.units {
		if o := r.old[n.key()]; o != nil && n.same(o) {
			stays[n] = o
		}
	}
	for again := true; again; {
		again = false
		for n := range maps.Keys(stays) {
			refs := 0
			for u := range n.uses {
				if refs++; stays[u] == nil {
					refs = -1
					break
				}
			}
			for range stays[n].uses {
				refs--
			}
			if refs != 0 { // a group that it refers to may have lost some
				delete(stays, n)
				again = true
			}
		}
	}

	r.kept, r.going, r.fresh = map[*Node]*Node{}, nil, nil
	gone := maps.Clone(r.old)
	for n, o := range stays {
		pair(r.kept, n, o)
		delete(gone, o.key())
	}
	for o := range t.units {
		if gone[o.key()] == nil {
			continue
		}
		if r.held[o] {
			return nil, done, Problems{{Pos: root.Pos, Node: o.Path,
				Text: fmt.Sprintf("%s: it is in use, and what it refers to has changed: reload again when it is free", o.Path)}}
		}
		r.going = append(r.going, o)
		if find(&decls, strings.Split(o.key(), "\x00")) == nil {
			done.Removed = append(done.Removed, o.Path)
		}
	}
	for n := range planned.units {
		if _, stayed := stays[n]; stayed {
			continue
		}
		if _, was := gone[n.key()]; was {
			done.Changed = append(done.Changed, n.Path)
		} else {
			done.Added = append(done.Added, n.Path)
		}
	}
	for n := range planned.Root.upward() {
		if r.kept[n] == nil {
			r.fresh = append(r.fresh, n)
		}
	}
	return planned, done, problems
}

// hold leaves a unit, and the units that it refers to, as they are.
func (r *reload) hold(n *Node) {
	if r.held[n] {
		return
	}
	r.held[n] = true
	for u := range n.uses {
		r.hold(u)
	}
}

// retire closes what goes to new users. If somebody was faster, none is closed,
// and the unit in use is returned.
func (r *reload) retire() *Node {
	var retired []*Node
	for _, u := range r.going {
		for n := range u.upward() {
			if n.users.CompareAndSwap(0, retiredUsers) {
				retired = append(retired, n)
				continue
			}
			for _, n := range retired {
				n.users.Store(0)
			}
			return u
		}
	}
	return nil
}

// commit puts the new tree in place of the old one.
func (r *reload) commit(ctx context.Context, old, next *Tree, put func(*Tree)) {
	next.end()
	next.life, next.end, next.settled = old.life, old.end, old.settled
	for n := range next.byID {
		if o := r.kept[next.byID[n]]; o != nil {
			next.byID[n] = o
		}
	}
	for i, n := range next.nodes {
		if o := r.kept[n]; o != nil {
			next.nodes[i] = o
			continue
		}
		for j, c := range n.Children {
			if o := r.kept[c]; o != nil {
				n.Children[j] = o
			}
		}
		if o := r.kept[n.target]; n.target != nil && o != nil {
			n.target = o
		}
		<-n.turn // nobody opens it before the old ones are closed
	}
	next.leaving.Add(1)
	put(next)
	var going []*Node // parents first, as when a tree is closed
	for _, n := range old.nodes {
		if u := n.unit(); u == nil && n.Spec.Role == Group || slices.Contains(r.going, u) {
			going = append(going, n)
		}
	}
	for _, err := range shut(ctx, going) {
		if err != nil {
			old.opt.Log.Error("reload", "error", err)
		}
	}
	next.leaving.Done()
	for _, n := range r.fresh {
		n.turn <- struct{}{}
	}
	for _, n := range r.fresh {
		if n.target != nil {
			continue
		}
		var err error
		panicked := n.guard("open", func() error { _, err = n.Driver(ctx); return nil })
		if err = cmp.Or(panicked, err); err != nil && !missing(ctx, err) {
			old.opt.Log.Error("reload: trying again when it is asked for", "error", err)
		}
	}
}

// retiredUsers is what users holds of a node that has no future.
const retiredUsers = -1

// errRetired is what a node answers that a reload is closing.
var errRetired = fmt.Errorf("its configuration was reloaded, read the report again: %w", ErrUnavailable)

// Use keeps the node, and what it refers to, as it is while a call or a stream
// is in progress. Release must follow unless there is an error.
func (n *Node) Use() error {
	n = n.Resolve()
	for {
		switch v := n.users.Load(); {
		case v == retiredUsers:
			return fmt.Errorf("%s: %w", n.where(), errRetired)
		case n.users.CompareAndSwap(v, v+1):
			return nil
		}
	}
}

// Release ends a Use.
func (n *Node) Release() { n.Resolve().users.Add(-1) }

// busy reports whether the node or one below it is in use.
func (n *Node) busy() bool {
	for c := range n.upward() {
		if c.users.Load() > 0 {
			return true
		}
	}
	return false
}

// units lists the drivers that are below nothing but groups.
func (t *Tree) units(yield func(*Node) bool) {
	for _, n := range t.nodes {
		if n.Spec.leads() && n.unit() == n && !yield(n) {
			return
		}
	}
}

// unit is the topmost driver above the node or the node itself, or nil for a
// group or a ref that is below no driver.
func (n *Node) unit() (u *Node) {
	for ; n != nil; n = n.Parent {
		if n.Spec.leads() {
			u = n
		}
	}
	return u
}

// leads reports whether a node has something to lose when it is closed.
func (s *Spec) leads() bool { return s.Role == Leaf || s.Role == Mounting }

// uses lists the units that a unit refers to, also through groups.
func (n *Node) uses(yield func(*Node) bool) {
	for c := range n.upward() {
		if c.target != nil && !c.serving(yield) {
			return
		}
	}
}

// serving lists the units that a node stands for: the one that it is part of, or
// those in a group.
func (n *Node) serving(yield func(*Node) bool) bool {
	n = n.Resolve()
	if u := n.unit(); u != nil {
		return yield(u)
	}
	return !slices.ContainsFunc(n.Children, func(c *Node) bool { return !c.serving(yield) })
}

// key is the node's path in a form that names cannot forge.
func (n *Node) key() string { return strings.Join(n.names(), "\x00") }

// same reports whether two units are declared alike, and run by the same.
func (n *Node) same(o *Node) bool {
	return n.UUID == o.UUID && n.hosted() == o.hosted() && o.declared(n.decl)
}

// declared reports whether a declaration says of a unit what its own says. How
// programs are run is nothing to drivers that start none: a relay does not fall off
// for it.
func (n *Node) declared(d *Decl) bool { return n.decl.equal(d) && n.runs(d) }

func (n *Node) runs(d *Decl) bool {
	if n.decl.Hosting.Wanted != d.Hosting.Wanted || n.hosted() && n.decl.Hosting != d.Hosting ||
		n.Spec.Limited && !reflect.DeepEqual(n.decl.Limits, d.Limits) {
		return false
	}
	for _, c := range n.Children {
		if other := find(d, []string{c.Name}); other == nil || !c.runs(other) {
			return false
		}
	}
	return true
}

// pair matches the nodes of two units that are declared alike.
func pair(kept map[*Node]*Node, n, o *Node) {
	kept[n] = o
	for i := range n.Children {
		pair(kept, n.Children[i], o.Children[i])
	}
}

// equal reports whether two declarations say the same, wherever they stand, but for
// how programs are run.
func (d *Decl) equal(o *Decl) bool {
	return o != nil && d.Name == o.Name && d.Type == o.Type && d.Ref == o.Ref && d.Description == o.Description &&
		maps.Equal(d.Methods, o.Methods) && alike(d.Config, o.Config) &&
		slices.EqualFunc(d.Children, o.Children, func(a, b Decl) bool { return a.equal(&b) })
}

// alike reports whether two YAML nodes hold the same, in the same order.
func alike(a, b *yaml.Node) bool {
	a, b = Resolve(a), Resolve(b)
	if a == nil || b == nil {
		return a == b
	}
	return a.Kind == b.Kind && a.ShortTag() == b.ShortTag() && a.Value == b.Value && slices.EqualFunc(a.Content, b.Content, alike)
}

// find finds a declaration by the names that lead to it.
func find(d *Decl, names []string) *Decl {
	for _, name := range names {
		i := slices.IndexFunc(d.Children, func(c Decl) bool { return c.Name == name })
		if i < 0 {
			return nil
		}
		d = &d.Children[i]
	}
	return d
}

// graft returns a copy of a declaration that has another one at a place, if the
// group is there that it belongs to.
func graft(d Decl, names []string, at Decl) Decl {
	if d.Type != "" || d.Ref != "" {
		return d
	}
	d.Children = slices.Clone(d.Children)
	i := slices.IndexFunc(d.Children, func(c Decl) bool { return c.Name == names[0] })
	switch {
	case i >= 0 && len(names) == 1:
		d.Children[i] = at
	case i >= 0:
		d.Children[i] = graft(d.Children[i], names[1:], at)
	case len(names) == 1:
		d.Children = append(d.Children, at)
	}
	return d
}
