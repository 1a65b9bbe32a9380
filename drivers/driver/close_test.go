package driver_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
)

// ender is a driver that closes, or resets, as it is told.
type ender struct {
	close func() error
	reset func()
}

func (c ender) Close() error { return c.close() }
func (c ender) Reset(context.Context) error {
	c.reset()
	return nil
}

// enders opens nodes a, b and c, of which b has the given driver.
func enders(t *testing.T, b ender) (tree *driver.Tree, did func() string) {
	t.Helper()
	var what []string
	plain := func(name string) ender {
		return ender{
			close: func() error { what = append(what, "close "+name); return nil },
			reset: func() { what = append(what, "reset "+name) },
		}
	}
	spec := func(typ string, c ender) driver.Spec {
		return driver.Define(driver.Spec{Type: typ}, func(context.Context, *driver.Env, struct{}) (driver.Driver, error) {
			return driver.Driver{Impl: c}, nil
		})
	}
	group := driver.Define(driver.Spec{Type: "t.Group", Role: driver.Group}, func(context.Context, *driver.Env, struct{}) (driver.Driver, error) {
		return driver.Driver{}, nil
	})
	tree, problems := driver.Plan(driver.Decl{Children: []driver.Decl{
		{Name: "a", Type: "t.A"}, {Name: "b", Type: "t.B"}, {Name: "c", Type: "t.C"},
	}}, driver.Options{Specs: []driver.Spec{group, spec("t.A", plain("a")), spec("t.B", b), spec("t.C", plain("c"))}})
	if err := problems.Err(); err != nil {
		t.Fatalf("Plan() = %v; want no error", err)
	}
	if err := tree.Open(t.Context()); err != nil {
		t.Fatalf("Open() = %v; want nil", err)
	}
	return tree, func() string { return strings.Join(what, ", ") }
}

// A relay is let go whatever else is stuck.
func TestCloseStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		tree, did := enders(t, ender{close: func() error { <-free; return nil }})
		closed := make(chan error, 1)
		go func() { closed <- tree.Close() }()
		<-time.After(time.Second) // of the bubble: every time-out has passed
		synctest.Wait()
		if got, want := did(), "close a, close c"; got != want {
			t.Errorf("Close() did %q while b was stuck; want %q", got, want)
		}
		select {
		case err := <-closed:
			t.Errorf("Close() = %v while b was stuck; want it to wait", err)
		default:
		}
		close(free)
		if err := <-closed; err != nil {
			t.Errorf("Close() = %v; want nil", err)
		}
	})
}

func TestPanics(t *testing.T) {
	tree, did := enders(t, ender{close: func() error { panic("oops") }, reset: func() { panic("ouch") }})
	if err := tree.Reset(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "b: reset: panic: ouch\n") {
		t.Errorf("Reset() = %v; want b's panic", err)
	}
	if err := tree.Close(); err == nil || !strings.HasPrefix(err.Error(), "b: close: panic: oops\n") {
		t.Errorf("Close() = %v; want b's panic", err)
	}
	if got, want := did(), "reset a, reset c, close a, close c"; got != want {
		t.Errorf("Reset and Close did %q; want %q", got, want)
	}
}
