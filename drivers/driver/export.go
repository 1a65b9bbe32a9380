package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"reflect"
	"strings"

	"gopkg.in/yaml.v3"
)

// Kind says how a row answers.
type Kind uint8

const (
	KindCall   Kind = iota // one answer
	KindFeed               // a sequence of answers
	KindStream             // a byte stream
)

func (k Kind) String() string {
	return [...]string{"call", "feed", "stream"}[k]
}

// Param describes one argument of a row, for help, schemas and errors.
type Param struct {
	Name     string
	Type     reflect.Type
	Optional bool // may be left out, or be null
	Default  any  // what a left-out argument counts as
	Tail     bool // takes all the arguments that are left
}

// Export is one row of a driver's table: a name on the wire and the function
// behind it. Rows are made by [Do], [Call], [Feed] and [Stream] and refined by
// the methods below; they are values and can be copied.
type Export struct {
	name   string
	doc    string
	kind   Kind
	lax    bool
	params []Param
	result reflect.Type
	call   func(context.Context, args) (any, error)
	feed   func(context.Context, args) (iter.Seq2[any, error], error)
	open   func(context.Context) (io.ReadWriteCloser, error)
}

func (e Export) Name() string         { return e.name }
func (e Export) Kind() Kind           { return e.kind }
func (e Export) Doc() string          { return e.doc }
func (e Export) Params() []Param      { return e.params }
func (e Export) Result() reflect.Type { return e.result } // nil when the answer is always null

// Lax makes the row accept what the Python exporter's validated methods accept:
// "3" for 3, 1 for true.
func (e Export) Lax() Export { e.lax = true; return e }

// Help sets the one-line description of the row.
func (e Export) Help(doc string) Export { e.doc = doc; return e }

// Args names the arguments, in order. "name=value" gives the value, written in
// YAML, that a left-out argument counts as; "name=null" is the zero value. It
// panics when there are more or fewer names than arguments, or a default does
// not fit: a mistake in the table, found by any test that builds it.
func (e Export) Args(names ...string) Export {
	if len(names) != len(e.params) {
		panic(fmt.Sprintf("driver: %s takes %d arguments, %d are named", e.name, len(e.params), len(names)))
	}
	params := make([]Param, len(names))
	for i, n := range names {
		params[i] = e.params[i]
		name, def, has := strings.Cut(n, "=")
		params[i].Name = name
		if has {
			var v any
			if err := yaml.Unmarshal([]byte(def), &v); err != nil {
				panic(fmt.Sprintf("driver: %s: default of %s: %v", e.name, name, err))
			}
			v, err := Encode(v)
			if err == nil && v != nil {
				err = decode(reflect.New(params[i].Type).Elem(), v, "", false, 0)
			}
			if err != nil {
				panic(fmt.Sprintf("driver: %s: default of %s: %v", e.name, name, err))
			}
			params[i].Default, params[i].Optional = v, true
		}
	}
	e.params = params
	return e
}

// Usage is the row as a signature: "file_seek(fd, pos, whence=0)".
func (e Export) Usage() string {
	var b strings.Builder
	b.WriteString(e.name + "(")
	for i, p := range e.params {
		if i > 0 {
			b.WriteString(", ")
		}
		if p.Tail {
			b.WriteString("*")
		}
		b.WriteString(p.Name)
		switch {
		case p.Default != nil:
			text, _ := json.Marshal(p.Default)
			b.WriteString("=" + string(text))
		case p.Optional:
			b.WriteString("=null")
		}
	}
	return b.String() + ")"
}

// Call invokes a [KindCall] row. The arguments and the result are JSON-shaped.
func (e Export) Call(ctx context.Context, values []any) (any, error) {
	if e.kind != KindCall {
		return nil, fmt.Errorf("%s is a %s: %w", e.name, e.kind, ErrNoMethod)
	}
	a, err := e.bind(values)
	if err != nil {
		return nil, err
	}
	return e.call(ctx, a)
}

// Feed invokes a [KindFeed] row. An argument that cannot be used is reported
// before the sequence starts.
func (e Export) Feed(ctx context.Context, values []any) (iter.Seq2[any, error], error) {
	if e.kind != KindFeed {
		return nil, fmt.Errorf("%s is a %s: %w", e.name, e.kind, ErrNoMethod)
	}
	a, err := e.bind(values)
	if err != nil {
		return nil, err
	}
	return e.feed(ctx, a)
}

// Stream opens a [KindStream] row. The context bounds the opening only; closing
// the stream ends it.
func (e Export) Stream(ctx context.Context) (io.ReadWriteCloser, error) {
	if e.kind != KindStream {
		return nil, fmt.Errorf("%s is a %s: %w", e.name, e.kind, ErrNoMethod)
	}
	return e.open(ctx)
}

// args are the arguments of one call, counted but not yet decoded.
type args struct {
	params []Param
	values []any
	lax    bool
}

func (e *Export) bind(values []any) (args, error) {
	least, most := 0, len(e.params)
	for i, p := range e.params {
		if !p.Optional && !p.Tail {
			least = i + 1
		}
	}
	if most > 0 && e.params[most-1].Tail {
		most = len(values)
	}
	if len(values) < least || len(values) > most {
		return args{}, BadArg("", "%s: arguments given: %d", e.Usage(), len(values))
	}
	return args{e.params, values, e.lax}, nil
}

// arg decodes argument i. An optional argument that is missing or null takes
// its default.
func arg[A any](in args, i int) (v A, err error) {
	p := &in.params[i]
	var src any
	if i < len(in.values) {
		src = in.values[i]
	}
	if src == nil && p.Optional {
		if src = p.Default; src == nil {
			return v, nil
		}
	}
	if v, ok := quick[A](src); ok {
		return v, nil
	}
	return reflected[A](src, p.Name, in.lax)
}

// quick decodes the common types without reflection.
func quick[A any](src any) (v A, ok bool) {
	switch dst := any(&v).(type) {
	case *string:
		*dst, ok = src.(string)
	case *bool:
		*dst, ok = src.(bool)
	case *float64:
		*dst, ok = src.(float64)
		ok = ok && *dst-*dst == 0 // neither NaN nor infinite
	case *int:
		var f float64
		if f, ok = src.(float64); ok && f > -1<<53 && f < 1<<53 {
			*dst = int(f)
			ok = float64(*dst) == f
		} else {
			ok = false
		}
	}
	return v, ok
}

// reflected decodes any type. It stands apart from [quick] because reflection
// moves what it fills to the heap.
func reflected[A any](src any, at string, lax bool) (v A, err error) {
	err = decode(reflect.ValueOf(&v).Elem(), src, at, lax, 0)
	return v, err
}

func tail[A any](in args, i int) ([]A, error) {
	if len(in.values) <= i {
		return nil, nil
	}
	out := make([]A, len(in.values)-i)
	for j, src := range in.values[i:] {
		var ok bool
		if out[j], ok = quick[A](src); ok {
			continue
		}
		at := fmt.Sprintf("%s[%d]", in.params[i].Name, j)
		if err := decode(reflect.ValueOf(&out[j]).Elem(), src, at, in.lax, 0); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func param[A any](i int) Param {
	t := reflect.TypeFor[A]()
	return Param{Name: fmt.Sprintf("arg%d", i+1), Type: t, Optional: t.Kind() == reflect.Pointer}
}

// Do is a row that answers null.
func Do(name string, f func(context.Context) error) Export {
	return Export{name: name, call: func(ctx context.Context, _ args) (any, error) {
		return nil, f(ctx)
	}}
}

// Do1 is [Do] with one argument.
func Do1[A any](name string, f func(context.Context, A) error) Export {
	return Export{name: name, params: []Param{param[A](0)}, call: func(ctx context.Context, in args) (any, error) {
		a, err := arg[A](in, 0)
		if err != nil {
			return nil, err
		}
		return nil, f(ctx, a)
	}}
}

// Do2 is [Do] with two arguments.
func Do2[A, B any](name string, f func(context.Context, A, B) error) Export {
	e := Call2(name, func(ctx context.Context, a A, b B) (any, error) { return nil, f(ctx, a, b) })
	e.result = nil
	return e
}

// Do3 is [Do] with three arguments.
func Do3[A, B, C any](name string, f func(context.Context, A, B, C) error) Export {
	e := Call3(name, func(ctx context.Context, a A, b B, c C) (any, error) { return nil, f(ctx, a, b, c) })
	e.result = nil
	return e
}

// Call is a row that answers one value.
func Call[R any](name string, f func(context.Context) (R, error)) Export {
	return Export{name: name, result: reflect.TypeFor[R](), call: func(ctx context.Context, _ args) (any, error) {
		return answer(f(ctx))
	}}
}

// Call1 is [Call] with one argument.
func Call1[A, R any](name string, f func(context.Context, A) (R, error)) Export {
	return Export{name: name, result: reflect.TypeFor[R](), params: []Param{param[A](0)},
		call: func(ctx context.Context, in args) (any, error) {
			a, err := arg[A](in, 0)
			if err != nil {
				return nil, err
			}
			return answer(f(ctx, a))
		}}
}

// Call2 is [Call] with two arguments.
func Call2[A, B, R any](name string, f func(context.Context, A, B) (R, error)) Export {
	return Export{name: name, result: reflect.TypeFor[R](), params: []Param{param[A](0), param[B](1)},
		call: func(ctx context.Context, in args) (any, error) {
			a, b, err := args2[A, B](in)
			if err != nil {
				return nil, err
			}
			return answer(f(ctx, a, b))
		}}
}

// Call3 is [Call] with three arguments.
func Call3[A, B, C, R any](name string, f func(context.Context, A, B, C) (R, error)) Export {
	return Export{name: name, result: reflect.TypeFor[R](), params: []Param{param[A](0), param[B](1), param[C](2)},
		call: func(ctx context.Context, in args) (any, error) {
			a, b, c, err := args3[A, B, C](in)
			if err != nil {
				return nil, err
			}
			return answer(f(ctx, a, b, c))
		}}
}

// CallTail is a [Call] with one argument and any number of further ones of one
// type, as in execute(command, *args).
func CallTail[A, T, R any](name string, f func(context.Context, A, ...T) (R, error)) Export {
	last := param[T](1)
	last.Tail = true
	return Export{name: name, result: reflect.TypeFor[R](), params: []Param{param[A](0), last},
		call: func(ctx context.Context, in args) (any, error) {
			a, err := arg[A](in, 0)
			if err != nil {
				return nil, err
			}
			rest, err := tail[T](in, 1)
			if err != nil {
				return nil, err
			}
			return answer(f(ctx, a, rest...))
		}}
}

// Feed is a row that answers with a sequence. When the caller goes away the
// context is done, and the next yield returns false: a sequence that waits must
// watch the context, one that only computes need not.
func Feed[R any](name string, f func(context.Context) iter.Seq2[R, error]) Export {
	return Export{name: name, kind: KindFeed, result: reflect.TypeFor[R](),
		feed: func(ctx context.Context, _ args) (iter.Seq2[any, error], error) {
			return answers(ctx, f(ctx)), nil
		}}
}

// Feed1 is [Feed] with one argument.
func Feed1[A, R any](name string, f func(context.Context, A) iter.Seq2[R, error]) Export {
	return Export{name: name, kind: KindFeed, result: reflect.TypeFor[R](), params: []Param{param[A](0)},
		feed: func(ctx context.Context, in args) (iter.Seq2[any, error], error) {
			a, err := arg[A](in, 0)
			if err != nil {
				return nil, err
			}
			return answers(ctx, f(ctx, a)), nil
		}}
}

// Feed2 is [Feed] with two arguments.
func Feed2[A, B, R any](name string, f func(context.Context, A, B) iter.Seq2[R, error]) Export {
	return Export{name: name, kind: KindFeed, result: reflect.TypeFor[R](), params: []Param{param[A](0), param[B](1)},
		feed: func(ctx context.Context, in args) (iter.Seq2[any, error], error) {
			a, b, err := args2[A, B](in)
			if err != nil {
				return nil, err
			}
			return answers(ctx, f(ctx, a, b)), nil
		}}
}

// Feed3 is [Feed] with three arguments.
func Feed3[A, B, C, R any](name string, f func(context.Context, A, B, C) iter.Seq2[R, error]) Export {
	return Export{name: name, kind: KindFeed, result: reflect.TypeFor[R](), params: []Param{param[A](0), param[B](1), param[C](2)},
		feed: func(ctx context.Context, in args) (iter.Seq2[any, error], error) {
			a, b, c, err := args3[A, B, C](in)
			if err != nil {
				return nil, err
			}
			return answers(ctx, f(ctx, a, b, c)), nil
		}}
}

// FeedTail is a [Feed] with two arguments and any number of further ones of one
// type, as in call_method(method, env, *args).
func FeedTail[A, B, T, R any](name string, f func(context.Context, A, B, ...T) iter.Seq2[R, error]) Export {
	last := param[T](2)
	last.Tail = true
	return Export{name: name, kind: KindFeed, result: reflect.TypeFor[R](), params: []Param{param[A](0), param[B](1), last},
		feed: func(ctx context.Context, in args) (iter.Seq2[any, error], error) {
			a, b, err := args2[A, B](in)
			if err != nil {
				return nil, err
			}
			rest, err := tail[T](in, 2)
			if err != nil {
				return nil, err
			}
			return answers(ctx, f(ctx, a, b, rest...)), nil
		}}
}

// Stream is a row that hands out a byte stream. Two things about a stream are
// found by assertion: CloseWrite() error closes the sending half and leaves the
// receiving one open; [PacketStream] keeps the boundaries of what is written.
func Stream[S io.ReadWriteCloser](name string, f func(context.Context) (S, error)) Export {
	return Export{name: name, kind: KindStream, open: func(ctx context.Context) (io.ReadWriteCloser, error) {
		s, err := f(ctx)
		if err != nil { // never a typed nil
			return nil, err
		}
		if v := reflect.ValueOf(s); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
			return nil, errors.New(name + ": the driver opened no stream, and gave no reason")
		}
		return s, nil
	}}
}

// PacketStream is a stream of packets: each Read yields one packet whole, empty
// ones included, each Write sends one. The method only marks the type.
type PacketStream interface {
	io.ReadWriteCloser
	PacketStream()
}

// PacketReader is a [PacketStream] whose packets may be large: who carries them
// on asks for one at a time, in memory that is then the caller's, instead of
// keeping a buffer for the largest. Read and ReadPacket are not mixed.
type PacketReader interface {
	PacketStream
	ReadPacket() ([]byte, error)
}

func args2[A, B any](in args) (a A, b B, err error) {
	if a, err = arg[A](in, 0); err == nil {
		b, err = arg[B](in, 1)
	}
	return a, b, err
}

func args3[A, B, C any](in args) (a A, b B, c C, err error) {
	if a, b, err = args2[A, B](in); err == nil {
		c, err = arg[C](in, 2)
	}
	return a, b, c, err
}

func answer[R any](r R, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return Encode(r)
}

func answers[R any](ctx context.Context, seq iter.Seq2[R, error]) iter.Seq2[any, error] {
	return func(yield func(any, error) bool) {
		for r, err := range seq {
			if err == nil {
				err = ctx.Err()
			}
			v, err := answer(r, err)
			if !yield(v, err) || err != nil {
				return
			}
		}
	}
}
