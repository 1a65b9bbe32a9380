package driver_test

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"gopkg.in/yaml.v3"
)

// What clients send is a stranger's: decoding it never panics, refuses it as an
// ArgError, and what it takes comes through a second round unchanged.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`null`, `true`, `3`, `-3.5`, `1e300`, `"3"`, `"yes"`, `"YW55"`, `"::1"`, `"2026-02-03T04:05:06Z"`, `[1, 2]`, `["a", "b"]`, `{"a": 1}`,
		`{"name": "n", "count": "3", "plain": 1, "note": null, "inner": {"name": "n", "count": 1, "plain": true}, "tags": ["x"], "weights": {"w": 1}}`,
		`[[[[]]]]`, `{"kind": "client_stream", "uuid": "x"}`,
	} {
		f.Add(seed)
	}
	stable := []any{false, int32(0), uint16(0), float32(0), 0.0, "", mode(""), driver.Base64(nil), driver.Handle{}, netip.Addr{}, time.Time{},
		(*int8)(nil), []string(nil), [2]float64{}, map[string]bool(nil), map[mode][]int8(nil), wide{}, []*wide(nil), list(nil), []any(nil), new(any)}
	rough := []any{int64(0), uint64(0), time.Duration(0), []byte(nil), map[int]int(nil), func() {}, (*error)(nil)}
	f.Fuzz(func(t *testing.T, text string) {
		var src any
		if json.Unmarshal([]byte(text), &src) != nil {
			return
		}
		for _, lax := range []bool{false, true} {
			for _, as := range rough {
				_ = driver.Decode(reflect.New(reflect.TypeOf(as)).Interface(), src, lax)
			}
			for _, as := range stable {
				typ := reflect.TypeOf(as)
				first := reflect.New(typ)
				if err := driver.Decode(first.Interface(), src, lax); err != nil {
					var arg *driver.ArgError
					if !errors.As(err, &arg) {
						t.Fatalf("Decode(%s, %s, lax %t) = %v; want an ArgError", typ, text, lax, err)
					}
					continue
				}
				v, err := driver.Encode(first.Interface())
				if err != nil {
					t.Fatalf("Encode(%s from %s) = %v; want no error", typ, text, err)
				}
				second := reflect.New(typ)
				if err := driver.Decode(second.Interface(), v, false); err != nil {
					t.Fatalf("Decode(%s, %v from %s) = %v; want no error", typ, v, text, err)
				}
				if w, err := driver.Encode(second.Interface()); err != nil || !reflect.DeepEqual(v, w) {
					t.Fatalf("Encode(%s from %s) = %v, then %v, %v; want the same", typ, text, v, w, err)
				}
			}
		}
	})
}

// Whatever the arguments, a row is either invoked or refuses them.
func FuzzCall(f *testing.F) {
	invoked := false
	yes := func() error { invoked = true; return nil }
	feed := func() iter.Seq2[int, error] { invoked = true; return items(nil, 1) }
	type handles []driver.Handle
	rows := []driver.Export{
		driver.Do("do", func(context.Context) error { return yes() }),
		driver.Do1("do1", func(context.Context, string) error { return yes() }),
		driver.Do2("do2", func(context.Context, int, *bool) error { return yes() }),
		driver.Do3("do3", func(context.Context, float64, []uint8, map[string]any) error { return yes() }), // []uint8 cannot be an argument
		driver.Do3("do3", func(context.Context, wide, time.Duration, driver.Handle) error { return yes() }).Args("a", "b=1.5", "c"),
		driver.Call1("call1", func(_ context.Context, v any) (any, error) { return v, yes() }).Args("v=[1, {a: b}]"),
		driver.Call2("call2", func(_ context.Context, a driver.Base64, b handles) (handles, error) { return b, yes() }).Lax(),
		driver.Call3("call3", func(_ context.Context, a, b, c int) (int, error) { return a + b + c, yes() }).Args("a", "b=2", "c=3").Lax(),
		driver.Feed1("feed1", func(context.Context, *wide) iter.Seq2[int, error] { return feed() }),
		driver.Feed2("feed2", func(context.Context, bool, string) iter.Seq2[int, error] { return feed() }).Args("a", "b=x").Lax(),
		driver.Feed3("feed3", func(context.Context, int8, uint8, float32) iter.Seq2[int, error] { return feed() }),
		driver.FeedTail("tail", func(context.Context, string, map[string]string, ...string) iter.Seq2[int, error] { return feed() }),
	}
	for i, seed := range []string{
		`[]`, `["a"]`, `[1, null]`, `[1, [], {}]`, `[{"name": "n", "count": 1, "plain": true}, 1, {}]`, `[null]`, `["YQ==", [{}]]`, `["1", 2.0, true]`,
		`[null]`, `["on"]`, `[1, 2, 3]`, `["m", {"A": "b"}, "x", "y"]`,
	} {
		f.Add(byte(i), seed)
		f.Add(byte(i), `[[], 1, 2, 3]`)
	}
	f.Fuzz(func(t *testing.T, i byte, text string) {
		var args []any
		if json.Unmarshal([]byte(text), &args) != nil {
			return
		}
		e := rows[int(i)%len(rows)]
		invoked = false
		var err error
		if e.Kind() == driver.KindFeed {
			var seq iter.Seq2[any, error]
			if seq, err = e.Feed(t.Context(), args); err == nil {
				_, err = collect(seq)
			}
		} else {
			_, err = e.Call(t.Context(), args)
		}
		var arg *driver.ArgError
		switch {
		case err == nil && !invoked:
			t.Fatalf("%s with %s = nil; want it invoked", e.Usage(), text)
		case err != nil && invoked:
			t.Fatalf("%s with %s = %v, and was invoked; want one of them", e.Usage(), text, err)
		case err != nil && !errors.As(err, &arg) && err.Error() != "decode: []uint8 travels only as driver.Base64":
			t.Fatalf("%s with %s = %v; want an ArgError", e.Usage(), text, err)
		}
	})
}

// A file is its owner's, but may be broken in any way: reading it never panics,
// ends soon, and says the same each time.
func FuzzDecodeConfig(f *testing.F) {
	for _, seed := range []string{
		"url: u", "", "[1]", "null", "hello", "url: u\nbaudrate: '9600'\ncheck_present: off\ncps: 1.5\ntimeout: 0.29\nmode: on\nlines: [010, 0x1F, 1_0]",
		"url: u\nlabels: {a: b}\nauth: {user: both, port: 1}\nnet: 10.0.0.0/8\nshell: [sh]\nmethods: {a: b, c: {command: d}}\nany: [~, .inf, 1:30]",
		"url: u\nmore: &x [*x, *x]", "url: u\nany: &x {a: *x, <<: *x}", "base: &b {url: u}\nauth:\n  <<: [*b, {user: me}]\n  user: you\n  user: root",
		"url: u\nuuid: x\nlog_level: LOUD\nlabels: {x: 1}", "? [a]\n: b\n", "url: !!str on\nsmall: !!int '7'\nratio: !!float .5\nnote: !!binary aGk=",
		"url: u\nlong: 9223372036854775808\nsize: -1\nslot: 3\nsmall: 128", "url: \"\\0\"\n\xff: 1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var n yaml.Node
		if yaml.Unmarshal([]byte(text), &n) != nil {
			return
		}
		for _, lenient := range []bool{false, true} {
			var one, two port
			first := driver.DecodeConfig(&n, &one, driver.Pos{File: "f", Line: 1, Column: 1}, lenient)
			second := driver.DecodeConfig(&n, &two, driver.Pos{File: "f", Line: 1, Column: 1}, lenient)
			if !reflect.DeepEqual(first, second) || !reflect.DeepEqual(one, two) {
				t.Fatalf("DecodeConfig(%q) = %+v, %v, then %+v, %v; want the same", text, one, first, two, second)
			}
			for _, p := range first {
				if p.Text == "" || p.Pos.Line < 1 || p.Pos.Column < 1 {
					t.Fatalf("DecodeConfig(%q) says %+v; want a text and a place", text, p)
				}
			}
			if first.Err() == nil && (one.Baud < 1 || one.Timeout > time.Minute || one.Slot == 3 || one.Shell == nil) {
				t.Fatalf("DecodeConfig(%q) = %+v; want it within limits", text, one)
			}
		}
		if x, err := driver.Plain(&n); err == nil {
			if _, err := driver.Encode(x); err != nil {
				t.Fatalf("Encode(Plain(%q)) = %v; want no error", text, err)
			}
		}
		d := driver.Decl{Pos: driver.Pos{Line: 1, Column: 1}, Children: []driver.Decl{
			{Name: "a", Type: "t.Device", Config: &n}, {Name: "b", Type: "t.Proxy", Config: &n}}}
		tree, problems := driver.Plan(d, driver.Options{Specs: new(rig).specs()})
		if (tree == nil) != (problems.Err() != nil) {
			t.Fatalf("Plan(%q) = %v, %v; want a tree or an error", text, tree, problems)
		}
		if tree != nil && len(tree.Reports()) != 3 {
			t.Fatalf("Reports(%q) = %v; want three", text, tree.Reports())
		}
	})
}
