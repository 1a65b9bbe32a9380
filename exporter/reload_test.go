package exporter_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/exporter"
	"github.com/jumplead/jumplead/exporter/client"
)

// A reload exchanges drivers under a client: what it has a stream on stays, and
// what is new is there under its own name.
func TestReload(t *testing.T) {
	drivertest.NoLeaks(t)
	h := newHarness(t)
	o := h.options()
	reloads := make(chan exporter.Reload)
	o.Reload = reloads
	r := run(t, o)
	c := r.dial(client.Options{})
	s, err := find(t, c, "a").Stream(soon(t), "connect")
	if err != nil {
		t.Fatal(err)
	}
	reload := func(names ...string) (string, driver.Problems) {
		t.Helper()
		said := make(chan string, 1)
		var problems driver.Problems
		decl := driver.Decl{}
		for _, n := range names {
			d := driver.Decl{Name: n, Type: "fake.Device"}
			if n == "wrong" {
				d.Type = "fake.Devise"
			}
			decl.Children = append(decl.Children, d)
		}
		reloads <- exporter.Reload{Export: decl, MOTD: "hello again", Done: func(what driver.Reloaded, p driver.Problems) {
			problems = p
			said <- fmt.Sprint(what.Added, what.Changed, what.Removed, what.Busy)
		}}
		select {
		case got := <-said:
			return got, problems
		case <-soon(t).Done():
			t.Fatal("the reload was not done")
			return "", nil
		}
	}

	if _, problems := reload("wrong"); problems.Err() == nil || !strings.Contains(problems.Err().Error(), `did you mean "fake.Device"`) {
		t.Errorf("reload of a mistake = %v; want what is wrong", problems.Err())
	}
	if got, want := fmt.Sprint(h.history()), "[open a open b]"; got != want {
		t.Errorf("happened: %s; want %s", got, want)
	}
	if got, problems := reload("c"); got != "[c] [] [b] [a]" || problems.Err() != nil {
		t.Errorf("reload = %s, %v; want c new, b gone, a in use", got, problems)
	}
	if err := c.Refresh(soon(t)); err != nil || c.MOTD != "hello again" {
		t.Errorf("Refresh() = %v with the motd %q; want the new one", err, c.MOTD)
	}
	var names []string
	for _, n := range c.Root.Children {
		names = append(names, n.Path)
		if got, err := n.Call(soon(t), "echo", n.Path); got != n.Path || err != nil {
			t.Errorf("echo on %s = %v, %v; want its path", n.Path, got, err)
		}
	}
	if !slices.Equal(names, []string{"c", "a"}) {
		t.Errorf("nodes = %v; want c and, still, a", names)
	}
	if _, err := s.Write([]byte("x")); err != nil {
		t.Errorf("Write() to the stream that was open = %v; want nil", err)
	}
	if b := make([]byte, 1); true {
		if n, err := s.Read(b); n != 1 || b[0] != 'x' {
			t.Errorf("Read() from it = %q, %v; want x", b[:n], err)
		}
	}
	s.Close()
	drivertest.Until(t, "a is free", func() bool {
		got, _ := reload("c")
		return got == "[] [] [a] []"
	})
	r.stop()
	if got, want := fmt.Sprint(h.history()), "[open a open b close b open c close a close c]"; got != want {
		t.Errorf("happened: %s; want %s", got, want)
	}
}

// An exporter ends also while a reload is stuck in a driver's opening.
func TestReloadStuck(t *testing.T) {
	h := newHarness(t)
	o := h.options()
	reloads := make(chan exporter.Reload)
	o.Reload = reloads
	h.opening = func(path string) error {
		if path == "c" {
			h.hang()
		}
		return nil
	}
	r := run(t, o)
	reloads <- exporter.Reload{Export: driver.Decl{Children: []driver.Decl{{Name: "c", Type: "fake.Device"}}}, Done: func(driver.Reloaded, driver.Problems) {}}
	drivertest.Until(t, "c is being opened", func() bool { return h.stuck.Load() == 1 })
	if took := r.stop(); took.Seconds() > 5 {
		t.Errorf("Run() ended after %v; want it not to wait for the driver", took)
	}
}

// What a reload is closing when the exporter ends is closed, though one hangs.
func TestReloadEnd(t *testing.T) {
	h := newHarness(t)
	o := h.options()
	reloads := make(chan exporter.Reload)
	o.Reload = reloads
	h.closing = func(path string) error {
		if path == "a" {
			h.hang()
		}
		return nil
	}
	r := run(t, o)
	reloads <- exporter.Reload{Done: func(driver.Reloaded, driver.Problems) {}}
	drivertest.Until(t, "a is being closed", func() bool { return h.stuck.Load() == 1 })
	r.stop()
	if got, want := fmt.Sprint(h.history()), "[open a open b close a close b]"; got != want {
		t.Errorf("happened: %s; want %s", got, want)
	}
}

// Whoever asked for a reload is told its end, also when that was a panic.
func TestReloadPanic(t *testing.T) {
	h := newHarness(t)
	o := h.options()
	reloads := make(chan exporter.Reload)
	o.Reload = reloads
	o.Driver.Mounts = func(root *driver.Decl, _ map[string]*driver.Spec) (map[*driver.Decl]driver.Spec, driver.Problems) {
		if len(root.Children) == 0 {
			panic("oops")
		}
		return nil, nil
	}
	r := run(t, o)
	defer r.stop()
	told := make(chan driver.Problems, 1)
	reloads <- exporter.Reload{Done: func(_ driver.Reloaded, p driver.Problems) { told <- p }}
	select {
	case p := <-told:
		if err := p.Err(); err == nil || !strings.Contains(err.Error(), "panic: oops") {
			t.Errorf("reload = %v; want the panic", err)
		}
	case <-soon(t).Done():
		t.Fatal("nobody was told what became of the reload")
	}
}

// Calls that meet a reload are served by what was before it, or by what is after it.
func TestReloadUnderCalls(t *testing.T) {
	h := newHarness(t)
	o := h.options()
	reloads := make(chan exporter.Reload)
	o.Reload = reloads
	r := run(t, o)
	defer r.stop()
	stop := make(chan struct{})
	var callers sync.WaitGroup
	for range 4 {
		n := find(t, r.dial(client.Options{}), "a")
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := n.Call(soon(t), "echo", 1); err != nil {
					t.Errorf("echo() during a reload = %v; want no error", err)
				}
			}
		})
	}
	changed := 0
	for i := 1; i < 300 || changed == 0 && i < 1e5; i++ {
		done := make(chan struct{})
		reloads <- exporter.Reload{Export: driver.Decl{Children: []driver.Decl{{Name: "a", Type: "fake.Device", Description: fmt.Sprint(i % 10)}}},
			Done: func(what driver.Reloaded, p driver.Problems) {
				changed += len(what.Changed)
				if err := p.Err(); err != nil {
					t.Errorf("reload = %v; want no error", err)
				}
				close(done)
			}}
		<-done
	}
	close(stop)
	callers.Wait()
	if changed == 0 {
		t.Error("no reload found the node free")
	}
}
