package driver

import (
	"encoding/base64"
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
	durationType = reflect.TypeFor[time.Duration]()
	base64Type   = reflect.TypeFor[Base64]()
	handleType   = reflect.TypeFor[Handle]()
	timeType     = reflect.TypeFor[time.Time]()
)

// Encode turns a Go value into its JSON-shaped form. Struct fields go by their
// json tags. It fails for what has no such form (functions, channels, byte
// slices other than [Base64]) and for values that nest too deeply.
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
		if v.IsNil() {
			return nil, nil
		}
		return base64.StdEncoding.EncodeToString(v.Bytes()), nil
	case handleType:
		return v.Interface().(Handle).raw, nil
	case timeType:
		return v.Interface().(time.Time).Format(time.RFC3339Nano), nil
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
	case reflect.Pointer, reflect.Interface:
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
		m := make(map[string]any, v.NumField())
		for _, f := range fieldsOf(v.Type(), "json") {
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
// tagged omitempty; unknown keys are ignored, as newer clients may send more.
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
		dst.Set(reflect.ValueOf(Handle{src}))
		return nil
	case durationType:
		f, ok := number(src, lax)
		if !ok || math.Abs(f) > math.MaxInt64/float64(time.Second) {
			return wrong("a number of seconds")
		}
		dst.SetInt(int64(f * float64(time.Second)))
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
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		f, ok := number(src, lax)
		if !ok || f != math.Trunc(f) {
			return wrong("an integer")
		}
		if f < -(1<<63) || f >= 1<<63 || dst.OverflowInt(int64(f)) {
			return BadArg(at, "%v is out of range for %s", f, t)
		}
		dst.SetInt(int64(f))
		return nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		f, ok := number(src, lax)
		if !ok || f != math.Trunc(f) {
			return wrong("a non-negative integer")
		}
		if f < 0 || f >= 1<<64 || dst.OverflowUint(uint64(f)) {
			return BadArg(at, "%v is out of range for %s", f, t)
		}
		dst.SetUint(uint64(f))
		return nil
	case reflect.Float32, reflect.Float64:
		f, ok := number(src, lax)
		if !ok {
			return wrong("a number")
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
	case reflect.Slice:
		list, ok := src.([]any)
		if !ok {
			return wrong("a list")
		}
		s := reflect.MakeSlice(t, len(list), len(list))
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
		for _, f := range fieldsOf(t, "json") {
			x, there := m[f.name]
			if !there {
				if !f.omitEmpty && !f.pointer {
					return BadArg(join(at, f.name), "is missing")
				}
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

func number(src any, lax bool) (float64, bool) {
	switch x := src.(type) {
	case float64:
		return x, !math.IsNaN(x) && !math.IsInf(x, 0)
	case string:
		if lax {
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
		return strconv.FormatFloat(v, 'g', -1, 64)
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
		if name == "-" || !sf.IsExported() && !sf.Anonymous {
			continue
		}
		if sf.Anonymous && name == "" && sf.Type.Kind() == reflect.Struct {
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
