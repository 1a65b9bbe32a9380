// Package rpc serves a session over gRPC: the ExporterService for calls, status
// and logs, and the RouterService for byte streams.
//
// It is the only place where protobuf values meet the drivers' JSON-shaped
// ones, and where kinds of errors become status codes:
//
//	unsupported, and nothing else to say    UNIMPLEMENTED
//	no such method                          NOT_FOUND
//	bad argument                            INVALID_ARGUMENT
//	deadline                                DEADLINE_EXCEEDED
//	absent device, failed connection        UNAVAILABLE
//	operating system's refusal              INTERNAL
//	session not ready                       FAILED_PRECONDITION
//	anything else                           UNKNOWN
package rpc

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/session"
	"github.com/jumplead/jumplead/exporter/stream"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Register adds both services of a session to a gRPC server. The log takes what
// is the exporter's own business: panics of drivers.
func Register(r grpc.ServiceRegistrar, s *session.Session, log *slog.Logger) {
	srv := &server{s: s, log: log}
	pb.RegisterExporterServiceServer(r, srv)
	pb.RegisterRouterServiceServer(r, srv)
}

type server struct {
	pb.UnimplementedExporterServiceServer
	pb.UnimplementedRouterServiceServer

	s   *session.Session
	log *slog.Logger
}

func (s *server) GetReport(ctx context.Context, _ *emptypb.Empty) (*pb.GetReportResponse, error) {
	tree := s.s.Tree()
	settling, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	if tree.Settled(settling) != nil && ctx.Err() != nil {
		return nil, Status(ctx.Err())
	}
	reports := tree.Reports()
	out := &pb.GetReportResponse{Uuid: s.s.UUID.String(), Labels: s.s.Labels, Motd: s.s.MOTD(),
		Reports: make([]*pb.DriverInstanceReport, len(reports))}
	for i, r := range reports {
		out.Reports[i] = Report(r)
	}
	return out, nil
}

// settleLimit is how long a report waits for mounts that are being opened. One that
// takes longer is reported as it is declared.
const settleLimit = 5 * time.Second

// Report is a node's report on the wire.
func Report(r driver.Report) *pb.DriverInstanceReport {
	out := &pb.DriverInstanceReport{Uuid: r.UUID.String(), Labels: r.Labels, MethodsDescription: r.Methods}
	if r.Parent != uuid.Nil {
		p := r.Parent.String()
		out.ParentUuid = &p
	}
	if r.Description != "" {
		out.Description = &r.Description
	}
	return out
}

func (s *server) GetStatus(context.Context, *pb.GetStatusRequest) (*pb.GetStatusResponse, error) {
	st := s.s.Status()
	out := &pb.GetStatusResponse{Status: st.Now, Message: &st.Message, StatusVersion: st.Version}
	if st.Version > 0 {
		out.PreviousStatus = &st.Before
	}
	return out, nil
}

func (s *server) EndSession(context.Context, *pb.EndSessionRequest) (*pb.EndSessionResponse, error) {
	ok, message := false, "no session is active"
	if s.s.End != nil {
		ok, message = s.s.End()
	}
	return &pb.EndSessionResponse{Success: ok, Message: &message}, nil
}

func (s *server) Reset(ctx context.Context, _ *pb.ResetRequest) (*pb.ResetResponse, error) {
	if err := s.s.Ready(); err != nil {
		return nil, Status(err)
	}
	if err := s.reset(ctx); err != nil {
		return nil, Status(err)
	}
	return &pb.ResetResponse{}, nil
}

func (s *server) reset(ctx context.Context) (err error) {
	defer s.recovered("reset", &err)
	return s.s.Tree().Reset(ctx)
}

func (s *server) LogStream(_ *emptypb.Empty, out grpc.ServerStreamingServer[pb.LogStreamResponse]) error {
	r := s.s.Logs.Follow()
	defer r.Close()
	if err := out.SendHeader(nil); err != nil { // so that a client knows it is following
		return err
	}
	for {
		rec, err := r.Next(out.Context())
		if err != nil {
			return status.FromContextError(err).Err()
		}
		if err := out.Send(logRecord(rec)); err != nil {
			return err
		}
	}
}

func logRecord(r session.Record) *pb.LogStreamResponse {
	out := &pb.LogStreamResponse{
		Severity: session.LevelName(r.Level), Message: r.Message,
		Source: &r.Source, Timestamp: timestamppb.New(r.Time),
	}
	if r.DriverType != "" {
		out.DriverType = &r.DriverType
	}
	if r.Operation != "" {
		out.Operation = &r.Operation
	}
	if r.Result != "" {
		out.StructuredFields = map[string]string{"result": r.Result}
		if r.ErrorType != "" {
			out.StructuredFields["error_type"] = r.ErrorType
		}
	}
	return out
}

// row finds the exported method of a call. A method of another kind is as
// absent as an unknown one, but the text tells them apart.
func row(ctx context.Context, n *driver.Node, method string, kind driver.Kind) (driver.Export, error) {
	d, err := n.Driver(ctx)
	if err != nil {
		return driver.Export{}, err
	}
	e, ok := d.Export(method)
	switch {
	case ok && e.Kind() == kind:
		return e, nil
	case ok:
		return e, fmt.Errorf("method %s missing marker: it is a %s, not a %s%w", method, e.Kind(), kind, quiet(driver.ErrNoMethod))
	case inherited[method]:
		return e, fmt.Errorf("method %s missing marker: it is not exported%w", method, quiet(driver.ErrNoMethod))
	}
	return e, fmt.Errorf("method %s not found on driver%w", clip(method), quiet(driver.ErrNoMethod))
}

// inherited are names that every Python driver has without exporting them.
// Clients are told so, as upstream tells them.
var inherited = map[string]bool{
	"close": true, "reset": true, "report": true, "enumerate": true, "client": true,
	"extra_labels": true, "resource": true, "children": true, "resources": true,
	"description": true, "methods_description": true, "log_level": true, "logger": true,
	"labels": true, "uuid": true, "driver_type": true,
	"DriverCall": true, "StreamingDriverCall": true, "Stream": true,
}

// quiet gives an error a kind without adding to its text.
func quiet(kind error) error { return silent{kind} }

type silent struct{ error }

func (silent) Error() string   { return "" }
func (s silent) Unwrap() error { return s.error }

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}

// operation logs the start of a call for the clients and returns what logs its
// end.
func (s *server) operation(n *driver.Node, method string) func(error) {
	kind := n.Spec.Contract.Kind
	s.s.Logs.Append(session.Record{Time: time.Now(), Source: pb.LogSource_LOG_SOURCE_DRIVER,
		Message: "Operation started", DriverType: kind, Operation: method})
	return func(err error) {
		rec := session.Record{Time: time.Now(), Source: pb.LogSource_LOG_SOURCE_DRIVER,
			Message: "Operation completed", DriverType: kind, Operation: method, Result: "success"}
		c := driver.Classify(err)
		if st, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
			c = Class(st.GRPCStatus().Code())
		}
		switch c {
		case driver.OK:
		case driver.Canceled: // nobody's failure: the client has seen enough
			rec.Message, rec.Result = "Operation canceled", ""
		default:
			rec.Level, rec.Message, rec.Result = slog.LevelWarn, "Operation failed", "failure"
			rec.ErrorType = c.String()
		}
		s.s.Logs.Append(rec)
	}
}

// node finds the driver of a call that is served now, and keeps it from being
// reloaded until it is released.
func (s *server) node(id string) (*driver.Node, error) {
	if err := s.s.Ready(); err != nil {
		return nil, err
	}
	return s.use(id)
}

// use finds a driver, which has to be released. One that a reload is closing has a
// successor within a moment, or is not known any more.
func (s *server) use(id string) (n *driver.Node, err error) {
	for range 20 {
		if n, err = s.s.Node(id); err != nil {
			return nil, err
		}
		if err = n.Use(); err == nil {
			return n, nil
		}
		time.Sleep(time.Millisecond)
	}
	return nil, err
}

func (s *server) DriverCall(ctx context.Context, in *pb.DriverCallRequest) (*pb.DriverCallResponse, error) {
	n, err := s.node(in.Uuid)
	if err != nil {
		return nil, Status(err)
	}
	defer n.Release()
	done := s.operation(n, in.Method)
	if n.Mount() != nil {
		out, err := s.forwardCall(ctx, n, in)
		done(err)
		return out, err
	}
	result, err := s.call(ctx, n, in)
	done(err)
	if err != nil {
		return nil, Status(err)
	}
	return &pb.DriverCallResponse{Uuid: answerID, Result: result}, nil
}

// answerID fills the uuid of answers, which nobody reads.
var answerID = uuid.Nil.String()

func (s *server) call(ctx context.Context, n *driver.Node, in *pb.DriverCallRequest) (result *structpb.Value, err error) {
	defer s.recovered(in.Method, &err, "driver", n.Path)
	e, err := row(ctx, n, in.Method, driver.KindCall)
	if err != nil {
		return nil, err
	}
	args, err := FromValues(in.Args)
	if err != nil {
		return nil, err
	}
	v, err := e.Call(ctx, args)
	if err != nil {
		return nil, err
	}
	return ToValue(v)
}

func (s *server) StreamingDriverCall(in *pb.StreamingDriverCallRequest, out grpc.ServerStreamingServer[pb.StreamingDriverCallResponse]) error {
	n, err := s.node(in.Uuid)
	if err != nil {
		return Status(err)
	}
	defer n.Release()
	done := s.operation(n, in.Method)
	if n.Mount() != nil {
		err = s.forwardFeed(n, in, out)
	} else {
		err = s.feed(n, in, out)
	}
	done(err)
	return Status(err)
}

func (s *server) feed(n *driver.Node, in *pb.StreamingDriverCallRequest, out grpc.ServerStreamingServer[pb.StreamingDriverCallResponse]) (err error) {
	defer s.recovered(in.Method, &err, "driver", n.Path)
	ctx := out.Context()
	e, err := row(ctx, n, in.Method, driver.KindFeed)
	if err != nil {
		return err
	}
	args, err := FromValues(in.Args)
	if err != nil {
		return err
	}
	seq, err := e.Feed(ctx, args)
	if err != nil {
		return err
	}
	for v, err := range seq {
		if err != nil {
			return err
		}
		result, err := ToValue(v)
		if err != nil {
			return err
		}
		if err := out.Send(&pb.StreamingDriverCallResponse{Uuid: answerID, Result: result}); err != nil {
			return cmp.Or(ctx.Err(), err)
		}
	}
	return ctx.Err()
}

// recovered turns a driver's panic into an error: the other drivers go on.
func (s *server) recovered(method string, err *error, attrs ...any) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("%s: %w", clip(method), &stream.PanicError{Value: v, Stack: debug.Stack()})
		s.panicked(method, *err, attrs...)
	}
}

// panicked logs what a client is not told: where a driver panicked.
func (s *server) panicked(method string, err error, attrs ...any) {
	var p *stream.PanicError
	if errors.As(err, &p) {
		s.log.Error("driver panicked", append(attrs, "method", method, "panic", p.Value, "stack", string(p.Stack))...)
	}
}

// request is what the metadata of a stream asks for.
type request struct {
	Kind     string  `json:"kind"`
	UUID     string  `json:"uuid"`
	Method   *string `json:"method"`
	Encoding *string `json:"x_jmp_content_encoding"`
}

// parseRequest reads the metadata entry that opens a stream.
func parseRequest(md metadata.MD) (request, error) {
	var r request
	values := md.Get("request")
	if len(values) == 0 {
		return r, errors.New("stream: the metadata has no entry called request")
	}
	// of several, Python's dict keeps the last
	if err := json.Unmarshal([]byte(values[len(values)-1]), &r); err != nil {
		return r, fmt.Errorf("stream: metadata entry request: %w", err)
	}
	switch {
	case r.Kind == "resource", r.Kind == "driver" && r.Method != nil:
		return r, nil
	case r.Kind == "driver":
		return r, errors.New("stream: metadata entry request: method is missing")
	}
	return r, fmt.Errorf("stream: kind %q is none of driver, resource", clip(r.Kind))
}

func (s *server) Stream(rpc grpc.BidiStreamingServer[pb.StreamRequest, pb.StreamResponse]) (err error) {
	md, _ := metadata.FromIncomingContext(rpc.Context())
	req, err := parseRequest(md)
	if err != nil {
		return unknown(err)
	}
	n, err := s.use(req.UUID)
	if err != nil {
		return unknown(err)
	}
	defer n.Release()
	if n.Mount() != nil {
		return s.forwardStream(rpc, n, req.UUID, req.Kind == "resource")
	}
	if req.Kind == "resource" {
		return s.offer(rpc, n, req.Encoding)
	}
	return s.connect(rpc, n, *req.Method)
}

func unknown(err error) error { return status.Error(codes.Unknown, text(err)) }

// RefusedKey is in the initial metadata of a stream that did not open, when a
// GOAWAY comes before its error.
const RefusedKey = "x-jumplead-refused"

// connect serves a driver's byte stream. What fails before the stream is open
// is UNKNOWN, as upstream's exporter answers, unless the kind says more: no such
// method, an absent device.
func (s *server) connect(rpc grpc.BidiStreamingServer[pb.StreamRequest, pb.StreamResponse], n *driver.Node, method string) (err error) {
	defer s.recovered(method, &err, "driver", n.Path)
	ctx := rpc.Context()
	conn, err := s.dial(ctx, n, method)
	if err != nil {
		err := opening(err)
		s.log.Warn("stream did not open", "driver", n.Path, "method", clip(method), "error", status.Convert(err).Message())
		return refuse(rpc, n.Spec.Contract.Forwarded, err)
	}
	if err := rpc.SendHeader(nil); err != nil {
		conn.Close()
		return err
	}
	err = stream.Serve(ctx, rpc, conn, n.Spec.Contract.Forwarded)
	if errors.Is(err, stream.ErrPeer) && ctx.Err() == nil {
		s.log.Warn("stream broke", "driver", n.Path, "method", method, "error", err)
	}
	s.panicked(method, err, "driver", n.Path)
	return Status(err)
}

// refuse ends a stream that did not open. Port forwarders of the stock client leave
// the local connection hanging on an error; they close it on an end of stream.
func refuse(rpc grpc.ServerStream, forwarded bool, err error) error {
	if forwarded && status.Code(err) != codes.NotFound {
		_ = rpc.SetHeader(metadata.Pairs(RefusedKey, status.Code(err).String()))
		_ = rpc.SendMsg(stream.NewFrame(pb.FrameType_FRAME_TYPE_GOAWAY, nil))
	}
	return err
}

func (s *server) dial(ctx context.Context, n *driver.Node, method string) (conn io.ReadWriteCloser, err error) {
	defer s.recovered(method, &err, "driver", n.Path)
	e, err := row(ctx, n, method, driver.KindStream)
	if err != nil {
		return nil, err
	}
	return e.Stream(ctx)
}

// opening is the status of a stream that did not open.
func opening(err error) error {
	switch c := Status(err); status.Code(c) {
	case codes.NotFound, codes.Unavailable, codes.Canceled:
		return c
	}
	return unknown(err)
}

// offer holds a client's resource stream open until the call that names it is
// done with it, or the client goes. A content encoding that we know is agreed to:
// the client sends and gets its file as it is. Of another one the answer says
// nothing, and the client packs and unpacks by itself.
func (s *server) offer(rpc grpc.BidiStreamingServer[pb.StreamRequest, pb.StreamResponse], n *driver.Node, encoding *string) error {
	taken, end := context.WithCancel(rpc.Context())
	defer end()
	offered := stream.New(offerFrames{rpc}, end)
	id, err := s.s.Offers.Add(n.UUID, offered)
	if err != nil {
		return Status(err)
	}
	defer s.s.Offers.Remove(id)
	if encoding != nil && !stream.Agrees(*encoding) {
		encoding = nil
	}
	handle, err := json.Marshal(map[string]any{"kind": "client_stream", "uuid": id.String(), "x_jmp_content_encoding": encoding})
	if err != nil {
		return err
	}
	md := metadata.Pairs("resource", string(handle))
	if encoding != nil {
		md.Set("x_jmp_accept_encoding", *encoding)
	}
	if err := rpc.SendHeader(md); err != nil {
		return err
	}
	<-taken.Done()
	if err := rpc.Context().Err(); err != nil {
		return Status(err)
	}
	if !offered.Whole() {
		// An orderly end would make what a client has got look like all of it.
		return status.Error(codes.Aborted, "the driver gave up on this stream; the call tells why")
	}
	// A client of Python's gRPC whose own GOAWAY meets an RPC that has ended
	// takes it for a failure of the RPC, and drops what it has not read yet: the
	// dump is short, and its call has succeeded. It closes its direction at once
	// when it has nothing to send.
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		offered.Drain() // ends with the RPC
	}()
	limit := time.NewTimer(endLimit)
	defer limit.Stop()
	select {
	case <-drained:
	case <-limit.C:
	case <-rpc.Context().Done():
	}
	return nil
}

// endLimit is how long the stream of a transfer that is over waits for its client
// to end, too.
const endLimit = 5 * time.Second

// offerFrames are a resource stream's frames. A client that is done says so with
// a GOAWAY frame. One whose stream just ends has gone, and what came is not all
// there was: to the driver that is a connection that failed.
type offerFrames struct{ stream.Frames }

func (f offerFrames) SendMsg(m any) error { return lost(f.Frames.SendMsg(m)) }
func (f offerFrames) RecvMsg(m any) error { return lost(f.Frames.RecvMsg(m)) }

func lost(err error) error {
	switch err {
	case nil:
		return nil
	case io.EOF:
		return fmt.Errorf("the client went away: %w: %w", io.ErrUnexpectedEOF, driver.ErrUnavailable)
	}
	return fmt.Errorf("the client went away: %s: %w", status.Convert(err).Message(), driver.ErrUnavailable)
}

// maxText is how long the text of an error may be, in bytes. It travels in a
// header, where three characters stand for each byte that is not ASCII, and the
// stock client refuses headers above 8 KiB whatever status they carry.
const maxText = 2 << 10

func text(err error) string {
	s := err.Error()
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText-3], "") + "..."
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// Status is an error as a status that gRPC sends; nil stays nil, and a status
// stays what it is.
func Status(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
		return err
	}
	return status.Error(Code(driver.Classify(err)), text(err))
}

// Code is the status code of a class of errors.
func Code(c driver.Class) codes.Code {
	switch c {
	case driver.OK:
		return codes.OK
	case driver.Unsupported:
		return codes.Unimplemented
	case driver.NoMethod:
		return codes.NotFound
	case driver.Invalid:
		return codes.InvalidArgument
	case driver.Timeout:
		return codes.DeadlineExceeded
	case driver.Unavailable:
		return codes.Unavailable
	case driver.Device:
		return codes.Internal
	case driver.Canceled:
		return codes.Canceled
	case driver.NotReady:
		return codes.FailedPrecondition
	}
	return codes.Unknown
}

// Class is the inverse of [Code].
func Class(c codes.Code) driver.Class {
	for k := driver.OK; k <= driver.NotReady; k++ {
		if Code(k) == c {
			return k
		}
	}
	return driver.Internal
}
