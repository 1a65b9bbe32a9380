package driver

import (
	"reflect"
	"slices"

	"github.com/jumplead/jumplead/hw"
)

// Limits are what programs may take of the machine that a node starts. Nodes have
// those of the nodes above them, with their own in front. Only those of a [Spec]
// that is Limited start any.
type Limits = hw.Limits

// Path is the absolute path of a file or a folder in limits.
type Path = hw.Path

// Memory is a number of bytes in limits.
type Memory = hw.Memory

// LimitKeys lists the keys of limits.
func LimitKeys() []Key { return keysOf(reflect.TypeFor[Limits](), 0) }

// LimitSchema describes limits for editors.
func LimitSchema() Schema {
	return mappingSchema(fieldsOf(reflect.TypeFor[Limits](), "yaml"), false, 0)
}

// bound looks at the limits of a node that has been planned with all below it.
func (p *planner) bound(n *Node) {
	d := n.decl
	inherited := n.Parent != nil && n.Parent.decl.Limits == d.Limits
	switch {
	case d.Limits == nil || inherited:
	case n.mount != nil && n.mount != n:
		p.err(n, d.LimitsPos, "limits: it runs in the process of %s: give that one the limits", n.mount.where())
	case n.Parent == nil && !n.limited():
		p.note(n, Problem{Pos: d.LimitsPos, Warning: true, Text: "limits: no node starts a program that they would bind"})
	case !n.limited():
		p.err(n, d.LimitsPos, "limits: it starts no program that they would bind")
	}
}

// limited reports whether the node starts programs, or one below it.
func (n *Node) limited() bool {
	return n.starts() || slices.ContainsFunc(n.Children, (*Node).limited)
}

// starts reports whether the node starts programs.
func (n *Node) starts() bool {
	if n.Spec == nil || !n.Spec.Limited {
		return false
	}
	s, ok := n.Config.(Starter)
	return !ok || n.env == nil || s.Starts() // what a config says is only asked of a sound one
}

// Limits are those of the programs that the node starts, and the user whom these
// run as: "" is the exporter's own. It is nil where there are none.
func (n *Node) Limits() (l *Limits, user string) {
	if !n.starts() {
		return nil, ""
	}
	if n.hosted() {
		user = n.decl.Hosting.User
	}
	return n.decl.Limits, user
}

// LimitsPos is where the node's limits were said last.
func (n *Node) LimitsPos() Pos { return n.decl.LimitsPos }
