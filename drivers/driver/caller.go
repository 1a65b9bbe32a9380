package driver

import (
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"reflect"
)

// Caller reaches the methods of one node, wherever it is: in this process
// ([Local]) or behind a wire. Arguments may be any Go value that [Encode]
// takes; results are JSON-shaped. Contracts build their typed clients on it.
type Caller interface {
	Call(ctx context.Context, method string, args ...any) (any, error)
	Feed(ctx context.Context, method string, args ...any) iter.Seq2[any, error]
	Stream(ctx context.Context, method string) (io.ReadWriteCloser, error)
}

// Invoke calls a method and decodes its answer.
func Invoke[R any](ctx context.Context, c Caller, method string, args ...any) (r R, err error) {
	v, err := c.Call(ctx, method, args...)
	if err != nil {
		return r, err
	}
	if err := Decode(&r, v, false); err != nil {
		return r, fmt.Errorf("%s: result: %w", method, unexpected(err))
	}
	return r, nil
}

// Run calls a method whose answer does not matter.
func Run(ctx context.Context, c Caller, method string, args ...any) error {
	_, err := c.Call(ctx, method, args...)
	return err
}

// Iterate calls a method that answers with a sequence, and decodes each item.
func Iterate[R any](ctx context.Context, c Caller, method string, args ...any) iter.Seq2[R, error] {
	return func(yield func(R, error) bool) {
		for v, err := range c.Feed(ctx, method, args...) {
			var r R
			if err == nil {
				if err = Decode(&r, v, false); err != nil {
					err = fmt.Errorf("%s: result: %w", method, unexpected(err))
				}
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// unexpected keeps a bad answer from looking like a bad argument.
func unexpected(err error) error { return fmt.Errorf("unexpected: %s", err.Error()) }

// Driver is an opened backend: the rows it offers, and the value behind them,
// which is asked for its optional capabilities ([io.Closer], [Resetter]).
type Driver struct {
	Exports []Export
	Impl    any
}

// Export finds a row by its wire name.
func (d Driver) Export(name string) (Export, bool) {
	for _, e := range d.Exports {
		if e.name == name {
			return e, true
		}
	}
	return Export{}, false
}

// Close closes what is behind the rows, if it can be closed.
func (d Driver) Close() error {
	if c, ok := d.Impl.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// Resetter is a backend that can be brought into its initial state without
// being opened again.
type Resetter interface {
	Reset(context.Context) error
}

// Local calls a driver in this process, through a full encoding and decoding of
// arguments and results, so that it behaves as it would behind a wire.
func Local(d Driver) Caller {
	return local(func(context.Context) (Driver, error) { return d, nil })
}

// local finds the driver anew for each call.
type local func(context.Context) (Driver, error)

func (l local) row(ctx context.Context, method string, args []any) (Export, []any, error) {
	d, err := l(ctx)
	if err != nil {
		return Export{}, nil, err
	}
	e, ok := d.Export(method)
	if !ok {
		return e, nil, fmt.Errorf("method %s not found on driver: %w", method, ErrNoMethod)
	}
	values := make([]any, len(args))
	for i, a := range args {
		if values[i], err = Encode(a); err != nil {
			return e, nil, fmt.Errorf("%s: argument %d: %w", method, i+1, err)
		}
	}
	return e, values, nil
}

func (l local) Call(ctx context.Context, method string, args ...any) (any, error) {
	e, values, err := l.row(ctx, method, args)
	if err != nil {
		return nil, err
	}
	return e.Call(ctx, values)
}

func (l local) Feed(ctx context.Context, method string, args ...any) iter.Seq2[any, error] {
	return func(yield func(any, error) bool) {
		e, values, err := l.row(ctx, method, args)
		if err != nil {
			yield(nil, err)
			return
		}
		seq, err := e.Feed(ctx, values)
		if err != nil {
			yield(nil, err)
			return
		}
		seq(yield)
	}
}

func (l local) Stream(ctx context.Context, method string) (io.ReadWriteCloser, error) {
	e, _, err := l.row(ctx, method, nil)
	if err != nil {
		return nil, err
	}
	return e.Stream(ctx)
}

// typeName is how help and schemas spell a type.
func typeName(t reflect.Type) string { return spell(t, 0) }

func spell(t reflect.Type, depth int) string {
	switch t {
	case nil:
		return "null"
	case durationType:
		return "seconds"
	case base64Type:
		return "base64"
	case handleType:
		return "stream"
	}
	k := t.Kind()
	if k != reflect.Pointer && t.Implements(textType) {
		return "text"
	}
	if depth > 4 { // a type may contain itself
		return "any"
	}
	switch k {
	case reflect.Pointer:
		return spell(t.Elem(), depth+1) + " or null"
	case reflect.Slice, reflect.Array:
		return "list of " + spell(t.Elem(), depth+1)
	case reflect.Map:
		return "map of " + spell(t.Elem(), depth+1)
	case reflect.Struct:
		return "mapping"
	case reflect.Interface:
		return "any"
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	case reflect.Float32, reflect.Float64:
		return "number"
	}
	return "integer"
}

// discard is the logger of nodes that were given none.
var discard = slog.New(slog.DiscardHandler)
