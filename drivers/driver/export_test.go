package driver_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
)

// count yields 0, 1, 2 ... for ever, and never looks at its context.
func count(context.Context) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		for i := 0; yield(i, nil); i++ {
		}
	}
}

// items yields what it is given, and then the error unless that is nil.
func items[T any](err error, list ...T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, x := range list {
			if !yield(x, nil) {
				return
			}
		}
		if err != nil {
			var zero T
			yield(zero, err)
		}
	}
}

var errLate = errors.New("late")

// calls have an example of each kind of row and each number of arguments. They
// answer with their arguments, as far as they can.
var calls = []driver.Export{
	driver.Do("do", func(context.Context) error { return nil }),
	driver.Do1("do1", func(_ context.Context, a string) error { return fmt.Errorf("did %s", a) }).Args("a"),
	driver.Do2("do2", func(_ context.Context, a string, b int) error { return fmt.Errorf("did %s %d", a, b) }).Args("a", "b"),
	driver.Do3("do3", func(_ context.Context, a string, b int, c bool) error { return fmt.Errorf("did %s %d %t", a, b, c) }).Args("a", "b", "c"),
	driver.Call("call", func(context.Context) (string, error) { return "answer", nil }),
	driver.Call1("call1", func(_ context.Context, a []int) ([]int, error) { return a, nil }).Args("a"),
	driver.Call2("call2", func(_ context.Context, a, b float64) ([]float64, error) { return []float64{a, b}, nil }).Args("a", "b"),
	driver.Call3("seek", func(_ context.Context, fd string, pos int64, whence int) ([]any, error) {
		return []any{fd, pos, whence}, nil
	}).Args("fd", "pos", "whence=2").Lax(),
	driver.Call2("optional", func(_ context.Context, a *int, b *string) ([]any, error) { return []any{a, b}, nil }).Args("a", "b"),
	driver.Call2("between", func(_ context.Context, a *int, b string) ([]any, error) { return []any{a, b}, nil }).Args("a", "b"),
	driver.Call3("defaults", func(_ context.Context, a string, b time.Duration, c map[string]int) ([]any, error) {
		return []any{a, b, c}, nil
	}).Args(`a="x"`, "b=1.5", "c={n: 1}"),
	driver.Call2("zero", func(_ context.Context, a string, b []int) ([]any, error) { return []any{a, b}, nil }).Args("a=", "b=null"),
	driver.Call1("handle", func(_ context.Context, h driver.Handle) (driver.Handle, error) { return h, nil }).Args("target"),
	driver.Call1("int", func(_ context.Context, a int) (int, error) { return a, nil }),
	driver.CallTail("execute", func(_ context.Context, name string, args ...int) ([]any, error) { return []any{name, args}, nil }).Args("name", "args"),
	driver.Call("unsupported", func(context.Context) (int, error) { return 7, errors.ErrUnsupported }),
	driver.Call("nowhere", func(context.Context) (chan int, error) { return nil, nil }),
}

var feeds = []driver.Export{
	driver.Feed("feed", func(context.Context) iter.Seq2[string, error] { return items(nil, "a", "b") }),
	driver.Feed1("feed1", func(_ context.Context, a int) iter.Seq2[int, error] { return items(errLate, a) }).Args("a"),
	driver.Feed2("feed2", func(_ context.Context, a, b int) iter.Seq2[int, error] { return items(nil, a, b) }).Args("a", "b=5"),
	driver.Feed3("feed3", func(_ context.Context, a, b, c int) iter.Seq2[int, error] { return items(nil, a, b, c) }).Args("a", "b", "c"),
	driver.FeedTail("tail", func(_ context.Context, method string, env map[string]string, args ...string) iter.Seq2[any, error] {
		return items[any](nil, method, env, args)
	}).Args("method", "env", "args"),
	driver.Feed("nowhere", func(context.Context) iter.Seq2[chan int, error] { return items[chan int](nil, nil, nil) }),
	driver.Feed("count", count),
}

func row(t *testing.T, rows []driver.Export, name string) driver.Export {
	t.Helper()
	e, ok := driver.Driver{Exports: rows}.Export(name)
	if !ok {
		t.Fatalf("Export(%q) = _, false; want a row", name)
	}
	return e
}

// badArg is a wanted [driver.ArgError].
type badArg string

func (e badArg) Error() string { return string(e) }

// failed compares errors: by text and, where an ArgError is wanted, by type.
func failed(err, want error) bool {
	if want == nil || err == nil {
		return err == want
	}
	var arg *driver.ArgError
	_, wantArg := want.(badArg)
	return err.Error() == want.Error() && errors.As(err, &arg) == wantArg
}

func TestCall(t *testing.T) {
	handle := map[string]any{"kind": "x"}
	tests := []struct {
		row  string
		args []any
		want any
		err  error
	}{
		{"do", nil, nil, nil},
		{"do", []any{}, nil, nil},
		{"do", []any{nil}, nil, badArg("do(): arguments given: 1")},
		{"do1", []any{"x"}, nil, errors.New("did x")},
		{"do1", nil, nil, badArg("do1(a): arguments given: 0")},
		{"do1", []any{"x", nil}, nil, badArg("do1(a): arguments given: 2")},
		{"do1", []any{1.0}, nil, badArg("a: wants text, got 1")},
		{"do2", []any{"x", 2.0}, nil, errors.New("did x 2")},
		{"do2", []any{"x", "2"}, nil, badArg(`b: wants an integer, got "2"`)},
		{"do3", []any{"x", 2.0, true}, nil, errors.New("did x 2 true")},
		{"do3", []any{"x", 2.0, 1.0}, nil, badArg("c: wants true or false, got 1")},
		{"do3", []any{"x", 2.0}, nil, badArg("do3(a, b, c): arguments given: 2")},
		{"call", nil, "answer", nil},
		{"call1", []any{[]any{1.0, 2.0}}, []any{1.0, 2.0}, nil},
		{"call1", []any{[]any{1.0, 2.5}}, nil, badArg("a[1]: wants an integer, got 2.5")},
		{"call1", []any{nil}, nil, badArg("a: wants a list, got null")},
		{"call2", []any{1.0, 2.0}, []any{1.0, 2.0}, nil},
		{"call2", []any{1.0, nil}, nil, badArg("b: wants a number, got null")},
		{"seek", []any{"f", 1.0, 0.0}, []any{"f", 1.0, 0.0}, nil},
		{"seek", []any{"f", 1.0, nil}, []any{"f", 1.0, 2.0}, nil},
		{"seek", []any{"f", 1.0}, []any{"f", 1.0, 2.0}, nil},
		{"seek", []any{"f", "1", "0"}, []any{"f", 1.0, 0.0}, nil},
		{"seek", []any{"f", true}, []any{"f", 1.0, 2.0}, nil},
		{"seek", []any{"f", 1.5}, nil, badArg("pos: wants an integer, got 1.5")},
		{"seek", []any{1.0, 1.0}, nil, badArg("fd: wants text, got 1")},
		{"seek", []any{"f"}, nil, badArg("seek(fd, pos, whence=2): arguments given: 1")},
		{"seek", []any{"f", 1.0, 0.0, 0.0}, nil, badArg("seek(fd, pos, whence=2): arguments given: 4")},
		{"optional", nil, []any{nil, nil}, nil},
		{"optional", []any{1.0}, []any{1.0, nil}, nil},
		{"optional", []any{nil, "b"}, []any{nil, "b"}, nil},
		{"optional", []any{"1", "b"}, nil, badArg(`a: wants an integer, got "1"`)},
		{"between", []any{nil, "b"}, []any{nil, "b"}, nil},
		{"between", []any{1.0}, nil, badArg("between(a=null, b): arguments given: 1")},
		{"defaults", nil, []any{"x", 1.5, map[string]any{"n": 1.0}}, nil},
		{"defaults", []any{nil, nil, nil}, []any{"x", 1.5, map[string]any{"n": 1.0}}, nil},
		{"defaults", []any{"y", 0.0, map[string]any{}}, []any{"y", 0.0, map[string]any{}}, nil},
		{"zero", nil, []any{"", []any{}}, nil},
		{"handle", []any{handle}, handle, nil},
		{"handle", []any{"x"}, nil, badArg(`target: wants the handle of a stream, got "x"`)},
		{"handle", []any{nil}, nil, badArg("target: wants the handle of a stream, got null")},
		{"int", []any{1.0}, 1.0, nil},
		{"int", []any{-9007199254740992.0}, -9007199254740992.0, nil},
		{"int", []any{9223372036854775808.0}, nil, badArg("arg1: 9223372036854776000 is out of range for int")},
		{"execute", []any{"x"}, []any{"x", []any{}}, nil},
		{"execute", []any{"x", 1.0, 2.0, 3.0}, []any{"x", []any{1.0, 2.0, 3.0}}, nil},
		{"execute", nil, nil, badArg("execute(name, *args): arguments given: 0")},
		{"execute", []any{1.0}, nil, badArg("name: wants text, got 1")},
		{"execute", []any{"x", 1.0, "2"}, nil, badArg(`args[1]: wants an integer, got "2"`)},
		{"unsupported", nil, nil, errors.ErrUnsupported},
		{"nowhere", nil, nil, errors.New("encode: chan int has no form on the wire")},
	}
	for _, test := range tests {
		got, err := row(t, calls, test.row).Call(t.Context(), test.args)
		if !failed(err, test.err) || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s%v = %v, %v; want %v, %v", test.row, test.args, got, err, test.want, test.err)
		}
	}
}

func collect(seq iter.Seq2[any, error]) (list []any, err error) {
	for v, err := range seq {
		if err != nil {
			return list, err
		}
		list = append(list, v)
	}
	return list, nil
}

func TestFeed(t *testing.T) {
	env := map[string]any{"A": "b"}
	tests := []struct {
		row   string
		args  []any
		want  []any
		early error // before the sequence
		late  error // in it
	}{
		{row: "feed", want: []any{"a", "b"}},
		{row: "feed", args: []any{1.0}, early: badArg("feed(): arguments given: 1")},
		{row: "feed1", args: []any{1.0}, want: []any{1.0}, late: errLate},
		{row: "feed1", args: []any{"1"}, early: badArg(`a: wants an integer, got "1"`)},
		{row: "feed2", args: []any{1.0}, want: []any{1.0, 5.0}},
		{row: "feed2", args: []any{1.0, 1.5}, early: badArg("b: wants an integer, got 1.5")},
		{row: "feed3", args: []any{1.0, 2.0, 3.0}, want: []any{1.0, 2.0, 3.0}},
		{row: "feed3", args: []any{1.0, 2.0, true}, early: badArg("c: wants an integer, got true")},
		{row: "tail", args: []any{"m", env}, want: []any{"m", env, []any{}}},
		{row: "tail", args: []any{"m", env, "x", "y", "z"}, want: []any{"m", env, []any{"x", "y", "z"}}},
		{row: "tail", args: []any{"m", env, "x", 1.0}, early: badArg("args[1]: wants text, got 1")},
		{row: "tail", args: []any{"m", map[string]any{"A": 1.0}}, early: badArg("env.A: wants text, got 1")},
		{row: "tail", args: []any{"m"}, early: badArg("tail(method, env, *args): arguments given: 1")},
		{row: "nowhere", late: errors.New("encode: chan int has no form on the wire")},
	}
	for _, test := range tests {
		seq, err := row(t, feeds, test.row).Feed(t.Context(), test.args)
		if !failed(err, test.early) {
			t.Errorf("%s%v = _, %v; want error %v", test.row, test.args, err, test.early)
		}
		if err != nil {
			continue
		}
		got, err := collect(seq)
		if !failed(err, test.late) || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s%v = %v, %v; want %v, %v", test.row, test.args, got, err, test.want, test.late)
		}
	}
}

func TestFeedEnds(t *testing.T) {
	for _, how := range []string{"consumer stops", "context ends"} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := false
		e := driver.Feed("count", func(ctx context.Context) iter.Seq2[int, error] {
			return func(yield func(int, error) bool) {
				count(ctx)(yield)
				ended = true
			}
		})
		seq, err := e.Feed(ctx, nil)
		if err != nil {
			t.Fatalf("Feed() = %v; want no error", err)
		}
		n, last := 0, error(nil)
		for _, err := range seq {
			if last = err; err != nil {
				continue // the sequence itself has to end
			}
			if n++; n == 3 && how == "consumer stops" {
				break
			} else if n == 3 {
				cancel()
			}
		}
		want := map[string]error{"context ends": context.Canceled}[how]
		if n != 3 || last != want || !ended {
			t.Errorf("%s: %d items, last error %v, ended %t; want 3, %v, true", how, n, last, ended, want)
		}
	}
}

func TestStream(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	refused := errors.New("refused")
	open := func(s *net.TCPConn, err error) func(context.Context) (*net.TCPConn, error) {
		return func(context.Context) (*net.TCPConn, error) { return s, err }
	}
	tests := []struct {
		row  driver.Export
		want io.ReadWriteCloser
		err  error
	}{
		{driver.Stream("connect", func(context.Context) (net.Conn, error) { return a, nil }), a, nil},
		{driver.Stream("connect", func(context.Context) (net.Conn, error) { return a, refused }), nil, refused},
		{driver.Stream("connect", open(nil, refused)), nil, refused},
		{driver.Stream("connect", open(nil, nil)), nil, errors.New("connect: the driver opened no stream, and gave no reason")},
		{driver.Stream("connect", func(context.Context) (net.Conn, error) { return nil, nil }), nil,
			errors.New("connect: the driver opened no stream, and gave no reason")},
	}
	for i, test := range tests {
		got, err := test.row.Stream(t.Context())
		if got != test.want || !failed(err, test.err) {
			t.Errorf("row %d: Stream() = %v, %v; want %v, %v", i, got, err, test.want, test.err)
		}
	}
}

// A row answers only in its own way.
func TestKinds(t *testing.T) {
	rows := []driver.Export{
		driver.Do("row", func(context.Context) error { return nil }),
		driver.Feed("row", count),
		driver.Stream("row", func(context.Context) (net.Conn, error) { a, _ := net.Pipe(); return a, nil }),
	}
	for i, e := range rows {
		_, call := e.Call(t.Context(), nil)
		_, feed := e.Feed(t.Context(), nil)
		_, stream := e.Stream(t.Context())
		for j, err := range []error{call, feed, stream} {
			if (i == j) != (err == nil) || i != j && (!errors.Is(err, driver.ErrNoMethod) || err.Error() != "row is a "+e.Kind().String()+": no such method") {
				t.Errorf("%s row asked as a %s = %v; want an error: %t", e.Kind(), driver.Kind(j), err, i != j)
			}
		}
	}
}

func TestUsage(t *testing.T) {
	for _, test := range []struct {
		rows       []driver.Export
		name, want string
	}{
		{calls, "do", "do()"},
		{calls, "do3", "do3(a, b, c)"},
		{calls, "seek", "seek(fd, pos, whence=2)"},
		{calls, "optional", "optional(a=null, b=null)"},
		{calls, "defaults", `defaults(a="x", b=1.5, c={"n":1})`},
		{calls, "zero", "zero(a=null, b=null)"},
		{calls, "int", "int(arg1)"},
		{calls, "execute", "execute(name, *args)"},
		{feeds, "tail", "tail(method, env, *args)"},
	} {
		if got := row(t, test.rows, test.name).Usage(); got != test.want {
			t.Errorf("Usage() = %s; want %s", got, test.want)
		}
	}
}

func TestDescription(t *testing.T) {
	e := row(t, calls, "seek").Help("Move")
	if e.Name() != "seek" || e.Doc() != "Move" || e.Kind() != driver.KindCall || e.Result() != reflect.TypeFor[[]any]() {
		t.Errorf("row = %s %q %s %v; want seek, Move, call, []any", e.Name(), e.Doc(), e.Kind(), e.Result())
	}
	want := []driver.Param{
		{Name: "fd", Type: reflect.TypeFor[string]()},
		{Name: "pos", Type: reflect.TypeFor[int64]()},
		{Name: "whence", Type: reflect.TypeFor[int](), Optional: true, Default: 2.0},
	}
	if got := e.Params(); !slices.Equal(got, want) {
		t.Errorf("Params() = %v; want %v", got, want)
	}
	if got := row(t, feeds, "tail").Params()[2]; !got.Tail || got.Optional || got.Type != reflect.TypeFor[string]() {
		t.Errorf("Params()[2] = %+v; want a tail of text", got)
	}
	for _, name := range []string{"do", "do1", "do2", "do3"} {
		if got := row(t, calls, name).Result(); got != nil {
			t.Errorf("Result(%s) = %v; want nil", name, got)
		}
	}
	for kind, want := range map[driver.Kind]string{driver.KindCall: "call", driver.KindFeed: "feed", driver.KindStream: "stream"} {
		if got := kind.String(); got != want {
			t.Errorf("Kind.String() = %s; want %s", got, want)
		}
	}
	if got := row(t, calls, "seek").Doc(); got != "" {
		t.Errorf("Doc() of the row that Help copied = %q; want none", got)
	}
}

// Mistakes in a table show as soon as it is built.
func TestArgsPanics(t *testing.T) {
	e := row(t, calls, "do2")
	for _, test := range []struct {
		names []string
		want  string
	}{
		{[]string{"a"}, "driver: do2 takes 2 arguments, 1 are named"},
		{[]string{"a", "b", "c"}, "driver: do2 takes 2 arguments, 3 are named"},
		{[]string{"a", "b=x"}, `driver: do2: default of b: wants an integer, got "x"`},
		{[]string{"a", "b=[1"}, "driver: do2: default of b: yaml: line 1: did not find expected ',' or ']'"},
		{[]string{"a", "b={1: 2}"}, "driver: do2: default of b: encode: a map needs string keys, not interface {}"},
	} {
		func() {
			defer func() {
				if got := recover(); got != test.want {
					t.Errorf("Args(%q) panics with %v; want %s", test.names, got, test.want)
				}
			}()
			e.Args(test.names...)
		}()
	}
}
