package driver_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/drivers/driver"
)

// elsewhere is a mount whose other side is a function.
type elsewhere struct {
	root *driver.Remote
	call func(id uuid.UUID, method string) (any, error)
}

func (e *elsewhere) Remote() *driver.Remote            { return e.root }
func (e *elsewhere) Caller(id uuid.UUID) driver.Caller { return elsewhereNode{e, id} }

type elsewhereNode struct {
	*elsewhere
	id uuid.UUID
}

func (n elsewhereNode) Call(_ context.Context, method string, _ ...any) (any, error) {
	return n.call(n.id, method)
}
func (n elsewhereNode) Feed(context.Context, string, ...any) iter.Seq2[any, error] { return nil }
func (n elsewhereNode) Stream(context.Context, string) (io.ReadWriteCloser, error) {
	return nil, errors.ErrUnsupported
}

var group = driver.Define(driver.Spec{Type: "group", Role: driver.Group, Contract: driver.Contract{Client: "Group"}},
	func(context.Context, *driver.Env, struct{}) (driver.Driver, error) { return driver.Driver{}, nil })

// mounts hosts every type that it does not know.
func mounts(open func(context.Context, *driver.Env) (driver.Driver, error)) func(*driver.Decl, map[string]*driver.Spec) (map[*driver.Decl]driver.Spec, driver.Problems) {
	return func(root *driver.Decl, known map[string]*driver.Spec) (map[*driver.Decl]driver.Spec, driver.Problems) {
		found := map[*driver.Decl]driver.Spec{}
		var visit func(d *driver.Decl)
		visit = func(d *driver.Decl) {
			if d.Type != "" && known[d.Type] == nil {
				found[d] = driver.Mount(driver.Spec{Type: d.Type}, open)
				return
			}
			for i := range d.Children {
				visit(&d.Children[i])
			}
		}
		visit(root)
		return found, nil
	}
}

// settle opens a tree and all that is mounted.
func settle(t *testing.T, tree *driver.Tree) {
	t.Helper()
	if err := tree.Open(t.Context()); err != nil {
		t.Fatalf("Open() = %v; want nil", err)
	}
	if err := tree.Settled(t.Context()); err != nil {
		t.Fatalf("Settled() = %v; want nil", err)
	}
}

// What is here does not wait for what is elsewhere to start.
func TestMountSlow(t *testing.T) {
	started := make(chan struct{})
	open := func(ctx context.Context, _ *driver.Env) (driver.Driver, error) {
		select {
		case <-started:
			return driver.Driver{Impl: &elsewhere{}}, nil
		case <-ctx.Done():
			return driver.Driver{}, ctx.Err()
		}
	}
	near := driver.Define(driver.Spec{Type: "near"}, func(context.Context, *driver.Env, struct{}) (driver.Driver, error) {
		return driver.Driver{Exports: []driver.Export{driver.Do("on", func(context.Context) error { return nil })}}, nil
	})
	decl := driver.Decl{Children: []driver.Decl{{Name: "far", Type: "their.Driver"}, {Name: "near", Type: "near"}}}
	tree, problems := driver.Plan(decl, driver.Options{Specs: []driver.Spec{group, near}, Mounts: mounts(open)})
	if err := problems.Err(); err != nil {
		t.Fatalf("Plan() = %v; want nil", err)
	}
	if err := tree.Settled(t.Context()); err != nil {
		t.Errorf("Settled() before Open = %v; want nil", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := tree.Open(ctx); err != nil {
		t.Fatalf("Open() = %v; want nil", err)
	}
	cancel() // it was for what is here
	if _, err := tree.Nodes()[2].Caller().Call(t.Context(), "on"); err != nil {
		t.Errorf("Call(on) beside a mount that is being opened = %v; want nil", err)
	}
	if err := tree.Settled(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Settled() while a mount is being opened = %v; want the context's error", err)
	}
	close(started)
	if err := tree.Settled(t.Context()); err != nil {
		t.Errorf("Settled() = %v; want nil", err)
	}
	if _, err := tree.Nodes()[1].Mounted(t.Context()); err != nil {
		t.Errorf("Mounted() = %v; want nil", err)
	}
	if err := tree.Close(); err != nil {
		t.Errorf("Close() = %v; want nil", err)
	}
}

// A mount is listed with what is below it, also what nobody declared, under
// identities that derive from the names; refs lead into it and out of it.
func TestMount(t *testing.T) {
	var got []uuid.UUID
	open := func(_ context.Context, env *driver.Env) (driver.Driver, error) {
		leaf := func(name string) *driver.Remote {
			return &driver.Remote{Name: name, UUID: env.ID(name), Labels: map[string]string{driver.LabelClient: "C" + name}}
		}
		root := &driver.Remote{Name: "far", UUID: env.ID(), Labels: map[string]string{driver.LabelClient: "C"},
			Children: []*driver.Remote{leaf("declared"), leaf("made"), leaf("out")}}
		if !env.IsRef("out") || env.IsRef("declared") || env.IsRef("made") {
			t.Errorf("IsRef() of out, declared, made = %t, %t, %t; want true, false, false", env.IsRef("out"), env.IsRef("declared"), env.IsRef("made"))
		}
		return driver.Driver{Impl: &elsewhere{root, func(id uuid.UUID, method string) (any, error) {
			got = append(got, id)
			return method, nil
		}}}, nil
	}
	decl := driver.Decl{Children: []driver.Decl{
		{Name: "far", Type: "their.Driver", Children: []driver.Decl{
			{Name: "declared", Type: "their.Other"}, {Name: "out", Ref: "near"}}},
		{Name: "near"},
		{Name: "alias", Ref: "far.made"},
		{Name: "other", Ref: "far.declared"},
		{Name: "lost", Ref: "far.nowhere"},
	}}
	tree, problems := driver.Plan(decl, driver.Options{Specs: []driver.Spec{group}, Mounts: mounts(open)})
	if err := problems.Err(); err != nil {
		t.Fatalf("Plan() = %v; want nil", err)
	}
	list := func() string {
		var names []string
		for _, r := range tree.Reports() {
			names = append(names, r.Labels[driver.LabelName]+":"+r.Labels[driver.LabelClient])
		}
		return strings.Join(names, " ")
	}
	if got, want := list(), ":Group far: declared: out:Group near:Group other:"; got != want {
		t.Errorf("Reports() before Open = %q; want %q", got, want)
	}
	settle(t, tree)
	if got, want := list(), ":Group far:C declared:Cdeclared made:Cmade out:Group near:Group alias:Cmade other:Cdeclared"; got != want {
		t.Errorf("Reports() = %q; want %q", got, want)
	}
	reports := tree.Reports()
	at := func(name string) driver.Report {
		return reports[slices.IndexFunc(reports, func(r driver.Report) bool { return r.Labels[driver.LabelName] == name })]
	}
	if at("alias").UUID != at("made").UUID || at("alias").Parent != reports[0].UUID {
		t.Errorf("report of alias = %+v; want the identity of made, below the root", at("alias"))
	}
	if at("out").UUID != at("near").UUID || at("out").Parent != at("far").UUID {
		t.Errorf("report of out = %+v; want the identity of near, below far", at("out"))
	}
	n, ok := tree.Node(at("made").UUID)
	if !ok || n.Path != "far" || n.Mount() != n {
		t.Errorf("Node(made) = %+v, %t; want far, where its mount begins", n, ok)
	}
	for _, n := range tree.Nodes() {
		if n.Name == "alias" || n.Name == "declared" {
			if _, err := n.Caller().Call(t.Context(), "hello"); err != nil {
				t.Errorf("%s: Call() = %v; want nil", n.Path, err)
			}
		}
	}
	if want := []uuid.UUID{at("declared").UUID, at("made").UUID}; !slices.Equal(got, want) {
		t.Errorf("calls came to %v; want %v", got, want)
	}
	if err := tree.Close(); err != nil {
		t.Errorf("Close() = %v; want nil", err)
	}
}

// A mount is changed together with what is declared below it, and what refers to
// it changes with it.
func TestReloadMount(t *testing.T) {
	opened := 0
	open := func(_ context.Context, env *driver.Env) (driver.Driver, error) {
		opened++
		return driver.Driver{Impl: &elsewhere{root: &driver.Remote{Name: "far", UUID: env.ID()}}}, nil
	}
	decl := func(inner string, python string) driver.Decl {
		return driver.Decl{Children: []driver.Decl{{Name: "far", Type: "their.Driver", Hosting: driver.Hosting{Python: python},
			Children: []driver.Decl{{Name: "in", Type: inner}}}}}
	}
	tree, problems := driver.Plan(decl("their.A", ""), driver.Options{Specs: []driver.Spec{group}, Mounts: mounts(open)})
	if err := problems.Err(); err != nil {
		t.Fatalf("Plan() = %v; want nil", err)
	}
	settle(t, tree)
	for _, c := range []struct {
		decl    driver.Decl
		changed []string
		opened  int
	}{
		{decl("their.A", ""), nil, 1},
		{decl("their.B", ""), []string{"far"}, 2},
		{decl("their.B", "/other/python"), []string{"far"}, 3},
	} {
		next, done, problems := tree.Reload(t.Context(), c.decl, func(*driver.Tree) {})
		if next == nil {
			t.Fatalf("Reload() = %v; want a tree", problems)
		}
		tree = next
		if !slices.Equal(done.Changed, c.changed) || opened != c.opened {
			t.Errorf("Reload() changed %v, opened %d times in all; want %v, %d", done.Changed, opened, c.changed, c.opened)
		}
	}
	if err := tree.Close(); err != nil {
		t.Errorf("Close() = %v; want nil", err)
	}
}
