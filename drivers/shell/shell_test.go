package shell_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"reflect"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/shell"
)

// peer answers calls with what it was given, and keeps what it was asked.
type peer struct {
	driver.Caller
	asked []any
	items []any
	err   error
}

func (p *peer) Feed(_ context.Context, method string, args ...any) iter.Seq2[any, error] {
	return func(yield func(any, error) bool) {
		p.asked = append([]any{method}, args...)
		for _, i := range p.items {
			if !yield(i, nil) {
				return
			}
		}
		if p.err != nil {
			yield(nil, p.err)
		}
	}
}

func (p *peer) Call(_ context.Context, method string, args ...any) (any, error) {
	p.asked = append([]any{method}, args...)
	return p.items, p.err
}

func TestClient(t *testing.T) {
	broken := errors.New("broken")
	for _, test := range []struct {
		items          []any
		err            error
		stdout, stderr string
		code           int
		want           string // in the error
		is             error
	}{
		{items: []any{[]any{"a", "", nil}, []any{"", "b", nil}, []any{"c", "d", 7.0}}, stdout: "ac", stderr: "bd", code: 7},
		{items: []any{[]any{"", "", -9.0}}, code: -9},
		{items: []any{[]any{"", "late", 199.0}}, stderr: "late", code: shell.TimeoutCode},
		{items: []any{[]any{"a", "", nil}}, stdout: "a", want: "m: no exit status came", is: io.ErrUnexpectedEOF},
		{want: "m: no exit status came", is: io.ErrUnexpectedEOF},
		{items: []any{[]any{"a", "", nil}}, err: broken, stdout: "a", is: broken},
		{items: []any{[]any{"a", ""}}, want: "wants a list of 3"},
		{items: []any{"a"}, want: "call_method: result: unexpected: wants a list, got \"a\""},
		{items: []any{[]any{"a", nil, 1.0}}, want: "call_method: unexpected result: wants text, got null"},
		{items: []any{[]any{"a", "", "1"}}, want: "wants an integer"},
		{items: []any{[]any{"a", "", 1.5}}, want: "wants an integer"},
	} {
		p := &peer{items: test.items, err: test.err}
		var stdout, stderr strings.Builder
		code, err := shell.Run(t.Context(), shell.NewClient(p), &stdout, &stderr, "m", map[string]string{"A": "b"}, "x", "y")
		fails := test.want != "" || test.is != nil
		if fails != (err != nil) || !strings.Contains(fmt.Sprint(err), test.want) || test.is != nil && !errors.Is(err, test.is) {
			t.Errorf("Run() of %v, %v = %v; want an error with %q that is %v", test.items, test.err, err, test.want, test.is)
		}
		var arg *driver.ArgError
		if errors.As(err, &arg) {
			t.Errorf("Run() of %v = %v; want no ArgError: the caller is not to blame", test.items, err)
		}
		if fails {
			test.code = -1
		}
		if stdout.String() != test.stdout || stderr.String() != test.stderr || code != test.code {
			t.Errorf("Run() of %v = %q, %q, %d; want %q, %q, %d", test.items, &stdout, &stderr, code, test.stdout, test.stderr, test.code)
		}
		if want := []any{"call_method", "m", map[string]string{"A": "b"}, "x", "y"}; !reflect.DeepEqual(p.asked, want) {
			t.Errorf("Run() asks for %v; want %v", p.asked, want)
		}
	}
}

func TestClientMethods(t *testing.T) {
	p := &peer{items: []any{"b", "a"}}
	got, err := shell.NewClient(p).Methods(t.Context())
	if err != nil || !reflect.DeepEqual(got, []string{"b", "a"}) || !reflect.DeepEqual(p.asked, []any{"get_methods"}) {
		t.Errorf("Methods() = %q, %v after %v; want b and a, nil", got, err, p.asked)
	}
}

// A caller that has enough is not sent more.
func TestClientStops(t *testing.T) {
	p := &peer{items: []any{[]any{"a", "", nil}, []any{"b", "", nil}}}
	n := 0
	for range shell.NewClient(p).Call(t.Context(), "m", nil) {
		n++
		break
	}
	if n != 1 {
		t.Errorf("Call() yields %d pieces; want 1", n)
	}
}

// Full writers end the call.
func TestRunWriters(t *testing.T) {
	full := errors.New("full")
	p := &peer{items: []any{[]any{"a", "", nil}, []any{"", "", 0.0}}}
	if code, err := shell.Run(t.Context(), shell.NewClient(p), writer{full}, nil, "m", nil); !errors.Is(err, full) || code != -1 {
		t.Errorf("Run() = %d, %v; want -1, %v", code, err, full)
	}
	if code, err := shell.Run(t.Context(), shell.NewClient(p), nil, writer{full}, "m", nil); err != nil || code != 0 {
		t.Errorf("Run() = %d, %v; want 0, nil: nothing is written to it", code, err)
	}
}

type writer struct{ err error }

func (w writer) Write([]byte) (int, error) { return 0, w.err }
