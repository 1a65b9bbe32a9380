package remote

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"gopkg.in/yaml.v3"
)

// Hosts runs what is hosted. There is nothing to run, and no Python to be found,
// for as long as all nodes have drivers in this program.
type Hosts struct {
	// Getenv finds the interpreter where no setting does: JUMPLEAD_PYTHON is its
	// path, or VIRTUAL_ENV the environment that it is of. Otherwise it is the
	// python3 on the PATH. It may be nil.
	Getenv func(string) string

	// Log is for what hosted drivers print; it may be nil.
	Log *slog.Logger

	// Checking makes it a warning that there is no interpreter, or no Jumpstarter
	// in it, for who reads a config on a machine that is not the harness.
	Checking bool

	// Start is how long a process may take to be ready, and a driver to be opened.
	// 0 is half a minute.
	Start time.Duration

	// Idle is how long a process stays that hosts nothing any more, such as after a
	// reload. 0 is a minute.
	Idle time.Duration

	mu       sync.Mutex
	children map[host]*child
	leaving  sync.WaitGroup // children that are in the map no more
	closed   bool
}

// host is what hosted nodes share a process for.
type host struct {
	python string
	user   string
	limits string // see limitsText
}

//go:embed hosted.py
var script []byte

// upstream are the packages whose types a Python interpreter may have, though this
// program has drivers for them.
var upstream = []string{"jumpstarter_driver_", "jumpstarter."}

func isUpstream(typ string) bool {
	return slices.ContainsFunc(upstream, func(p string) bool { return strings.HasPrefix(typ, p) })
}

// Mounts finds the nodes of a declaration that have to be hosted: those with types
// that are not known, those for which it is wanted, and those that hosted ones
// refer to. It is what [driver.Options] ask for. Drivers are imported for it, and
// none is made.
func (h *Hosts) Mounts(root *driver.Decl, known map[string]*driver.Spec) (map[*driver.Decl]driver.Spec, driver.Problems) {
	s := &survey{Hosts: h, known: known, tops: map[*driver.Decl]bool{}, specs: map[*driver.Decl]driver.Spec{}}
	s.find(root, nil)
	s.follow(root)
	s.settings(root, nil, root.Hosting)
	if len(s.tops) == 0 {
		return nil, s.problems
	}
	s.root = root
	s.describe(root, nil, nil)
	return s.specs, s.problems
}

// survey is one search for what is to be hosted.
type survey struct {
	*Hosts
	root     *driver.Decl
	known    map[string]*driver.Spec
	tops     map[*driver.Decl]bool // what is hosted, together with all below it
	specs    map[*driver.Decl]driver.Spec
	problems driver.Problems
}

func (s *survey) err(d *driver.Decl, names []string, warning bool, format string, args ...any) {
	pos := d.TypePos
	if pos.Line == 0 {
		pos = d.Pos
	}
	path := strings.Join(names, ".")
	s.problems = append(s.problems, driver.Problem{Pos: pos, Node: path, Warning: warning, Text: path + ": " + fmt.Sprintf(format, args...)})
}

// find finds the topmost nodes that are hosted for their own sake.
func (s *survey) find(d *driver.Decl, names []string) {
	spec := s.known[d.Type]
	wanted := d.Hosting.Wanted && (spec == nil || spec.Role != driver.Ref) && d.Ref == ""
	if len(names) > 0 && d.Type != "" && spec == nil || wanted {
		s.tops[d] = true
		return
	}
	for i := range d.Children {
		c := &d.Children[i]
		s.find(c, append(slices.Clip(names), c.Name))
	}
}

// follow hosts what hosted nodes refer to, as a driver in Python reaches only
// what is in its process.
func (s *survey) follow(root *driver.Decl) {
	for again := true; again; {
		again = false
		for top := range maps.Clone(s.tops) {
			for _, path := range s.refs(top) {
				if t := s.target(root, strings.Split(path, ".")); t != nil && !s.tops[t] {
					s.tops[t], again = true, true
				}
			}
		}
	}
}

// refs lists the paths that nodes below d refer to.
func (s *survey) refs(d *driver.Decl) (paths []string) {
	if path := s.ref(d); path != "" {
		return []string{path}
	}
	for i := range d.Children {
		paths = append(paths, s.refs(&d.Children[i])...)
	}
	return paths
}

// ref is the path of what a node stands for, or "".
func (s *survey) ref(d *driver.Decl) string {
	if d.Ref != "" {
		return d.Ref
	}
	if spec := s.known[d.Type]; spec == nil || spec.Role != driver.Ref {
		return ""
	}
	pairs, _ := driver.Pairs(driver.Resolve(d.Config), "")
	for _, p := range pairs {
		if path, ok := driver.Scalar(p.Value).(string); ok && p.Name == "ref" {
			return path
		}
	}
	return ""
}

// target is the node that has to be hosted for a ref: nil where it is already, or
// leads nowhere.
func (s *survey) target(at *driver.Decl, names []string) *driver.Decl {
	for range 100 { // a circle is for others to find
		if s.tops[at] || len(names) == 0 {
			break
		}
		i := slices.IndexFunc(at.Children, func(c driver.Decl) bool { return c.Name == names[0] })
		if i < 0 {
			return nil
		}
		at, names = &at.Children[i], names[1:]
	}
	if s.ref(at) != "" {
		return nil // what it stands for is found by itself
	}
	return at
}

// reach says which nodes a hosted node refers to that are in another process, where
// it cannot reach them.
func (s *survey) reach(d *driver.Decl, names []string) {
	for _, path := range s.refs(d) {
		at := s.root
		for _, name := range strings.Split(path, ".") {
			i := slices.IndexFunc(at.Children, func(c driver.Decl) bool { return c.Name == name })
			if i < 0 {
				break
			}
			if at = &at.Children[i]; s.tops[at] {
				break
			}
		}
		if s.tops[at] && (at.Hosting.Python != d.Hosting.Python || at.Hosting.User != d.Hosting.User || limitsText(at) != limitsText(d)) {
			s.err(d, names, false, "ref %q leads into another process: give both the same python, user and limits", path)
		}
	}
}

// settings finds what is said of how a node is hosted, and does not come true.
func (s *survey) settings(d *driver.Decl, names []string, above driver.Hosting) {
	if s.tops[d] {
		s.alike(d, names, d, names)
		return
	}
	if len(names) > 0 && !s.holds(d) {
		if d.Hosting.User != above.User {
			s.err(d, names, true, "user %q is for what is hosted, and this is not: it runs as the exporter does", d.Hosting.User)
		}
		if d.Hosting.Python != above.Python {
			s.err(d, names, true, "python %q is for what is hosted, and this is not", d.Hosting.Python)
		}
	}
	for i := range d.Children {
		c := &d.Children[i]
		s.settings(c, append(slices.Clip(names), c.Name), d.Hosting)
	}
}

// holds reports whether a node is hosted, or one below it.
func (s *survey) holds(d *driver.Decl) bool {
	if s.tops[d] {
		return true
	}
	for i := range d.Children {
		if s.holds(&d.Children[i]) {
			return true
		}
	}
	return false
}

// alike finds settings of nodes in the process of the one on top that are not its own.
func (s *survey) alike(d *driver.Decl, names []string, top *driver.Decl, at []string) {
	if d.Hosting.Python != top.Hosting.Python || d.Hosting.User != top.Hosting.User {
		s.err(d, names, false, "it runs in the process of %s: give that one the python and user", strings.Join(at, "."))
		return
	}
	for i := range d.Children {
		c := &d.Children[i]
		s.alike(c, append(slices.Clip(names), c.Name), top, at)
	}
}

// describe makes the specs of what is hosted, each by the process of what is on top.
func (s *survey) describe(d *driver.Decl, names []string, top *driver.Decl) {
	if top == nil && s.tops[d] {
		top = d
	}
	if top != nil && s.ref(d) == "" && len(names) > 0 {
		var info look
		known := s.known[d.Type]
		switch {
		case d.Type == "":
			info.Client = groupClient
		case known != nil && !isUpstream(d.Type):
			s.err(d, names, false, "%s is no Python driver, and is hosted with what is above it or refers to it: only Jumpstarter's own can be", d.Type)
			return
		default:
			info = s.look(d, names, top)
		}
		spec := driver.Spec{Type: d.Type, Grace: closeLimit, Contract: driver.Contract{Name: "hosted", Client: info.Client, Kind: info.Kind}}
		if top == d {
			s.reach(d, names)
			spec.Limited = true
			spec = driver.Mount(spec, s.opener(d))
		}
		s.specs[d] = spec
	}
	for i := range d.Children {
		c := &d.Children[i]
		s.describe(c, append(slices.Clip(names), c.Name), top)
	}
}

const (
	groupClient = "jumpstarter_driver_composite.client.CompositeClient"
	// UnknownClient is reported where Python does not tell the class of a client. It
	// is what clients use for what they cannot import.
	UnknownClient = "jumpstarter.client.base.StubDriverClient"
)

// look asks Python for a driver, and says what is wrong with the declaration.
func (s *survey) look(d *driver.Decl, names []string, top *driver.Decl) look {
	unknown := look{Client: UnknownClient}
	types := slices.Sorted(maps.Keys(s.known))
	hint := driver.HintType(d.Type, types)
	none := "no driver of type %q" + strings.ReplaceAll(hint, "%", "%%") + "; "
	if s.known[d.Type] != nil {
		hint, none = "", "%q cannot be hosted: "
	}
	// A word for a driver of ours that has a slip in it is no driver of Python's, and
	// what we have of a module is all that is in it.
	slip := s.known[d.Type] == nil && (strings.Contains(hint, "did you mean") || slices.ContainsFunc(types, func(t string) bool {
		module := t[:strings.LastIndexByte(t, '.')+1]
		return module != "" && strings.HasPrefix(d.Type+".", module)
	}))
	c, err := s.child(top)
	if err == nil {
		defer s.leave(c)
	} else {
		switch {
		case s.Checking && slip:
			s.err(d, names, false, "no driver of type %q%s", d.Type, hint)
		case s.Checking:
			s.err(d, names, true, "hosted: not checked here: %v%s", err, hint)
		default:
			s.err(d, names, false, none+"%v", d.Type, err)
		}
		return unknown
	}
	info, err := c.look(d.Type)
	var r *refusal
	switch {
	case err == nil:
	case errors.As(err, &r) && r.Kind == "missing":
		s.err(d, names, false, none+"%s has no package %s%s", d.Type, c.python, r.Module, install(r.Module))
		return unknown
	case errors.As(err, &r) && r.Kind == "class":
		s.err(d, names, false, none+"%s: %s%s", d.Type, c.python, r.Text, driver.Hint(d.Type, r.There))
		return unknown
	case errors.As(err, &r) && r.Kind == "import":
		s.err(d, names, true, "%s cannot be imported by %s: %s%s", d.Type, c.python, r.Text, install(r.Module))
		return unknown
	case errors.As(err, new(*died)):
		s.err(d, names, true, "%s cannot be hosted: %v%s", d.Type, err, hint)
		return unknown
	case s.Checking && slip: // a Python without Jumpstarter, for one
		s.err(d, names, false, "no driver of type %q%s", d.Type, hint)
		return unknown
	case s.Checking:
		s.err(d, names, true, "hosted: not checked here: %v%s", err, hint)
		return unknown
	default:
		s.err(d, names, false, "%s cannot be hosted: %v%s", d.Type, err, hint)
		return unknown
	}
	if info.Client == "" {
		info.Client = UnknownClient
	}
	s.keys(d, names, info)
	return info
}

// keys says which keys of a config the driver does not have, and which it wants.
func (s *survey) keys(d *driver.Decl, names []string, info look) {
	pairs, _ := driver.Pairs(driver.Resolve(d.Config), d.Pos.File)
	there := map[string]bool{}
	for _, p := range pairs {
		there[p.Name] = true
		if !slices.Contains(info.Fields, p.Name) {
			s.problems = append(s.problems, driver.Problem{Pos: driver.Pos{File: d.Pos.File, Line: p.Key.Line, Column: p.Key.Column},
				Node: strings.Join(names, "."), Warning: true,
				Text: fmt.Sprintf("%s: the driver knows no key %q%s", strings.Join(names, "."), p.Name, driver.Hint(p.Name, info.Fields))})
		}
	}
	for _, name := range info.Required {
		if !there[name] {
			s.err(d, names, true, "key %q is missing: the driver wants it", name)
		}
	}
}

// install says how to get a package. Distributions of Jumpstarter's drivers are
// called as their packages are.
func install(module string) string {
	name, _, _ := strings.Cut(module, ".")
	if name == "" {
		return ""
	}
	return fmt.Sprintf(": pip install %s", strings.ReplaceAll(name, "_", "-"))
}

// child is the process for nodes with the settings of one, perhaps not started yet.
// It stays at least until leave.
func (h *Hosts) child(d *driver.Decl) (*child, error) {
	python, err := h.interpreter(d.Hosting.Python)
	if err != nil {
		return nil, err
	}
	key := host{python, d.Hosting.User, limitsText(d)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errors.New("the exporter ends")
	}
	c := h.children[key]
	if c == nil {
		c = newChild(h, key, d.Limits)
		if h.children == nil {
			h.children = map[host]*child{}
		}
		h.children[key] = c
	}
	c.users++
	return c, nil
}

// use keeps a child until leave.
func (h *Hosts) use(c *child) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.users++
}

// leave says that a child is needed no more, but by the nodes that are open there.
func (h *Hosts) leave(c *child) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.users--
	c.left = time.Now()
}

func (h *Hosts) idle() time.Duration {
	if h.Idle > 0 {
		return h.Idle
	}
	return time.Minute
}

// drop gives a child up that nobody has needed for a while, and reports whether it
// has: it is to end then, and the next who needs one gets another.
func (h *Hosts) drop(c *child) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.closed || c.users > 0 || len(c.mounts) > 0 || time.Since(c.left) < h.idle() {
		return false
	}
	delete(h.children, c.host)
	h.leaving.Add(1)
	return true
}

// interpreter finds the interpreter.
func (h *Hosts) interpreter(set string) (string, error) {
	getenv := h.Getenv
	if getenv == nil {
		getenv = func(string) string { return "" }
	}
	why := "the config's python"
	switch {
	case set != "":
	case getenv("JUMPLEAD_PYTHON") != "":
		set, why = getenv("JUMPLEAD_PYTHON"), "JUMPLEAD_PYTHON"
	case getenv("VIRTUAL_ENV") != "":
		set, why = filepath.Join(getenv("VIRTUAL_ENV"), "bin", "python"), "VIRTUAL_ENV"
	default:
		set, why = "python3", ""
	}
	path, err := exec.LookPath(set)
	switch {
	case err == nil:
		return path, nil
	case why == "":
		return "", errors.New("no python3 on the PATH to host it")
	case errors.Is(err, os.ErrNotExist) || errors.Is(err, exec.ErrNotFound):
		return "", fmt.Errorf("%s, %s, is not there", why, set)
	}
	return "", fmt.Errorf("%s: %w", why, err)
}

// Close ends all processes.
func (h *Hosts) Close() {
	h.mu.Lock()
	h.closed = true
	children := slices.Collect(maps.Values(h.children))
	h.mu.Unlock()
	var all sync.WaitGroup
	for _, c := range children {
		all.Go(c.close)
	}
	all.Wait()
	h.leaving.Wait()
}

// opener opens a hosted node.
func (h *Hosts) opener(d *driver.Decl) func(context.Context, *driver.Env) (driver.Driver, error) {
	decl := declare(d)
	return func(ctx context.Context, env *driver.Env) (driver.Driver, error) {
		env.OpenRefs(ctx)
		c, err := h.child(d)
		if err != nil {
			return driver.Driver{}, unavailable(err)
		}
		defer h.leave(c)
		m := &hosted{mount: &mount{env: env}, child: c, decl: decl, types: types(d)}
		m.down(errors.New("it was not opened yet"))
		m.mount.again = m.again
		if err := c.add(ctx, m); err != nil {
			return driver.Driver{}, err
		}
		return driver.Driver{Impl: m}, nil
	}
}

// types lists the types of a node and of those below it.
func types(d *driver.Decl) []string {
	list := []string{d.Type}
	for i := range d.Children {
		list = append(list, types(&d.Children[i])...)
	}
	return list
}

// declaration is a node as it is told to the process.
type declaration struct {
	Name        string            `json:"name"`
	Type        string            `json:"type,omitempty"`
	Ref         string            `json:"ref,omitempty"`
	Description string            `json:"description,omitempty"`
	Methods     map[string]string `json:"methods,omitempty"`
	Config      any               `json:"config,omitempty"`
	Children    []declaration     `json:"children,omitempty"`
}

func declare(d *driver.Decl) declaration {
	out := declaration{Name: d.Name, Type: d.Type, Ref: d.Ref, Description: d.Description, Methods: d.Methods}
	if d.Config != nil {
		out.Config = yamlNode(d.Config, 0)
	}
	for i := range d.Children {
		out.Children = append(out.Children, declare(&d.Children[i]))
	}
	return out
}

// maxYAML is how deep a config may nest.
const maxYAML = 100

// yamlNode is a config in a form that leaves its meaning to Python's reader, for
// which a scalar may be a date, and a key a number.
func yamlNode(n *yaml.Node, depth int) any {
	n = driver.Resolve(n)
	if n == nil || depth > maxYAML {
		return map[string]any{"text": "", "plain": true}
	}
	tag := ""
	if n.Style&yaml.TaggedStyle != 0 {
		tag = n.LongTag()
	}
	switch n.Kind {
	case yaml.MappingNode:
		pairs := [][2]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			pairs = append(pairs, [2]any{yamlNode(n.Content[i], depth+1), yamlNode(n.Content[i+1], depth+1)})
		}
		return map[string]any{"map": pairs, "tag": tag}
	case yaml.SequenceNode:
		items := []any{}
		for _, c := range n.Content {
			items = append(items, yamlNode(c, depth+1))
		}
		return map[string]any{"list": items, "tag": tag}
	}
	const quoted = yaml.DoubleQuotedStyle | yaml.SingleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	return map[string]any{"text": n.Value, "plain": n.Style&quoted == 0, "tag": tag}
}
