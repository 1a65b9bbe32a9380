package driver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"reflect"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

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
	Broken      bool // something else stands in place of a config, and that was said
	Children    []Decl
	Hosting     Hosting
	Limits      *Limits // of the programs that it and those below it start; nil is none
	LimitsPos   Pos     // where they were said last, here or above
}

// Options are what a tree is built with.
type Options struct {
	Specs     []Spec
	Namespace uuid.UUID // the nodes' UUIDs derive from it and their paths
	Host      hw.Host
	Log       *slog.Logger
	Resources Opener

	// Mounts finds the nodes that are mounted, each with what is declared below
	// it, and is told which types Specs has; it may be nil. The specs are made
	// with [Mount]. Of those for nodes below a mount only the contract counts.
	Mounts func(root *Decl, known map[string]*Spec) (map[*Decl]Spec, Problems)
}

// Tree is a harness: its nodes, planned and perhaps open.
type Tree struct {
	Root *Node

	opt     Options
	nodes   []*Node // in the order of the file, parents first
	byID    map[uuid.UUID]*Node
	life    context.Context // done once the tree is closed: opening must not outlive it
	end     context.CancelFunc
	closing sync.Mutex
	leaving sync.WaitGroup // the reload that closes what this tree has left behind
	settled chan struct{}  // closed when the mounts were opened, or could not be; nil before Open
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

	labels  map[string]string
	located []Claim  // of a Locator
	target  *Node    // of a Ref
	rest    []string // names that lead from the target to a node that is mounted there
	mount   *Node    // where the mount begins that it is part of
	env     *Env
	decl    *Decl
	open    atomic.Pointer[Driver]
	users   atomic.Int64  // calls and streams in progress, or retiredUsers
	turn    chan struct{} // holds one token: whoever has it opens or closes
	absent  bool          // guarded by turn: reported once
}

// where names the node for people.
func (n *Node) where() string { return orElse(n.Path, "export") }

// common are the keys that every driver's config may hold.
type common struct {
	UUID     *string           `yaml:"uuid" doc:"fixed identity of the node, instead of a derived one"`
	Labels   map[string]string `yaml:"labels,omitempty" doc:"labels that the node's report carries"`
	LogLevel string            `yaml:"log_level" default:"INFO" doc:"least severity that the driver logs"`
}

func (c *common) Validate() error {
	var errs []error
	if c.UUID != nil {
		// The nil UUID is how a report says that a node has no parent.
		if id, err := uuid.Parse(*c.UUID); err != nil || id == uuid.Nil {
			errs = append(errs, BadKey("uuid", "%q is no node's UUID", *c.UUID))
		}
	}
	if _, ok := ParseLevel(c.LogLevel); !ok {
		errs = append(errs, BadKey("log_level", "%q is none of DEBUG, INFO, WARNING, ERROR, CRITICAL", c.LogLevel))
	}
	return errors.Join(errs...)
}

// Plan makes a tree without touching any device, and reports all that is wrong
// with its declaration. When there are errors the tree is nil.
func Plan(root Decl, opt Options) (*Tree, Problems) {
	if opt.Log == nil {
		opt.Log = discard
	}
	t := &Tree{opt: opt, byID: map[uuid.UUID]*Node{}}
	t.life, t.end = context.WithCancel(context.Background())
	p := &planner{Tree: t, specs: map[string]*Spec{}}
	for i := range opt.Specs {
		s := &opt.Specs[i]
		p.specs[s.Type] = s
		if s.Role == Group && p.group == nil {
			p.group = s
		}
	}
	if opt.Mounts != nil {
		var problems Problems
		p.mounts, problems = opt.Mounts(&root, p.specs)
		p.problems = append(p.problems, problems...)
	}
	p.Root = p.plan(&root, nil, 0)
	for _, r := range p.refs {
		p.link(r)
	}
	for _, r := range p.refs {
		if r.node.target != nil && p.circular(r.node) {
			p.err(r.node, r.pos, "ref %q leads back to itself", r.path)
		}
	}
	p.unfolds()
	p.claims()
	p.problems.Sort()
	if p.problems.Err() != nil {
		return nil, p.problems
	}
	return t, p.problems
}

type planner struct {
	*Tree
	specs    map[string]*Spec
	group    *Spec
	mounts   map[*Decl]Spec
	refs     []ref
	problems Problems
}

type ref struct {
	node *Node
	path string
	pos  Pos
}

// err notes a mistake in a node.
func (p *planner) err(n *Node, pos Pos, format string, args ...any) {
	p.note(n, Problem{Pos: pos, Text: fmt.Sprintf(format, args...)})
}

// note notes a problem of a node, whose name it puts in front.
func (p *planner) note(n *Node, x Problem) {
	x.Node, x.Text = n.Path, n.where()+": "+x.Text
	p.problems = append(p.problems, x)
}

func (p *planner) plan(d *Decl, parent *Node, depth int) *Node {
	n := &Node{Name: d.Name, Parent: parent, Pos: d.Pos, Description: d.Description, Methods: d.Methods, decl: d,
		turn: make(chan struct{}, 1)}
	n.turn <- struct{}{}
	if parent != nil {
		n.Path = join(parent.Path, d.Name)
	}
	n.UUID = uuid.NewSHA1(p.opt.Namespace, []byte(strings.Join(n.names(), "\x00")))
	p.nodes = append(p.nodes, n)
	if depth > maxDepth {
		p.err(n, d.Pos, "children nest deeper than %d", maxDepth)
		return n
	}

	if parent != nil {
		n.mount = parent.mount
	}
	mount, ok := p.mounts[d]
	switch {
	case ok && n.mount == nil:
		n.Spec, n.mount = &mount, n
	case n.mount != nil && d.Ref == "" && (p.specs[d.Type] == nil || p.specs[d.Type].Role != Ref):
		n.Spec = &Spec{Type: d.Type, Contract: mount.Contract}
	case d.Type != "":
		if n.Spec = p.specs[d.Type]; n.Spec == nil {
			p.err(n, d.TypePos, "no driver of type %q%s", d.Type, HintType(d.Type, slices.Sorted(maps.Keys(p.specs))))
		}
	case d.Ref != "":
		n.Spec = &Spec{Type: "ref", Role: Ref}
		p.refs = append(p.refs, ref{n, d.Ref, d.RefPos})
	default:
		if n.Spec = p.group; n.Spec == nil {
			p.err(n, d.Pos, "no type is given, and no driver for groups is built in")
		}
	}
	if n.Spec != nil && n.Spec.Role == Mounting {
		n.mount = n
	}
	p.configure(n, d)
	if n.Spec != nil && n.Spec.Role == Ref && len(d.Children) > 0 {
		p.note(n, Problem{Pos: d.Children[0].Pos, Warning: true,
			Text: "children of a ref are ignored: it has those of the node that it stands for"})
		return n
	}
	seen := map[string]bool{}
	for i := range d.Children {
		c := &d.Children[i]
		switch {
		case c.Name == "": // clients find children by their names
			p.err(n, c.Pos, "a child needs a name")
			continue
		case seen[c.Name]:
			p.err(n, c.Pos, "two children are called %q", c.Name)
			continue
		}
		seen[c.Name] = true
		n.Children = append(n.Children, p.plan(c, n, depth+1))
	}
	if n.Spec != nil {
		for _, name := range n.Spec.Children {
			if !seen[name] {
				p.err(n, d.Pos, "child %q is missing: %s needs it, as a driver of its own or as a ref%s", name, n.Spec.Type,
					Hint(name, slices.Sorted(maps.Keys(seen))))
			}
		}
	}
	p.bound(n)
	return n
}

// HintType is Hint for the type of a driver. Types are long and alike, so that
// they are compared by their parts. Where none is near, it lists the types of the
// same package.
func HintType(typ string, types []string) string {
	cut := func(typ string) (pkg, module, class string) {
		i := strings.LastIndexByte(typ, '.') + 1
		pkg, _, _ = strings.Cut(typ, ".")
		return pkg, typ[:i], typ[i:]
	}
	pkg, module, class := cut(strings.TrimSpace(typ))
	var same, near []string // classes of the module, types of the package
	for _, t := range types {
		otherPkg, otherModule, otherClass := cut(t)
		switch {
		case strings.EqualFold(otherClass, class):
			return fmt.Sprintf("; did you mean %q?", t)
		case otherModule == module:
			same = append(same, otherClass)
		}
		if otherPkg == pkg {
			near = append(near, strings.TrimPrefix(t, pkg+"."))
		}
	}
	if c := Nearest(class, same); c != "" {
		return fmt.Sprintf("; did you mean %q?", module+c)
	}
	for _, t := range types {
		if hw.Distance(typ, t, 4) < 4 {
			return fmt.Sprintf("; did you mean %q?", t)
		}
	}
	if len(near) > 0 {
		return fmt.Sprintf("; of %s there is %s", pkg, strings.Join(near, ", "))
	}
	return ""
}

func (p *planner) configure(n *Node, d *Decl) {
	if n.Spec == nil || d.Broken || n.Spec.config == nil && (n.mount == nil || n.Spec.Role == Ref) {
		p.identify(n, d.Pos)
		return
	}
	var own, shared *yaml.Node
	places := map[string]Pos{} // of the values
	cfg := Resolve(d.Config)
	if cfg != nil && cfg.Kind == yaml.MappingNode {
		pairs, ps := Pairs(cfg, d.Pos.File)
		for _, x := range ps {
			p.note(n, x)
		}
		own, shared = emptyLike(cfg), emptyLike(cfg)
		for _, kv := range pairs {
			to := own
			if slices.ContainsFunc(fieldsOf(reflect.TypeFor[common](), "yaml"), func(f field) bool { return f.name == kv.Name }) {
				to = shared
			}
			to.Content = append(to.Content, kv.Key, kv.Value)
			places[kv.Name] = Pos{d.Pos.File, kv.Value.Line, kv.Value.Column}
		}
	} else if cfg != nil && !isNull(cfg) {
		own = cfg
	}
	place := func(key string) Pos {
		if at, there := places[key]; there {
			return at
		}
		return d.Pos
	}
	var ps Problems
	if n.Spec.config != nil {
		n.Config = reflect.New(n.Spec.config).Interface()
		ps = DecodeConfig(own, n.Config, d.Pos, n.Spec.Lenient)
	}
	var com common
	ps = append(ps, DecodeConfig(shared, &com, d.Pos, false)...)
	for _, x := range ps {
		p.note(n, x)
	}
	if ps.Err() != nil {
		return // what a config says is only asked of a sound one
	}
	if r, ok := n.Config.(NodeReader); ok && own != nil {
		r.ReadNode(own)
	}
	if com.UUID != nil {
		n.UUID = uuid.MustParse(*com.UUID) // Validate has seen it
	}
	level, _ := ParseLevel(com.LogLevel)
	n.labels = maps.Clone(com.Labels)
	if l, ok := n.Config.(Labeler); ok {
		if n.labels == nil {
			n.labels = map[string]string{}
		}
		maps.Copy(n.labels, l.Labels())
	}
	if m, ok := n.Config.(MethodDescriber); ok {
		n.Methods = maps.Clone(n.Methods)
		if n.Methods == nil {
			n.Methods = map[string]string{}
		}
		maps.Copy(n.Methods, m.DescribeMethods())
	}
	log := slog.New(&leveled{p.opt.Log.Handler(), level})
	n.env = &Env{Host: p.opt.Host, Path: n.Path, node: n, tree: p.Tree,
		Log: log.With("driver", orElse(n.Path, "root"), "driver_type", n.Spec.Contract.Kind)}
	n.env.Limits, _ = n.Limits()
	if l, ok := n.Config.(Locator); ok {
		var err error
		if n.located, err = l.Locate(p.opt.Host); err != nil {
			pos := d.Pos
			var bad *keyError
			if errors.As(err, &bad) {
				pos = place(bad.key)
			}
			p.note(n, Problem{Pos: pos, Warning: true, Text: err.Error()})
		}
	}
	p.identify(n, place("uuid"))
	if r, ok := n.Config.(interface{ RefPath() string }); ok && n.Spec.Role == Ref {
		p.refs = append(p.refs, ref{n, r.RefPath(), place("ref")})
	}
}

// identify enters a node under its UUID.
func (p *planner) identify(n *Node, pos Pos) {
	if n.Spec != nil && n.Spec.Role == Ref {
		return
	}
	if other := p.byID[n.UUID]; other != nil {
		p.err(n, pos, "uuid: %s is taken by %s", n.UUID, other.where())
		return
	}
	p.byID[n.UUID] = n
}

func emptyLike(n *yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: n.Line, Column: n.Column}
}

// link finds the node that a ref stands for.
func (p *planner) link(r ref) {
	at, names := p.Root, strings.Split(r.path, ".")
	for len(names) > 0 {
		name := names[0]
		i := slices.IndexFunc(at.Children, func(c *Node) bool { return c.Name == name })
		if i < 0 && at.mount != nil { // it may have children that are not declared
			break
		}
		if i < 0 {
			var names []string
			for _, c := range at.Children {
				names = append(names, c.Name)
			}
			p.err(r.node, r.pos, "ref %q: %s has no child %q%s", r.path, at.where(), name, Hint(name, names))
			return
		}
		at, names = at.Children[i], names[1:]
	}
	r.node.target, r.node.rest = at, names
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
		p.err(p.Root, p.Root.Pos, "with all refs followed, these are more than %d nodes", maxReports)
	}
}

// claims warns of nodes that will fight over one thing.
func (p *planner) claims() {
	owner := map[Claim]*Node{}
	for _, n := range p.nodes {
		if n.env == nil { // its config is not sound
			continue
		}
		for _, c := range n.Claims() {
			if other := owner[c]; other != nil {
				if other != n {
					p.problems = append(p.problems, Problem{Pos: n.Pos, Warning: true, Node: n.Path,
						Text: fmt.Sprintf("%s and %s both use %s: only one can have it at a time", other.where(), n.where(), c)})
				}
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
	return n.located
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
//
// For one that is mounted without being declared it is the node where the mount
// begins.
func (t *Tree) Node(id uuid.UUID) (*Node, bool) {
	if n, ok := t.byID[id]; ok {
		return n, ok
	}
	return t.mounted(id)
}

// Caller calls a node of the tree in this process.
func (n *Node) Caller() Caller {
	if at, rest := n.resolve(); at.mount != nil {
		return far{at, rest}
	}
	return local(n.Driver)
}

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
	// mounted lists what is at a place in a mount. Of a ref that is declared there,
	// the other side does not know the target by the identity that it has here.
	var mounted func(n *Node, r *Remote, name string, parent uuid.UUID)
	mounted = func(n *Node, r *Remote, name string, parent uuid.UUID) {
		labels := make(map[string]string, len(r.Labels)+1)
		maps.Copy(labels, r.Labels)
		if delete(labels, LabelName); name != "" {
			labels[LabelName] = name
		}
		list = append(list, Report{r.UUID, parent, labels, r.Description, r.Methods})
		for _, c := range r.Children {
			if declared := n.child(c.Name); declared != nil && declared.target != nil {
				visit(declared, c.Name, r.UUID)
			} else {
				mounted(declared, c, c.Name, r.UUID)
			}
		}
	}
	visit = func(n *Node, name string, parent uuid.UUID) {
		n, rest := n.resolve()
		if n.mount != nil {
			r := n.remote()
			if len(rest) > 0 && r.find(rest) == nil {
				return // it is not known whether there is one
			}
			for _, name := range rest {
				n = n.child(name)
			}
			if r = r.find(rest); r != nil {
				mounted(n, r, name, parent)
				return
			}
		}
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
	visit(t.Root, "", uuid.Nil)
	return list
}

// errOver is what a closed tree answers.
var errOver = fmt.Errorf("the session is over: %w", ErrUnavailable)

// Open opens all nodes, children before their parents. A device that is absent,
// busy or forbidden is logged, not failed: one broken node must not keep the
// others from working. Any other failure closes what was opened.
//
// Mounts are opened meanwhile, one after another, and Open does not wait for them:
// what is in another process may take seconds to start. [Tree.Settled] does.
func (t *Tree) Open(ctx context.Context) error {
	t.openMounts(ctx)
	for n := range t.Root.upward() {
		if n.target != nil || n.mount == n {
			continue
		}
		if _, err := n.Driver(ctx); err != nil && !missing(ctx, err) {
			return errors.Join(err, t.Close())
		}
	}
	if t.life.Err() != nil {
		return errOver
	}
	return nil
}

func (t *Tree) openMounts(ctx context.Context) {
	var mounts []*Node
	for n := range t.Root.upward() {
		if n.target == nil && n.mount == n {
			mounts = append(mounts, n)
		}
	}
	if mounts == nil {
		return
	}
	settled := make(chan struct{})
	t.settled = settled
	ctx = context.WithoutCancel(ctx) // until the tree is closed
	go func() {
		defer close(settled)
		for _, n := range mounts {
			var err error
			panicked := n.guard("open", func() error { _, err = n.Driver(ctx); return nil })
			if err = cmp.Or(panicked, err); err != nil && !missing(ctx, err) {
				t.opt.Log.Error("open: trying again when it is asked for", "error", err)
			}
		}
	}()
}

// Settled waits until all mounts were opened, or could not be: before that, what is
// in them is not known. The error is the context's.
func (t *Tree) Settled(ctx context.Context) error {
	if t.settled == nil {
		return nil
	}
	select {
	case <-t.settled:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// missing reports whether an error is about the device and may pass by itself.
// A time-out is, unless it is that of whoever waits for the opening.
func missing(ctx context.Context, err error) bool {
	c := Classify(err)
	return c == Unavailable || c == Device || c == Timeout && ctx.Err() == nil
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

// openGrace is how long Close waits for openings to notice that they are over.
const openGrace = 50 * time.Millisecond

// closeTurn is how long a node's closing holds up that of the next.
const closeTurn = 10 * time.Millisecond

// Grace is how long the closing of the tree may take where drivers need time for
// it, or 0.
func (t *Tree) Grace() (most time.Duration) {
	for _, n := range t.nodes {
		most = max(most, n.Spec.Grace)
	}
	return most
}

// Close closes all nodes in the order of the file, parents before their
// children. One that takes its time does not keep the others from closing, as a
// relay must be let go whatever else is stuck. It returns when all are closed,
// with all errors, panics among them. Openings that are under way see their
// context end; those that go on regardless are left behind, named in the error,
// and closed when they are through. A closed tree cannot be opened again: its
// nodes answer [ErrUnavailable]. Closing it again waits for the first Close, and
// is no error.
func (t *Tree) Close() error {
	t.closing.Lock()
	defer t.closing.Unlock()
	t.end()
	grace, cancel := context.WithTimeout(context.Background(), openGrace)
	defer cancel()
	errs := shut(grace, t.nodes)
	t.leaving.Wait()
	return errors.Join(errs...)
}

// shut closes nodes in this order, and returns when all are closed. One that takes
// its time does not keep the others from closing.
func shut(grace context.Context, nodes []*Node) []error {
	errs := make([]error, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		done := make(chan struct{})
		all.Go(func() {
			defer close(done)
			errs[i] = n.shut(grace)
		})
		turn := time.NewTimer(closeTurn)
		select {
		case <-done:
		case <-turn.C:
		}
		turn.Stop()
	}
	all.Wait()
	return errs
}

// shut closes a node's own driver.
func (n *Node) shut(grace context.Context) error {
	turn := n.take(grace)
	d := n.open.Swap(nil) // what is stored later sees that the tree is closed
	if turn {
		n.turn <- struct{}{}
	}
	switch {
	case d != nil:
		return n.guard("close", d.Close)
	case !turn:
		return fmt.Errorf("%s: close: it is still being opened", n.where())
	}
	return nil
}

// guard calls a driver's own code; a panic is an error of that node alone.
func (n *Node) guard(op string, f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%s: %s: panic: %v\n%s", n.where(), op, v, debug.Stack())
		}
	}()
	if err := f(); err != nil {
		return fmt.Errorf("%s: %s: %w", n.where(), op, err)
	}
	return nil
}

// take waits for the node's turn, which the caller then has to give back.
func (n *Node) take(ctx context.Context) bool {
	select {
	case <-n.turn: // also when the context is done
		return true
	default:
	}
	select {
	case <-n.turn:
		return true
	case <-ctx.Done():
		return false
	}
}

// Reset resets every [Resetter], children before their parents, and returns all
// errors. Nodes that are absent, or closed by a reload, have nothing to reset.
func (t *Tree) Reset(ctx context.Context) error {
	var errs []error
	for n := range t.Root.upward() {
		if n.target != nil || n.Use() != nil {
			continue
		}
		if d := n.open.Load(); d != nil {
			if r, ok := d.Impl.(Resetter); ok {
				errs = append(errs, n.guard("reset", func() error { return r.Reset(ctx) }))
			}
		}
		n.Release()
	}
	return errors.Join(errs...)
}

// Driver is the node's opened backend, or its target's. A device that was absent
// is looked for anew.
func (n *Node) Driver(ctx context.Context) (Driver, error) {
	n = n.Resolve()
	if d := n.open.Load(); d != nil {
		return *d, nil
	}
	if n.Spec.open == nil {
		return Driver{}, nil
	}
	life := n.env.tree.life
	select {
	case <-n.turn:
		defer func() { n.turn <- struct{}{} }()
	case <-life.Done():
	case <-ctx.Done():
		return Driver{}, fmt.Errorf("%s: waiting for another to open it: %w", n.where(), ctx.Err())
	}
	if life.Err() != nil {
		return Driver{}, fmt.Errorf("%s: %w", n.where(), errOver)
	}
	if d := n.open.Load(); d != nil {
		return *d, nil
	}
	opening, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(life, cancel)()
	d, err := n.Spec.open(opening, n.env, n.Config)
	switch {
	case err != nil && life.Err() != nil:
		return Driver{}, fmt.Errorf("%s: %w (%v)", n.where(), errOver, err)
	case err != nil:
		err = fmt.Errorf("%s: %w", n.where(), err)
		if missing(ctx, err) && !n.absent {
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
	if life.Err() == nil {
		return d, nil
	}
	err = fmt.Errorf("%s: %w", n.where(), errOver)
	if n.open.CompareAndSwap(&d, nil) { // Close may have given up waiting for this
		err = errors.Join(err, d.Close())
	}
	return Driver{}, err
}

// Levels that Python's logging has and slog has not.
const LevelCritical = slog.LevelError + 4

// ParseLevel reads a severity by the name or the number that Python's logging
// gives it.
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
	// Python counts in tens: DEBUG is 10, CRITICAL 50.
	if n, err := strconv.Atoi(name); err == nil && n >= 0 && n <= 1000 {
		return slog.Level(n-20) * 4 / 10, true
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
