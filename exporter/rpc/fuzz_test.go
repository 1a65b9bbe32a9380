package rpc

import (
	"context"
	"errors"
	"iter"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/exporter/session"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// point is a struct as an argument.
type point struct {
	X    int               `json:"x"`
	Y    *float64          `json:"y"`
	Tags map[string]string `json:"tags,omitempty"`
	In   []point           `json:"in,omitempty"`
}

func same[T any](_ context.Context, v T) (T, error) { return v, nil }

// takers are rows that between them take every type that an argument can have.
func takers(env *driver.Env) []driver.Export {
	return []driver.Export{
		driver.Call1("any", same[any]),
		driver.Call1("bool", same[bool]),
		driver.Call1("int", same[int]),
		driver.Call1("int8", same[int8]),
		driver.Call1("uint64", same[uint64]),
		driver.Call1("float32", same[float32]),
		driver.Call1("float64", same[float64]),
		driver.Call1("string", same[string]),
		driver.Call1("duration", same[time.Duration]),
		driver.Call1("base64", same[driver.Base64]),
		driver.Call1("pointer", same[*int]),
		driver.Call1("list", same[[]string]),
		driver.Call1("pair", same[[2]float64]),
		driver.Call1("map", same[map[string]int]),
		driver.Call1("struct", same[point]),
		driver.Call1("lax_int", same[int]).Lax(),
		driver.Call1("lax_bool", same[bool]).Lax(),
		driver.Call1("lax_struct", same[point]).Lax(),
		driver.Call3("three", func(_ context.Context, a int, b *string, c bool) (any, error) { return []any{a, b, c}, nil }).Args("a", "b", "c=true"),
		driver.Do1("handle", func(ctx context.Context, h driver.Handle) error {
			s, err := env.Open(ctx, h)
			if err == nil {
				s.Close()
			}
			return err
		}),
		driver.FeedTail("tail", func(_ context.Context, a string, b map[string]any, rest ...float64) iter.Seq2[any, error] {
			return func(yield func(any, error) bool) { _ = yield(a, nil) && yield(b, nil) && yield(rest, nil) }
		}),
	}
}

// fuzzBench is a session with one driver, in process.
func fuzzBench(f *testing.F) (*server, string) {
	rows := driver.Define(driver.Spec{Type: "fake.Takers", Contract: driver.Contract{Client: "fake.client.Takers"}},
		func(_ context.Context, env *driver.Env, _ struct{}) (driver.Driver, error) {
			return driver.Driver{Exports: takers(env)}, nil
		})
	offers := session.NewOffers()
	tree, problems := driver.Plan(driver.Decl{Type: rows.Type}, driver.Options{Specs: []driver.Spec{rows}, Namespace: uuid.NameSpaceDNS, Resources: offers})
	if err := problems.Err(); err != nil {
		f.Fatal(err)
	}
	if err := tree.Open(f.Context()); err != nil {
		f.Fatal(err)
	}
	s := session.New(uuid.Nil, tree, session.NewLogs(), offers)
	s.SetStatus(pb.ExporterStatus_EXPORTER_STATUS_LEASE_READY, "")
	return &server{s: s, log: textLog(new(drivertest.Log))}, tree.Root.UUID.String()
}

func seedValues() []*structpb.Value {
	list := []*structpb.Value{{}, structpb.NewNullValue(), structpb.NewNumberValue(math.NaN()), structpb.NewNumberValue(math.Inf(-1)), {Kind: &structpb.Value_ListValue{}}, {Kind: &structpb.Value_StructValue{}}}
	for _, v := range []any{true, 0, -1, 3.5, 1e300, 9007199254740993.0, "", "3", "3.0", "on", "AAEC", "a\x00b",
		[]any{}, []any{"a", nil, 1}, []any{1, 2}, map[string]any{},
		map[string]any{"x": 1, "y": nil, "tags": map[string]any{"a": "b"}, "in": []any{map[string]any{"x": "2", "y": 0.5}}},
		map[string]any{"kind": "client_stream", "uuid": uuid.Nil.String(), "x_jmp_content_encoding": nil},
		map[string]any{"kind": "presigned_request", "url": "http://x", "method": "GET", "headers": map[string]any{}},
	} {
		value, err := structpb.NewValue(v)
		if err != nil {
			panic(err)
		}
		list = append(list, value)
	}
	return list
}

// FuzzFromValue decodes values that a client may send, and hands them to rows of
// every type: what is no value at all is refused, what is one comes back the
// same, and what a row cannot take is a bad argument.
func FuzzFromValue(f *testing.F) {
	for _, v := range seedValues() {
		text, err := proto.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	s, _ := fuzzBench(f)
	d, err := s.s.Tree().Root.Driver(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var in structpb.Value
		if proto.Unmarshal(text, &in) != nil {
			return
		}
		v, err := FromValue(&in)
		if err != nil {
			if driver.Classify(err) != driver.Invalid {
				t.Fatalf("FromValue(%v) = %v of class %v; want a bad argument", &in, err, driver.Classify(err))
			}
			return
		}
		out, err := ToValue(v)
		if err != nil {
			t.Fatalf("ToValue(%#v) = %v; want nil", v, err)
		}
		again, err := FromValue(out)
		if err != nil || !reflect.DeepEqual(again, v) {
			t.Fatalf("FromValue(ToValue(%#v)) = %#v, %v; want the same", v, again, err)
		}
		for _, e := range d.Exports {
			switch e.Kind() {
			case driver.KindCall:
				var got any
				if got, err = e.Call(t.Context(), []any{v}); err == nil {
					_, err = ToValue(got)
				}
				if e.Name() == "any" && (err != nil || !reflect.DeepEqual(got, v)) {
					t.Fatalf("any(%#v) = %#v, %v; want the same", v, got, err)
				}
			case driver.KindFeed:
				var seq iter.Seq2[any, error]
				if seq, err = e.Feed(t.Context(), []any{"x", map[string]any{}, v}); err == nil {
					for got, ferr := range seq {
						if err = ferr; err == nil {
							_, err = ToValue(got)
						}
					}
				}
			}
			switch c := driver.Classify(err); {
			case c == driver.OK, c == driver.Invalid:
			case e.Name() == "handle": // one that names no stream
			default:
				t.Fatalf("%s(%#v) = %v of class %v; want none, or a bad argument", e.Name(), v, err, c)
			}
		}
	})
}

// FuzzParseRequest reads metadata that is meant to open a stream.
func FuzzParseRequest(f *testing.F) {
	for _, text := range []string{
		`{"kind":"driver","uuid":"00000000-0000-4000-8000-000000000001","method":"connect"}`,
		`{"kind":"resource","uuid":"x","x_jmp_content_encoding":"gzip"}`,
		`{"kind":"resource","uuid":"x","x_jmp_content_encoding":null}`,
		`{"kind":"driver"}`, `{"KIND":"driver","method":null}`, `null`, `[]`, `"driver"`, ``, `{"kind":"` + strings.Repeat("ä", 99) + `"}`, "\xff",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseRequest(metadata.MD{"request": {"{}", text}})
		if err != nil {
			if st := status.Convert(unknown(err)); st.Code() != codes.Unknown || len(st.Message()) > maxText || !utf8.ValidString(st.Message()) {
				t.Errorf("status of parseRequest(%q) = %v; want UNKNOWN with a text that fits", text, st)
			}
			return
		}
		if r.Kind != "resource" && (r.Kind != "driver" || r.Method == nil) {
			t.Errorf("parseRequest(%q) = %+v; want a resource, or a driver's method", text, r)
		}
	})
}

// sink is a client that takes what a feed sends.
type sink struct {
	grpc.ServerStream
	ctx context.Context
}

func (s sink) Context() context.Context                     { return s.ctx }
func (s sink) Send(r *pb.StreamingDriverCallResponse) error { return marshals(r) }
func marshals(m proto.Message) error                        { _, err := proto.Marshal(m); return err }
func driverCall(in *pb.DriverCallRequest) *pb.StreamingDriverCallRequest {
	return &pb.StreamingDriverCallRequest{Uuid: in.Uuid, Method: in.Method, Args: in.Args}
}

// FuzzDriverCallRequest executes requests in process: every one is answered, or
// refused with a code that says whose fault it is, and none panics.
func FuzzDriverCallRequest(f *testing.F) {
	s, id := fuzzBench(f)
	f.Add(mustMarshal(f, &pb.DriverCallRequest{}))
	f.Add(mustMarshal(f, &pb.DriverCallRequest{Uuid: "{" + strings.ToUpper(id) + "}", Method: "three", Args: seedValues()[:3]}))
	d, err := s.s.Tree().Root.Driver(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	for i, e := range d.Exports {
		values := seedValues()
		f.Add(mustMarshal(f, &pb.DriverCallRequest{Uuid: id, Method: e.Name(), Args: values[i%len(values):][:1]}))
		f.Add(mustMarshal(f, &pb.DriverCallRequest{Uuid: id, Method: e.Name(), Args: values[len(values)-3:]}))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var in pb.DriverCallRequest
		if proto.Unmarshal(text, &in) != nil {
			return
		}
		r, err := s.DriverCall(t.Context(), &in)
		if err == nil {
			err = marshals(r)
		}
		errs := []error{err, s.StreamingDriverCall(driverCall(&in), sink{ctx: t.Context()})}
		for _, err := range errs {
			st := status.Convert(err)
			switch st.Code() {
			case codes.OK, codes.NotFound, codes.InvalidArgument, codes.Unknown:
			case codes.Unimplemented: // a presigned handle
				if in.Method != "handle" {
					t.Errorf("%v = %v; want another code", &in, err)
				}
			default:
				t.Errorf("%v = %v; want another code", &in, err)
			}
			if strings.Contains(st.Message(), "the driver failed") || len(st.Message()) > maxText || !utf8.ValidString(st.Message()) {
				t.Errorf("%v = %v; want no panic, and a text that fits", &in, err)
			}
			if err != nil && !errors.Is(err, st.Err()) {
				t.Errorf("%v = %v; want a status", &in, err)
			}
		}
	})
}

func mustMarshal(f *testing.F, m proto.Message) []byte {
	text, err := proto.Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	return text
}
