package driver_test

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/drivers/driver"
)

func ptr[T any](v T) *T { return &v }

type mode string

type level int

type base struct {
	Name string `json:"name"`
}

type wide struct {
	base
	Count   int            `json:"count"`
	Note    *string        `json:"note"`
	Extra   string         `json:"extra,omitempty"`
	Secret  string         `json:"-"`
	Plain   bool           // goes by its name in lower case
	Inner   *wide          `json:"inner,omitempty"`
	Tags    []string       `json:"tags,omitempty"`
	Weights map[string]int `json:"weights,omitempty"`
	hidden  int
}

// deep nests a list n times around nil.
func deep(n int) any {
	var v any
	for range n {
		v = []any{v}
	}
	return v
}

type list []list

func nested(n int) list {
	var v list
	for range n {
		v = list{v}
	}
	return v
}

type loop struct {
	Next *loop `json:"next"`
}

func TestEncode(t *testing.T) {
	id := uuid.MustParse("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
	circle := &loop{}
	circle.Next = circle
	tests := []struct {
		in, want any
	}{
		{nil, nil},
		{(*int)(nil), nil},
		{error(nil), nil},
		{true, true},
		{false, false},
		{0, 0.0},
		{-3, -3.0},
		{int8(-128), -128.0},
		{uint8(255), 255.0},
		{uint32(1 << 31), 2147483648.0},
		{int64(1) << 53, 9007199254740992.0},
		{uint64(math.MaxUint64), 18446744073709551615.0},
		{1.5, 1.5},
		{float32(0.5), 0.5},
		{math.NaN(), nil},
		{math.Inf(1), nil},
		{math.Inf(-1), nil},
		{float32(math.Inf(1)), nil},
		{[]float64{1, math.NaN()}, []any{1.0, nil}},
		{"", ""},
		{"grün", "grün"},
		{"a\xffb", "a\uFFFDb"},
		{mode("host\xff"), "host\uFFFD"},
		{level(3), 3.0},
		{[]string{"a", "\xff"}, []any{"a", "\uFFFD"}},
		{[]int(nil), []any{}},
		{[2]bool{true, false}, []any{true, false}},
		{[]any{1, "a", nil, []any{}}, []any{1.0, "a", nil, []any{}}},
		{map[string]int{"a": 1}, map[string]any{"a": 1.0}},
		{map[mode]any{"\xff": nil}, map[string]any{"\uFFFD": nil}},
		{map[string]int(nil), map[string]any{}},
		{struct{}{}, map[string]any{}},
		{1500 * time.Millisecond, 1.5},
		{-time.Nanosecond, -1e-9},
		{[]time.Duration{time.Minute}, []any{60.0}},
		{time.Date(2026, 2, 3, 4, 5, 6, 7e6, time.UTC), "2026-02-03T04:05:06.007Z"},
		{time.Date(2026, 2, 3, 4, 5, 6, 0, time.FixedZone("", 3600)), "2026-02-03T04:05:06+01:00"},
		{(*time.Time)(nil), nil},
		{netip.MustParseAddr("::1"), "::1"},
		{id, "6ba7b810-9dad-11d1-80b4-00c04fd430c8"},
		{driver.Base64("any carnal pleas"), "YW55IGNhcm5hbCBwbGVhcw=="},
		{driver.Base64(nil), ""},
		{(*driver.Base64)(nil), nil},
		{driver.NewHandle(map[string]string{"kind": "x"}), map[string]any{"kind": "x"}},
		{driver.Handle{}, nil},
		{ptr(ptr(3)), 3.0},
		{wide{base: base{"n"}, Secret: "s", hidden: 1},
			map[string]any{"name": "n", "count": 0.0, "note": nil, "plain": false}},
		{&wide{Note: ptr("x"), Extra: "e", Inner: &wide{}, Tags: []string{"t"}, Weights: map[string]int{"w": 2}},
			map[string]any{"name": "", "count": 0.0, "note": "x", "plain": false, "extra": "e", "tags": []any{"t"},
				"weights": map[string]any{"w": 2.0},
				"inner":   map[string]any{"name": "", "count": 0.0, "note": nil, "plain": false}}},
		{deep(64), deep(64)},

		{deep(65), errors.New("encode: nested deeper than 64")},
		{nested(66), errors.New("encode: nested deeper than 64")},
		{circle, errors.New("encode: nested deeper than 64")},
		{[]byte("x"), errors.New("encode: []uint8 travels only as driver.Base64")},
		{[2]byte{}, errors.New("encode: [2]uint8 travels only as driver.Base64")},
		{map[int]string{1: "a"}, errors.New("encode: a map needs string keys, not int")},
		{func() {}, errors.New("encode: func() has no form on the wire")},
		{[]any{make(chan int)}, errors.New("encode: chan int has no form on the wire")},
		{map[string]any{"f": func() {}}, errors.New("encode: func() has no form on the wire")},
		{complex(1, 2), errors.New("encode: complex128 has no form on the wire")},
		{struct{ x int }{1}, errors.New("encode: struct { x int } shows none of its fields")},
		{struct{ X any }{errors.New("oops")}, errors.New("encode: errors.errorString shows none of its fields")},
		{time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), errors.New("encode: Time.MarshalText: year outside of range [0,9999]")},
	}
	for _, test := range tests {
		got, err := driver.Encode(test.in)
		if want, bad := test.want.(error); bad {
			if err == nil || err.Error() != want.Error() {
				t.Errorf("Encode(%T %.60v) = %v, %v; want error %v", test.in, short(test.in), got, err, want)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("Encode(%T %v) = %#v, %v; want %#v", test.in, short(test.in), got, err, test.want)
		}
	}
}

// short prints what may refer to itself.
func short(v any) string {
	if _, circle := v.(*loop); circle {
		return "loop"
	}
	return fmt.Sprint(v)
}

func TestDecode(t *testing.T) {
	text := func(s string) error { return errors.New(s) }
	handle := map[string]any{"kind": "client_stream"}
	// A decoded value, or an error for one way of decoding; lax is as strict
	// unless it is given.
	tests := []struct {
		in     any
		as     any // zero value of the type
		strict any
		lax    any
	}{
		{true, false, true, nil},
		{false, true, false, nil},
		{1.0, false, text("wants true or false, got 1"), true},
		{0.0, false, text("wants true or false, got 0"), false},
		{2.0, false, text("wants true or false, got 2"), nil},
		{"Yes", false, text(`wants true or false, got "Yes"`), true},
		{"off", false, text(`wants true or false, got "off"`), false},
		{" yes ", false, text(`wants true or false, got " yes "`), nil},
		{nil, false, text("wants true or false, got null"), nil},

		{3.0, 0, 3, nil},
		{-3.0, int8(0), int8(-3), nil},
		{3.5, 0, text("wants an integer, got 3.5"), nil},
		{"3", 0, text(`wants an integer, got "3"`), 3},
		{" +3\n", 0, text(`wants an integer, got " +3\n"`), 3},
		{"3.0", 0, text(`wants an integer, got "3.0"`), 3},
		{"3.5", 0, text(`wants an integer, got "3.5"`), nil},
		{"3.", 0, text(`wants an integer, got "3."`), nil},
		{".0", 0, text(`wants an integer, got ".0"`), nil},
		{"1e3", 0, text(`wants an integer, got "1e3"`), nil},
		{"0x10", 0, text(`wants an integer, got "0x10"`), nil},
		{"1_000", 0, text(`wants an integer, got "1_000"`), nil},
		{"", 0, text(`wants an integer, got ""`), nil},
		{"9007199254740993", int64(0), text(`wants an integer, got "9007199254740993"`), int64(9007199254740993)},
		{true, 0, text("wants an integer, got true"), 1},
		{false, uint8(0), text("wants an integer, got false"), uint8(0)},
		{nil, 0, text("wants an integer, got null"), nil},
		{[]any{}, 0, text("wants an integer, got a list of 0"), nil},
		{handle, 0, text("wants an integer, got a mapping"), nil},
		{math.NaN(), 0, text("wants an integer, got NaN"), nil},
		{math.Inf(1), 0, text("wants an integer, got +Inf"), nil},
		{127.0, int8(0), int8(127), nil},
		{128.0, int8(0), text("128 is out of range for int8"), nil},
		{"128", int8(0), text(`wants an integer, got "128"`), text(`"128" is out of range for int8`)},
		{-129.0, int8(0), text("-129 is out of range for int8"), nil},
		{-9223372036854775808.0, int64(0), int64(math.MinInt64), nil},
		{9223372036854775808.0, int64(0), text("9223372036854776000 is out of range for int64"), nil},
		{"9223372036854775808", int64(0), text(`wants an integer, got "9223372036854775808"`),
			text(`"9223372036854775808" is out of range for int64`)},
		{1e300, 0, text("1e+300 is out of range for int"), nil},
		{255.0, uint8(0), uint8(255), nil},
		{256.0, uint8(0), text("256 is out of range for uint8"), nil},
		{-1.0, uint(0), text("-1 is out of range for uint"), nil},
		{"-1", uint(0), text(`wants an integer, got "-1"`), text(`"-1" is out of range for uint`)},
		{"+1", uint(0), text(`wants an integer, got "+1"`), uint(1)},
		{4294967296.0, uint32(0), text("4294967296 is out of range for uint32"), nil},
		{18446744073709551615.0, uint64(0), text("18446744073709552000 is out of range for uint64"), nil},
		{"18446744073709551615", uint64(0), text(`wants an integer, got "18446744073709551615"`), uint64(math.MaxUint64)},
		{3.0, level(0), level(3), nil},

		{1.5, 0.0, 1.5, nil},
		{"1.5", 0.0, text(`wants a number, got "1.5"`), 1.5},
		{"1e3", 0.0, text(`wants a number, got "1e3"`), 1000.0},
		{"nan", 0.0, text(`wants a number, got "nan"`), nil},
		{"inf", 0.0, text(`wants a number, got "inf"`), nil},
		{"0x1p4", 0.0, text(`wants a number, got "0x1p4"`), nil},
		{true, 0.0, text("wants a number, got true"), 1.0},
		{math.NaN(), 0.0, text("wants a number, got NaN"), nil},
		{1e39, float32(0), text("1e+39 is out of range for float32"), nil},
		{0.25, float32(0), float32(0.25), nil},

		{"a", "", "a", nil},
		{3.0, "", text("wants text, got 3"), nil},
		{true, "", text("wants text, got true"), nil},
		{nil, "", text("wants text, got null"), nil},
		{"dut", mode(""), mode("dut"), nil},
		{strings.Repeat("é", 30), 0, text(`wants an integer, got "` + strings.Repeat("é", 20) + `..."`), nil},

		{1.5, time.Duration(0), 1500 * time.Millisecond, nil},
		{0.29, time.Duration(0), 290 * time.Millisecond, nil},
		{-1e-9, time.Duration(0), -time.Nanosecond, nil},
		{"1.5", time.Duration(0), text(`wants a number of seconds, got "1.5"`), 1500 * time.Millisecond},
		{"1s", time.Duration(0), text(`wants a number of seconds, got "1s"`), nil},
		{9223372036.854775807, time.Duration(0), text("9223372036.854776 seconds are more than 292 years"), nil},
		{-1e300, time.Duration(0), text("-1e+300 seconds are more than 292 years"), nil},

		{"2026-02-03T04:05:06Z", time.Time{}, time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC), nil},
		{"yesterday", time.Time{}, text(`parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006"`), nil},
		{"::1", netip.Addr{}, netip.MustParseAddr("::1"), nil},
		{1.0, netip.Addr{}, text("wants text, got 1"), nil},

		{"YW55", driver.Base64(nil), driver.Base64("any"), nil},
		{"YW\r\n55\n", driver.Base64(nil), driver.Base64("any"), nil},
		{"", driver.Base64(nil), driver.Base64{}, nil},
		{"YW5", driver.Base64(nil), text("wants base64 text: illegal base64 data at input byte 0"), nil},
		{"-_-_", driver.Base64(nil), text("wants base64 text: illegal base64 data at input byte 0"), nil},
		{nil, driver.Base64(nil), text("wants base64 text, got null"), nil},
		{nil, (*driver.Base64)(nil), (*driver.Base64)(nil), nil},

		{handle, driver.Handle{}, driver.NewHandle(handle), nil},
		{"x", driver.Handle{}, text(`wants the handle of a stream, got "x"`), nil},
		{nil, driver.Handle{}, text("wants the handle of a stream, got null"), nil},

		{nil, (*int)(nil), (*int)(nil), nil},
		{3.0, (*int)(nil), ptr(3), nil},
		{3.5, (*int)(nil), text("wants an integer, got 3.5"), nil},

		{[]any{1.0, 2.0}, []int(nil), []int{1, 2}, nil},
		{[]any{}, []int(nil), []int{}, nil},
		{[]any{1.0, "x"}, []int(nil), text(`[1]: wants an integer, got "x"`), nil},
		{1.0, []int(nil), text("wants a list, got 1"), nil},
		{nil, []int(nil), text("wants a list, got null"), nil},
		{[]any{"a", "b"}, [2]string{}, [2]string{"a", "b"}, nil},
		{[]any{"a"}, [2]string{}, text("wants a list of 2, got a list of 1"), nil},
		{map[string]any{"a": 1.0}, map[mode]int(nil), map[mode]int{"a": 1}, nil},
		{map[string]any{"a": "b"}, map[string]int(nil), text(`a: wants an integer, got "b"`), nil},
		{[]any{}, map[string]int(nil), text("wants a mapping, got a list of 0"), nil},
		{[]any{1.0}, []any(nil), []any{1.0}, nil},

		{map[string]any{"name": "n", "count": 1.0, "plain": true, "new": "ignored"}, wide{},
			wide{base: base{"n"}, Count: 1, Plain: true}, nil},
		{map[string]any{"name": "n", "count": 1.0, "plain": true, "note": nil, "extra": nil, "tags": nil, "inner": nil},
			wide{}, wide{base: base{"n"}, Count: 1, Plain: true}, nil},
		{map[string]any{"name": "n", "count": 1.0, "plain": true, "hidden": 3.0, "-": "s", "Secret": "s"}, wide{},
			wide{base: base{"n"}, Count: 1, Plain: true}, nil},
		{map[string]any{"name": "n", "plain": true}, wide{}, text("count: is missing"), nil},
		{map[string]any{"name": nil, "count": 1.0, "plain": true}, wide{}, text("name: wants text, got null"), nil},
		{map[string]any{"name": "n", "count": 1.0, "plain": true, "inner": map[string]any{"name": "n", "count": "x"}},
			wide{}, text(`inner.count: wants an integer, got "x"`), nil},
		{map[string]any{"name": "n", "count": 1.0, "plain": true, "inner": map[string]any{"name": 1.0}},
			wide{}, text(`inner.name: wants text, got 1`), nil},
		{map[string]any{"name": "n", "count": 1.0, "plain": true, "tags": []any{"a", 1.0}},
			wide{}, text(`tags[1]: wants text, got 1`), nil},
		{[]any{}, wide{}, text("wants a mapping, got a list of 0"), nil},
		{map[string]any{"a": 1.0}, struct{}{}, struct{}{}, nil},
		{deep(64), list(nil), text(strings.Repeat("[0]", 64) + ": wants a list, got null"), nil},
		{deep(66), list(nil), text(strings.Repeat("[0]", 65) + ": nested deeper than 64"), nil},
	}
	for _, test := range tests {
		if test.lax == nil {
			test.lax = test.strict
		}
		for lax, want := range map[bool]any{false: test.strict, true: test.lax} {
			dst := reflect.New(reflect.TypeOf(test.as))
			err := driver.Decode(dst.Interface(), test.in, lax)
			name := fmt.Sprintf("Decode(%T, %.60v, lax %t)", test.as, test.in, lax)
			if want, bad := want.(error); bad {
				var arg *driver.ArgError
				if !errors.As(err, &arg) || err.Error() != want.Error() {
					t.Errorf("%s = %v; want ArgError %v", name, err, want)
				}
				continue
			}
			if got := dst.Elem().Interface(); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s = %#v, %v; want %#v", name, got, err, want)
			}
		}
	}
}

// What no argument can be is the row's mistake, not the caller's.
func TestDecodeImpossible(t *testing.T) {
	type opaque struct{ x int }
	tests := []struct {
		dst  any
		want string
	}{
		{nil, "decode: needs a pointer, not <nil>"},
		{3, "decode: needs a pointer, not int"},
		{(*int)(nil), "decode: needs a pointer, not *int"},
		{new([]byte), "decode: []uint8 travels only as driver.Base64"},
		{new(func()), "decode: func() cannot be an argument"},
		{new(error), "decode: error cannot be an argument"},
		{new(map[int]string), "decode: map[int]string cannot be an argument"},
		{new(opaque), "decode: driver_test.opaque cannot be an argument"},
	}
	for _, test := range tests {
		err := driver.Decode(test.dst, map[string]any{}, true)
		var arg *driver.ArgError
		if err == nil || err.Error() != test.want || errors.As(err, &arg) {
			t.Errorf("Decode(%T) = %v; want %s, not an ArgError", test.dst, err, test.want)
		}
	}
}

func TestDurationRoundTrip(t *testing.T) {
	for _, d := range []time.Duration{1, 999, 290 * time.Millisecond, 1100 * time.Millisecond, time.Hour + 1, 24*time.Hour + 123456789, -7} {
		v, err := driver.Encode(d)
		if err != nil {
			t.Fatalf("Encode(%v) = %v; want no error", d, err)
		}
		var got time.Duration
		if err := driver.Decode(&got, v, false); err != nil || got != d {
			t.Errorf("Decode(Encode(%v)) = %v, %v; want %v", d, got, err, d)
		}
	}
}
