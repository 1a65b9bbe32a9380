package proto_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/jumplead/jumplead/cmd/jumplead/interop/pyenv"
	_ "github.com/jumplead/jumplead/proto/jumpstarter/client/v1"
	_ "github.com/jumplead/jumplead/proto/jumpstarter/v1"
)

// The generated code says what the protocol says, no more and no less.
func TestWire(t *testing.T) {
	diff(t, declarations(), wire(t, " +"))
}

// The generator must not be newer than the runtime that its code meets, and
// should not be older.
func TestGeneratorVersion(t *testing.T) {
	version := func(file string) string {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(`google\.golang\.org/protobuf (v\S+)`).FindSubmatch(text)
		if m == nil {
			t.Fatalf("%s: google.golang.org/protobuf is not required", file)
		}
		return string(m[1])
	}
	if got, want := version("gen/go.mod"), version("../go.mod"); got != want {
		t.Errorf("google.golang.org/protobuf in gen/go.mod = %s; want %s, as in ../go.mod", got, want)
	}
}

// A release of Jumpstarter declares what wire.txt says of it, reads what we
// write, writes what we read, and keeps what it does not know.
func TestStock(t *testing.T) {
	env := pyenv.Need(t)

	// What 0.9.0 does not know at all it cannot be asked about.
	var later []string
	for _, line := range wire(t, "+") {
		later = append(later, strings.Fields(line)[0])
	}
	sent := map[string][]proto.Message{}
	for m := range messages() {
		if name := string(m.FullName()); !slices.Contains(later, name) {
			sent[name] = samples(m)
		}
	}

	var question bytes.Buffer
	wires := map[string][][]byte{}
	for name, list := range sent {
		for _, m := range list {
			wires[name] = append(wires[name], marshal(t, m))
		}
	}
	if err := json.NewEncoder(&question).Encode(wires); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), env.Bin("python"), "testdata/stock.py")
	cmd.Stdin, cmd.Stderr = &question, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("stock.py: %v", err)
	}
	var answer struct {
		Version      string
		Declarations []string
		Messages     map[string][]struct {
			JSON          any
			Parsed, Built []byte
		}
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		t.Fatalf("stock.py: %v", err)
	}
	if want := "0.9.0"; answer.Version != want {
		t.Errorf("version of jumpstarter-protocol = %s; want %s, which wire.txt speaks of", answer.Version, want)
	}
	diff(t, answer.Declarations, wire(t, " -"))

	for name, list := range sent {
		for i, m := range list {
			got := answer.Messages[name][i]
			known := proto.Clone(m)
			forget(known.ProtoReflect(), later)
			if want := toJSON(t, known); !reflect.DeepEqual(got.JSON, want) {
				t.Errorf("%s, sample %d: understood\n%v\nwant\n%v", name, i, got.JSON, want)
			}
			if back := unmarshal(t, m, got.Parsed); !proto.Equal(back, m) {
				t.Errorf("%s, sample %d: parsed and sent back = %v; want %v", name, i, back, m)
			}
			if back := unmarshal(t, m, got.Built); !proto.Equal(back, known) {
				t.Errorf("%s, sample %d: built from JSON = %v; want %v", name, i, back, known)
			}
		}
	}
}

// wire reads the lines of wire.txt whose first column is one of kinds.
func wire(t *testing.T, kinds string) []string {
	t.Helper()
	text, err := os.ReadFile("testdata/wire.txt")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for i, line := range strings.Split(string(text), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		if len(line) < 3 || !strings.ContainsRune(" +-", rune(line[0])) || line[1] != ' ' {
			t.Fatalf("testdata/wire.txt:%d: %q; want a column of \" \", \"+\" or \"-\", then a declaration", i+1, line)
		}
		if strings.ContainsRune(kinds, rune(line[0])) {
			lines = append(lines, line[2:])
		}
	}
	return lines
}

// diff fails for every line that only one of the two has.
func diff(t *testing.T, got, want []string) {
	t.Helper()
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("declared, not in wire.txt: %s", line)
		}
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("in wire.txt, not declared: %s", line)
		}
	}
}

// files yields the compiled form of our .proto files.
func files() iter.Seq[protoreflect.FileDescriptor] {
	return func(yield func(protoreflect.FileDescriptor) bool) {
		protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
			return !strings.HasPrefix(f.Path(), "jumpstarter/") || yield(f)
		})
	}
}

// messages yields all that they declare; none is nested but map entries.
func messages() iter.Seq[protoreflect.MessageDescriptor] {
	return func(yield func(protoreflect.MessageDescriptor) bool) {
		for f := range files() {
			for i := range f.Messages().Len() {
				if !yield(f.Messages().Get(i)) {
					return
				}
			}
		}
	}
}

// declarations writes what the generated code declares in the form of wire.txt.
func declarations() []string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for f := range files() {
		for i := range f.Enums().Len() {
			e := f.Enums().Get(i)
			add("%s in %s", e.FullName(), f.Path())
			for j := range e.Values().Len() {
				v := e.Values().Get(j)
				add("%s.%s = %d", e.FullName(), v.Name(), v.Number())
			}
		}
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			add("%s in %s", s.FullName(), f.Path())
			for j := range s.Methods().Len() {
				m := s.Methods().Get(j)
				add("%s(%s) returns (%s)", m.FullName(),
					stream(m.IsStreamingClient(), m.Input()), stream(m.IsStreamingServer(), m.Output()))
			}
		}
	}
	for m := range messages() {
		add("%s in %s", m.FullName(), m.ParentFile().Path())
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			add("%s = %d %s", f.FullName(), f.Number(), label(f)+kind(f))
		}
	}
	return lines
}

func stream(is bool, m protoreflect.MessageDescriptor) string {
	if is {
		return "stream " + string(m.FullName())
	}
	return string(m.FullName())
}

func label(f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsList():
		return "repeated "
	case f.HasOptionalKeyword():
		return "optional "
	}
	return ""
}

func kind(f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsMap():
		return fmt.Sprintf("map<%s, %s>", kind(f.MapKey()), kind(f.MapValue()))
	case f.Message() != nil:
		return string(f.Message().FullName())
	case f.Enum() != nil:
		return string(f.Enum().FullName())
	}
	return f.Kind().String()
}

// samples makes three messages of a kind: nothing set, everything set, and
// everything that has presence set to its zero value, which is not the same as
// nothing.
func samples(d protoreflect.MessageDescriptor) []proto.Message {
	full, zero := blank(d), blank(d)
	fill(full.ProtoReflect())
	for i := range d.Fields().Len() {
		if f := d.Fields().Get(i); f.HasPresence() && f.Message() == nil {
			zero.ProtoReflect().Set(f, f.Default())
		}
	}
	return []proto.Message{blank(d), full, zero}
}

func blank(d protoreflect.MessageDescriptor) proto.Message {
	mt, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		panic(err) // the generated code registers every message that it declares
	}
	return mt.New().Interface()
}

// fill sets every field, to a value that no other field of the message has
// where its type allows. No message here contains itself.
func fill(m protoreflect.Message) {
	switch m := m.Interface().(type) {
	case *timestamppb.Timestamp:
		m.Seconds, m.Nanos = 1_700_000_000, 123_456_789
		return
	case *durationpb.Duration:
		m.Seconds, m.Nanos = 90, 500_000_000
		return
	case *fieldmaskpb.FieldMask:
		m.Paths = []string{"duration", "begin_time"}
		return
	case *structpb.Value:
		proto.Merge(m, structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{
			"null":   structpb.NewNullValue(),
			"bool":   structpb.NewBoolValue(true),
			"number": structpb.NewNumberValue(-0.5),
			"text":   structpb.NewStringValue("grün"),
			"list": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{
				structpb.NewNumberValue(3), structpb.NewStringValue(""),
			}}),
		}}))
		return
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		switch f := fields.Get(i); {
		case f.IsMap():
			entries := m.Mutable(f).Map()
			for _, key := range []string{"", "jumpstarter.dev/name"} {
				entries.Set(protoreflect.ValueOfString(key).MapKey(), sample(f.MapValue(), entries.NewValue))
			}
		case f.IsList():
			list := m.Mutable(f).List()
			list.Append(sample(f, list.NewElement))
			list.Append(sample(f, list.NewElement))
		default:
			m.Set(f, sample(f, func() protoreflect.Value { return m.NewField(f) }))
		}
	}
}

func sample(f protoreflect.FieldDescriptor, empty func() protoreflect.Value) protoreflect.Value {
	n := int(f.Number())
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(fmt.Sprintf("%s ✓", f.FullName()))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte{0x00, 0xff, byte(n)})
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(-n))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(-n) << 40)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(1<<31 + uint32(n))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(1<<63 + uint64(n))
	case protoreflect.EnumKind:
		values := f.Enum().Values()
		return protoreflect.ValueOfEnum(values.Get(values.Len() - 1).Number())
	case protoreflect.MessageKind:
		v := empty()
		fill(v.Message())
		return v
	}
	panic("no sample for a field of kind " + f.Kind().String())
}

// forget clears the named fields, in m and in all it contains.
func forget(m protoreflect.Message, names []string) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case slices.Contains(names, string(f.FullName())):
			m.Clear(f)
		case f.IsList() && f.Message() != nil:
			for i := range v.List().Len() {
				forget(v.List().Get(i).Message(), names)
			}
		case !f.IsMap() && f.Message() != nil:
			forget(v.Message(), names)
		}
		return true
	})
}

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatalf("%s: %v", m.ProtoReflect().Descriptor().FullName(), err)
	}
	return b
}

// unmarshal reads b as a message of like's type.
func unmarshal(t *testing.T, like proto.Message, b []byte) proto.Message {
	t.Helper()
	m := like.ProtoReflect().New().Interface()
	if err := proto.Unmarshal(b, m); err != nil {
		t.Fatalf("%s: %v", m.ProtoReflect().Descriptor().FullName(), err)
	}
	return m
}

func toJSON(t *testing.T, m proto.Message) any {
	t.Helper()
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		t.Fatalf("%s: %v", m.ProtoReflect().Descriptor().FullName(), err)
	}
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s: %v", m.ProtoReflect().Descriptor().FullName(), err)
	}
	return v
}
