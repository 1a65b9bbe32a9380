package config

import (
	"slices"
	"strings"

	"github.com/jumplead/jumplead/drivers/driver"
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
//	  nodes:
//	    dut.camera: {python: /opt/camera/bin/python}
func (r *reader) hosting(n *yaml.Node, root *driver.Decl) {
	keys := r.strict(n, extension, "python", "user", "hosted", "nodes")
	var all driver.Hosting
	r.text(keys["python"], extension+".python", &all.Python)
	r.text(keys["user"], extension+".user", &all.User)

	var paths []string
	each(root.Children, "", func(path string, _ *driver.Decl) { paths = append(paths, path) })
	known := func(at *yaml.Node, where, path string) bool {
		if slices.Contains(paths, path) {
			return true
		}
		r.err(at, "%s: no instance is at %q%s", where, path, driver.Hint(path, paths))
		return false
	}
	own := map[string]driver.Hosting{}
	if h := driver.Resolve(keys["hosted"]); driver.Scalar(h) == true {
		for _, c := range root.Children { // with all below them
			own[c.Name] = driver.Hosting{Wanted: true}
		}
	} else if h != nil && h.Kind != yaml.SequenceNode {
		r.err(h, "%s.hosted: wants a list of paths, or true for all, got %s", extension, driver.Found(h))
	} else if h != nil {
		for _, item := range h.Content {
			var path string
			if r.text(item, extension+".hosted", &path) && known(item, extension+".hosted", path) {
				own[path] = driver.Hosting{Wanted: true}
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
			keys := r.strict(p.Value, at, "python", "user", "hosted")
			r.text(keys["python"], at+".python", &o.Python)
			r.text(keys["user"], at+".user", &o.User)
			r.lax(keys["hosted"], at+".hosted", "true or false", &o.Wanted)
			own[p.Name] = o
		}
	}
	host(root, "", all, own)
}

// host tells a node and those below it how they are hosted.
func host(d *driver.Decl, path string, h driver.Hosting, own map[string]driver.Hosting) {
	o := own[path]
	h.Wanted = o.Wanted
	if o.Python != "" {
		h.Python = o.Python
	}
	if o.User != "" {
		h.User = o.User
	}
	d.Hosting = h
	for i := range d.Children {
		c := &d.Children[i]
		host(c, strings.TrimPrefix(path+"."+c.Name, "."), h, own)
	}
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
