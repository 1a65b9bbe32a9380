package driver_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/hw"
	"gopkg.in/yaml.v3"
)

// decl reads a tree as configurations write it, with the places in it.
func decl(t *testing.T, text string) driver.Decl {
	t.Helper()
	var node func(name string, at *yaml.Node) driver.Decl
	place := func(n *yaml.Node) driver.Pos { return driver.Pos{File: "f", Line: n.Line, Column: n.Column} }
	node = func(name string, n *yaml.Node) driver.Decl {
		d := driver.Decl{Name: name, Pos: place(n)}
		pairs, ps := driver.Pairs(n, "f")
		if len(ps) > 0 {
			t.Fatalf("config: %v", ps)
		}
		for _, p := range pairs {
			switch p.Name {
			case "type":
				d.Type, d.TypePos = p.Value.Value, place(p.Value)
			case "ref":
				d.Ref, d.RefPos = p.Value.Value, place(p.Value)
			case "config":
				d.Config = p.Value
			case "children":
				children, _ := driver.Pairs(p.Value, "f")
				for _, c := range children {
					d.Children = append(d.Children, node(c.Name, c.Value))
				}
			default:
				t.Fatalf("config: no key %q here", p.Name)
			}
		}
		return d
	}
	d := driver.Decl{Pos: driver.Pos{File: "f", Line: 1, Column: 1}}
	children, _ := driver.Pairs(drivertest.YAML(t, text), "f")
	for _, c := range children {
		d.Children = append(d.Children, node(c.Name, c.Value))
	}
	return d
}

// rig is a harness of devices that write down what happens to them.
type rig struct {
	open map[string]func(context.Context, *driver.Env) error // what opening meets, by path

	mu     sync.Mutex
	events []string
}

func (r *rig) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, fmt.Sprintf(format, args...))
}

// happened is what was written down since it was last asked.
func (r *rig) happened() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := strings.Join(r.events, ", ")
	r.events = nil
	return s
}

type device struct {
	rig  *rig
	path string
	cfg  deviceConfig
	env  *driver.Env
}

type deviceConfig struct {
	Line     string            `yaml:"line,omitempty" doc:"what it claims"`
	Kind     string            `yaml:"kind,omitempty" doc:"a label"`
	BadClose bool              `yaml:"bad_close,omitempty" doc:"Close fails"`
	BadReset bool              `yaml:"bad_reset,omitempty" doc:"Reset fails"`
	Speed    *int              `yaml:"speed" doc:"a pointer"`
	Rate     int               `yaml:"rate" default:"5" doc:"a default"`
	Map      map[string]string `yaml:"map,omitempty"`
}

func (c deviceConfig) Claims() []driver.Claim {
	if c.Line == "" {
		return nil
	}
	claim := driver.Claim{Kind: "line", Name: c.Line}
	if c.Line == "twice" {
		return []driver.Claim{claim, claim}
	}
	return []driver.Claim{claim}
}

func (c deviceConfig) Labels() map[string]string {
	if c.Kind == "" {
		return nil
	}
	return map[string]string{"kind": c.Kind}
}

func (d *device) Close() error {
	d.rig.note("close %s", d.path)
	if d.cfg.BadClose {
		return errors.New("stuck")
	}
	return nil
}

func (d *device) Reset(context.Context) error {
	d.rig.note("reset %s", d.path)
	if d.cfg.BadReset {
		return errors.New("no answer")
	}
	return nil
}

type proxyConfig struct {
	Ref string `yaml:"ref" doc:"what it stands for"`
}

func (c proxyConfig) RefPath() string { return c.Ref }

func (r *rig) specs() []driver.Spec {
	return []driver.Spec{
		driver.Define(driver.Spec{Type: "t.Device", Contract: driver.Contract{Name: "t", Client: "c.Device", Kind: "thing"}},
			func(ctx context.Context, env *driver.Env, cfg deviceConfig) (driver.Driver, error) {
				if open := r.open[env.Path]; open != nil {
					if err := open(ctx, env); err != nil {
						return driver.Driver{}, err
					}
				}
				r.note("open %s", env.Path)
				d := &device{r, env.Path, cfg, env}
				return driver.Driver{Impl: d, Exports: []driver.Export{
					driver.Call("path", func(context.Context) (string, error) { return d.path, nil }),
					driver.Call1("ask", func(ctx context.Context, child string) (string, error) {
						c, ok := env.Child(child)
						if !ok {
							return "", fs.ErrNotExist
						}
						return driver.Invoke[string](ctx, c, "path")
					}),
					driver.Call1("read", func(ctx context.Context, h driver.Handle) (string, error) {
						s, err := env.Open(ctx, h)
						if err != nil {
							return "", err
						}
						defer s.Close()
						b, err := io.ReadAll(s)
						return string(b), err
					}),
				}}, nil
			}),
		driver.Define(driver.Spec{Type: "t.Group", Role: driver.Group, Lenient: true, Contract: driver.Contract{Client: "c.Group", Kind: "composite"}},
			func(context.Context, *driver.Env, struct{}) (driver.Driver, error) {
				return driver.Driver{}, nil
			}),
		driver.Define(driver.Spec{Type: "t.Proxy", Role: driver.Ref, Lenient: true},
			func(context.Context, *driver.Env, proxyConfig) (driver.Driver, error) {
				return driver.Driver{}, errors.New("opened a proxy")
			}),
		{Type: "t.Client", Children: []string{"tcp", "power"}, Contract: driver.Contract{Client: "c.Client", Kind: "thing"}},
	}
}

func (r *rig) plan(t *testing.T, text string) *driver.Tree {
	t.Helper()
	tree, problems := driver.Plan(decl(t, text), driver.Options{Specs: r.specs()})
	if err := problems.Err(); err != nil {
		t.Fatalf("Plan() = %v; want no error", err)
	}
	return tree
}

// at finds a node by its path.
func at(t *testing.T, tree *driver.Tree, path string) *driver.Node {
	t.Helper()
	for _, n := range tree.Nodes() {
		if n.Path == path {
			return n
		}
	}
	t.Fatalf("no node %q", path)
	return nil
}

func TestPlanProblems(t *testing.T) {
	const id = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
	tests := []struct {
		name, text string
		says       []string
	}{
		{"nothing", "", nil},
		{"good", "a: {type: t.Device}\nb: {children: {c: {type: t.Device}}}\nd: {ref: b.c}", nil},

		{"no such type", "a:\n  type: t.Devise", []string{`f:2:9: a: no driver of type "t.Devise"; did you mean "t.Device"?`}},
		{"no such type in that case", "a:\n  type: t.DEVICE", []string{`f:2:9: a: no driver of type "t.DEVICE"; did you mean "t.Device"?`}},
		{"no such module", "a:\n  type: tt.Device", []string{`f:2:9: a: no driver of type "tt.Device"; did you mean "t.Device"?`}},
		{"only the class", "a:\n  type: device", []string{`f:2:9: a: no driver of type "device"; did you mean "t.Device"?`}},
		{"only the module", "a:\n  type: t", []string{`f:2:9: a: no driver of type "t"; of t there is Client, Device, Group, Proxy`}},
		{"no such type below", "a: {children: {b: {type: x}}}", []string{`f:1:26: a.b: no driver of type "x"`}},
		{"unknown key", "a:\n  type: t.Device\n  config:\n    lime: 3", []string{`f:4:5: a: unknown key "lime"; did you mean "line"?`}},
		{"unknown key of a group", "a:\n  type: t.Group\n  config:\n    lime: 3", []string{`f:4:5: warning: a: unknown key "lime" is ignored`}},
		{"config is no mapping", "a: {type: t.Device, config: [1]}", []string{"f:1:29: a: config: wants a mapping, got a list"}},
		{"key twice", "a:\n  type: t.Device\n  config: {rate: 1, rate: 2}", []string{`f:3:21: warning: a: key "rate" stands twice; the last one counts`}},
		{"proxy without a ref", "a: {type: t.Proxy}", []string{`f:1:4: a: key "ref" is missing: what it stands for`}},

		{"ref forward", "a: {ref: b}\nb: {type: t.Device}", nil},
		{"ref to a ref", "a: {ref: b}\nb: {ref: c}\nc: {type: t.Device}", nil},
		{"proxy", "a: {type: t.Proxy, config: {ref: b}}\nb: {type: t.Device}", nil},
		{"ref to nothing", "supply: {ref: dut.pwer}\ndut: {children: {power: {type: t.Device}}}",
			[]string{`f:1:15: supply: ref "dut.pwer": dut has no child "pwer"; did you mean "power"?`}},
		{"ref to nothing at the top", "supply: {ref: dud.power}\ndut: {children: {power: {type: t.Device}}}",
			[]string{`f:1:15: supply: ref "dud.power": export has no child "dud"; did you mean "dut"?`}},
		{"ref below a leaf", "supply: {ref: a.b.c}\na: {type: t.Device}", []string{`f:1:15: supply: ref "a.b.c": a has no child "b"`}},
		{"ref through a ref", "s: {ref: r.b}\nr: {ref: a}\na: {children: {b: {type: t.Device}}}", []string{`f:1:10: s: ref "r.b": r has no child "b"`}},
		{"proxy of nothing", "a:\n  type: t.Proxy\n  config:\n    ref: b", []string{`f:4:10: a: ref "b": export has no child "b"`}},
		{"ref with a hole", "s: {ref: a..b}\na: {children: {b: {type: t.Device}}}", []string{`f:1:10: s: ref "a..b": a has no child ""`}},
		{"ref to itself", "a: {ref: a}", []string{`f:1:10: a: ref "a" leads back to itself`}},
		{"refs to each other", "a: {ref: b}\nb: {ref: a}", []string{`f:1:10: a: ref "b" leads back to itself`, `f:2:10: b: ref "a" leads back to itself`}},
		{"ref to an ancestor", "a: {children: {b: {children: {c: {ref: a}}}}}", []string{`f:1:40: a.b.c: ref "a" leads back to itself`}},
		{"refs by way of groups", "a: {children: {x: {ref: b}}}\nb: {children: {y: {ref: a}}}\nc: {ref: b}",
			[]string{`f:1:25: a.x: ref "b" leads back to itself`, `f:2:25: b.y: ref "a" leads back to itself`}},
		{"two refs to one", "a: {ref: c}\nb: {ref: c}\nc: {type: t.Device}", nil},
		{"ref with children", "a: {ref: b, children: {c: {type: t.Nonsense}}}\nb: {type: t.Device}",
			[]string{"f:1:27: warning: a: children of a ref are ignored: it has those of the node that it stands for"}},

		{"uuid", "a: {type: t.Device, config: {uuid: " + strings.ToUpper(id) + "}}", nil},
		{"uuid twice", "a: {type: t.Device, config: {uuid: " + id + "}}\nb:\n  type: t.Device\n  config: {uuid: " + id + "}",
			[]string{"f:4:18: b: uuid: " + id + " is taken by a"}},
		{"no uuid", "a: {type: t.Device, config: {uuid: x}}", []string{`f:1:30: a: uuid: "x" is no node's UUID`}},
		{"nil uuid", "a: {type: t.Group, config: {uuid: 00000000-0000-0000-0000-000000000000}}",
			[]string{`f:1:29: a: uuid: "00000000-0000-0000-0000-000000000000" is no node's UUID`}},
		{"log level", "a: {type: t.Device, config: {log_level: debug}}", nil},
		{"no log level, no uuid", "a: {type: t.Device, config: {log_level: LOUD, uuid: 7}}", []string{
			`f:1:30: a: log_level: "LOUD" is none of DEBUG, INFO, WARNING, ERROR, CRITICAL`,
			`f:1:47: a: uuid: "7" is no node's UUID`,
			"f:1:53: warning: a: uuid: 7 is read as text; quote it"}},
		{"labels", "a: {type: t.Device, config: {labels: [x]}}", []string{"f:1:38: a: labels: wants a mapping, got a list"}},

		{"children", "a: {type: t.Client, children: {power: {type: t.Device}, tcp: {ref: b}, more: {ref: b}}}\nb: {type: t.Device}", nil},
		{"a child of another name", "a: {type: t.Client, children: {power: {type: t.Device}, tpc: {ref: b}}}\nb: {type: t.Device}",
			[]string{`f:1:4: a: child "tcp" is missing: t.Client needs it, as a driver of its own or as a ref; did you mean "tpc"?`}},
		{"no children", "a: {type: t.Client}", []string{
			`f:1:4: a: child "tcp" is missing: t.Client needs it, as a driver of its own or as a ref`,
			`f:1:4: a: child "power" is missing: t.Client needs it, as a driver of its own or as a ref`}},
		{"a child that is wrong itself", "a: {type: t.Client, children: {power: {type: t.Device}, tcp: {type: x}}}", []string{`f:1:69: a.tcp: no driver of type "x"`}},

		{"claims", "a: {type: t.Device, config: {line: 3a}}\nb: {children: {c: {type: t.Device, config: {line: 3a}}}}\nd: {type: t.Device, config: {line: 4a}}",
			[]string{"f:2:19: warning: a and b.c both use line 3a: only one can have it at a time"}},
		{"claims beside mistakes", "a: {type: t.Device, config: {line: 3a}}\nb: {type: t.Device, config: {line: 3a}}\nc: {type: t.Device, config: {line: 3a, rate: x}}\nd: {ref: e}",
			[]string{"f:2:4: warning: a and b both use line 3a: only one can have it at a time",
				`f:3:46: c: rate: wants an integer, got "x"`,
				`f:4:10: d: ref "e": export has no child "e"`}},
		{"claim twice", "a: {type: t.Device, config: {line: twice}}", nil},
		{"claim through a ref", "a: {type: t.Device, config: {line: 3a}}\nb: {ref: a}", nil},

		{"all at once", "b: {ref: x}\na: {type: t.Devise}\nc: {type: t.Device, config: {lime: 3}}", []string{
			`f:1:10: b: ref "x": export has no child "x"`,
			`f:2:11: a: no driver of type "t.Devise"; did you mean "t.Device"?`,
			`f:3:30: c: unknown key "lime"; did you mean "line"?`}},
	}
	for _, test := range tests {
		tree, problems := driver.Plan(decl(t, test.text), driver.Options{Specs: new(rig).specs()})
		if got := lines(problems); !slices.Equal(got, test.says) {
			t.Errorf("%s: Plan() says\n\t%s\nwant\n\t%s", test.name, strings.Join(got, "\n\t"), strings.Join(test.says, "\n\t"))
		}
		if (tree == nil) != (problems.Err() != nil) {
			t.Errorf("%s: Plan() = %v, %v; want a tree or an error", test.name, tree, problems.Err())
		}
	}
}

// What a YAML mapping cannot say, but a Decl can.
func TestPlanDeclProblems(t *testing.T) {
	dev := func(name string, line int) driver.Decl {
		return driver.Decl{Name: name, Type: "t.Device", Pos: driver.Pos{File: "f", Line: line, Column: 1}}
	}
	deep := dev("z", 9)
	for range 70 {
		deep = driver.Decl{Name: "y", Children: []driver.Decl{deep}, Pos: deep.Pos}
	}
	for _, test := range []struct {
		name string
		root driver.Decl
		want string
	}{
		{"one name twice", driver.Decl{Children: []driver.Decl{dev("a", 1), dev("b", 2), dev("a", 3)}}, `f:3:1: export: two children are called "a"`},
		{"no name", driver.Decl{Children: []driver.Decl{dev("", 1)}}, "f:1:1: export: a child needs a name"},
		{"too deep", driver.Decl{Children: []driver.Decl{deep}}, "f:9:1: " + strings.TrimSuffix(strings.Repeat("y.", 65), ".") + ": children nest deeper than 64"},
	} {
		_, problems := driver.Plan(test.root, driver.Options{Specs: new(rig).specs()})
		if got := strings.Join(lines(problems), "\n"); got != test.want {
			t.Errorf("%s: Plan() says %s; want %s", test.name, got, test.want)
		}
	}
	_, problems := driver.Plan(driver.Decl{}, driver.Options{})
	if got, want := strings.Join(lines(problems), "\n"), "export: no type is given, and no driver for groups is built in"; got != want {
		t.Errorf("Plan() without specs says %s; want %s", got, want)
	}
}

func TestUUIDs(t *testing.T) {
	const text = "a.b: {type: t.Device}\na: {children: {b: {type: t.Device}, 'b.c': {type: t.Device}}}\n" +
		"'a.b.c': {type: t.Device}\npinned: {type: t.Device, config: {uuid: 6BA7B8109DAD11D180B400C04FD430C8}}\nr: {ref: a.b}"
	plan := func(ns uuid.UUID) map[string]uuid.UUID {
		tree, problems := driver.Plan(decl(t, text), driver.Options{Specs: new(rig).specs(), Namespace: ns})
		if problems.Err() != nil {
			t.Fatalf("Plan() = %v; want no error", problems.Err())
		}
		ids := map[string]uuid.UUID{}
		for i, n := range tree.Nodes() {
			ids[fmt.Sprint(i, " ", n.Path)] = n.UUID
			if found, ok := tree.Node(n.UUID); n.Path != "r" && (!ok || found != n) {
				t.Errorf("Node(%s) = %v, %t; want %s", n.UUID, found, ok, n.Path)
			}
		}
		return ids
	}
	one, again, other := plan(uuid.NameSpaceDNS), plan(uuid.NameSpaceDNS), plan(uuid.NameSpaceURL)
	if !maps.Equal(one, again) {
		t.Errorf("UUIDs of one config = %v, then %v; want the same", one, again)
	}
	seen := map[uuid.UUID]string{}
	for path, id := range one {
		if seen[id] != "" {
			t.Errorf("%s and %s have the same UUID; want two", path, seen[id])
		}
		seen[id] = path
		if (other[path] == id) != strings.HasSuffix(path, "pinned") {
			t.Errorf("%s: UUIDs in two namespaces = %s, %s; want the same only if pinned", path, id, other[path])
		}
	}
	if got, want := one["6 pinned"], uuid.MustParse("6ba7b810-9dad-11d1-80b4-00c04fd430c8"); got != want {
		t.Errorf("pinned UUID = %v; want %v", got, want)
	}
	tree := new(rig).plan(t, text)
	if n, ok := tree.Node(uuid.NameSpaceOID); ok {
		t.Errorf("Node(unknown) = %v; want none", n)
	}
}

func TestReports(t *testing.T) {
	root := decl(t, `
"my dut":
  children:
    power: {type: t.Device, config: {kind: relay, labels: {room: "3", kind: config, jumpstarter.dev/name: no, jumpstarter.dev/client: no}}}
    serial: {type: t.Device}
supply: {ref: my dut.power}
whole: {ref: again}
again: {ref: my dut}
box: {type: t.Device, children: {inner: {type: t.Proxy, config: {ref: my dut.serial}}}}
`)
	root.Name, root.Description = "ignored", "the harness"
	root.Children[0].Children[0].Description = "the supply"
	root.Children[0].Children[0].Methods = map[string]string{"on": "switch on"}
	root.Children[1].Description = "not the ref's"
	tree, problems := driver.Plan(root, driver.Options{Specs: new(rig).specs()})
	if problems.Err() != nil {
		t.Fatalf("Plan() = %v; want no error", problems.Err())
	}
	id := func(path string) uuid.UUID { return at(t, tree, path).UUID }
	rootID, dut, power, serial, box := tree.Root.UUID, id("my dut"), id("my dut.power"), id("my dut.serial"), id("box")
	group := func(name string) map[string]string {
		return map[string]string{"jumpstarter.dev/client": "c.Group", "jumpstarter.dev/name": name}
	}
	relay := func(name string) map[string]string {
		return map[string]string{"jumpstarter.dev/client": "c.Device", "jumpstarter.dev/name": name, "kind": "relay", "room": "3"}
	}
	plain := func(name string) map[string]string {
		return map[string]string{"jumpstarter.dev/client": "c.Device", "jumpstarter.dev/name": name}
	}
	methods := map[string]string{"on": "switch on"}
	want := []driver.Report{
		{UUID: rootID, Labels: map[string]string{"jumpstarter.dev/client": "c.Group"}, Description: "the harness"},
		{UUID: dut, Parent: rootID, Labels: group("my dut")},
		{UUID: power, Parent: dut, Labels: relay("power"), Description: "the supply", Methods: methods},
		{UUID: serial, Parent: dut, Labels: plain("serial")},
		{UUID: power, Parent: rootID, Labels: relay("supply"), Description: "the supply", Methods: methods},
		{UUID: dut, Parent: rootID, Labels: group("whole")},
		{UUID: power, Parent: dut, Labels: relay("power"), Description: "the supply", Methods: methods},
		{UUID: serial, Parent: dut, Labels: plain("serial")},
		{UUID: dut, Parent: rootID, Labels: group("again")},
		{UUID: power, Parent: dut, Labels: relay("power"), Description: "the supply", Methods: methods},
		{UUID: serial, Parent: dut, Labels: plain("serial")},
		{UUID: box, Parent: rootID, Labels: plain("box")},
		{UUID: serial, Parent: box, Labels: plain("inner")},
	}
	got := tree.Reports()
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || !reflect.DeepEqual(got[i], want[i]) {
			t.Fatalf("Reports()[%d:] = %+v; want %+v", i, got[min(i, len(got)):], want[min(i, len(want)):])
		}
	}
	if got[1].Labels["x"] = "changed"; tree.Reports()[1].Labels["x"] != "" {
		t.Error("labels of a report are the tree's own; want a copy")
	}
}

const three = "a: {children: {b: {type: t.Device}, c: {type: t.Device, children: {d: {type: t.Device}}}}}\ne: {type: t.Device}\nr: {ref: e}"

func TestOpenResetClose(t *testing.T) {
	r := &rig{}
	tree := r.plan(t, three)
	if got := r.happened(); got != "" {
		t.Errorf("Plan() did %q; want nothing", got)
	}
	_ = tree.Reports()
	if err := tree.Reset(t.Context()); err != nil || r.happened() != "" {
		t.Errorf("Reset() before Open = %v; want nothing to reset", err)
	}
	for _, step := range []struct {
		name string
		do   func() error
		want string
	}{
		{"Open", func() error { return tree.Open(t.Context()) }, "open a.b, open a.c.d, open a.c, open e"},
		{"Open", func() error { return tree.Open(t.Context()) }, ""},
		{"Reset", func() error { return tree.Reset(t.Context()) }, "reset a.b, reset a.c.d, reset a.c, reset e"},
		{"Close", tree.Close, "close a.b, close a.c, close a.c.d, close e"},
		{"Close", tree.Close, ""},
		{"Reset", func() error { return tree.Reset(t.Context()) }, ""},
	} {
		if err := step.do(); err != nil {
			t.Errorf("%s() = %v; want nil", step.name, err)
		}
		if got := r.happened(); got != step.want {
			t.Errorf("%s() did %q; want %q", step.name, got, step.want)
		}
	}
	want := "a.b: the session is over: unavailable"
	if _, err := at(t, tree, "a.b").Driver(t.Context()); !errors.Is(err, driver.ErrUnavailable) || err.Error() != want {
		t.Errorf("Driver() after Close = %v; want %s", err, want)
	}
	if _, err := at(t, tree, "r").Caller().Call(t.Context(), "path"); !errors.Is(err, driver.ErrUnavailable) {
		t.Errorf("Call() after Close = %v; want ErrUnavailable", err)
	}
	if err := tree.Open(t.Context()); !errors.Is(err, driver.ErrUnavailable) || r.happened() != "" {
		t.Errorf("Open() after Close = %v; want ErrUnavailable", err)
	}
}

func TestErrorsJoin(t *testing.T) {
	r := &rig{}
	const bad = "{type: t.Device, config: {bad_close: true, bad_reset: true}}"
	tree := r.plan(t, "a: "+bad+"\nb: {type: t.Device}\nc: "+bad)
	if err := tree.Open(t.Context()); err != nil {
		t.Fatalf("Open() = %v; want nil", err)
	}
	r.happened()
	if err, want := tree.Reset(t.Context()), "a: reset: no answer\nc: reset: no answer"; err == nil || err.Error() != want {
		t.Errorf("Reset() = %v; want %s", err, want)
	}
	if err, want := tree.Close(), "a: close: stuck\nc: close: stuck"; err == nil || err.Error() != want {
		t.Errorf("Close() = %v; want %s", err, want)
	}
	if got, want := r.happened(), "reset a, reset b, reset c, close a, close b, close c"; got != want {
		t.Errorf("did %s; want %s", got, want)
	}
	if err := tree.Close(); err != nil {
		t.Errorf("Close() again = %v; want nil", err)
	}
}

func TestOpenFails(t *testing.T) {
	r := &rig{open: map[string]func(context.Context, *driver.Env) error{
		"a.c": func(context.Context, *driver.Env) error { return errors.New("makes no sense") },
	}}
	tree := r.plan(t, three)
	if err, want := tree.Open(t.Context()), "a.c: makes no sense"; err == nil || err.Error() != want {
		t.Errorf("Open() = %v; want %s", err, want)
	}
	if got, want := r.happened(), "open a.b, open a.c.d, close a.b, close a.c.d"; got != want {
		t.Errorf("Open() did %s; want %s", got, want)
	}

	ctx, cancel := context.WithCancel(t.Context())
	r = &rig{open: map[string]func(context.Context, *driver.Env) error{
		"a.c": func(ctx context.Context, _ *driver.Env) error { cancel(); <-ctx.Done(); return ctx.Err() },
	}}
	if err := r.plan(t, three).Open(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Open() that is cancelled = %v; want Canceled", err)
	}
	if got, want := r.happened(), "open a.b, open a.c.d, close a.b, close a.c.d"; got != want {
		t.Errorf("Open() did %s; want %s", got, want)
	}
}

// A device that is not there keeps the others from nothing, and is used as soon
// as it is there.
func TestAbsent(t *testing.T) {
	missing := &fs.PathError{Op: "open", Path: "/dev/x", Err: fs.ErrNotExist}
	for _, absent := range []error{
		driver.ErrUnavailable, hw.ErrAbsent, hw.Mark(hw.ErrAbsent, missing), missing, driver.ErrBusy, hw.ErrBusy,
		fs.ErrPermission, os.ErrDeadlineExceeded,
	} {
		var log bytes.Buffer
		there := false
		r := &rig{open: map[string]func(context.Context, *driver.Env) error{"a": func(context.Context, *driver.Env) error {
			if there {
				return nil
			}
			return absent
		}}}
		tree, problems := driver.Plan(decl(t, "a: {type: t.Device}\nb: {type: t.Device}\nr: {ref: a}"), driver.Options{Specs: r.specs(),
			Log: slog.New(slog.NewTextHandler(&log, nil))})
		if problems.Err() != nil {
			t.Fatalf("Plan() = %v; want no error", problems.Err())
		}
		if err := tree.Open(t.Context()); err != nil {
			t.Fatalf("Open() with %v = %v; want nil", absent, err)
		}
		if got, want := r.happened(), "open b"; got != want {
			t.Errorf("Open() did %s; want %s", got, want)
		}
		if err := tree.Reset(t.Context()); err != nil || r.happened() != "reset b" {
			t.Errorf("Reset() = %v; want nil, and only b reset", err)
		}
		for _, n := range []string{"a", "r"} {
			if _, err := at(t, tree, n).Caller().Call(t.Context(), "path"); !errors.Is(err, absent) || err.Error() != "a: "+absent.Error() {
				t.Errorf("Call(%s) = %v; want a: %v", n, err, absent)
			}
		}
		if n := strings.Count(log.String(), "level=WARN"); n != 1 {
			t.Errorf("logged %s; want one warning", log.String())
		}
		there = true
		for range 2 {
			if got, err := at(t, tree, "r").Caller().Call(t.Context(), "path"); got != "a" || err != nil {
				t.Errorf("Call(r) = %v, %v; want a", got, err)
			}
		}
		if n := strings.Count(log.String(), "level=INFO"); n != 1 {
			t.Errorf("logged %s; want one record of its return", log.String())
		}
		if err := tree.Close(); err != nil {
			t.Errorf("Close() = %v; want nil", err)
		}
		if got, want := r.happened(), "open a, close a, close b"; got != want {
			t.Errorf("did %s; want %s", got, want)
		}
	}
}

// One that lost patience with an opening is no device that is absent.
func TestOpenTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{open: map[string]func(context.Context, *driver.Env) error{"a": func(ctx context.Context, _ *driver.Env) error {
			<-ctx.Done()
			return ctx.Err()
		}}}
		tree := r.plan(t, "a: {type: t.Device}")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := tree.Open(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Open() = %v; want DeadlineExceeded", err)
		}
	})
}

func TestCloseDuringOpen(t *testing.T) {
	type result struct {
		err error
		at  time.Duration
	}
	// play closes a tree one second into the opening of node a.
	play := func(t *testing.T, open func(context.Context, *driver.Env) error) (r *rig, opened, closed result) {
		r = &rig{open: map[string]func(context.Context, *driver.Env) error{"a": open}}
		start := time.Now()
		tree := r.plan(t, "a: {type: t.Device}\nb: {type: t.Device}")
		if _, err := at(t, tree, "b").Driver(t.Context()); err != nil {
			t.Fatalf("Driver(b) = %v; want nil", err)
		}
		done := make(chan result)
		go func() {
			_, err := at(t, tree, "a").Driver(t.Context())
			done <- result{err, time.Since(start)}
		}()
		time.Sleep(time.Second)
		err := tree.Close()
		closed = result{err, time.Since(start)}
		return r, <-done, closed
	}
	t.Run("heeds its context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, opened, closed := play(t, func(ctx context.Context, _ *driver.Env) error {
				<-ctx.Done()
				return ctx.Err()
			})
			if want := (result{nil, time.Second}); closed != want {
				t.Errorf("Close() = %v; want %v", closed, want)
			}
			want := "a: the session is over: unavailable (context canceled)"
			if !errors.Is(opened.err, driver.ErrUnavailable) || opened.err.Error() != want || opened.at != time.Second {
				t.Errorf("Driver() = %v; want %s", opened, want)
			}
			if got, want := r.happened(), "open b, close b"; got != want {
				t.Errorf("did %s; want %s", got, want)
			}
		})
	})
	t.Run("succeeds all the same", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, opened, closed := play(t, func(ctx context.Context, _ *driver.Env) error {
				<-ctx.Done()
				return nil
			})
			if want := (result{nil, time.Second}); closed != want {
				t.Errorf("Close() = %v; want %v", closed, want)
			}
			if !errors.Is(opened.err, driver.ErrUnavailable) {
				t.Errorf("Driver() = %v; want ErrUnavailable", opened)
			}
			got := strings.Split(r.happened(), ", ")
			slices.Sort(got)
			if want := []string{"close a", "close b", "open a", "open b"}; !slices.Equal(got, want) {
				t.Errorf("did %s; want %s", got, want)
			}
		})
	})
	t.Run("is stuck", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, opened, closed := play(t, func(context.Context, *driver.Env) error {
				time.Sleep(time.Hour)
				return nil
			})
			if want := "a: close: it is still being opened"; closed.err == nil || closed.err.Error() != want || closed.at != time.Second+50*time.Millisecond {
				t.Errorf("Close() = %v; want %s after 50ms", closed, want)
			}
			if !errors.Is(opened.err, driver.ErrUnavailable) || opened.at != time.Hour {
				t.Errorf("Driver() = %v; want ErrUnavailable after an hour", opened)
			}
			if got, want := r.happened(), "open b, close b, open a, close a"; got != want {
				t.Errorf("did %s; want %s", got, want)
			}
		})
	})
}

// Whoever waits for another's opening can leave, and does not end it.
func TestLeaveDuringOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan struct{})
		r := &rig{open: map[string]func(context.Context, *driver.Env) error{"a": func(ctx context.Context, _ *driver.Env) error {
			<-goOn
			return ctx.Err()
		}}}
		tree := r.plan(t, "a: {type: t.Device}")
		first := make(chan error)
		go func() {
			_, err := at(t, tree, "a").Driver(t.Context())
			first <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := at(t, tree, "a").Driver(ctx)
		if want := "a: waiting for another to open it: context deadline exceeded"; err == nil || err.Error() != want || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Driver() = %v; want %s", err, want)
		}
		close(goOn)
		if err := <-first; err != nil {
			t.Errorf("Driver() of the first = %v; want nil", err)
		}
		if err := tree.Close(); err != nil || r.happened() != "open a, close a" {
			t.Errorf("Close() = %v; want nil, and one opening and closing", err)
		}
	})
}

// However openings and Close meet, what was opened is closed.
func TestConcurrentClose(t *testing.T) {
	drivertest.NoLeaks(t)
	for range 50 {
		var opened, closed atomic.Int32
		r := &rig{}
		spec := driver.Define(driver.Spec{Type: "t.Counter"}, func(ctx context.Context, _ *driver.Env, _ struct{}) (driver.Driver, error) {
			opened.Add(1)
			return driver.Driver{Impl: closeFunc(func() error { closed.Add(1); return nil })}, nil
		})
		tree, problems := driver.Plan(decl(t, "a: {type: t.Counter}\nb: {type: t.Counter}\nr: {ref: a}"),
			driver.Options{Specs: append(r.specs(), spec)})
		if problems.Err() != nil {
			t.Fatalf("Plan() = %v; want no error", problems.Err())
		}
		var all sync.WaitGroup
		start := make(chan struct{})
		for i := range 6 {
			n := tree.Nodes()[1+i%3]
			all.Go(func() {
				<-start
				for {
					if _, err := n.Driver(t.Context()); err != nil {
						if !errors.Is(err, driver.ErrUnavailable) {
							t.Errorf("Driver() = %v; want ErrUnavailable", err)
						}
						return
					}
				}
			})
		}
		for range 2 {
			all.Go(func() {
				<-start
				// On a busy machine an opening may not get on in time.
				if err := tree.Close(); err != nil && !strings.Contains(err.Error(), "close: it is still being opened") {
					t.Errorf("Close() = %v; want nil", err)
				}
			})
		}
		close(start)
		all.Wait()
		if o, c := opened.Load(), closed.Load(); o != c || o > 2 {
			t.Fatalf("opened %d, closed %d; want the same, at most 2", o, c)
		}
	}
}

type closeFunc func() error

func (f closeFunc) Close() error { return f() }

func TestEnv(t *testing.T) {
	r := &rig{}
	offered := map[string]any{"kind": "x"}
	opener := openerFunc(func(_ context.Context, node uuid.UUID, h driver.Handle) (driver.Resource, error) {
		if !reflect.DeepEqual(h.Raw(), offered) {
			return nil, driver.BadArg("", "no such handle for %s", node)
		}
		near, far := net.Pipe()
		go func() {
			_, _ = io.WriteString(far, "image")
			far.Close()
		}()
		return resource{near}, nil
	})
	const text = "a: {type: t.Device, children: {b: {type: t.Device}, r: {ref: c}, g: {type: t.Group}}}\nc: {type: t.Device}"
	tree, problems := driver.Plan(decl(t, text), driver.Options{Specs: r.specs(), Resources: opener})
	if problems.Err() != nil {
		t.Fatalf("Plan() = %v; want no error", problems.Err())
	}
	a := at(t, tree, "a")
	c := a.Caller()
	for _, test := range []struct {
		method string
		arg    any
		want   any
		err    string
	}{
		{"ask", "b", "a.b", ""},
		{"ask", "r", "c", ""},
		{"ask", "g", nil, "method path not found on driver: no such method"},
		{"ask", "x", nil, "file does not exist"},
		{"read", driver.NewHandle(offered), "image", ""},
		{"read", map[string]any{"kind": "y"}, nil, "no such handle for " + a.UUID.String()},
	} {
		got, err := c.Call(t.Context(), test.method, test.arg)
		if got != test.want || fmt.Sprint(err) != cmpOr(test.err, "<nil>") {
			t.Errorf("%s(%v) = %v, %v; want %v, %s", test.method, test.arg, got, err, test.want, test.err)
		}
	}
	if err := tree.Close(); err != nil {
		t.Errorf("Close() = %v; want nil", err)
	}
	bare := &driver.Env{}
	if _, ok := bare.Child("b"); ok {
		t.Error("Child() of an Env without a node = true; want false")
	}
	if _, err := bare.Open(t.Context(), driver.Handle{}); err == nil || err.Error() != "resource: nobody offers streams here" {
		t.Errorf("Open() of an Env without a tree = %v; want an error", err)
	}
}

func cmpOr(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

type resource struct{ io.ReadWriteCloser }

func (resource) CloseWrite() error { return nil }

type openerFunc func(context.Context, uuid.UUID, driver.Handle) (driver.Resource, error)

func (f openerFunc) OpenHandle(ctx context.Context, node uuid.UUID, h driver.Handle) (driver.Resource, error) {
	return f(ctx, node, h)
}

// A node logs from its own level on, under its own name.
func TestLogLevel(t *testing.T) {
	for level, want := range map[string]int{"": 4, "DEBUG": 5, "NOTSET": 5, "info": 4, "WARNING": 3, "warn": 3, "ERROR": 2, "CRITICAL": 1, "FATAL": 1} {
		var log bytes.Buffer
		r := &rig{open: map[string]func(context.Context, *driver.Env) error{"dut.a": func(ctx context.Context, env *driver.Env) error {
			l := env.Log.With("x", 1).WithGroup("g")
			for _, at := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError, driver.LevelCritical} {
				l.Log(ctx, at, "hello")
			}
			return nil
		}}}
		config := ""
		if level != "" {
			config = ", config: {log_level: " + level + "}"
		}
		tree, problems := driver.Plan(decl(t, "dut: {children: {a: {type: t.Device"+config+"}}}"), driver.Options{Specs: r.specs(),
			Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		if problems.Err() != nil {
			t.Fatalf("Plan() = %v; want no error", problems.Err())
		}
		if err := tree.Open(t.Context()); err != nil {
			t.Fatalf("Open() = %v; want nil", err)
		}
		if got := strings.Count(log.String(), "msg=hello driver=dut.a driver_type=thing x=1\n"); got != want {
			t.Errorf("log_level %q: %d records in %q; want %d", level, got, log.String(), want)
		}
		if err := tree.Close(); err != nil {
			t.Errorf("Close() = %v; want nil", err)
		}
	}
	if l, ok := driver.ParseLevel("LOUD"); ok {
		t.Errorf("ParseLevel(LOUD) = %v, true; want false", l)
	}
}

func TestKeyTypes(t *testing.T) {
	type all struct {
		A time.Duration
		B *string
		C []float64
		D [2]bool
		E map[string][]int
		F struct{}
		G any
		H driver.Base64
		I uuid.UUID
		J *time.Time
		K uint8
		L nodes
	}
	spec := driver.Define(driver.Spec{}, func(context.Context, *driver.Env, all) (driver.Driver, error) { return driver.Driver{}, nil })
	var got []string
	for _, k := range spec.Keys() {
		got = append(got, k.Name+" "+k.Type)
	}
	type inner struct {
		X int     `min:"1" max:"9" default:"5"`
		Y []inner `yaml:",omitempty"`
	}
	type outer struct {
		A map[string]*inner `doc:"a"`
		B string            `oneof:"p q"`
	}
	keys := driver.Define(driver.Spec{}, func(context.Context, *driver.Env, outer) (driver.Driver, error) { return driver.Driver{}, nil }).Keys()
	if len(keys) != 2 || len(keys[0].Keys) != 2 || !keys[0].Required || !slices.Equal(keys[1].OneOf, []string{"p", "q"}) {
		t.Fatalf("Keys() = %+v; want a with two keys, b of p and q", keys)
	}
	x, y := keys[0].Keys[0], keys[0].Keys[1]
	if x.Min != "1" || x.Max != "9" || x.Default != "5" || x.Required || len(y.Keys) != 2 || y.Required {
		t.Errorf("Keys() = %+v, %+v; want x with a range, y with the keys of its elements", x, y)
	}

	want := "a seconds; b text or null; c list of number; d list of true or false; e map of list of integer; f mapping; g any; " +
		"h base64; i text; j text or null; k integer; l list of list of list of list of list of any"
	if got := strings.Join(got, "; "); got != want {
		t.Errorf("Keys() = %s; want %s", got, want)
	}
}

func TestKeys(t *testing.T) {
	want := []driver.Key{
		{Name: "line", Type: "text", Doc: "what it claims"},
		{Name: "kind", Type: "text", Doc: "a label"},
		{Name: "bad_close", Type: "true or false", Doc: "Close fails"},
		{Name: "bad_reset", Type: "true or false", Doc: "Reset fails"},
		{Name: "speed", Type: "integer or null", Doc: "a pointer"},
		{Name: "rate", Type: "integer", Default: "5", Doc: "a default"},
		{Name: "map", Type: "map of text"},
	}
	specs := new(rig).specs()
	if got := specs[0].Keys(); !reflect.DeepEqual(got, want) {
		t.Errorf("Keys() = %+v; want %+v", got, want)
	}
	if got := specs[2].Keys(); len(got) != 1 || !got[0].Required {
		t.Errorf("Keys(proxy) = %+v; want a required one", got)
	}
	if got := (driver.Spec{}).Keys(); got != nil {
		t.Errorf("Keys() of a spec without config = %v; want none", got)
	}
}

func TestParseLevel(t *testing.T) {
	for name, want := range map[string]slog.Level{
		"DEBUG": slog.LevelDebug, "info": slog.LevelInfo, "WARN": slog.LevelWarn, "ERROR": slog.LevelError, "CRITICAL": driver.LevelCritical,
		"0": slog.LevelDebug - 4, "10": slog.LevelDebug, "20": slog.LevelInfo, "30": slog.LevelWarn, "40": slog.LevelError, "50": driver.LevelCritical,
	} {
		if got, ok := driver.ParseLevel(name); got != want || !ok {
			t.Errorf("ParseLevel(%q) = %v, %t; want %v, true", name, got, ok, want)
		}
	}
	for _, name := range []string{"", "LOUD", "-1", "1.5", "99999"} {
		if got, ok := driver.ParseLevel(name); ok {
			t.Errorf("ParseLevel(%q) = %v, true; want false", name, got)
		}
	}
}
