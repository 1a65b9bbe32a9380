package drivertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
)

type config struct {
	Port int `yaml:"port" doc:"where"`
}

func good(open func() (driver.Driver, error)) driver.Spec {
	return driver.Define(driver.Spec{Type: "my_pkg.driver.Thing2", Doc: "a thing",
		Contract: driver.Contract{Name: "thing", Client: "my_pkg.client.Thing", Kind: "thing"},
	}, func(context.Context, *driver.Env, config) (driver.Driver, error) { return open() })
}

func TestSpec(t *testing.T) {
	spec := good(nil)
	Spec(t, spec, "port: 1")
	for _, test := range []struct {
		spoil func(*driver.Spec)
		want  string
	}{
		{func(s *driver.Spec) { s.Type = "Thing" }, `Type = "Thing"; want a dotted path`},
		{func(s *driver.Spec) { s.Contract.Client = "" }, `Client = ""; want a dotted Python path`},
		{func(s *driver.Spec) { s.Doc = "" }, `Doc = "", Kind = "thing"; want both`},
		{func(s *driver.Spec) { s.Contract.Kind = "" }, `Doc = "a thing", Kind = ""; want both`},
		{func(s *driver.Spec) {
			*s = driver.Define(*s, func(context.Context, *driver.Env, struct {
				Port int `yaml:"port"`
			}) (driver.Driver, error) {
				return driver.Driver{}, nil
			})
		}, "key port has no doc"},
	} {
		bad := spec
		test.spoil(&bad)
		r := &recorder{TB: t}
		Spec(r, bad, "port: 1")
		if got := strings.Join(r.failures, "\n"); !strings.Contains(got, test.want) || len(r.failures) != 1 {
			t.Errorf("Spec() fails with %q; want %s", got, test.want)
		}
	}
}

func TestRows(t *testing.T) {
	done := func() error { return nil }
	sound := []driver.Export{
		driver.Do("on", func(context.Context) error { return errors.New("done") }).Help("h"),
		driver.Call3("seek", func(context.Context, string, int, int) (int, error) { return 0, errors.New("done") }).Args("fd", "pos", "whence=0").Help("h"),
		driver.Call1("get", func(context.Context, *string) (any, error) { return nil, errors.New("done") }).Args("name").Help("h"),
		driver.FeedTail("run", func(context.Context, string, any, ...string) iter.Seq2[[]any, error] { panic("done") }).Args("m", "env", "args").Help("h"),
		driver.Stream("connect", func(context.Context) (net.Conn, error) { return nil, errors.New("done") }).Help("h"),
	}
	Rows(t, driver.Driver{Exports: sound})
	for _, test := range []struct {
		rows []driver.Export
		want string
	}{
		{[]driver.Export{sound[0], sound[0]}, "row on stands twice"},
		{[]driver.Export{driver.Do("on", func(context.Context) error { return done() })}, "on() has no help text"},
		{[]driver.Export{driver.Do1("set", func(context.Context, int) error { return done() }).Help("h")}, "set(arg1): argument 1 has no name"},
		{[]driver.Export{driver.Do1("set", func(context.Context, []byte) error { return done() }).Args("b").Help("h")},
			"set(b): b: decode: []uint8 travels only as driver.Base64"},
		{[]driver.Export{driver.Call("get", func(context.Context) ([]byte, error) { return nil, done() }).Help("h")},
			"get(): result: encode: []uint8 travels only as driver.Base64"},
	} {
		r := &recorder{TB: t}
		Rows(r, driver.Driver{Exports: test.rows})
		if got := strings.Join(r.failures, "\n"); got != test.want {
			t.Errorf("Rows() fails with %q; want %s", got, test.want)
		}
	}
}

type impl struct{ io.Closer }

func TestLifecycle(t *testing.T) {
	Bench{}.Lifecycle(t, "port: 1", good(func() (driver.Driver, error) {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return driver.Driver{}, err
		}
		return driver.Driver{Impl: impl{f}, Exports: []driver.Export{
			driver.Do("on", func(context.Context) error { return nil }).Help("h"),
		}}, nil
	}))
}

func TestExchange(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	go func() {
		defer far.Close()
		_, _ = io.CopyBuffer(struct{ io.Writer }{far}, far, make([]byte, 8))
	}()
	if got := Exchange(t, near, "hello"); got != "hello" {
		t.Errorf("Exchange(hello) = %q; want hello", got)
	}
}

func TestLog(t *testing.T) {
	log := &Log{}
	b := Bench{Log: log}
	spec := driver.Define(driver.Spec{Type: "t.T", Contract: driver.Contract{Kind: "thing"}},
		func(_ context.Context, env *driver.Env, _ struct{}) (driver.Driver, error) {
			env.Log.Debug("hidden")
			env.Log.Info("hello", "n", 1)
			return driver.Driver{}, nil
		})
	b.Tree(t, "", spec)
	if got, want := log.String(), "msg=hello driver=root driver_type=thing n=1\n"; !strings.HasSuffix(got, want) || strings.Contains(got, "hidden") {
		t.Errorf("String() = %q; want one record ending in %q", got, want)
	}
	fmt.Fprint(log, "more")
	if got := log.String(); !strings.HasSuffix(got, "more") {
		t.Errorf("String() = %q; want more at its end", got)
	}
}
