package driver

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/hw"
	"gopkg.in/yaml.v3"
)

// Label names that every report may carry.
const (
	LabelClient = "jumpstarter.dev/client" // the Python client class
	LabelName   = "jumpstarter.dev/name"   // the node's name below its parent
)

// Decl is a node as a configuration declares it: by type, by reference, or, with
// neither, as a group of children.
type Decl struct {
	Name        string
	Pos         Pos
	Type        string
	TypePos     Pos
	Ref         string
	RefPos      Pos
	Description string
	Methods     map[string]string // descriptions of methods, by CLI name
	Config      *yaml.Node
	Children    []Decl
}

// Options are what a tree is built with.
type Options struct {
	Specs     []Spec
	Namespace uuid.UUID // the nodes' UUIDs derive from it and their paths
	Host      hw.Host
	Log       *slog.Logger
	Resources Opener
}

// Tree is a harness: its nodes, planned and perhaps open.
type Tree struct {
	Root *Node

	opt   Options
	nodes []*Node // in the order of the file, parents first
	byID  map[uuid.UUID]*Node
}

// Node is one place in the tree.
type Node struct {
	Name        string // "" at the root
	Path        string // names from the root, joined by dots
	UUID        uuid.UUID
	Parent      *Node
	Children    []*Node
	Spec        *Spec
	Config      any // a pointer to the spec's config struct
	Description string
	Methods     map[string]string
	Pos         Pos

	labels map[string]string
	target *Node // of a Ref
	env    *Env
	open   atomic.Pointer[Driver]
	turn   chan struct{} // holds one token: whoever has it opens or closes
	closed bool          // guarded by turn
	absent bool          // guarded by turn: reported once
}

// common are the keys that every driver's config may hold.
type common struct {
	UUID     *string           `yaml:"uuid" doc:"fixed identity of the node, instead of a derived one"`
	Labels   map[string]string `yaml:"labels,omitempty" doc:"labels that the node's report carries"`
	LogLevel string            `yaml:"log_level" default:"INFO" doc:"least severity that the driver logs"`
}

// Plan makes a tree without touching any device, and reports all that is wrong
// with its declaration. When there are errors the tree is nil.
func Plan(root Decl, opt Options) (*Tree, Problems) {
	if opt.Log == nil {
		opt.Log = discard
	}
	p := &planner{Tree: Tree{opt: opt, byID: map[uuid.UUID]*Node{}}, specs: map[string]*Spec{}}
	for i := range opt.Specs {
		s := &opt.Specs[i]
		p.specs[s.Type] = s
		if s.Role == Group && p.group == nil {
			p.group = s
		}
	}
	p.Root = p.plan(&root, nil, 0)
	for _, r := range p.refs {
		p.link(r)
	}
	for _, r := range p.refs {
		if r.node.target != nil && p.circular(r.node) {
			p.err(r.pos, "ref %q leads back to itself", r.path)
		}
	}
	p.unfolds()
	p.claims()
	p.problems.Sort()
	if p.problems.Err() != nil {
		return nil, p.problems
	}
	return &p.Tree, p.problems
}

type planner struct {
	Tree
	specs    map[string]*Spec
	group    *Spec
	refs     []ref
	problems Problems
}

type ref struct {
	node *Node
	path string
	pos  Pos
}

func (p *planner) err(pos Pos, format string, args ...any) {
	p.problems = append(p.problems, Problem{Pos: pos, Text: fmt.Sprintf(format, args...)})
}

func (p *planner) plan(d *Decl, parent *Node, depth int) *Node {
	n := &Node{Name: d.Name, Parent: parent, Pos: d.Pos, Description: d.Description, Methods: d.Methods,
		turn: make(chan struct{}, 1)}
	n.turn <- struct{}{}
	if parent != nil {
		n.Path = join(parent.Path, d.Name)
	}
	n.UUID = uuid.NewSHA1(p.opt.Namespace, []byte(strings.Join(n.names(), "\x00")))
	p.nodes = append(p.nodes, n)
	if depth > maxDepth {
		p.err(d.Pos, "%s: children nest deeper than %d", n.Path, maxDepth)
		return n
	}

	switch {
	case d.Type != "":
		if n.Spec = p.specs[d.Type]; n.Spec == nil {
			p.err(d.TypePos, "%s: no driver of type %q%s", orElse(n.Path, "export"), d.Type, Hint(d.Type, slices.Sorted(maps.Keys(p.specs))))
		}
	case d.Ref != "":
		n.Spec = &Spec{Type: "ref", Role: Ref}
		p.refs = append(p.refs, ref{n, d.Ref, d.RefPos})
	default:
		if n.Spec = p.group; n.Spec == nil {
			p.err(d.Pos, "%s: no type is given, and no driver for groups is built in", n.Path)
		}
	}
	p.configure(n, d)
	seen := map[string]bool{}
	for i := range d.Children {
		c := &d.Children[i]
		if seen[c.Name] {
			p.err(c.Pos, "%s: two children are called %q", orElse(n.Path, "export"), c.Name)
			continue
		}
		seen[c.Name] = true
		n.Children = append(n.Children, p.plan(c, n, depth+1))
	}
	return n
}

func (p *planner) configure(n *Node, d *Decl) {
	if n.Spec == nil || n.Spec.config == nil {
		p.identify(n, d.Pos)
		return
	}
	pos := d.Pos
	var own, shared *yaml.Node
	cfg := Resolve(d.Config)
	if cfg != nil && cfg.Kind == yaml.MappingNode {
		pairs, ps := Pairs(cfg, d.Pos.File)
		p.problems = append(p.problems, ps...)
		own, shared = emptyLike(cfg), emptyLike(cfg)
		for _, kv := range pairs {
			to := own
			if slices.ContainsFunc(fieldsOf(reflect.TypeFor[common](), "yaml"), func(f field) bool { return f.name == kv.Name }) {
				to = shared
			}
			to.Content = append(to.Content, kv.Key, kv.Value)
		}
	} else {
		own = cfg
	}
	c := reflect.New(n.Spec.config)
	n.Config = c.Interface()
	ps := DecodeConfig(own, n.Config, pos, n.Spec.Lenient)
	var com common
	ps = append(ps, DecodeConfig(shared, &com, pos, false)...)
	for i := range ps {
		ps[i].Text = orElse(n.Path, "export") + ": " + ps[i].Text
	}
	p.problems = append(p.problems, ps...)
	if com.UUID != nil {
		if id, err := uuid.Parse(*com.UUID); err == nil {
			n.UUID = id
		} else {
			p.err(pos, "%s: uuid: %q is not a UUID", n.Path, *com.UUID)
		}
	}
	level, ok := ParseLevel(com.LogLevel)
	if !ok {
		p.err(pos, "%s: log_level: %q is none of DEBUG, INFO, WARNING, ERROR, CRITICAL", n.Path, com.LogLevel)
	}
	n.labels = maps.Clone(com.Labels)
	if l, ok := n.Config.(Labeler); ok && ps.Err() == nil {
		if n.labels == nil {
			n.labels = map[string]string{}
		}
		maps.Copy(n.labels, l.Labels())
	}
	if r, ok := n.Config.(NodeReader); ok && own != nil && ps.Err() == nil {
		r.ReadNode(own)
	}
	if m, ok := n.Config.(MethodDescriber); ok && ps.Err() == nil {
		n.Methods = maps.Clone(n.Methods)
		if n.Methods == nil {
			n.Methods = map[string]string{}
		}
		maps.Copy(n.Methods, m.DescribeMethods())
	}
	log := slog.New(&leveled{p.opt.Log.Handler(), level})
	n.env = &Env{Host: p.opt.Host, Path: n.Path, node: n, tree: &p.Tree,
		Log: log.With("driver", orElse(n.Path, "root"), "driver_type", n.Spec.Contract.Kind)}
	p.identify(n, pos)
	if n.Spec.Role == Ref {
		if r, ok := n.Config.(interface{ RefPath() string }); ok {
			p.refs = append(p.refs, ref{n, r.RefPath(), pos})
		}
	}
}

// identify enters a node under its UUID.
func (p *planner) identify(n *Node, pos Pos) {
	if n.Spec != nil && n.Spec.Role == Ref {
		return
	}
	if other := p.byID[n.UUID]; other != nil {
		p.err(pos, "%s: uuid %s is taken by %s", n.Path, n.UUID, orElse(other.Path, "the root"))
		return
	}
	p.byID[n.UUID] = n
}

func emptyLike(n *yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: n.Line, Column: n.Column}
}

// link finds the node that a ref stands for.
func (p *planner) link(r ref) {
	at := p.Root
	for name := range strings.SplitSeq(r.path, ".") {
		i := slices.IndexFunc(at.Children, func(c *Node) bool { return c.Name == name })
		if i < 0 {
			var names []string
			for _, c := range at.Children {
				names = append(names, c.Name)
			}
			p.err(r.pos, "ref %q: %s has no child %q%s", r.path, orElse(at.Path, "export"), name, Hint(name, names))
			return
		}
		at = at.Children[i]
	}
	r.node.target = at
}

// circular reports whether listing what a ref stands for would meet the ref
// again.
func (p *planner) circular(start *Node) bool {
	seen := map[*Node]bool{}
	var visit func(*Node) bool
	visit = func(n *Node) bool {
		if n == start {
			return true
		}
		if n == nil || seen[n] {
			return false
		}
		seen[n] = true
		if n.target != nil && visit(n.target) {
			return true
		}
		return slices.ContainsFunc(n.Children, visit)
	}
	return visit(start.target)
}

// maxReports bounds what the clients of one harness are told of. The nodes below
// a ref are listed again for every ref, so that refs to groups of refs double
// the list with every line of a configuration.
const maxReports = 10_000

func (p *planner) unfolds() {
	if p.problems.Err() != nil {
		return
	}
	sizes := map[*Node]int{}
	var size func(*Node) int
	size = func(n *Node) int {
		n = n.Resolve()
		s, known := sizes[n]
		if !known {
			s = 1
			for _, c := range n.Children {
				s = min(s+size(c), maxReports+1)
			}
			sizes[n] = s
		}
		return s
	}
	if size(p.Root) > maxReports {
		p.err(p.Root.Pos, "export: with all refs followed, these are more than %d nodes", maxReports)
	}
}

// claims warns of nodes that will fight over one thing.
func (p *planner) claims() {
	if p.problems.Err() != nil {
		return
	}
	owner := map[Claim]*Node{}
	for _, n := range p.nodes {
		for _, c := range n.Claims() {
			if other := owner[c]; other != nil {
				p.problems = append(p.problems, Problem{Pos: n.Pos, Warning: true,
					Text: fmt.Sprintf("%s and %s both use %s: only one can have it at a time", other.Path, n.Path, c)})
				continue
			}
			owner[c] = n
		}
	}
}

// Claims names what the node will take when it is open.
func (n *Node) Claims() []Claim {
	if c, ok := n.Config.(Claimer); ok {
		return c.Claims()
	}
	return nil
}

func (n *Node) names() []string {
	if n.Parent == nil {
		return nil
	}
	return append(n.Parent.names(), n.Name)
}

// Resolve is the node that does the work: the target of a ref, else the node.
func (n *Node) Resolve() *Node {
	for n.target != nil {
		n = n.target
	}
	return n
}

// Nodes lists all nodes in the order of the file, parents first.
func (t *Tree) Nodes() []*Node { return t.nodes }

// Node finds a node by its UUID. Refs have none of their own.
func (t *Tree) Node(id uuid.UUID) (*Node, bool) {
	n, ok := t.byID[id]
	return n, ok
}

// Caller calls a node of the tree in this process.
func (n *Node) Caller() Caller { return local(n.Resolve().Driver) }

// Report is what a client learns of a node.
type Report struct {
	UUID        uuid.UUID
	Parent      uuid.UUID // uuid.Nil at the root
	Labels      map[string]string
	Description string
	Methods     map[string]string
}

// Reports lists what a client learns of the tree, depth first. A ref appears
// under its own name with its target's identity, followed by the target's
// children once more.
func (t *Tree) Reports() []Report {
	var list []Report
	var visit func(n *Node, name string, parent uuid.UUID)
	visit = func(n *Node, name string, parent uuid.UUID) {
		n = n.Resolve()
		labels := make(map[string]string, len(n.labels)+2)
		maps.Copy(labels, n.labels)
		labels[LabelClient] = n.Spec.Contract.Client
		if name != "" {
			labels[LabelName] = name
		}
		list = append(list, Report{n.UUID, parent, labels, n.Description, n.Methods})
		for _, c := range n.Children {
			visit(c, c.Name, n.UUID)
		}
	}
	visit(t.Root, t.Root.Name, uuid.Nil)
	return list
}

// Open opens all nodes, children before their parents. A device that is absent,
// busy or forbidden is logged, not failed: one broken node must not keep the
// others from working. Any other failure closes what was opened.
func (t *Tree) Open(ctx context.Context) error {
	for n := range t.Root.upward() {
		if n.target != nil {
			continue
		}
		if _, err := n.Driver(ctx); err != nil && !missing(err) {
			return errors.Join(err, t.Close())
		}
	}
	return nil
}

// missing reports whether an error is about the device and may pass by itself.
func missing(err error) bool {
	c := Classify(err)
	return c == Unavailable || c == Device
}

// upward lists the nodes below n and then n: children before their parents, in
// the order of the file.
func (n *Node) upward() iter.Seq[*Node] {
	return func(yield func(*Node) bool) { n.climb(yield) }
}

func (n *Node) climb(yield func(*Node) bool) bool {
	for _, c := range n.Children {
		if !c.climb(yield) {
			return false
		}
	}
	return yield(n)
}

// Close closes all nodes, parents before their children, and returns all
// errors. A closed tree cannot be opened again.
func (t *Tree) Close() error {
	var errs []error
	for _, n := range t.nodes {
		<-n.turn
		d := n.open.Swap(nil)
		n.closed = true
		n.turn <- struct{}{}
		if d != nil {
			if err := d.Close(); err != nil {
				errs = append(errs, fmt.Errorf("%s: close: %w", orElse(n.Path, "root"), err))
			}
		}
	}
	return errors.Join(errs...)
}

// Reset resets every [Resetter], children before their parents, and returns all
// errors. Nodes that are absent have nothing to reset.
func (t *Tree) Reset(ctx context.Context) error {
	var errs []error
	for n := range t.Root.upward() {
		d := n.open.Load()
		if d == nil {
			continue
		}
		if r, ok := d.Impl.(Resetter); ok {
			if err := r.Reset(ctx); err != nil {
				errs = append(errs, fmt.Errorf("%s: reset: %w", orElse(n.Path, "root"), err))
			}
		}
	}
	return errors.Join(errs...)
}

// Driver is the node's opened backend. A device that was absent is looked for
// anew.
func (n *Node) Driver(ctx context.Context) (Driver, error) {
	if d := n.open.Load(); d != nil {
		return *d, nil
	}
	if n.Spec.open == nil {
		return Driver{}, nil
	}
	select {
	case <-n.turn:
		defer func() { n.turn <- struct{}{} }()
	case <-ctx.Done():
		return Driver{}, fmt.Errorf("%s: waiting for another to open it: %w", n.Path, ctx.Err())
	}
	if d := n.open.Load(); d != nil {
		return *d, nil
	}
	if n.closed {
		return Driver{}, fmt.Errorf("%s: the session is over: %w", n.Path, ErrUnavailable)
	}
	d, err := n.Spec.open(ctx, n.env, n.Config)
	if err != nil {
		err = fmt.Errorf("%s: %w", orElse(n.Path, "root"), err)
		if missing(err) && !n.absent {
			n.absent = true
			n.env.Log.Warn("device cannot be used now; trying again when it is asked for", "error", err)
		}
		return Driver{}, err
	}
	if n.absent {
		n.absent = false
		n.env.Log.Info("device can be used again")
	}
	n.open.Store(&d)
	return d, nil
}

// Levels that Python's logging has and slog has not.
const LevelCritical = slog.LevelError + 4

// ParseLevel reads a severity by the name that Python's logging gives it.
func ParseLevel(name string) (slog.Level, bool) {
	switch strings.ToUpper(name) {
	case "DEBUG", "NOTSET":
		return slog.LevelDebug, true
	case "INFO":
		return slog.LevelInfo, true
	case "WARNING", "WARN":
		return slog.LevelWarn, true
	case "ERROR":
		return slog.LevelError, true
	case "CRITICAL", "FATAL":
		return LevelCritical, true
	}
	return 0, false
}

// leveled drops records below a node's own level.
type leveled struct {
	slog.Handler
	least slog.Level
}

func (h *leveled) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= h.least && h.Handler.Enabled(ctx, l)
}
func (h *leveled) WithAttrs(a []slog.Attr) slog.Handler {
	return &leveled{h.Handler.WithAttrs(a), h.least}
}
func (h *leveled) WithGroup(name string) slog.Handler {
	return &leveled{h.Handler.WithGroup(name), h.least}
}
