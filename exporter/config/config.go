// Package config reads ExporterConfig files: who an exporter is, and what it
// exports.
//
//	apiVersion: jumpstarter.dev/v1alpha1
//	kind: ExporterConfig
//	metadata:
//	  namespace: lab
//	  name: bench-7
//	description: The bench by the window
//	export:
//	  dut:
//	    children:
//	      power:
//	        type: jumpstarter_driver_power.driver.MockPower
//	        description: Main supply
//	        config: {log_level: DEBUG}
//	  supply:
//	    ref: dut.power
//
// An instance below export or children has a type with its config, or is a
// group that has only children, or refers to another instance by the names
// that lead there.
//
// # Faithful, and strict
//
// A file that the Python exporter runs is to run here, unchanged, and to mean
// the same. So YAML is read as version 1.1 (see [driver.Scalar]), and what that
// exporter ignores is ignored here, with a warning that has a place: keys that
// it does not know, a ref beside a type, a description of a group. Anchors may
// be kept under top-level keys that begin with "x-", which draw no warning. One
// of these keys is ours: x-jumplead says how nodes are run that are hosted, and
// what programs may take of the machine that nodes and hooks start.
//
// What makes the Python exporter refuse a file is an error here, too. So is,
// unlike there, a mistake in an instance's own keys, which there turns the
// instance into an empty group. All mistakes are reported at once.
//
// # What only a controller needs
//
// Endpoint, token, tls and grpcOptions are for an exporter that is leased
// through a controller, failureDetection and exitOnLeaseEnd for one that starts
// anew after each lease. They are read and checked. Without a controller they
// have no effect, neither here nor upstream, so that a file made for a
// controller can be served directly as it is.
package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/hook"
	"gopkg.in/yaml.v3"
)

// Config is an ExporterConfig.
type Config struct {
	Path string // of the file

	Namespace, Name   string
	Description, MOTD string
	Export            driver.Decl // the root: a group with the children in the order of the file
	Hooks             hook.Hooks
	HookLimitsPos     driver.Pos // where those of the hooks were said

	Endpoint, Token  string // of the controller
	TLS              TLS
	GRPCOptions      map[string]any // strings and int64s
	FailureDetection FailureDetection
	ExitOnLeaseEnd   bool
}

// TLS says how to verify the controller.
type TLS struct {
	CA       string // PEM in base64
	Insecure bool   // do not verify
}

// FailureDetection says when an exporter gives up that keeps failing.
type FailureDetection struct {
	MaxRapidFailures   int // in a row
	RapidFailureWindow int // seconds; who fails earlier failed rapidly
}

// maxSize is the largest file, in bytes, that is read.
const maxSize = 1 << 20

// Load reads a file. What the file's metadata leave out is taken from the
// variables JMP_NAMESPACE and JMP_NAME. The error says why the file cannot be
// read; what is wrong with what it says is among the problems.
//
// A file with errors yields as much of a Config as could be understood, for
// [driver.Plan] to find what is wrong with the rest, or nil.
func Load(path string, getenv func(string) string) (*Config, driver.Problems, error) {
	text, err := Read(path)
	if err != nil {
		return nil, nil, err
	}
	c, problems := Parse(path, text, getenv)
	return c, problems, nil
}

// Read reads the text of a file, or so much of it that [Parse] sees that it is
// too large.
func Read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, advise(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, advise(err)
	}
	return text, nil
}

// advise adds to an error about a file what can be done about it.
func advise(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: the exporter needs the right to read it", err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: --exporter-config wants the path of a file, --exporter an alias", err)
	}
	return err
}

// Parse is [Load] for text that is at hand; name stands for the path.
func Parse(name string, text []byte, getenv func(string) string) (*Config, driver.Problems) {
	r := &reader{file: name, getenv: getenv}
	var c *Config
	if doc := r.document(text); doc != nil {
		c = r.config(doc)
	}
	r.problems.Sort()
	// What is wrong in an anchored mapping is found at every alias of it.
	return c, slices.CompactFunc(r.problems, func(a, b driver.Problem) bool { return a.Pos == b.Pos && a.Text == b.Text })
}

// reader walks a document and notes what is wrong with it.
type reader struct {
	file     string
	getenv   func(string) string
	problems driver.Problems

	node     string // path of the instance that is being read
	upstream string // what the Python exporter makes of a mistake here, if it says nothing
}

func (r *reader) pos(n *yaml.Node) driver.Pos {
	return driver.Pos{File: r.file, Line: n.Line, Column: n.Column}
}

func (r *reader) err(n *yaml.Node, format string, args ...any) {
	r.note(driver.Problem{Pos: r.pos(n), Text: fmt.Sprintf(format, args...), Upstream: r.upstream})
}

func (r *reader) warn(n *yaml.Node, format string, args ...any) {
	r.note(driver.Problem{Pos: r.pos(n), Warning: true, Text: fmt.Sprintf(format, args...)})
}

func (r *reader) note(p driver.Problem) {
	p.Node = r.node
	r.problems = append(r.problems, p)
}

func (r *reader) config(n *yaml.Node) *Config {
	pairs, ok := r.mapping(n, "the file")
	if !ok {
		return nil
	}
	var ours *yaml.Node
	if i := slices.IndexFunc(pairs, func(p driver.Pair) bool { return p.Name == extension }); i >= 0 {
		ours = pairs[i].Value
	}
	pairs = slices.DeleteFunc(pairs, func(p driver.Pair) bool { return strings.HasPrefix(p.Name, "x-") })
	top := r.known(pairs, "", "", "apiVersion", "kind", "metadata", "description", "motd", "export", "hooks", "endpoint",
		"token", "tls", "grpcOptions", "failureDetection", "exitOnLeaseEnd", "alias", "path")
	c := &Config{Path: r.file, FailureDetection: FailureDetection{MaxRapidFailures: 5, RapidFailureWindow: 60}}

	r.literal(top["apiVersion"], "apiVersion", "jumpstarter.dev/v1alpha1")
	r.literal(top["kind"], "kind", "ExporterConfig")
	if m := top["metadata"]; m != nil {
		r.metadata(m, c)
	} else {
		r.err(n, `key "metadata" is missing: it says the exporter's namespace and name`)
	}
	r.optional(top["description"], "description", &c.Description)
	r.optional(top["motd"], "motd", &c.MOTD)

	c.Export = driver.Decl{Pos: r.pos(n), Description: c.Description}
	if e := top["export"]; e != nil {
		c.Export.Pos = r.pos(e)
		c.Export.Children = r.children(e, "")
	}
	if h := top["hooks"]; h != nil {
		r.hooks(h, &c.Hooks)
	}
	if ours != nil {
		r.hosting(ours, c)
	}

	r.optional(top["endpoint"], "endpoint", &c.Endpoint)
	r.optional(top["token"], "token", &c.Token)
	if t := top["tls"]; t != nil {
		tls := r.object(t, "tls", "ca", "insecure")
		r.text(tls["ca"], "tls.ca", &c.TLS.CA)
		r.lax(tls["insecure"], "tls.insecure", "true or false", &c.TLS.Insecure)
	}
	r.grpcOptions(top["grpcOptions"], c)
	if f := top["failureDetection"]; f != nil {
		fd := r.object(f, "failureDetection", "maxRapidFailures|max_rapid_failures", "rapidFailureWindow|rapid_failure_window")
		r.lax(fd["maxRapidFailures"], "failureDetection.maxRapidFailures", "an integer", &c.FailureDetection.MaxRapidFailures)
		r.lax(fd["rapidFailureWindow"], "failureDetection.rapidFailureWindow", "an integer of seconds", &c.FailureDetection.RapidFailureWindow)
	}
	r.lax(top["exitOnLeaseEnd"], "exitOnLeaseEnd", "true or false", &c.ExitOnLeaseEnd)

	// Upstream knows these two keys and overwrites what they say.
	var ignored string
	r.text(top["alias"], "alias", &ignored)
	r.optional(top["path"], "path", &ignored)
	return c
}

// metadata reads who the exporter is. Upstream takes these keys in any case,
// no others, and fills in from the environment what is not there.
func (r *reader) metadata(n *yaml.Node, c *Config) {
	pairs, ok := r.mapping(n, "metadata")
	if !ok {
		return
	}
	there := map[string]bool{}
	for _, p := range pairs {
		name := strings.ToLower(p.Name)
		switch name {
		case "namespace":
			r.optional(p.Value, "metadata.namespace", &c.Namespace)
		case "name":
			r.text(p.Value, "metadata.name", &c.Name)
		default:
			r.err(p.Key, "metadata: unknown key %q%s", p.Name, driver.Hint(p.Name, []string{"namespace", "name"}))
			continue
		}
		if there[name] {
			r.warn(p.Key, "metadata: key %q stands twice; the last one counts", name)
		}
		there[name] = true
	}
	fill := func(name, variable, hint string, dst *string) {
		if there[name] {
			return
		}
		for _, v := range []string{variable, strings.ToLower(variable)} { // upstream takes any case
			if *dst = r.getenv(v); *dst != "" {
				return
			}
		}
		r.err(n, "key %q is missing, and %s is not set%s", "metadata."+name, variable, hint)
	}
	fill("namespace", "JMP_NAMESPACE", `; "namespace: null" is none`, &c.Namespace)
	fill("name", "JMP_NAME", "", &c.Name)
}

// children reads the instances below export or children, which upstream lists
// in the order of the file.
func (r *reader) children(n *yaml.Node, path string) []driver.Decl {
	at := "export"
	if path != "" {
		at = path + ": children"
	}
	pairs, ok := r.mapping(n, at)
	if !ok {
		return nil
	}
	var list []driver.Decl
	for _, p := range pairs {
		name, ok := r.key(p, at)
		if !ok {
			continue
		}
		if name == "" {
			r.err(p.Key, "%s: a name must not be empty", at)
			continue
		}
		below := name
		if path != "" {
			below = path + "." + name
		}
		list = append(list, r.instance(p.Value, name, below))
	}
	return list
}

// instance reads one node of the tree. Upstream decides by which keys are there:
// type comes first, then children, then ref.
//
// An instance of which no variant can be read becomes a group there, because
// every mapping is one: of the children that it has, or empty.
func (r *reader) instance(n *yaml.Node, name, path string) driver.Decl {
	d := driver.Decl{Name: name, Pos: r.pos(n)}
	defer func(outer string) { r.node = outer }(r.node)
	r.node = path
	if driver.Resolve(n).Kind != yaml.MappingNode {
		r.err(n, "%s: wants type, children or ref, got %s", path, driver.Found(n))
		return d
	}
	pairs, _ := r.mapping(n, path)
	names := []string{"type", "description", "methods_description", "config", "children", "ref"}
	hint := ""
	if slices.ContainsFunc(pairs, func(p driver.Pair) bool { return p.Name == "type" }) {
		hint = "; a driver's own keys stand below config"
	}
	keys := r.known(pairs, path+": ", hint, names...)
	ignore := func(why string, names ...string) {
		for _, name := range names {
			if keys[name] != nil {
				r.warn(keys[name], "%s: %s is ignored: %s", path, name, why)
			}
		}
	}
	typ, children, ref := keys["type"], keys["children"], keys["ref"]
	group := "makes an empty group of it"
	switch _, other := driver.Scalar(ref).(string); {
	case children != nil:
		group = "makes a group of its children, without a driver"
	case other && typ != nil:
		group = "takes the ref instead"
	}
	switch {
	case typ != nil:
		d.TypePos = r.pos(driver.Resolve(typ))
		if driver.Scalar(typ) == "" {
			r.err(typ, "%s: type is empty", path)
		}
		ignore("the instance has a type", "ref")
		r.upstream = group
		r.text(typ, path+": type", &d.Type)
		r.optional(keys["description"], path+": description", &d.Description)
		d.Methods = r.methods(keys["methods_description"], path+": methods_description")
		if c := keys["config"]; c != nil {
			if d.Broken = !r.isMapping(c, path+": config"); d.Type != "" && !d.Broken {
				d.Config = c
			}
			pairs, _ := driver.Pairs(c, r.file) // driver.Plan will say what is wrong with them
			for _, p := range pairs {
				r.key(p, path+": config")
			}
		}
		r.upstream = ""
	case children != nil:
		ignore("the instance has children", "ref")
		ignore("a group without a type has none", "description", "methods_description", "config")
	case ref != nil:
		d.RefPos = r.pos(driver.Resolve(ref))
		if driver.Scalar(ref) == "" {
			r.err(ref, "%s: ref is empty", path)
		}
		r.upstream = group
		r.text(ref, path+": ref", &d.Ref)
		r.upstream = ""
		ignore("a ref has that of what it refers to", "description", "methods_description", "config")
	default:
		r.upstream = group
		r.err(n, "%s: has neither type nor children nor ref", path)
		r.upstream = ""
	}
	if children != nil {
		d.Children = r.children(children, path)
	}
	return d
}

func (r *reader) methods(n *yaml.Node, at string) map[string]string {
	if n == nil {
		return nil
	}
	pairs, _ := r.mapping(n, at)
	m := make(map[string]string, len(pairs))
	for _, p := range pairs {
		var s string
		if name, ok := r.key(p, at); ok && r.text(p.Value, at+"."+name, &s) {
			m[name] = s
		}
	}
	return m
}

// hooks reads what runs at the beginning and the end of a lease.
func (r *reader) hooks(n *yaml.Node, hooks *hook.Hooks) {
	keys := r.object(n, "hooks", "beforeLease|before_lease", "afterLease|after_lease")
	hooks.BeforeLease = r.hook(keys["beforeLease"], "hooks.beforeLease")
	hooks.AfterLease = r.hook(keys["afterLease"], "hooks.afterLease")
}

func (r *reader) hook(n *yaml.Node, at string) *hook.Hook {
	if n == nil || null(n) {
		return nil
	}
	keys := r.object(n, at, "script", "exec|exec_", "timeout", "onFailure|on_failure")
	if keys == nil {
		return nil
	}
	h := &hook.Hook{OnFailure: hook.Warn}
	if s := keys["script"]; s == nil {
		r.err(n, "key %q is missing", at+".script")
	} else {
		r.text(s, at+".script", &h.Script)
	}
	r.optional(keys["exec"], at+".exec", &h.Exec)
	seconds := int64(hook.DefaultTimeout / time.Second)
	r.lax(keys["timeout"], at+".timeout", "an integer of seconds", &seconds)
	const most = int64(math.MaxInt64 / time.Second) // 292 years
	h.Timeout = time.Duration(min(max(seconds, -most), most)) * time.Second
	if f := keys["onFailure"]; f != nil {
		r.literal(f, at+".onFailure", string(hook.Warn), string(hook.EndLease), string(hook.Exit))
		h.OnFailure = hook.Policy(fmt.Sprint(driver.Scalar(f)))
	}
	return h
}

func (r *reader) grpcOptions(n *yaml.Node, c *Config) {
	if n == nil || null(n) {
		return
	}
	pairs, _ := r.mapping(n, "grpcOptions")
	c.GRPCOptions = make(map[string]any, len(pairs))
	for _, p := range pairs {
		name, ok := r.key(p, "grpcOptions")
		if !ok {
			continue
		}
		if s, ok := driver.Scalar(p.Value).(string); ok {
			c.GRPCOptions[name] = s
			continue
		}
		var i int64
		if r.lax(p.Value, "grpcOptions."+name, "text or an integer", &i) {
			c.GRPCOptions[name] = i
		}
	}
}

// mapping lists the pairs of a mapping.
func (r *reader) mapping(n *yaml.Node, at string) ([]driver.Pair, bool) {
	if !r.isMapping(n, at) {
		return nil, false
	}
	pairs, problems := driver.Pairs(n, r.file)
	for _, p := range problems {
		r.note(p)
	}
	return pairs, true
}

func (r *reader) isMapping(n *yaml.Node, at string) bool {
	if driver.Resolve(n).Kind == yaml.MappingNode {
		return true
	}
	hint := ""
	if null(n) {
		hint = "; {} is an empty one"
	}
	r.err(n, "%s: wants a mapping, got %s%s", at, driver.Found(n), hint)
	return false
}

// object reads a mapping whose keys are known. It is nil if there is none.
func (r *reader) object(n *yaml.Node, at string, names ...string) map[string]*yaml.Node {
	pairs, ok := r.mapping(n, at)
	if !ok {
		return nil
	}
	return r.known(pairs, at+": ", "", names...)
}

// known are the values of known keys, and warns of all others. A key's name may
// be followed by another that upstream takes for it: "exec|exec_".
func (r *reader) known(pairs []driver.Pair, at, hint string, names ...string) map[string]*yaml.Node {
	keys := map[string]*yaml.Node{}
	var firsts []string
	for _, name := range names {
		first, second, _ := strings.Cut(name, "|")
		firsts = append(firsts, first)
		var other *yaml.Node
		pairs = slices.DeleteFunc(pairs, func(p driver.Pair) bool {
			switch p.Name {
			case first:
				keys[first] = p.Value
			case second:
				other = p.Value
			default:
				return false
			}
			return true
		})
		if keys[first] == nil {
			keys[first] = other
		} else if other != nil {
			r.warn(other, "%s%s is ignored: %s is there, too", at, second, first)
		}
	}
	for _, p := range pairs {
		near := driver.Hint(p.Name, firsts)
		if near == "" {
			near = hint
		}
		r.note(driver.Problem{Pos: r.pos(p.Key), Warning: true, Unread: true,
			Text: fmt.Sprintf("%sunknown key %q is ignored%s", at, p.Name, near)})
	}
	return keys
}

// key is the name that a pair has in a mapping whose keys must be text.
func (r *reader) key(p driver.Pair, at string) (string, bool) {
	if _, ok := driver.Scalar(p.Key).(string); !ok {
		r.err(p.Key, "%s: the key %s is not text to YAML: put it in quotes", at, driver.Found(p.Key))
		return "", false
	}
	return p.Name, true
}

// text reads text, and reports whether it did.
func (r *reader) text(n *yaml.Node, at string, dst *string) bool {
	if n == nil {
		return false
	}
	s, ok := driver.Scalar(n).(string)
	if !ok {
		hint := ""
		if m := driver.Resolve(n); m != nil && m.Kind == yaml.ScalarNode && !null(n) {
			hint = "; put it in quotes"
		}
		found := driver.Found(n)
		if hint != "" && at == "token" {
			found = "[secret]" // a token of digits is one, too
		}
		r.err(n, "%s: wants text, got %s%s", at, found, hint)
		return false
	}
	*dst = s
	return true
}

// optional reads text that may be null.
func (r *reader) optional(n *yaml.Node, at string, dst *string) {
	if n != nil && !null(n) {
		r.text(n, at, dst)
	}
}

// literal checks that a value is one of some words.
func (r *reader) literal(n *yaml.Node, at string, words ...string) {
	var s string
	if n == nil || !r.text(n, at, &s) || slices.Contains(words, s) {
		return
	}
	r.err(n, "%s: %q is not %s", at, s, strings.Join(words, " or "))
}

// lax reads a number or a bool with the liberties that upstream takes: "5" is a
// number, and "yes" is true.
func (r *reader) lax(n *yaml.Node, at, want string, dst any) bool {
	if n == nil {
		return false
	}
	x, err := driver.Plain(n)
	if err == nil {
		err = driver.Decode(dst, x, true)
	}
	if err != nil {
		r.err(n, "%s: wants %s, got %s", at, want, driver.Found(n))
	}
	return err == nil
}

func null(n *yaml.Node) bool { return driver.Scalar(n) == nil }
