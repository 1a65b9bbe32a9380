// Package drivertest opens single drivers for tests, and holds the conformance
// checks that every spec must pass whatever its contract. It serves the drivers of
// other modules as it does those of this one:
//
//	func TestRelay(t *testing.T) {
//		const config = "file: /dev/null"
//		drivertest.Spec(t, Relay, config)                // what is said of it, without a device
//		drivertest.Bench{}.Lifecycle(t, config, Relay)   // opening, closing, the rows, leaks
//		c := power.NewClient(drivertest.Open(t, config, Relay))
//		if err := c.On(t.Context()); err != nil {
//			t.Errorf("On() = %v; want nil", err)
//		}
//	}
//
// A [Bench] gives it a board (see hw/hwtest for one of models), children, a log to
// look at, and [Offers], the streams that clients send beside a call. [NoLeaks]
// finds goroutines and files that stay, [Until] waits for what comes by itself.
package drivertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/hw"
	"gopkg.in/yaml.v3"
)

// Bench is what a driver under test stands on. The zero Bench has no hardware.
type Bench struct {
	Host      hw.Host
	Resources driver.Opener // with [*Offers], the callers that are opened are Offerers
	Log       *Log          // nil: records are dropped
	Specs     []driver.Spec // of children
	Children  []driver.Decl
}

// Open opens one driver from the YAML text of its config, and closes it when
// the test ends. The caller works through a full encoding and decoding.
func Open(t testing.TB, config string, spec driver.Spec) driver.Caller {
	t.Helper()
	return Bench{}.Open(t, config, spec)
}

// Open is [Open] on a bench.
func (b Bench) Open(t testing.TB, config string, spec driver.Spec) driver.Caller {
	t.Helper()
	c := b.Tree(t, config, spec).Root.Caller()
	if o, ok := b.Resources.(*Offers); ok {
		return o.Over(c)
	}
	return c
}

// Tree opens one driver as the root of a tree.
func (b Bench) Tree(t testing.TB, config string, spec driver.Spec) *driver.Tree {
	t.Helper()
	tree, problems := b.Plan(t, config, spec)
	if err := problems.Err(); err != nil {
		t.Fatalf("Plan(%s) = %v; want no error", spec.Type, err)
	}
	t.Cleanup(func() {
		if err := tree.Close(); err != nil {
			t.Errorf("Close(%s) = %v; want nil", spec.Type, err)
		}
	})
	if err := tree.Open(t.Context()); err != nil {
		t.Fatalf("Open(%s) = %v; want nil", spec.Type, err)
	}
	return tree
}

// Plan plans one driver without opening it.
func (b Bench) Plan(t testing.TB, config string, spec driver.Spec) (*driver.Tree, driver.Problems) {
	t.Helper()
	opt := driver.Options{Specs: append([]driver.Spec{spec}, b.Specs...), Host: b.Host, Resources: b.Resources}
	if b.Log != nil {
		opt.Log = slog.New(b.Log.handler())
	}
	return driver.Plan(driver.Decl{Type: spec.Type, Config: YAML(t, config), Children: b.Children}, opt)
}

// YAML parses the text of a config. Empty text is no config.
func YAML(t testing.TB, text string) *yaml.Node {
	t.Helper()
	if text == "" {
		return nil
	}
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(text), &n); err != nil {
		t.Fatalf("config: %v", err)
	}
	return driver.Resolve(&n)
}

// Log collects what a driver logs.
type Log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// String is all that was logged so far, one record a line.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *Log) handler() slog.Handler {
	return slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})
}

var pathRE = regexp.MustCompile(`^[a-z_]\w*(\.[A-Za-z_]\w*)+$`)

// Spec checks what every spec owes before anything is opened: names that resolve
// on the client's side, documented keys, and a report that needs no hardware.
// The config is a YAML text with which the driver can be planned.
func Spec(t testing.TB, spec driver.Spec, config string) {
	t.Helper()
	Bench{}.Spec(t, spec, config)
}

// Spec is [Spec] on a bench, for drivers that need children.
func (b Bench) Spec(t testing.TB, spec driver.Spec, config string) {
	t.Helper()
	if !pathRE.MatchString(spec.Type) {
		t.Errorf("Type = %q; want a dotted path", spec.Type)
	}
	if !pathRE.MatchString(spec.Contract.Client) {
		t.Errorf("%s: Client = %q; want a dotted Python path", spec.Type, spec.Contract.Client)
	}
	if spec.Doc == "" || spec.Contract.Kind == "" {
		t.Errorf("%s: Doc = %q, Kind = %q; want both", spec.Type, spec.Doc, spec.Contract.Kind)
	}
	for _, k := range spec.Keys() {
		if k.Doc == "" {
			t.Errorf("%s: key %s has no doc", spec.Type, k.Name)
		}
	}
	tree, problems := b.Plan(t, config, spec)
	if err := problems.Err(); err != nil {
		t.Fatalf("Plan(%s) = %v; want no error", spec.Type, err)
	}
	if got := tree.Reports()[0].Labels[driver.LabelClient]; got != spec.Contract.Client {
		t.Errorf("%s: report's client = %q; want %q", spec.Type, got, spec.Contract.Client)
	}
	if id := tree.Root.UUID; id == uuid.Nil {
		t.Errorf("%s: report has no UUID", spec.Type)
	}
}

// Rows checks the table of an opened driver: distinct names, a help text, named
// arguments, types that have a form on the wire, and refusal of too many and too
// few arguments before anything happens.
func Rows(t testing.TB, d driver.Driver) {
	t.Helper()
	var names []string
	for _, e := range d.Exports {
		if slices.Contains(names, e.Name()) {
			t.Errorf("row %s stands twice", e.Name())
		}
		names = append(names, e.Name())
		if e.Doc() == "" {
			t.Errorf("%s has no help text", e.Usage())
		}
		if r := e.Result(); r != nil {
			if _, err := driver.Encode(reflect.Zero(r).Interface()); err != nil {
				t.Errorf("%s: result: %v", e.Usage(), err)
			}
		}
		params := e.Params()
		least, tail := 0, false
		for i, p := range params {
			if tail = p.Tail; !p.Optional && !p.Tail {
				least = i + 1
			}
			if p.Name == fmt.Sprintf("arg%d", i+1) {
				t.Errorf("%s: argument %d has no name", e.Usage(), i+1)
			}
			for _, v := range []any{nil, 0.0, "", []any{}, map[string]any{}} {
				err := driver.Decode(reflect.New(p.Type).Interface(), v, true)
				if bad := (*driver.ArgError)(nil); err != nil && !errors.As(err, &bad) {
					t.Errorf("%s: %s: %v", e.Usage(), p.Name, err)
					break
				}
			}
		}
		if least > 0 {
			refuses(t, e, least-1)
		}
		if !tail {
			refuses(t, e, len(params)+1)
		}
	}
}

// refuses checks that a row cannot be invoked with n arguments.
func refuses(t testing.TB, e driver.Export, n int) {
	t.Helper()
	var err error
	switch e.Kind() {
	case driver.KindCall:
		_, err = e.Call(t.Context(), make([]any, n))
	case driver.KindFeed:
		_, err = e.Feed(t.Context(), make([]any, n))
	default:
		return
	}
	if bad := (*driver.ArgError)(nil); !errors.As(err, &bad) {
		t.Errorf("%s with %d arguments = %v; want an ArgError", e.Usage(), n, err)
	}
}

// Lifecycle checks what every driver owes from opening to closing: that its rows
// are sound (see [Rows]), that it can be closed twice and answers ErrUnavailable
// afterwards, that opening heeds a context that is done, and that nothing is
// left behind. The driver has to be there.
func (b Bench) Lifecycle(t *testing.T, config string, spec driver.Spec) {
	t.Helper()
	t.Run("open and close", func(t *testing.T) {
		NoLeaks(t)
		tree := b.Tree(t, config, spec)
		d, err := tree.Root.Driver(t.Context())
		if err != nil {
			t.Fatalf("Driver(%s) = %v; want it to be there", spec.Type, err)
		}
		Rows(t, d)
		for range 2 {
			if err := tree.Close(); err != nil {
				t.Errorf("Close(%s) = %v; want nil", spec.Type, err)
			}
		}
		if _, err := tree.Root.Caller().Call(t.Context(), "any"); !errors.Is(err, driver.ErrUnavailable) {
			t.Errorf("%s: a call after Close = %v; want ErrUnavailable", spec.Type, err)
		}
	})
	t.Run("open and leave", func(t *testing.T) {
		NoLeaks(t)
		tree, problems := b.Plan(t, config, spec)
		if err := problems.Err(); err != nil {
			t.Fatalf("Plan(%s) = %v; want no error", spec.Type, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		left := make(chan error, 1)
		go func() { left <- tree.Open(ctx) }()
		select {
		case err := <-left: // nil where opening has nothing to wait for
			if err != nil && driver.Classify(err) == driver.Internal {
				t.Errorf("Open(%s) with a context that is done = %v; want nil or its error", spec.Type, err)
			}
		case <-time.After(patience):
			t.Errorf("Open(%s) with a context that is done still waits after %v", spec.Type, patience)
		}
		if err := tree.Close(); err != nil {
			t.Errorf("Close(%s) = %v; want nil", spec.Type, err)
		}
	})
}

// Exchange writes to a stream and reads the same number of bytes back.
func Exchange(t testing.TB, s io.ReadWriter, text string) string {
	t.Helper()
	if _, err := io.WriteString(s, text); err != nil {
		t.Fatalf("Write(%q) = %v; want nil", text, err)
	}
	buf := make([]byte, len(text))
	if _, err := io.ReadFull(s, buf); err != nil {
		t.Fatalf("Read() = %v; want %d bytes", err, len(text))
	}
	return string(buf)
}
