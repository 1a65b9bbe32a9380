package rpc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/exporter/session"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

func TestGetReport(t *testing.T) {
	b := newBench(t)
	r, err := b.export.GetReport(soon(t), &emptypb.Empty{})
	if err != nil {
		t.Fatalf("GetReport() = %v; want nil", err)
	}
	if r.Uuid != b.UUID.String() || r.Motd != "hello" || !maps.Equal(r.Labels, map[string]string{"jumpstarter.dev/name": "bench"}) {
		t.Errorf("GetReport() = %s, %q, %v; want the exporter's uuid, motd and name", r.Uuid, r.Motd, r.Labels)
	}
	root, dev := b.id(""), b.id("dev")
	want := []struct{ id, parent, name string }{
		{root, "", ""},
		{dev, root, "dev"},
		{b.id("dev.inner"), dev, "inner"},
		{b.id("dev.plain"), dev, "plain"},
		{b.id("forwarded"), root, "forwarded"},
		{b.id("absent"), root, "absent"},
		{dev, root, "alias"}, // a ref: its target once more, with all below it
		{b.id("dev.inner"), dev, "inner"},
		{b.id("dev.plain"), dev, "plain"},
	}
	if len(r.Reports) != len(want) {
		t.Fatalf("%d reports; want %d", len(r.Reports), len(want))
	}
	for i, w := range want {
		got := r.Reports[i]
		if got.Uuid != w.id || got.GetParentUuid() != w.parent || got.Labels[driver.LabelName] != w.name {
			t.Errorf("report %d = %s below %q called %q; want %s below %q called %q", i, got.Uuid, got.GetParentUuid(), got.Labels[driver.LabelName], w.id, w.parent, w.name)
		}
	}
	top, device := r.Reports[0], r.Reports[1]
	if _, named := top.Labels[driver.LabelName]; named || top.ParentUuid != nil {
		t.Errorf("the root's report = %v; want neither a name nor a parent", top)
	}
	if top.GetDescription() != "a bench" || device.GetDescription() != "device" || r.Reports[2].Description != nil {
		t.Errorf("descriptions = %q, %q, %v; want those of the config, none where there is none", top.GetDescription(), device.GetDescription(), r.Reports[2].Description)
	}
	if want := map[string]string{"rack": "b", "jumpstarter.dev/client": "fake.client.Dev", "jumpstarter.dev/name": "dev"}; !maps.Equal(device.Labels, want) {
		t.Errorf("labels = %v; want %v", device.Labels, want)
	}
	if !maps.Equal(device.MethodsDescription, map[string]string{"echo-it": "say it again"}) {
		t.Errorf("methods_description = %v; want that of the config", device.MethodsDescription)
	}
}

func TestGetStatus(t *testing.T) {
	b := newBench(t)
	get := func() *pb.GetStatusResponse {
		t.Helper()
		r, err := b.export.GetStatus(soon(t), &pb.GetStatusRequest{})
		if err != nil {
			t.Fatalf("GetStatus() = %v; want nil", err)
		}
		return r
	}
	available, ready := pb.ExporterStatus_EXPORTER_STATUS_AVAILABLE, pb.ExporterStatus_EXPORTER_STATUS_LEASE_READY
	r := get()
	if r.Status != available || r.StatusVersion != 0 || r.PreviousStatus != nil || r.Message == nil || *r.Message != "" {
		t.Errorf("GetStatus() = %v; want AVAILABLE, version 0, an empty message, nothing before it", r)
	}
	b.ready()
	r = get()
	if r.Status != ready || r.StatusVersion != 1 || r.PreviousStatus == nil || *r.PreviousStatus != available || r.GetMessage() != "Ready for commands" {
		t.Errorf("GetStatus() = %v; want LEASE_READY, version 1, AVAILABLE before it", r)
	}
	b.ready()
	if r = get(); r.StatusVersion != 2 || r.GetPreviousStatus() != ready {
		t.Errorf("GetStatus() = %v; want version 2, LEASE_READY before it", r)
	}
}

func TestEndSession(t *testing.T) {
	b := newBench(t)
	r, err := b.export.EndSession(soon(t), &pb.EndSessionRequest{})
	if err != nil || r.Success || r.GetMessage() == "" {
		t.Errorf("EndSession() without a session = %v, %v; want no success, and why", r, err)
	}
	b.End = func() (bool, string) { return true, "ended" }
	r, err = b.export.EndSession(soon(t), &pb.EndSessionRequest{})
	if err != nil || !r.Success || r.GetMessage() != "ended" {
		t.Errorf("EndSession() = %v, %v; want success", r, err)
	}
}

func TestReset(t *testing.T) {
	b := newBench(t).ready()
	if _, err := b.export.Reset(soon(t), &pb.ResetRequest{}); err != nil {
		t.Errorf("Reset() = %v; want nil", err)
	}
	if got, want := slices.Clone(b.resets), []string{"dev.inner", "dev", "forwarded"}; !slices.Equal(got, want) {
		t.Errorf("reset %v; want %v", got, want)
	}
	b.reset = func(path string) error {
		if path == "forwarded" {
			return nil
		}
		return fmt.Errorf("%s is broken", path)
	}
	b.resets = nil
	_, err := b.export.Reset(soon(t), &pb.ResetRequest{})
	if text := status.Convert(err).Message(); status.Code(err) != codes.Unknown || !strings.Contains(text, "dev.inner is broken") || !strings.Contains(text, "dev is broken") {
		t.Errorf("Reset() = %v; want both failures", err)
	}
	if len(b.resets) != 3 {
		t.Errorf("reset %v; want all three, whichever fail", b.resets)
	}
	b.reset = func(string) error { panic("oops") }
	if _, err := b.export.Reset(soon(t), &pb.ResetRequest{}); status.Code(err) != codes.Unknown {
		t.Errorf("Reset() of a driver that panics = %v; want UNKNOWN", err)
	}
	if _, err := b.call(soon(t), "dev", "nop"); err != nil {
		t.Errorf("a call after that = %v; want nil", err)
	}
}

func TestGate(t *testing.T) {
	b := newBench(t)
	for n, name := range pb.ExporterStatus_name {
		want := codes.FailedPrecondition
		switch pb.ExporterStatus(n) {
		case pb.ExporterStatus_EXPORTER_STATUS_LEASE_READY, pb.ExporterStatus_EXPORTER_STATUS_BEFORE_LEASE_HOOK,
			pb.ExporterStatus_EXPORTER_STATUS_AFTER_LEASE_HOOK:
			want = codes.OK
		}
		b.SetStatus(pb.ExporterStatus(n), "")
		_, err := b.call(soon(t), "dev", "nop")
		if status.Code(err) != want {
			t.Errorf("DriverCall in %s = %v; want %v", name, err, want)
		}
		if _, err := b.feed(soon(t), b.id("dev"), "count", 1); status.Code(err) != want {
			t.Errorf("StreamingDriverCall in %s = %v; want %v", name, err, want)
		}
		if _, err := b.callID(soon(t), "nonsense", "nop"); want != codes.OK && status.Code(err) != want {
			t.Errorf("DriverCall of a malformed uuid in %s = %v; want %v before any look-up", name, err, want)
		}
		if _, err := b.export.Reset(soon(t), &pb.ResetRequest{}); status.Code(err) != want {
			t.Errorf("Reset in %s = %v; want %v", name, err, want)
		}
		// these are not gated
		if _, err := b.export.GetReport(soon(t), &emptypb.Empty{}); err != nil {
			t.Errorf("GetReport in %s = %v; want nil", name, err)
		}
		s := b.driverStream(t, soon(t), "dev", "stream_echo")
		wantEcho(t, s, "x")
		finish(t, s)
		if _, _, err := drain(s); err != nil {
			t.Errorf("Stream in %s = %v; want nil", name, err)
		}
	}
}

func TestGateBeforeReady(t *testing.T) {
	b := newBench(t)
	if _, err := b.call(soon(t), "dev", "nop"); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "AVAILABLE") {
		t.Errorf("DriverCall before the session is ready = %v; want FAILED_PRECONDITION that names the status", err)
	}
}

func TestCalls(t *testing.T) {
	b := newBench(t).ready()
	for _, v := range []any{nil, true, 1.0, -0.5, "text", "", []any{}, []any{1.0, nil, "x", []any{}}, map[string]any{}, map[string]any{"a": map[string]any{"b": []any{nil}}}} {
		got, err := b.call(soon(t), "dev", "echo", v)
		if err != nil || fmt.Sprintf("%#v", got) != fmt.Sprintf("%#v", v) {
			t.Errorf("echo(%#v) = %#v, %v; want the same", v, got, err)
		}
	}
	got, err := b.feed(soon(t), b.id("dev"), "count", 1000)
	if err != nil || len(got) != 1000 || got[999] != 999.0 {
		t.Errorf("count(1000) = %d items, %v; want 1000", len(got), err)
	}
	if got, err := b.feed(soon(t), b.id("dev"), "count", 0); err != nil || len(got) != 0 {
		t.Errorf("count(0) = %v, %v; want nothing", got, err)
	}
}

// A client that has seen enough of a feed ends it.
func TestFeedAbandoned(t *testing.T) {
	b := newBench(t).ready()
	for _, method := range []string{"feed_wait", "feed_endless"} {
		ctx, cancel := context.WithCancel(t.Context())
		s, err := b.export.StreamingDriverCall(ctx, &pb.StreamingDriverCallRequest{Uuid: b.id("dev"), Method: method})
		if err == nil {
			_, err = s.Recv()
		}
		if err != nil {
			t.Fatalf("%s = %v; want an item", method, err)
		}
		drivertest.Until(t, method+" runs", func() bool { return b.stuck.Load() == 1 })
		cancel()
		drivertest.Until(t, method+" has ended", func() bool { return b.stuck.Load() == 0 })
	}
}

// follow reads records until one has a text.
func follow(t *testing.T, s interface {
	Recv() (*pb.LogStreamResponse, error)
}, last string) (list []*pb.LogStreamResponse) {
	t.Helper()
	for {
		r, err := s.Recv()
		if err != nil {
			t.Fatalf("LogStream = %v after %v; want %q", err, list, last)
		}
		if list = append(list, r); strings.HasPrefix(r.Message, last) {
			return list
		}
	}
}

func TestLogStream(t *testing.T) {
	b := newBench(t).ready()
	ctx := soon(t)
	b.Logs.Append(session.Record{Message: "marker 1"})
	first, err := b.export.LogStream(ctx, &emptypb.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	got := follow(t, first, "marker 1")
	if !strings.HasPrefix(got[0].Message, "device cannot be used now") || got[0].Severity != "WARNING" {
		t.Errorf("the log begins with %v; want that a device is absent, from before any client came", got[0])
	}
	second, err := b.export.LogStream(ctx, &emptypb.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.Header(); err != nil { // says that it follows
		t.Fatal(err)
	}

	calls := []struct {
		method string
		args   []any
		end    *pb.LogStreamResponse
	}{
		{"log", nil, &pb.LogStreamResponse{Severity: "INFO", Message: "Operation completed", StructuredFields: map[string]string{"result": "success"}}},
		{"fail", []any{"argument"}, failed("validation_error")},
		{"fail", []any{"unsupported"}, failed("not_implemented")},
		{"none", nil, failed("not_implemented")},
		{"fail", []any{"deadline"}, failed("timeout")},
		{"fail", []any{"refused"}, failed("connection_error")},
		{"fail", []any{"file"}, failed("device_error")},
		{"fail", []any{"other"}, failed("internal_error")},
		{"panic", nil, failed("internal_error")},
	}
	for _, c := range calls {
		_, _ = b.call(ctx, "dev", c.method, c.args...)
	}
	b.Logs.Append(session.Record{Message: "marker 2"})
	lists := [][]*pb.LogStreamResponse{follow(t, first, "marker 2"), follow(t, second, "marker 2")}
	for i, list := range lists {
		if len(list) != 2*len(calls)+2 {
			t.Fatalf("consumer %d was sent %d records; want %d: %v", i, len(list), 2*len(calls)+2, list)
		}
		inside := list[1]
		if inside.Message != "from inside n=1" || inside.Severity != "WARNING" || inside.GetSource() != pb.LogSource_LOG_SOURCE_DRIVER ||
			inside.GetDriverType() != "fake" || inside.Timestamp.AsTime().IsZero() || inside.Uuid != "" {
			t.Errorf("what the driver logs = %v; want a warning of a driver of type fake", inside)
		}
		list = slices.Delete(slices.Clone(list), 1, 2)
		for j, c := range calls {
			start, end := list[2*j], list[2*j+1]
			if start.Message != "Operation started" || start.Severity != "INFO" || start.GetOperation() != c.method || start.GetDriverType() != "fake" {
				t.Errorf("start of %s = %v; want Operation started", c.method, start)
			}
			if end.Message != c.end.Message || end.Severity != c.end.Severity || end.GetOperation() != c.method || !maps.Equal(end.StructuredFields, c.end.StructuredFields) {
				t.Errorf("end of %s%v = %v; want %v", c.method, c.args, end, c.end)
			}
		}
	}
}

func failed(kind string) *pb.LogStreamResponse {
	return &pb.LogStreamResponse{Severity: "WARNING", Message: "Operation failed",
		StructuredFields: map[string]string{"result": "failure", "error_type": kind}}
}

// A lone consumer that reconnects misses nothing; one that does not read is told
// what it lost, and holds nobody up.
func TestLogStreamReconnect(t *testing.T) {
	var active rpcs
	b := newBench(t, grpc.StatsHandler(&active)).ready()
	ctx, cancel := context.WithCancel(soon(t))
	s, err := b.export.LogStream(ctx, &emptypb.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	b.Logs.Append(session.Record{Message: "\xff"})
	b.Logs.Append(session.Record{Message: "one"})
	follow(t, s, "one")
	cancel()
	drivertest.Until(t, "nobody follows", func() bool { return active.Load() == 0 })
	b.Logs.Append(session.Record{Message: "two"})
	b.Logs.Append(session.Record{Message: "three"})
	if s, err = b.export.LogStream(soon(t), &emptypb.Empty{}); err != nil {
		t.Fatal(err)
	}
	if got := follow(t, s, "three"); len(got) != 2 || got[0].Message != "two" {
		t.Errorf("after reconnecting: %v; want two and three", got)
	}

	long := strings.Repeat("x", 10<<10)
	const n = 1000 // 10 MB, more than buffers hold
	for i := range n {
		b.Logs.Append(session.Record{Message: fmt.Sprintf("%06d %s", i, long)})
	}
	b.Logs.Append(session.Record{Message: "end"})
	got, lost := 0, 0
	for _, r := range follow(t, s, "end") {
		var some int
		if _, err := fmt.Sscanf(r.Message, "%d older", &some); err == nil {
			lost += some
		} else if r.Message != "end" {
			got++
		}
	}
	if lost == 0 || got+lost != n {
		t.Errorf("a slow consumer was sent %d records and told of %d lost ones; want %d together", got, lost, n)
	}
}

// rpcs counts the RPCs that a server is serving.
type rpcs struct{ atomic.Int32 }

func (*rpcs) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }
func (r *rpcs) HandleRPC(_ context.Context, s stats.RPCStats) {
	switch s.(type) {
	case *stats.Begin:
		r.Add(1)
	case *stats.End:
		r.Add(-1)
	}
}
func (*rpcs) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*rpcs) HandleConn(context.Context, stats.ConnStats)                       {}

// uuidSpellings are ways of writing one UUID.
func uuidSpellings(id string) map[string]string {
	return map[string]string{
		"plain": id, "upper case": strings.ToUpper(id), "no dashes": strings.ReplaceAll(id, "-", ""),
		"braces": "{" + id + "}", "urn": "urn:uuid:" + id,
	}
}

func TestUUIDSpellings(t *testing.T) {
	b := newBench(t).ready()
	for name, id := range uuidSpellings(b.id("dev")) {
		if _, err := b.callID(soon(t), id, "nop"); err != nil {
			t.Errorf("DriverCall, uuid %s = %v; want nil", name, err)
		}
		if _, err := b.feed(soon(t), id, "count", 1); err != nil {
			t.Errorf("StreamingDriverCall, uuid %s = %v; want nil", name, err)
		}
		s, _, err := b.stream(soon(t), "request", request1("driver", id, "stream_echo"))
		if err != nil {
			t.Errorf("Stream, uuid %s = %v; want nil", name, err)
			continue
		}
		wantEcho(t, s, "x")
	}
}

func TestStatus(t *testing.T) {
	if Status(nil) != nil {
		t.Error("Status(nil) is an error; want nil")
	}
	own := status.Error(codes.Aborted, "x")
	if got := Status(own); got != own {
		t.Errorf("Status(%v) = %v; want the same", own, got)
	}
	for c := driver.OK; c <= driver.NotReady; c++ {
		if got := Class(Code(c)); got != c {
			t.Errorf("Class(Code(%d)) = %d; want the same", c, got)
		}
	}
	if got := Class(codes.DataLoss); got != driver.Internal {
		t.Errorf("Class(DATA_LOSS) = %d; want Internal", got)
	}
	for _, e := range []string{"long", "latin1"} {
		got := status.Convert(Status(failures[e])).Message()
		if len(got) > maxText || strings.ContainsRune(strings.TrimSuffix(got, "\uFFFD"), '\uFFFD') {
			t.Errorf("Status(%s) has a text of %d bytes; want at most %d, cut between characters", e, len(got), maxText)
		}
	}
	if got := status.Convert(Status(errors.New("caf\xe9"))).Message(); got != "caf\uFFFD" {
		t.Errorf("Status(not UTF-8) = %q; want the replacement character", got)
	}
}
