package config

import (
	"slices"
	"strings"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/hook"
	"gopkg.in/yaml.v3"
)

// extension is the top-level key of what only this exporter knows. Upstream's
// passes over it, as it does with all that it does not know there.
const extension = "x-jumplead"

// hosting reads how nodes are run that are hosted, and tells them:
//
//	x-jumplead:
//	  python: /opt/venv/bin/python   # the interpreter
//	  user: harness                  # whom it runs as
//	  hosted: [dut.power]            # in Python, though there is a driver here; true is all
//	  limits: {memory: 200M}         # of hosted drivers and scripts
//	  hooks: {limits: {cpu_time: 5}} # of each hook
//	  nodes:
//	    dut.camera: {python: /opt/camera/bin/python}
//	    dut.shell: {limits: {cpu_time: 30}}
func (r *reader) hosting(n *yaml.Node, c *Config) {
	root := &c.Export
	keys := r.strict(n, extension, "python", "user", "hosted", "limits", "hooks", "nodes")
	if keys["hooks"] != nil {
		at := extension + ".hooks"
		limits := r.strict(keys["hooks"], at, "limits")["limits"]
		var d driver.Decl
		r.limits(&d, at, limits)
		c.HookLimitsPos = d.LimitsPos
		for _, h := range []*hook.Hook{c.Hooks.BeforeLease, c.Hooks.AfterLease} {
			if h != nil {
				h.Limits = d.Limits
			}
		}
		if d.Limits != nil && !c.Hooks.Any() {
			r.warn(limits, "%s.limits: there are no hooks", at)
		}
	}
	var all settings
	r.text(keys["python"], extension+".python", &all.Python)
	r.text(keys["user"], extension+".user", &all.User)
	all.limits = keys["limits"]

	var paths []string
	each(root.Children, "", func(path string, _ *driver.Decl) { paths = append(paths, path) })
	known := func(at *yaml.Node, where, path string) bool {
		if slices.Contains(paths, path) {
			return true
		}
		r.err(at, "%s: no instance is at %q%s", where, path, driver.Hint(path, paths))
		return false
	}
	own := map[string]*settings{}
	if h := driver.Resolve(keys["hosted"]); driver.Scalar(h) == true {
		for _, c := range root.Children { // with all below them
			own[c.Name] = &settings{Hosting: driver.Hosting{Wanted: true}}
		}
	} else if h != nil && h.Kind != yaml.SequenceNode {
		r.err(h, "%s.hosted: wants a list of paths, or true for all, got %s", extension, driver.Found(h))
	} else if h != nil {
		for _, item := range h.Content {
			var path string
			if r.text(item, extension+".hosted", &path) && known(item, extension+".hosted", path) {
				own[path] = &settings{Hosting: driver.Hosting{Wanted: true}}
			}
		}
	}
	if keys["nodes"] != nil {
		pairs, _ := r.mapping(keys["nodes"], extension+".nodes")
		for _, p := range pairs {
			at := extension + ".nodes." + p.Name
			if !known(p.Key, extension+".nodes", p.Name) {
				continue
			}
			o := own[p.Name]
			if o == nil {
				o = new(settings)
				own[p.Name] = o
			}
			keys := r.strict(p.Value, at, "python", "user", "hosted", "limits")
			r.text(keys["python"], at+".python", &o.Python)
			r.text(keys["user"], at+".user", &o.User)
			r.lax(keys["hosted"], at+".hosted", "true or false", &o.Wanted)
			o.limits = keys["limits"]
		}
	}
	root.Hosting = all.Hosting
	r.limits(root, extension, all.limits)
	for i := range root.Children {
		r.settle(&root.Children[i], root, root.Children[i].Name, own)
	}
}

// settings are what is said of a node itself.
type settings struct {
	driver.Hosting
	limits *yaml.Node
}

// settle tells a node and those below it how they are run.
func (r *reader) settle(d, above *driver.Decl, path string, own map[string]*settings) {
	d.Hosting, d.Limits, d.LimitsPos = above.Hosting, above.Limits, above.LimitsPos
	d.Hosting.Wanted = false
	if o := own[path]; o != nil {
		d.Hosting.Wanted = o.Wanted
		if o.Python != "" {
			d.Hosting.Python = o.Python
		}
		if o.User != "" {
			d.Hosting.User = o.User
		}
		defer func(outer string) { r.node = outer }(r.node)
		r.node = path
		r.limits(d, extension+".nodes."+path, o.limits)
	}
	for i := range d.Children {
		c := &d.Children[i]
		r.settle(c, d, path+"."+c.Name, own)
	}
}

// limits reads limits into a declaration that has those of the node above it. What
// is not said again stays; null lifts them all.
func (r *reader) limits(d *driver.Decl, at string, n *yaml.Node) {
	if n == nil {
		return
	}
	d.LimitsPos = r.pos(n)
	if null(n) {
		d.Limits = nil
		return
	}
	var l driver.Limits
	if d.Limits != nil {
		l = *d.Limits
	}
	for _, p := range driver.DecodeConfig(n, &l, r.pos(n), false) {
		p.Text = at + ".limits: " + strings.TrimPrefix(p.Text, "config: ") // as a driver's mapping is called
		r.note(p)
	}
	d.Limits = &l
}

func each(decls []driver.Decl, above string, f func(path string, d *driver.Decl)) {
	for i := range decls {
		d := &decls[i]
		f(above+d.Name, d)
		each(d.Children, above+d.Name+".", f)
	}
}

// strict reads a mapping of our own, in which unknown keys are mistakes.
func (r *reader) strict(n *yaml.Node, at string, names ...string) map[string]*yaml.Node {
	pairs, _ := r.mapping(n, at)
	keys := map[string]*yaml.Node{}
	for _, p := range pairs {
		if !slices.Contains(names, p.Name) {
			r.err(p.Key, "%s: unknown key %q%s", at, p.Name, driver.Hint(p.Name, names))
			continue
		}
		keys[p.Name] = p.Value
	}
	return keys
}
