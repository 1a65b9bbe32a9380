package driver_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
)

func TestReload(t *testing.T) {
	for _, tt := range []struct {
		name          string
		before, after string
		busy          []string // paths of nodes in use
		want          string   // added, changed, removed, busy
		notes         string
		fails         string
	}{
		{name: "nothing", before: "a: {type: t.Device}\nb: {ref: a}", after: "b:\n  ref: a\na: {type: t.Device}", want: "[] [] [] []"},
		{name: "a key", before: "a: {type: t.Device, config: {rate: 1}}\nb: {type: t.Device}", after: "a: {type: t.Device, config: {rate: 2}}\nb: {type: t.Device}",
			want: "[] [a] [] []", notes: "close a, open a"},
		{name: "a place only", before: "a: {type: t.Device, config: {rate: 1}}", after: "\n\na:\n  config:\n    rate: 1\n  type: t.Device", want: "[] [] [] []"},
		{name: "one more", before: "g: {children: {a: {type: t.Device}}}", after: "g: {children: {a: {type: t.Device}, b: {type: t.Device}}}",
			want: "[g.b] [] [] []", notes: "open g.b"},
		{name: "one less", before: "g: {children: {a: {type: t.Device}, b: {type: t.Device}}}", after: "g: {children: {b: {type: t.Device}}}",
			want: "[] [] [g.a] []", notes: "close g.a"},
		{name: "a group less", before: "g: {children: {a: {type: t.Device}}}", after: "{}", want: "[] [] [g.a] []", notes: "close g.a"},
		{name: "a child of a driver", before: "a: {type: t.Device, children: {c: {type: t.Device}}}", after: "a: {type: t.Device, children: {c: {type: t.Device, config: {rate: 3}}}}",
			want: "[] [a] [] []", notes: "close a, close a.c, open a.c, open a"},
		{name: "what a driver refers to", before: "a: {type: t.Device, children: {c: {ref: b}}}\nb: {type: t.Device}",
			after: "a: {type: t.Device, children: {c: {ref: b}}}\nb: {type: t.Device, config: {rate: 3}}",
			want:  "[] [a b] [] []", notes: "close a, close b, open a, open b"},
		{name: "a group that a driver refers to", before: "a: {type: t.Device, children: {c: {ref: g}}}\ng: {children: {b: {type: t.Device}}}",
			after: "a: {type: t.Device, children: {c: {ref: g}}}\ng: {children: {b: {type: t.Device, config: {rate: 3}}}}",
			want:  "[] [a g.b] [] []", notes: "close a, close g.b, open a, open g.b"},
		{name: "a group that a driver refers to, one less", before: "a: {type: t.Device, children: {c: {ref: g}}}\ng: {children: {b: {type: t.Device}, d: {type: t.Device}}}",
			after: "a: {type: t.Device, children: {c: {ref: g}}}\ng: {children: {b: {type: t.Device}}}",
			want:  "[] [a] [g.d] []", notes: "close a, close g.d, open a"},
		{name: "in use through a group", before: "a: {type: t.Device, children: {c: {ref: g}}}\ng: {children: {b: {type: t.Device}}}",
			after: "a: {type: t.Device, children: {c: {ref: g}}}\ng: {children: {b: {type: t.Device, config: {rate: 3}}}}", busy: []string{"a"},
			want: "[] [] [] [g.b]"},
		{name: "what a group refers to", before: "a: {children: {c: {ref: b}}}\nb: {type: t.Device}", after: "a: {children: {c: {ref: d}}}\nd: {type: t.Device}",
			want: "[d] [] [b] []", notes: "close b, open d"},

		{name: "in use and the same", before: "a: {type: t.Device}", after: "a: {type: t.Device}\nb: {type: t.Device}", busy: []string{"a"},
			want: "[b] [] [] []", notes: "open b"},
		{name: "in use and changed", before: "a: {type: t.Device}\nb: {type: t.Device}",
			after: "a: {type: t.Device, config: {rate: 3}}\nb: {type: t.Device, config: {rate: 4}}", busy: []string{"a"},
			want: "[] [b] [] [a]", notes: "close b, open b"},
		{name: "in use and removed", before: "g: {children: {a: {type: t.Device}, b: {type: t.Device}}}", after: "g: {children: {b: {type: t.Device}}}",
			busy: []string{"g.a"}, want: "[] [] [] [g.a]"},
		{name: "in use by a child", before: "a: {type: t.Device, children: {c: {type: t.Device}}}", after: "a: {type: t.Device}", busy: []string{"a.c"}, want: "[] [] [] [a]"},
		{name: "in use through a ref", before: "a: {type: t.Device, children: {c: {ref: b}}}\nb: {type: t.Device}",
			after: "a: {type: t.Device, children: {c: {ref: b}}}\nb: {type: t.Device, config: {rate: 3}}", busy: []string{"a"},
			want: "[] [] [] [b]"},
		{name: "in use, its group gone", before: "g: {children: {a: {type: t.Device}}}\nb: {type: t.Device}", after: "b: {type: t.Device, config: {rate: 3}}",
			busy: []string{"g.a"}, fails: "g.a: it is in use, and the configuration has no group any more where it can stay: reload again when it is free"},
		{name: "in use, its group a driver", before: "g: {children: {a: {type: t.Device}}}", after: "g: {type: t.Device, children: {a: {type: t.Device, config: {rate: 2}}}}",
			busy: []string{"g.a"}, fails: "g.a: it is in use, and the configuration has no group any more where it can stay: reload again when it is free"},

		{name: "a mistake", before: "a: {type: t.Device}", after: "a: {type: t.Devise}", fails: `a: no driver of type "t.Devise"; did you mean "t.Device"?`},
		{name: "a mistake beside what is in use", before: "a: {type: t.Device}", after: "b: {type: t.Devise}", busy: []string{"a"}, fails: `b: no driver of type "t.Devise"; did you mean "t.Device"?`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &rig{}
			tree := r.plan(t, tt.before)
			if err := tree.Open(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, path := range tt.busy {
				if err := at(t, tree, path).Use(); err != nil {
					t.Fatal(err)
				}
			}
			all := r.happened()
			nodes := slices.Clone(tree.Nodes())
			var put *driver.Tree
			next, done, problems := tree.Reload(t.Context(), decl(t, tt.after), func(next *driver.Tree) { put = next })
			if tt.fails != "" {
				if err := problems.Err(); next != nil || put != nil || err == nil || !strings.HasSuffix(err.Error(), tt.fails) {
					t.Fatalf("Reload() = %v, _, %v; want nil, _, %s", next, err, tt.fails)
				}
				if got := r.happened(); got != "" || !slices.Equal(tree.Nodes(), nodes) {
					t.Errorf("a reload that failed did: %s", got)
				}
				next = tree
			} else {
				if err := problems.Err(); err != nil || next == nil || put != next {
					t.Fatalf("Reload() = %p, _, %v, having put %p; want a tree that was put", next, err, put)
				}
				if got := fmt.Sprint(done.Added, done.Changed, done.Removed, done.Busy); got != tt.want {
					t.Errorf("Reload() = %s; want %s", got, tt.want)
				}
				got := r.happened()
				if got != tt.notes {
					t.Errorf("Reload() did: %s; want: %s", got, tt.notes)
				}
				all += ", " + got
			}
			for _, n := range next.Nodes() { // all of it works, and under its own UUID
				if n.Spec.Type != "t.Device" {
					continue
				}
				if got, err := driver.Invoke[string](t.Context(), n.Caller(), "path"); got != n.Path || err != nil {
					t.Errorf("%s.path() = %q, %v; want %q", n.Path, got, err, n.Path)
				}
				if got, ok := next.Node(n.UUID); got != n || !ok {
					t.Errorf("Node(%v) = %v, %v; want %s", n.UUID, got, ok, n.Path)
				}
				for _, c := range n.Children {
					if c.Resolve().Spec.Type != "t.Device" {
						continue
					}
					if got, err := driver.Invoke[string](t.Context(), n.Caller(), "ask", c.Name); got != c.Resolve().Path || err != nil {
						t.Errorf("%s.ask(%s) = %q, %v; want %q", n.Path, c.Name, got, err, c.Resolve().Path)
					}
				}
			}
			for _, path := range tt.busy {
				at(t, next, path).Release()
			}
			if err := next.Close(); err != nil {
				t.Fatal(err)
			}
			open := map[string]int{}
			for _, note := range strings.Split(all+", "+r.happened(), ", ") {
				if path, ok := strings.CutPrefix(note, "open "); ok {
					open[path]++
				} else if path, ok := strings.CutPrefix(note, "close "); ok {
					open[path]--
				}
			}
			for path, n := range open {
				if n > 0 {
					t.Errorf("%s was opened %d times more than closed", path, n)
				}
			}
		})
	}
}

// What a reload is closing is closed when the new tree is, and one that takes its
// time does not keep the others from it.
func TestReloadClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		tree, did := enders(t, ender{close: func() error { <-free; return nil }})
		put, reloaded := make(chan *driver.Tree, 1), make(chan struct{})
		go func() {
			defer close(reloaded)
			tree.Reload(t.Context(), driver.Decl{}, func(next *driver.Tree) { put <- next })
		}()
		next := <-put
		closed := make(chan error, 1)
		go func() { closed <- next.Close() }()
		<-time.After(time.Second) // of the bubble: every time-out has passed
		synctest.Wait()
		if got, want := did(), "close a, close c"; got != want {
			t.Errorf("Reload() did %q while b was stuck; want %q", got, want)
		}
		select {
		case err := <-closed:
			t.Errorf("Close() = %v while b was stuck; want it to wait", err)
			close(free)
			<-reloaded
			return
		default:
		}
		close(free)
		<-reloaded
		<-closed // the root was still waiting for b
	})
}

// A node that is being reset is in use.
func TestReloadReset(t *testing.T) {
	resetting, free := make(chan struct{}), make(chan struct{})
	tree, did := enders(t, ender{close: func() error { return nil }, reset: func() { close(resetting); <-free }})
	reset := make(chan error, 1)
	go func() { reset <- tree.Reset(t.Context()) }()
	<-resetting
	next, done, problems := tree.Reload(t.Context(), driver.Decl{}, func(*driver.Tree) {})
	if next == nil || fmt.Sprint(done.Busy) != "[b]" {
		t.Errorf("Reload() during a reset = %+v, %v; want b in use", done, problems)
	}
	close(free)
	if err := <-reset; err != nil {
		t.Errorf("Reset() = %v; want nil", err)
	}
	// c was closed before its turn came.
	if got, want := did(), "reset a, close a, close c"; got != want {
		t.Errorf("Reset() and Reload() did %q; want %q", got, want)
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
}

// A driver that panics when it is opened leaves the others alone.
func TestReloadPanic(t *testing.T) {
	r := &rig{open: map[string]func(context.Context, *driver.Env) error{"a": func(context.Context, *driver.Env) error { panic("oops") }}}
	tree := r.plan(t, "{}")
	next, done, problems := tree.Reload(t.Context(), decl(t, "a: {type: t.Device}\nb: {type: t.Device}"), func(*driver.Tree) {})
	if got, want := fmt.Sprint(done.Added), "[a b]"; next == nil || got != want {
		t.Fatalf("Reload() added %s, %v; want %s", got, problems, want)
	}
	if got, want := r.happened(), "open b"; got != want {
		t.Errorf("Reload() did: %s; want: %s", got, want)
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
}

// TestReloadUnderUse uses a node all the time while the tree is reloaded: it is
// only ever exchanged between two uses.
func TestReloadUnderUse(t *testing.T) {
	r := &rig{}
	tree := r.plan(t, "a: {type: t.Device, config: {rate: 0}}")
	if err := tree.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	var mu sync.RWMutex // stands for the session, which serves one tree at a time
	serve := tree
	var users sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		users.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				mu.RLock()
				n := serve.Nodes()[1]
				mu.RUnlock()
				if err := n.Use(); err != nil {
					if driver.Classify(err) != driver.Unavailable {
						t.Errorf("Use() = %v; want unavailable", err)
					}
					continue
				}
				if _, err := driver.Invoke[string](t.Context(), n.Caller(), "path"); err != nil {
					t.Errorf("path() = %v; want no error", err)
				}
				n.Release()
			}
		})
	}
	changed := 0
	for i := 1; i < 300 || changed == 0 && i < 1e6; i++ {
		next, done, problems := tree.Reload(t.Context(), decl(t, fmt.Sprintf("a: {type: t.Device, config: {rate: %d}}", i%100)), func(next *driver.Tree) {
			mu.Lock()
			serve = next
			mu.Unlock()
		})
		if next == nil {
			t.Fatal(problems)
		}
		tree, changed = next, changed+len(done.Changed)
	}
	close(stop)
	users.Wait()
	if changed == 0 {
		t.Error("no reload found the node free")
	}
	if err := tree.Close(); err != nil {
		t.Error(err)
	}
}
