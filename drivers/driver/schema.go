package driver

import (
	"encoding"
	"reflect"
	"slices"
	"strconv"

	"gopkg.in/yaml.v3"
)

// Schema is a JSON Schema (draft 2020-12), or a part of one.
type Schema map[string]any

// Schema describes the spec's config for editors, with the keys that all drivers
// have. It takes what [DecodeConfig] takes, as far as a schema can say, and so
// with the liberties that files take with YAML 1.1: a number in quotes, "on" for
// true. An editor may read a word such as on as text or as a boolean; either will
// do.
func (s Spec) Schema() Schema {
	var fields []field
	if s.config != nil {
		fields = slices.Clone(fieldsOf(s.config, "yaml"))
	}
	fields = append(fields, fieldsOf(reflect.TypeFor[common](), "yaml")...)
	return mappingSchema(fields, s.Lenient, 0)
}

func mappingSchema(fields []field, lenient bool, depth int) Schema {
	properties, required := Schema{}, []string{}
	for _, f := range fields {
		x := f.schema(f.typ, depth)
		if f.hasDef || f.omitEmpty { // nothing counts as the default
			x = orNull(x)
		}
		if f.doc != "" {
			x["description"] = f.doc
		}
		if f.hasDef && f.def != "" {
			if v, err := Plain(f.defaultNode()); err == nil {
				x["default"] = v
			}
		}
		properties[f.name] = x
		if f.required() {
			required = append(required, f.name)
		}
	}
	m := Schema{"type": "object", "properties": properties}
	if len(required) > 0 {
		m["required"] = required
	}
	if !lenient {
		m["additionalProperties"] = false
	}
	return m
}

// What stands for what in a file. Text that reads as a number serves as one, the
// words of YAML 1.1 and pydantic serve as booleans.
var (
	numeral  = Schema{"type": "string", "pattern": `^\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*$`}
	notation = Schema{"type": "string", "pattern": `^[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*(:[0-5]?[0-9])*(\.[0-9_]*)?)$`}
	truths   = Schema{"enum": []any{true, false, 0, 1}}
	words    = Schema{"type": "string", "pattern": `^([tT][rR][uU][eE]|[fF][aA][lL][sS][eE]|[oO][nN]|[oO][fF][fF]|[yY][eE][sS]|[nN][oO]|[yYnNtTfF])$`}
)

// schema describes the values of a type. Ranges and words are those of the field,
// and count for the elements of a list or a mapping.
func (f field) schema(t reflect.Type, depth int) Schema {
	switch {
	case t.Kind() == reflect.Interface || depth > describedDepth:
		return Schema{}
	case t.Kind() == reflect.Pointer:
		return orNull(f.schema(t.Elem(), depth))
	case t == durationType:
		return f.number("number")
	case reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		text := Schema{"type": []string{"string", "number", "boolean"}}
		if t.Kind() != reflect.Struct || len(fieldsOf(t, "yaml")) == 0 {
			return text
		}
		return Schema{"anyOf": []Schema{text, mappingSchema(fieldsOf(t, "yaml"), false, depth+1)}}
	}
	switch t.Kind() {
	case reflect.Struct:
		return mappingSchema(fieldsOf(t, "yaml"), false, depth+1)
	case reflect.Slice:
		return Schema{"type": "array", "items": f.schema(t.Elem(), depth+1)}
	case reflect.Map:
		return Schema{"type": "object", "additionalProperties": f.schema(t.Elem(), depth+1)}
	case reflect.Bool:
		return Schema{"anyOf": []Schema{truths, words}}
	case reflect.String:
		if len(f.oneof) == 0 {
			return Schema{"type": []string{"string", "number", "boolean"}}
		}
		return Schema{"enum": f.choices()}
	case reflect.Float32, reflect.Float64:
		return f.number("number")
	}
	return f.number("integer")
}

// number is a number, or text that serves as one, of which a schema cannot tell
// whether it is in range.
func (f field) number(typ string) Schema {
	n := Schema{"type": typ}
	if len(f.oneof) > 0 {
		n["enum"] = f.choices()
	}
	if x, err := strconv.ParseFloat(f.min, 64); err == nil {
		n["minimum"] = x
	}
	if x, err := strconv.ParseFloat(f.max, 64); err == nil {
		n["maximum"] = x
	}
	return Schema{"anyOf": []Schema{n, numeral, notation}}
}

// choices are the words of oneof and what YAML makes of those that stand there
// without quotes.
func (f field) choices() []any {
	var list []any
	for _, w := range f.oneof {
		list = append(list, w)
		if x := Scalar(&yaml.Node{Kind: yaml.ScalarNode, Value: w}); x != any(w) && x != nil {
			if _, odd := x.(other); !odd && !slices.Contains(list, x) {
				list = append(list, x)
			}
		}
	}
	return list
}

func orNull(x Schema) Schema {
	return Schema{"anyOf": []Schema{x, {"type": "null"}}}
}

// TypeName says what the values of a type are to people: "integer", "list of
// text". A nil type has no values but null.
func TypeName(t reflect.Type) string { return typeName(t) }
