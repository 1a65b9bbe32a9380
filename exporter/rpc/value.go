package rpc

import (
	"fmt"
	"math"

	"github.com/jumplead/jumplead/drivers/driver"
	"google.golang.org/protobuf/types/known/structpb"
)

// maxDepth bounds how deeply a value may nest.
const maxDepth = 64

// FromValues reads the arguments of a call.
func FromValues(args []*structpb.Value) ([]any, error) {
	if len(args) == 0 {
		return nil, nil
	}
	out := make([]any, len(args))
	for i, a := range args {
		v, err := fromValue(a, 0)
		if err != nil {
			return nil, driver.BadArg("", "argument %d: %v", i+1, err)
		}
		out[i] = v
	}
	return out, nil
}

// FromValue reads one value. JSON has no NaN and no infinities: they are
// refused, as upstream refuses them.
func FromValue(v *structpb.Value) (any, error) { return fromValue(v, 0) }

func fromValue(v *structpb.Value, depth int) (any, error) {
	if depth > maxDepth {
		return nil, driver.BadArg("", "value nests deeper than %d", maxDepth)
	}
	switch k := v.GetKind().(type) {
	case nil, *structpb.Value_NullValue: // an unset kind counts as null
		return nil, nil
	case *structpb.Value_BoolValue:
		return k.BoolValue, nil
	case *structpb.Value_NumberValue:
		if math.IsNaN(k.NumberValue) || math.IsInf(k.NumberValue, 0) {
			return nil, driver.BadArg("", "%v is not a number that JSON can hold", k.NumberValue)
		}
		return k.NumberValue, nil
	case *structpb.Value_StringValue:
		return k.StringValue, nil
	case *structpb.Value_ListValue:
		list := make([]any, len(k.ListValue.GetValues()))
		for i, x := range k.ListValue.GetValues() {
			var err error
			if list[i], err = fromValue(x, depth+1); err != nil {
				return nil, err
			}
		}
		return list, nil
	case *structpb.Value_StructValue:
		m := make(map[string]any, len(k.StructValue.GetFields()))
		for name, x := range k.StructValue.GetFields() {
			var err error
			if m[name], err = fromValue(x, depth+1); err != nil {
				return nil, err
			}
		}
		return m, nil
	}
	return nil, driver.BadArg("", "unknown kind of value")
}

var null = structpb.NewNullValue() // never changed

// ToValue writes a JSON-shaped value.
func ToValue(v any) (*structpb.Value, error) { return toValue(v, 0) }

func toValue(v any, depth int) (*structpb.Value, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("result nests deeper than %d", maxDepth)
	}
	switch v := v.(type) {
	case nil:
		return null, nil
	case bool:
		return structpb.NewBoolValue(v), nil
	case float64:
		return structpb.NewNumberValue(v), nil
	case string:
		return structpb.NewStringValue(v), nil
	case []any:
		list := make([]*structpb.Value, len(v))
		for i, x := range v {
			var err error
			if list[i], err = toValue(x, depth+1); err != nil {
				return nil, err
			}
		}
		return structpb.NewListValue(&structpb.ListValue{Values: list}), nil
	case map[string]any:
		m := make(map[string]*structpb.Value, len(v))
		for name, x := range v {
			var err error
			if m[name], err = toValue(x, depth+1); err != nil {
				return nil, err
			}
		}
		return structpb.NewStructValue(&structpb.Struct{Fields: m}), nil
	}
	return nil, fmt.Errorf("result of type %T has no form on the wire", v)
}
