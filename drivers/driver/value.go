package driver

import (
	"encoding"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Base64 is binary data inside a value. On the wire it is standard base64 with
// padding; line breaks are accepted on the way in.
type Base64 []byte

// Handle is an argument that names a byte stream: one that the client opened
// beside the call, or a URL that the exporter is to fetch or fill. What is in
// it is the business of [Env.Open].
type Handle struct {
	raw any
}

// NewHandle wraps the JSON-shaped form of a handle.
func NewHandle(raw any) Handle { return Handle{raw} }

// Raw is the JSON-shaped form of the handle.
func (h Handle) Raw() any { return h.raw }

// maxDepth bounds how deeply values nest, in arguments and in configs.
const maxDepth = 64

var (
	durationType    = reflect.TypeFor[time.Duration]()
	base64Type      = reflect.TypeFor[Base64]()
	handleType      = reflect.TypeFor[Handle]()
	textType        = reflect.TypeFor[encoding.TextMarshaler]()
	textDecoderType = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// Encode turns a Go value into its JSON-shaped form. Struct fields go by their
// json tags; what knows its own text ([encoding.TextMarshaler]: times, IP
// addresses, UUIDs) becomes that text. A nil slice or map is an empty one. It
// fails for what has no such form (functions, channels, byte slices other than
// [Base64], structs that show no field) and for values that nest too deeply.
func Encode(v any) (any, error) {
	switch v := v.(type) { // what most methods return needs no reflection
	case nil:
		return nil, nil
	case bool:
		return v, nil
	case string:
		return strings.ToValidUTF8(v, "\uFFFD"), nil
	case float64:
		return finite(v), nil
	case int:
		return float64(v), nil
	}
	return encode(reflect.ValueOf(v), 0)
}

func finite(f float64) any {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil
	}
	return f
}

func encode(v reflect.Value, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("encode: nested deeper than %d", maxDepth)
	}
	if !v.IsValid() {
		return nil, nil
	}
	switch v.Type() {
	case durationType:
		return v.Interface().(time.Duration).Seconds(), nil
	case base64Type:
		return base64.StdEncoding.EncodeToString(v.Bytes()), nil
	case handleType:
		return encode(reflect.ValueOf(v.Interface().(Handle).raw), depth)
	}
	if k := v.Kind(); k != reflect.Interface && v.Type().NumMethod() > 0 && v.Type().Implements(textType) {
		if k == reflect.Pointer && v.IsNil() {
			return nil, nil
		}
		text, err := v.Interface().(encoding.TextMarshaler).MarshalText()
		if err != nil {
			return nil, fmt.Errorf("encode: %w", err)
		}
		return strings.ToValidUTF8(string(text), "\uFFFD"), nil
	}
	switch v.Kind() {
	case reflect.Bool:
		return v.Bool(), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return float64(v.Int()), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return float64(v.Uint()), nil
	case reflect.Float32, reflect.Float64:
		return finite(v.Float()), nil
	case reflect.String:
		return strings.ToValidUTF8(v.String(), "\uFFFD"), nil
	case reflect.Interface: // holds a concrete value: no depth of its own
		return encode(v.Elem(), depth)
	case reflect.Pointer:
		if v.IsNil() {
			return nil, nil
		}
		return encode(v.Elem(), depth+1)
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return nil, fmt.Errorf("encode: %s travels only as driver.Base64", v.Type())
		}
		list := make([]any, v.Len())
		for i := range list {
			x, err := encode(v.Index(i), depth+1)
			if err != nil {
				return nil, err
			}
			list[i] = x
		}
		return list, nil
	case reflect.Map:
		if v.Type().Key().Kind() != reflect.String {
			return nil, fmt.Errorf("encode: a map needs string keys, not %s", v.Type().Key())
		}
		m := make(map[string]any, v.Len())
		for it := v.MapRange(); it.Next(); {
			x, err := encode(it.Value(), depth+1)
			if err != nil {
				return nil, err
			}
			m[strings.ToValidUTF8(it.Key().String(), "\uFFFD")] = x
		}
		return m, nil
	case reflect.Struct:
		fields := fieldsOf(v.Type(), "json")
		if len(fields) == 0 && v.NumField() > 0 {
			return nil, fmt.Errorf("encode: %s shows none of its fields", v.Type())
		}
		m := make(map[string]any, len(fields))
		for _, f := range fields {
			fv := v.FieldByIndex(f.index)
			if f.omitEmpty && fv.IsZero() {
				continue
			}
			x, err := encode(fv, depth+1)
			if err != nil {
				return nil, err
			}
			m[f.name] = x
		}
		return m, nil
	}
	return nil, fmt.Errorf("encode: %s has no form on the wire", v.Type())
}

// Decode fills dst, a non-nil pointer, from a JSON-shaped value. Lax decoding
// also takes a number spelled as a string for a number and the usual words and
// digits for a bool, as the Python exporter does for methods that validate
// their arguments. A struct's fields are required unless they are pointers or
// tagged omitempty, and may then be null, too; unknown keys are ignored, as
// newer clients may send more.
// The error is an [ArgError] that names the place.
func Decode(dst any, src any, lax bool) error {
	p := reflect.ValueOf(dst)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return fmt.Errorf("decode: needs a pointer, not %T", dst)
	}
	return decode(p.Elem(), src, "", lax, 0)
}

func decode(dst reflect.Value, src any, at string, lax bool, depth int) error {
	if depth > maxDepth {
		return BadArg(at, "nested deeper than %d", maxDepth)
	}
	t := dst.Type()
	wrong := func(want string) error { return BadArg(at, "wants %s, got %s", want, describe(src)) }
	switch t {
	case handleType:
		if _, ok := src.(map[string]any); !ok {
			return wrong("the handle of a stream")
		}
		dst.Set(reflect.ValueOf(Handle{src}))
		return nil
	case durationType:
		f, ok := number(src, lax)
		if !ok {
			return wrong("a number of seconds")
		}
		d, ok := seconds(f)
		if !ok {
			return BadArg(at, "%s seconds are more than %d years", digits(f), maxYears)
		}
		dst.SetInt(int64(d))
		return nil
	case base64Type:
		s, ok := src.(string)
		if !ok {
			return wrong("base64 text")
		}
		b, err := base64.StdEncoding.DecodeString(s) // skips line breaks
		if err != nil {
			return BadArg(at, "wants base64 text: %v", err)
		}
		dst.SetBytes(b)
		return nil
	}
	if p := reflect.PointerTo(t); p.NumMethod() > 0 && p.Implements(textDecoderType) {
		s, ok := src.(string)
		if !ok {
			return wrong("text")
		}
		if err := dst.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(s)); err != nil {
			return BadArg(at, "%v", err)
		}
		return nil
	}
	switch t.Kind() {
	case reflect.Interface:
		if t.NumMethod() != 0 {
			return fmt.Errorf("decode: %s cannot be an argument", t)
		}
		if src == nil {
			dst.SetZero()
		} else {
			dst.Set(reflect.ValueOf(src))
		}
		return nil
	case reflect.Pointer:
		if src == nil {
			dst.SetZero()
			return nil
		}
		p := reflect.New(t.Elem())
		if err := decode(p.Elem(), src, at, lax, depth+1); err != nil {
			return err
		}
		dst.Set(p)
		return nil
	case reflect.Bool:
		b, ok := truth(src, lax)
		if !ok {
			return wrong("true or false")
		}
		dst.SetBool(b)
		return nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		ok, fits := whole(dst, src, lax)
		if !ok {
			return wrong("an integer")
		}
		if !fits {
			return BadArg(at, "%s is out of range for %s", describe(src), t.Kind())
		}
		return nil
	case reflect.Float32, reflect.Float64:
		f, ok := number(src, lax)
		if !ok {
			return wrong("a number")
		}
		if dst.OverflowFloat(f) {
			return BadArg(at, "%s is out of range for %s", describe(src), t.Kind())
		}
		dst.SetFloat(f)
		return nil
	case reflect.String:
		s, ok := src.(string)
		if !ok {
			return wrong("text")
		}
		dst.SetString(s)
		return nil
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return fmt.Errorf("decode: %s travels only as driver.Base64", t)
		}
		list, ok := src.([]any)
		if !ok {
			return wrong("a list")
		}
		s := dst
		if t.Kind() == reflect.Slice {
			s = reflect.MakeSlice(t, len(list), len(list))
		} else if t.Len() != len(list) {
			return wrong("a list of " + strconv.Itoa(t.Len()))
		}
		for i, x := range list {
			if err := decode(s.Index(i), x, at+"["+strconv.Itoa(i)+"]", lax, depth+1); err != nil {
				return err
			}
		}
		dst.Set(s)
		return nil
	case reflect.Map:
		m, ok := src.(map[string]any)
		if !ok {
			return wrong("a mapping")
		}
		if t.Key().Kind() != reflect.String {
			return fmt.Errorf("decode: %s cannot be an argument", t)
		}
		out := reflect.MakeMapWithSize(t, len(m))
		for k, x := range m {
			v := reflect.New(t.Elem()).Elem()
			if err := decode(v, x, join(at, k), lax, depth+1); err != nil {
				return err
			}
			out.SetMapIndex(reflect.ValueOf(k).Convert(t.Key()), v)
		}
		dst.Set(out)
		return nil
	case reflect.Struct:
		m, ok := src.(map[string]any)
		if !ok {
			return wrong("a mapping")
		}
		fields := fieldsOf(t, "json")
		if len(fields) == 0 && t.NumField() > 0 {
			break
		}
		for _, f := range fields {
			x, there := m[f.name]
			if !there && !f.omitEmpty && !f.pointer {
				return BadArg(join(at, f.name), "is missing")
			}
			if !there || x == nil && f.omitEmpty {
				continue
			}
			if err := decode(dst.FieldByIndex(f.index), x, join(at, f.name), lax, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("decode: %s cannot be an argument", t)
}

// maxYears is how long a duration can be.
const maxYears = math.MaxInt64 / int64(365*24*time.Hour)

// seconds makes a duration of a number, and reports whether it fits. Rounding
// brings back every duration of up to some weeks exactly.
func seconds(f float64) (time.Duration, bool) {
	ns := math.Round(f * float64(time.Second))
	return time.Duration(ns), ns >= -(1<<63) && ns < 1<<63
}

// whole stores an integer, and reports whether it is one and whether it fits.
func whole(dst reflect.Value, src any, lax bool) (ok, fits bool) {
	if s, is := src.(string); is {
		s = strings.TrimSpace(s)
		if i := strings.IndexByte(s, '.'); i > 0 && i < len(s)-1 && strings.Trim(s[i+1:], "0") == "" {
			s = s[:i] // "3.0"
		}
		if !lax {
			return false, false
		}
		return parseWhole(dst, s, 10) // a double would round the long ones
	}
	f, ok := number(src, lax)
	if !ok || f != math.Trunc(f) {
		return false, false
	}
	return true, setWhole(dst, f)
}

// setWhole stores a number without a fraction in an integer of any size, and
// reports whether it fits.
func setWhole(dst reflect.Value, f float64) bool {
	if dst.CanInt() {
		if f < -(1<<63) || f >= 1<<63 || dst.OverflowInt(int64(f)) {
			return false
		}
		dst.SetInt(int64(f))
		return true
	}
	if f < 0 || f >= 1<<64 || dst.OverflowUint(uint64(f)) {
		return false
	}
	dst.SetUint(uint64(f))
	return true
}

// parseWhole is [setWhole] for digits.
func parseWhole(dst reflect.Value, s string, base int) (ok, fits bool) {
	var err error
	if bits := dst.Type().Bits(); dst.CanInt() {
		var i int64
		if i, err = strconv.ParseInt(s, base, bits); err == nil {
			dst.SetInt(i)
		}
	} else if digits, minus := strings.CutPrefix(s, "-"); minus {
		if _, err = strconv.ParseUint(digits, base, 64); err == nil {
			err = strconv.ErrRange
		}
	} else {
		var u uint64
		if u, err = strconv.ParseUint(strings.TrimPrefix(s, "+"), base, bits); err == nil {
			dst.SetUint(u)
		}
	}
	return err == nil || errors.Is(err, strconv.ErrRange), err == nil
}

func number(src any, lax bool) (float64, bool) {
	switch x := src.(type) {
	case float64:
		return x, !math.IsNaN(x) && !math.IsInf(x, 0)
	case string:
		if lax && !strings.ContainsAny(x, "xX_") { // Go's own notations
			f, err := strconv.ParseFloat(strings.TrimSpace(x), 64)
			return f, err == nil && !math.IsNaN(f) && !math.IsInf(f, 0)
		}
	case bool:
		if lax && x {
			return 1, true
		}
		return 0, lax
	}
	return 0, false
}

func truth(src any, lax bool) (value, ok bool) {
	switch x := src.(type) {
	case bool:
		return x, true
	case float64:
		return x == 1, lax && (x == 0 || x == 1)
	case string:
		if lax {
			return word(x)
		}
	}
	return false, false
}

// word reads the words for true and false that YAML 1.1 and pydantic know.
func word(s string) (value, ok bool) {
	switch strings.ToLower(s) {
	case "true", "on", "yes", "y", "t", "1":
		return true, true
	case "false", "off", "no", "n", "f", "0":
		return false, true
	}
	return false, false
}

// describe names what was found instead of what was wanted.
func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(v)
	case float64:
		return digits(v)
	case string:
		if len(v) > 40 {
			v = strings.ToValidUTF8(v[:40], "") + "..."
		}
		return strconv.Quote(v)
	case []any:
		return fmt.Sprintf("a list of %d", len(v))
	case map[string]any:
		return "a mapping"
	}
	return fmt.Sprintf("%T", v)
}

// digits writes a number as people do: without an exponent where it is short.
func digits(f float64) string {
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		return strconv.FormatFloat(f, 'g', -1, 64)
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}

func join(at, name string) string {
	if at == "" {
		return name
	}
	return at + "." + name
}

// field is one field of a struct as its tags describe it.
type field struct {
	name      string
	index     []int
	pointer   bool
	omitEmpty bool
	doc       string
	def       string
	hasDef    bool
	min, max  string
	oneof     []string
	typ       reflect.Type
}

// required says whether a config has to hold the key.
func (f field) required() bool { return !f.hasDef && !f.pointer && !f.omitEmpty }

type fieldsKey struct {
	t   reflect.Type
	tag string
}

var fieldCache sync.Map // fieldsKey to []field

// fieldsOf lists the exported fields of a struct under the names of the given
// tag, embedded structs included.
func fieldsOf(t reflect.Type, tag string) []field {
	key := fieldsKey{t, tag}
	if f, ok := fieldCache.Load(key); ok {
		return f.([]field)
	}
	var list []field
	for i := range t.NumField() {
		sf := t.Field(i)
		name, opts, _ := strings.Cut(sf.Tag.Get(tag), ",")
		embedded := sf.Anonymous && name == "" && sf.Type.Kind() == reflect.Struct
		if name == "-" || !sf.IsExported() && !embedded {
			continue
		}
		if embedded {
			for _, f := range fieldsOf(sf.Type, tag) {
				f.index = append([]int{i}, f.index...)
				list = append(list, f)
			}
			continue
		}
		if name == "" {
			name = strings.ToLower(sf.Name)
		}
		def, hasDef := sf.Tag.Lookup("default")
		list = append(list, field{
			name: name, index: sf.Index, pointer: sf.Type.Kind() == reflect.Pointer,
			omitEmpty: strings.Contains(opts, "omitempty"),
			doc:       sf.Tag.Get("doc"), def: def, hasDef: hasDef, typ: sf.Type,
			min: sf.Tag.Get("min"), max: sf.Tag.Get("max"), oneof: strings.Fields(sf.Tag.Get("oneof")),
		})
	}
	fieldCache.Store(key, list)
	return list
}
