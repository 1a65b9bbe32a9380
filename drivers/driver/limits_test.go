package driver_test

import (
	"context"
	"fmt"
	"maps"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
)

// idle is the config of a node that starts no program, though others of its spec may.
type idle struct{}

func (*idle) Starts() bool { return false }

// Limits reach the drivers that start programs, and are refused where there are
// none to bind.
func TestLimits(t *testing.T) {
	got := map[string]string{}
	open := func(_ context.Context, env *driver.Env, _ struct{}) (driver.Driver, error) {
		got[env.Path] = "none"
		if env.Limits != nil {
			got[env.Path] = env.Limits.String()
		}
		return driver.Driver{}, nil
	}
	specs := []driver.Spec{group,
		driver.Define(driver.Spec{Type: "scripts", Limited: true}, open),
		driver.Define(driver.Spec{Type: "idle", Limited: true}, func(ctx context.Context, env *driver.Env, _ idle) (driver.Driver, error) {
			return open(ctx, env, struct{}{})
		}),
		driver.Define(driver.Spec{Type: "relay"}, open)}
	all, own := &driver.Limits{OpenFiles: 64}, &driver.Limits{OpenFiles: 32}
	at := func(line int) driver.Pos { return driver.Pos{File: "f", Line: line, Column: 1} }
	node := func(name, typ string, l *driver.Limits, line int, children ...driver.Decl) driver.Decl {
		return driver.Decl{Name: name, Type: typ, Limits: l, LimitsPos: at(line), Children: children}
	}
	for _, c := range []struct {
		name     string
		limits   *driver.Limits
		children []driver.Decl
		problems []string
		want     map[string]string
	}{
		{"none", nil, []driver.Decl{node("a", "scripts", nil, 0)}, nil, map[string]string{"a": "none"}},
		{"for all", all, []driver.Decl{node("a", "scripts", all, 1), node("b", "relay", all, 1)}, nil, map[string]string{"a": "open_files 64", "b": "none"}},
		{"for one", nil, []driver.Decl{node("g", "", own, 2, node("a", "scripts", own, 2), node("b", "relay", own, 2)), node("c", "scripts", nil, 0)}, nil,
			map[string]string{"g.a": "open_files 32", "g.b": "none", "c": "none"}},
		{"a native driver", all, []driver.Decl{node("a", "scripts", all, 1), node("b", "relay", own, 2)},
			[]string{"f:2:1: b: limits: it starts no program that they would bind"}, nil},
		{"a config that starts nothing", nil, []driver.Decl{node("a", "idle", own, 2)},
			[]string{"f:2:1: a: limits: it starts no program that they would bind"}, nil},
		{"a config that starts nothing, among others", all, []driver.Decl{node("a", "scripts", all, 1), node("b", "idle", all, 1)}, nil,
			map[string]string{"a": "open_files 64", "b": "none"}},
		{"a group of native drivers", nil, []driver.Decl{node("g", "", own, 2, node("b", "relay", own, 2))},
			[]string{"f:2:1: g: limits: it starts no program that they would bind"}, nil},
		{"nobody", all, []driver.Decl{node("b", "relay", all, 1)},
			[]string{"f:1:1: warning: export: limits: no node starts a program that they would bind"}, map[string]string{"b": "none"}},
		{"within a mount", nil, []driver.Decl{node("far", "theirs", nil, 0, node("b", "other", own, 2))},
			[]string{"f:2:1: far.b: limits: it runs in the process of far: give that one the limits"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			clear(got)
			root := driver.Decl{Limits: c.limits, LimitsPos: at(1), Children: c.children}
			tree, problems := driver.Plan(root, driver.Options{Specs: specs, Mounts: mounts(nil)})
			if fmt.Sprint(problems) != fmt.Sprint(c.problems) {
				t.Fatalf("Plan() = %v; want %v", problems, c.problems)
			}
			if c.want == nil {
				return
			}
			if err := tree.Open(t.Context()); err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("limits = %v; want %v", got, c.want)
			}
			for _, n := range tree.Nodes() {
				if l, _ := n.Limits(); (l != nil) != (got[n.Path] != "" && got[n.Path] != "none") {
					t.Errorf("Limits() of %s = %v; want what its driver got", n.Path, l)
				}
			}
		})
	}
}

// Only what is hosted runs as another user.
func TestLimitsUser(t *testing.T) {
	spec := driver.Define(driver.Spec{Type: "scripts", Limited: true}, func(context.Context, *driver.Env, struct{}) (driver.Driver, error) {
		return driver.Driver{}, nil
	})
	l, nobody := &driver.Limits{Processes: 5}, driver.Hosting{User: "nobody"}
	root := driver.Decl{Limits: l, Hosting: nobody, Children: []driver.Decl{
		{Name: "a", Type: "scripts", Limits: l, Hosting: nobody}, {Name: "far", Type: "theirs", Limits: l, Hosting: nobody}}}
	far := func(root *driver.Decl, _ map[string]*driver.Spec) (map[*driver.Decl]driver.Spec, driver.Problems) {
		return map[*driver.Decl]driver.Spec{&root.Children[1]: driver.Mount(driver.Spec{Type: "theirs", Limited: true}, nil)}, nil
	}
	tree, problems := driver.Plan(root, driver.Options{Specs: []driver.Spec{group, spec}, Mounts: far})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, n := range tree.Nodes() {
		if l, user := n.Limits(); l != nil {
			got[n.Path] = user
		}
	}
	if want := map[string]string{"a": "", "far": "nobody"}; !maps.Equal(got, want) {
		t.Errorf("users = %q; want %q", got, want)
	}
}

// Who only changes limits changes the nodes that start programs, and no others.
func TestReloadLimits(t *testing.T) {
	opened, relays := 0, 0
	relay := driver.Define(driver.Spec{Type: "relay"}, func(context.Context, *driver.Env, struct{}) (driver.Driver, error) {
		relays++
		return driver.Driver{}, nil
	})
	spec := driver.Define(driver.Spec{Type: "scripts", Limited: true}, func(context.Context, *driver.Env, struct{}) (driver.Driver, error) {
		opened++
		return driver.Driver{}, nil
	})
	decl := func(files int) driver.Decl {
		l := &driver.Limits{OpenFiles: files, Read: []driver.Path{"/srv"}}
		h := driver.Hosting{Python: fmt.Sprint("python", files), User: fmt.Sprint("user", files)}
		return driver.Decl{Limits: l, Hosting: h, Children: []driver.Decl{{Name: "a", Type: "scripts", Limits: l, Hosting: h},
			{Name: "b", Type: "relay", Limits: l, Hosting: h}}}
	}
	tree, problems := driver.Plan(decl(16), driver.Options{Specs: []driver.Spec{group, spec, relay}})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	if err := tree.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ files, opened int }{{16, 1}, {17, 2}, {17, 2}} {
		next, _, problems := tree.Reload(t.Context(), decl(c.files), func(*driver.Tree) {})
		if err := problems.Err(); err != nil {
			t.Fatal(err)
		}
		if tree = next; opened != c.opened {
			t.Errorf("with open_files %d the driver was opened %d times; want %d", c.files, opened, c.opened)
		}
	}
	if relays != 1 {
		t.Errorf("the driver without limits was opened %d times; want 1", relays)
	}
	if err := tree.Close(); err != nil {
		t.Errorf("Close() = %v; want nil", err)
	}
}
