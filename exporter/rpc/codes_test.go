package rpc

import (
	"context"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// wantStatus checks the code of an RPC's error, and that its text has a part.
func wantStatus(t *testing.T, what string, err error, code codes.Code, text string) {
	t.Helper()
	if st := status.Convert(err); st.Code() != code || !strings.Contains(st.Message(), text) {
		t.Errorf("%s = %v; want %v with %q", what, err, code, text)
	}
}

// What a driver returns becomes the code that the stock exporter answers with.
func TestErrorCodes(t *testing.T) {
	b := newBench(t).ready()
	for how, want := range map[string]codes.Code{
		"unsupported": codes.Unimplemented,
		"argument":    codes.InvalidArgument,
		"deadline":    codes.DeadlineExceeded,
		"unavailable": codes.Unavailable,
		"refused":     codes.Unavailable,
		"closed":      codes.Unavailable,
		"file":        codes.Internal,
		"busy":        codes.Internal,
		"other":       codes.Unknown,
		"long":        codes.Unknown,
		"latin1":      codes.Unknown,
	} {
		text := status.Convert(Status(failures[how])).Message()
		_, err := b.call(soon(t), "dev", "fail", how)
		wantStatus(t, "fail("+how+")", err, want, text)
		got, err := b.feed(soon(t), b.id("dev"), "feed_fail", how)
		wantStatus(t, "feed_fail("+how+")", err, want, text)
		if len(got) != 1 {
			t.Errorf("feed_fail(%s) = %v; want the item before the failure", how, got)
		}
	}
}

func TestCallCodes(t *testing.T) {
	b := newBench(t).ready()
	deep := structpb.NewNullValue()
	for range 100 {
		deep = structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{deep}})
	}
	number := structpb.NewNumberValue
	const missing, unknown = "missing marker", "not found on driver"
	dev, large := b.id("dev"), strings.Repeat("x", 5<<20)
	tests := []struct {
		name   string
		id     string
		method string
		args   []any
		code   codes.Code
		text   string
	}{
		{"nothing wrong", dev, "nop", nil, codes.OK, ""},
		{"an unset value is null", dev, "echo", []any{&structpb.Value{}}, codes.OK, ""},
		{"unknown method", dev, "none", nil, codes.NotFound, unknown},
		{"empty method", dev, "", nil, codes.NotFound, unknown},
		{"long method", dev, large[:1000], nil, codes.NotFound, unknown},
		{"not exported: close", dev, "close", nil, codes.NotFound, missing},
		{"not exported: reset", dev, "reset", nil, codes.NotFound, missing},
		{"not exported: report", dev, "report", nil, codes.NotFound, missing},
		{"a stream", dev, "stream_echo", nil, codes.NotFound, missing},
		{"a driver without rows", b.id("dev.plain"), "nop", nil, codes.NotFound, unknown},
		{"a group", b.id(""), "nop", nil, codes.NotFound, unknown},
		{"absent device", b.id("absent"), "nop", nil, codes.Unavailable, "no usb device 1234:5678"},
		{"unknown uuid", uuid.NewString(), "nop", nil, codes.Unknown, "no driver"},
		{"uuid of a ref's own", b.id("alias"), "nop", nil, codes.Unknown, "no driver"},
		{"malformed uuid", "dev", "nop", nil, codes.Unknown, "uuid"},
		{"empty uuid", "", "nop", nil, codes.Unknown, "uuid"},
		{"long uuid", large[:10000], "nop", nil, codes.Unknown, "uuid"},
		{"too many arguments", dev, "nop", []any{1}, codes.InvalidArgument, "nop()"},
		{"too few arguments", dev, "set", []any{1}, codes.InvalidArgument, "set(pin, name)"},
		{"wrong type", dev, "set", []any{"one", "x"}, codes.InvalidArgument, "pin"},
		{"fraction", dev, "set", []any{1.5, "x"}, codes.InvalidArgument, "pin"},
		{"NaN", dev, "echo", []any{number(math.NaN())}, codes.InvalidArgument, "NaN"},
		{"infinity", dev, "echo", []any{number(math.Inf(1))}, codes.InvalidArgument, "Inf"},
		{"minus infinity", dev, "echo", []any{number(math.Inf(-1))}, codes.InvalidArgument, "Inf"},
		{"NaN inside", dev, "echo", []any{structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{number(math.NaN())}})}, codes.InvalidArgument, "NaN"},
		{"deep", dev, "echo", []any{deep}, codes.InvalidArgument, "nest"},
		{"large", dev, "echo", []any{large}, codes.ResourceExhausted, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := b.callID(soon(t), test.id, test.method, test.args...)
			wantStatus(t, "DriverCall", err, test.code, test.text)
			if len(status.Convert(err).Message()) > maxText {
				t.Errorf("the text has %d bytes; want at most %d", len(status.Convert(err).Message()), maxText)
			}

			switch test.method {
			case "nop", "echo", "set": // not exported as feeds
			default:
				_, err = b.feed(soon(t), test.id, test.method, test.args...)
				wantStatus(t, "StreamingDriverCall", err, test.code, test.text)
			}
		})
	}
	feeds := []struct {
		name string
		id   string
		args []any
		code codes.Code
		text string
	}{
		{"nothing wrong", dev, []any{1}, codes.OK, ""},
		{"absent device", b.id("absent"), []any{1}, codes.Unavailable, "no usb device 1234:5678"},
		{"unknown uuid", uuid.NewString(), []any{1}, codes.Unknown, "no driver"},
		{"malformed uuid", "dev", []any{1}, codes.Unknown, "uuid"},
		{"too many arguments", dev, []any{1, 2}, codes.InvalidArgument, "count("},
		{"too few arguments", dev, nil, codes.InvalidArgument, "count("},
		{"wrong type", dev, []any{"one"}, codes.InvalidArgument, "integer"},
		{"NaN", dev, []any{number(math.NaN())}, codes.InvalidArgument, "NaN"},
		{"large", dev, []any{large}, codes.ResourceExhausted, ""},
	}
	for _, test := range feeds {
		_, err := b.feed(soon(t), test.id, "count", test.args...)
		wantStatus(t, "StreamingDriverCall, "+test.name, err, test.code, test.text)
	}
	_, err := b.call(soon(t), "dev", "count", 1)
	wantStatus(t, "DriverCall of a feed", err, codes.NotFound, missing)
	_, err = b.feed(soon(t), dev, "nop")
	wantStatus(t, "StreamingDriverCall of a call", err, codes.NotFound, missing)
	_, err = b.call(soon(t), "dev", "unencodable")
	wantStatus(t, "a result without a form on the wire", err, codes.Unknown, "no form on the wire")
}

func TestStreamCodes(t *testing.T) {
	b := newBench(t)
	dev := b.id("dev")
	req := request1
	tests := []struct {
		name string
		md   []string // of the metadata, by pairs
		code codes.Code
		text string
	}{
		{"no request", nil, codes.Unknown, "no entry called request"},
		{"empty", []string{"request", ""}, codes.Unknown, "request"},
		{"no JSON", []string{"request", "driver"}, codes.Unknown, "request"},
		{"null", []string{"request", "null"}, codes.Unknown, "kind"},
		{"a list", []string{"request", "[]"}, codes.Unknown, "request"},
		{"no kind", []string{"request", `{"uuid":"` + dev + `","method":"stream_echo"}`}, codes.Unknown, "kind"},
		{"unknown kind", []string{"request", req("router", dev, "stream_echo")}, codes.Unknown, "router"},
		{"kind of another type", []string{"request", `{"kind":1,"uuid":"` + dev + `","method":"stream_echo"}`}, codes.Unknown, "request"},
		{"no method", []string{"request", `{"kind":"driver","uuid":"` + dev + `"}`}, codes.Unknown, "method"},
		{"method of another type", []string{"request", `{"kind":"driver","uuid":"` + dev + `","method":[]}`}, codes.Unknown, "request"},
		{"no uuid", []string{"request", `{"kind":"driver","method":"stream_echo"}`}, codes.Unknown, "uuid"},
		{"malformed uuid", []string{"request", req("driver", "dev", "stream_echo")}, codes.Unknown, "uuid"},
		{"unknown uuid", []string{"request", req("driver", uuid.NewString(), "stream_echo")}, codes.Unknown, "no driver"},
		{"resource, no uuid", []string{"request", `{"kind":"resource"}`}, codes.Unknown, "uuid"},
		{"resource, unknown uuid", []string{"request", req("resource", uuid.NewString(), "")}, codes.Unknown, "no driver"},
		{"several, the last bad", []string{"request", req("driver", dev, "stream_echo"), "request", "x"}, codes.Unknown, "request"},
		{"several, the last good", []string{"request", "x", "request", req("driver", dev, "stream_echo")}, codes.OK, ""},
		{"others beside it", []string{"a", "b", "request", req("driver", dev, "stream_echo")}, codes.OK, ""},
		{"unknown keys", []string{"request", `{"kind":"driver","uuid":"` + dev + `","method":"stream_echo","x":1}`}, codes.OK, ""},
		{"resource", []string{"request", req("resource", dev, "")}, codes.OK, ""},
		{"resource of a driver without rows", []string{"request", req("resource", b.id("dev.plain"), "")}, codes.OK, ""},
		{"resource of an absent device", []string{"request", req("resource", b.id("absent"), "")}, codes.OK, ""},

		{"unknown method", []string{"request", req("driver", dev, "none")}, codes.NotFound, "not found on driver"},
		{"empty method", []string{"request", req("driver", dev, "")}, codes.NotFound, "not found on driver"},
		{"not exported", []string{"request", req("driver", dev, "close")}, codes.NotFound, "missing marker"},
		{"a call", []string{"request", req("driver", dev, "nop")}, codes.NotFound, "missing marker"},
		{"a feed", []string{"request", req("driver", dev, "count")}, codes.NotFound, "missing marker"},
		{"opener fails", []string{"request", req("driver", dev, "open_fail")}, codes.Unknown, "something else"},
		{"opener fails with a class", []string{"request", req("driver", dev, "open_argument")}, codes.Unknown, "wants a pin"},
		{"opener panics", []string{"request", req("driver", dev, "open_panic")}, codes.Unknown, "oops"},
		{"peer refuses", []string{"request", req("driver", dev, "open_refused")}, codes.Unavailable, "refused"},
		{"absent device", []string{"request", req("driver", b.id("absent"), "stream_echo")}, codes.Unavailable, "no usb device"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(soon(t))
			defer cancel()
			_, md, err := b.stream(ctx, test.md...)
			wantStatus(t, "Stream", err, test.code, test.text)
			if (md != nil) != (test.code == codes.OK) {
				t.Errorf("initial metadata = %v; want it for a stream that opens, and for no other", md)
			}
		})
	}
}

// Clients that forward connections into a stream watch for nothing but its end.
func TestStreamCodesForwarded(t *testing.T) {
	b := newBench(t)
	tests := []struct {
		method  string
		code    codes.Code
		goaways int
	}{
		{"open_refused", codes.Unavailable, 1},
		{"open_fail", codes.Unknown, 1},
		{"open_panic", codes.Unknown, 1},
		{"none", codes.NotFound, 0},
	}
	for _, test := range tests {
		s, err := b.router.Stream(metadata.AppendToOutgoingContext(soon(t), "request", request1("driver", b.id("forwarded"), test.method)))
		if err != nil {
			t.Fatal(err)
		}
		_, goaways, err := drain(s)
		if status.Code(err) != test.code || goaways != test.goaways {
			t.Errorf("Stream(%s) = %d GOAWAYs and %v; want %d and %v", test.method, goaways, err, test.goaways, test.code)
		}
		md, err := s.Header()
		if refused := md.Get(RefusedKey); err != nil || len(refused) != test.goaways {
			t.Errorf("Stream(%s): initial metadata = %v, %v; want %s where a GOAWAY comes first", test.method, md, err, RefusedKey)
		}
	}
}

func TestUnknownRPC(t *testing.T) {
	b := newBench(t)
	for _, method := range []string{"/jumpstarter.v1.ExporterService/Nonsense", "/jumpstarter.v1.ControllerService/Dial", "/x/y"} {
		err := b.conn.Invoke(soon(t), method, &emptypb.Empty{}, &emptypb.Empty{})
		wantStatus(t, method, err, codes.Unimplemented, "")
	}
}

// A driver that panics fails its own call; the others, and its own next ones,
// go on. The client is told what happened, the log where.
func TestPanics(t *testing.T) {
	b := newBench(t).ready()
	_, err := b.call(soon(t), "dev", "panic")
	wantStatus(t, "DriverCall", err, codes.Unknown, "oops")
	_, err = b.feed(soon(t), b.id("dev"), "feed_panic")
	wantStatus(t, "StreamingDriverCall", err, codes.Unknown, "oops")
	s := b.driverStream(t, soon(t), "dev", "stream_panic")
	send(t, s, "x")
	_, _, err = drain(s)
	wantStatus(t, "Stream", err, codes.Unknown, "oops")
	if _, err := b.call(soon(t), "dev", "nop"); err != nil {
		t.Errorf("a call after that = %v; want nil", err)
	}
	if log := b.log.String(); strings.Count(log, "driver panicked") != 3 || strings.Count(log, "stack=") != 3 || !strings.Contains(log, "driver=dev") {
		t.Errorf("log = %s; want three panics with their stacks", log)
	}
}

func TestDeadline(t *testing.T) {
	b := newBench(t).ready()
	for i, method := range []string{"wait", "stuck"} { // one heeds its context, one does not
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := b.call(ctx, "dev", method)
		wantStatus(t, method, err, codes.DeadlineExceeded, "")
		drivertest.Until(t, method+" was called", func() bool { return int(b.stuck.Load()) == i+1 })
	}
}

// While a driver is stuck, everything else answers at once.
func TestStuckCall(t *testing.T) {
	b := newBench(t).ready()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 3)
	for range cap(done) {
		go func() {
			_, err := b.call(ctx, "dev", "stuck")
			done <- err
		}()
	}
	drivertest.Until(t, "three calls are stuck", func() bool { return b.stuck.Load() == 3 })

	start := time.Now()
	if _, err := b.export.GetStatus(soon(t), &pb.GetStatusRequest{}); err != nil {
		t.Errorf("GetStatus = %v; want nil", err)
	}
	if _, err := b.export.GetReport(soon(t), &emptypb.Empty{}); err != nil {
		t.Errorf("GetReport = %v; want nil", err)
	}
	logs, err := b.export.LogStream(soon(t), &emptypb.Empty{})
	if err == nil {
		_, err = logs.Recv()
	}
	if err != nil {
		t.Errorf("LogStream = %v; want a record", err)
	}
	for _, path := range []string{"dev.inner", "dev"} { // another driver, and the same one
		if _, err := b.call(soon(t), path, "nop"); err != nil {
			t.Errorf("%s.nop = %v; want nil", path, err)
		}
		if _, err := b.feed(soon(t), b.id(path), "count", 3); err != nil {
			t.Errorf("%s.count = %v; want nil", path, err)
		}
		wantEcho(t, b.driverStream(t, soon(t), path, "stream_echo"), "x")
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("all that took %v; want next to nothing", took)
	}
	cancel()
	for range cap(done) {
		wantStatus(t, "a stuck call that is given up", <-done, codes.Canceled, "")
	}
}

func TestPassphrase(t *testing.T) {
	const secret = "correct horse"
	var log drivertest.Log
	b := newBench(t, RequirePassphrase(secret, textLog(&log))...).ready()
	unary := func(method string, in any, out any) func(context.Context) error {
		return func(ctx context.Context) error {
			return b.conn.Invoke(ctx, "/jumpstarter.v1.ExporterService/"+method, in, out)
		}
	}
	stream := func(request string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, _, err := b.stream(ctx, "request", request)
			return err
		}
	}
	rpcs := []struct {
		name string
		do   func(context.Context) error
		code codes.Code // with the passphrase
	}{
		{"GetReport", unary("GetReport", &emptypb.Empty{}, &pb.GetReportResponse{}), codes.OK},
		{"GetStatus", unary("GetStatus", &pb.GetStatusRequest{}, &pb.GetStatusResponse{}), codes.OK},
		{"Reset", unary("Reset", &pb.ResetRequest{}, &pb.ResetResponse{}), codes.OK},
		{"EndSession", unary("EndSession", &pb.EndSessionRequest{}, &pb.EndSessionResponse{}), codes.OK},
		{"DriverCall", unary("DriverCall", &pb.DriverCallRequest{Uuid: b.id("dev"), Method: "nop"}, &pb.DriverCallResponse{}), codes.OK},
		{"DriverCall, unknown method", unary("DriverCall", &pb.DriverCallRequest{Uuid: b.id("dev"), Method: "x"}, &pb.DriverCallResponse{}), codes.NotFound},
		{"DriverCall, unknown uuid", unary("DriverCall", &pb.DriverCallRequest{Uuid: "x"}, &pb.DriverCallResponse{}), codes.Unknown},
		{"StreamingDriverCall", func(ctx context.Context) error { _, err := b.feed(ctx, b.id("dev"), "count", 2); return err }, codes.OK},
		{"StreamingDriverCall, unknown uuid", func(ctx context.Context) error { _, err := b.feed(ctx, "x", "count"); return err }, codes.Unknown},
		{"LogStream", func(ctx context.Context) error {
			s, err := b.export.LogStream(ctx, &emptypb.Empty{})
			if err == nil {
				_, err = s.Recv()
			}
			return err
		}, codes.OK},
		{"Stream", stream(request1("driver", b.id("dev"), "stream_echo")), codes.OK},
		{"Stream, resource", stream(request1("resource", b.id("dev"), "")), codes.OK},
		{"Stream, unknown uuid", stream(request1("driver", "x", "stream_echo")), codes.Unknown},
		{"Stream, no request", func(ctx context.Context) error { _, _, err := b.stream(ctx); return err }, codes.Unknown},
		{"unknown RPC", unary("Nonsense", &emptypb.Empty{}, &emptypb.Empty{}), codes.Unimplemented},
	}
	offers := []struct {
		name string
		sent []string
		good bool
	}{
		{"right", []string{secret}, true},
		{"missing", nil, false},
		{"empty", []string{""}, false},
		{"wrong", []string{"wrong horse"}, false},
		{"longer", []string{secret + "x"}, false},
		{"shorter", []string{secret[:len(secret)-1]}, false},
		{"wrong, right", []string{"x", secret}, true}, // as a dict of the metadata would have it
		{"right, wrong", []string{secret, "x"}, false},
	}
	for _, o := range offers {
		for _, rpc := range rpcs {
			t.Run(o.name+"/"+rpc.name, func(t *testing.T) {
				ctx, cancel := context.WithCancel(soon(t))
				defer cancel()
				for _, p := range o.sent {
					ctx = metadata.AppendToOutgoingContext(ctx, PassphraseKey, p)
				}
				err := rpc.do(ctx)
				if o.good {
					wantStatus(t, rpc.name, err, rpc.code, "")
					return
				}
				wantStatus(t, rpc.name, err, codes.Unauthenticated, "invalid or missing passphrase")
				if !strings.Contains(log.String(), refusal) {
					t.Errorf("log = %s; want %q in it", log.String(), refusal)
				}
			})
		}
	}
	if text := log.String(); strings.Contains(text, "horse") {
		t.Errorf("log = %s; want no passphrase in it", text)
	}
}

// A large message of a client that may not send any is refused as such.
func TestPassphraseLargeStream(t *testing.T) {
	var log drivertest.Log
	b := newBench(t, RequirePassphrase("x", textLog(&log))...)
	s, err := b.router.Stream(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		err = s.Send(&pb.StreamRequest{Payload: make([]byte, 1<<20)})
	}
	if err != io.EOF {
		t.Errorf("Send() = %v; want EOF, as the RPC has ended", err)
	}
	_, err = s.Recv()
	wantStatus(t, "Stream", err, codes.Unauthenticated, "")
}
