package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/exporter/session"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/structpb"
)

// bench is a harness without hardware and a client of it that speaks plain gRPC,
// as the stock client does.
type bench struct {
	*session.Session
	export pb.ExporterServiceClient
	router pb.RouterServiceClient
	conn   *grpc.ClientConn
	ln     *bufconn.Listener
	log    drivertest.Log

	release chan struct{} // ends the calls that are stuck
	stuck   atomic.Int32  // how many are
	open    atomic.Int32  // streams of drivers
	reset   func(path string) error

	mu     sync.Mutex
	resets []string
}

// newBench serves a harness of these nodes:
//
//	(root)          a group
//	├ dev           a driver with everything; it has children
//	│ ├ inner       the same
//	│ └ plain       a driver without rows
//	├ forwarded     the same streams, for clients that watch for nothing but their end
//	├ absent        a device that is not there
//	└ alias         a ref to dev
func newBench(t testing.TB, opts ...grpc.ServerOption) *bench {
	t.Helper()
	b := &bench{release: make(chan struct{})}
	log := textLog(&b.log)
	dev := driver.Contract{Name: "dev", Client: "fake.client.Dev", Kind: "fake"}
	forwarded := dev
	forwarded.Forwarded = true
	open := func(_ context.Context, env *driver.Env, _ struct{}) (driver.Driver, error) {
		return driver.Driver{Exports: b.rows(env), Impl: resetter{b, env.Path}}, nil
	}
	specs := []driver.Spec{
		driver.Define(driver.Spec{Type: "fake.Group", Role: driver.Group, Contract: driver.Contract{Client: "fake.client.Group"}},
			func(context.Context, *driver.Env, struct{}) (driver.Driver, error) { return driver.Driver{}, nil }),
		driver.Define(driver.Spec{Type: "fake.Dev", Contract: dev}, open),
		driver.Define(driver.Spec{Type: "fake.Forwarded", Contract: forwarded}, open),
		driver.Define(driver.Spec{Type: "fake.Plain", Contract: dev},
			func(context.Context, *driver.Env, struct{}) (driver.Driver, error) { return driver.Driver{}, nil }),
		driver.Define(driver.Spec{Type: "fake.Absent", Contract: dev},
			func(context.Context, *driver.Env, struct{}) (driver.Driver, error) {
				return driver.Driver{}, fmt.Errorf("open: no usb device 1234:5678: %w", driver.ErrUnavailable)
			}),
	}
	offers, logs := session.NewOffers(), session.NewLogs()
	tree, problems := driver.Plan(driver.Decl{Description: "a bench", Children: []driver.Decl{
		{Name: "dev", Type: "fake.Dev", Description: "device", Methods: map[string]string{"echo-it": "say it again"},
			Config: drivertest.YAML(t, "labels: {rack: b, jumpstarter.dev/client: x}"),
			Children: []driver.Decl{
				{Name: "inner", Type: "fake.Dev"},
				{Name: "plain", Type: "fake.Plain"},
			}},
		{Name: "forwarded", Type: "fake.Forwarded"},
		{Name: "absent", Type: "fake.Absent"},
		{Name: "alias", Ref: "dev"},
	}}, driver.Options{Specs: specs, Namespace: uuid.NameSpaceDNS, Log: slog.New(logs.Handler()), Resources: offers})
	if err := problems.Err(); err != nil {
		t.Fatalf("Plan() = %v; want no error", err)
	}
	if err := tree.Open(t.Context()); err != nil {
		t.Fatalf("Open() = %v; want nil", err)
	}
	b.Session = session.New(uuid.MustParse("00000000-0000-4000-8000-000000000001"), tree, logs, offers)
	b.Labels = map[string]string{driver.LabelName: "bench"}
	b.SetMOTD("hello")

	b.ln = bufconn.Listen(64 << 10)
	srv := grpc.NewServer(append(append(ServerOptions(), grpc.WaitForHandlers(true)), opts...)...)
	Register(srv, b.Session, log)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(b.ln) }()
	b.conn = b.dial(t)
	b.export, b.router = pb.NewExporterServiceClient(b.conn), pb.NewRouterServiceClient(b.conn)
	t.Cleanup(func() {
		close(b.release)
		srv.Stop()
		if err := <-served; err != nil {
			t.Errorf("Serve() = %v; want nil", err)
		}
		if err := b.Session.Close(context.Background()); err != nil {
			t.Errorf("Close() = %v; want nil", err)
		}
	})
	return b
}

func textLog(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// ready lets calls through.
func (b *bench) ready() *bench {
	b.SetStatus(pb.ExporterStatus_EXPORTER_STATUS_LEASE_READY, "Ready for commands")
	return b
}

func (b *bench) dial(t testing.TB) *grpc.ClientConn {
	t.Helper()
	// windows of a fixed size: gRPC's own grow to 16 MB where data flows fast
	conn, err := grpc.NewClient("passthrough:///bench", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return b.ln.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// id is the UUID of a node.
func (b *bench) id(path string) string {
	for _, n := range b.Tree().Nodes() {
		if n.Path == path {
			return n.UUID.String()
		}
	}
	panic("no node " + path)
}

type resetter struct {
	b    *bench
	path string
}

func (r resetter) Reset(context.Context) error {
	r.b.mu.Lock()
	r.b.resets = append(r.b.resets, r.path)
	f := r.b.reset
	r.b.mu.Unlock()
	if f != nil {
		return f(r.path)
	}
	return nil
}

// failures are the errors that a driver may return, by the name that the tests
// call them.
var failures = map[string]error{
	"unsupported": errors.ErrUnsupported,
	"argument":    driver.BadArg("pin", "wants a pin"),
	"deadline":    os.ErrDeadlineExceeded,
	"unavailable": driver.ErrUnavailable,
	"refused":     &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED},
	"closed":      net.ErrClosed,
	"file":        &fs.PathError{Op: "open", Path: "/dev/x", Err: syscall.ENOENT},
	"busy":        driver.ErrBusy,
	"other":       errors.New("something else"),
	"long":        errors.New(string(bytes.Repeat([]byte("ä"), 100<<10))),
	"latin1":      errors.New("caf\xe9"),
}

func (b *bench) rows(env *driver.Env) []driver.Export {
	return []driver.Export{
		driver.Do("nop", func(context.Context) error { return nil }),
		driver.Call1("echo", func(_ context.Context, v any) (any, error) { return v, nil }),
		driver.Do2("set", func(_ context.Context, pin int, name string) error { return nil }).Args("pin", "name"),
		driver.Do1("fail", func(_ context.Context, how string) error { return failures[how] }),
		driver.Do("panic", func(context.Context) error { panic("oops") }),
		driver.Do("stuck", func(context.Context) error { b.stuck.Add(1); <-b.release; return nil }),
		driver.Do("wait", func(ctx context.Context) error { b.stuck.Add(1); <-ctx.Done(); return ctx.Err() }),
		driver.Do("log", func(context.Context) error { env.Log.Warn("from inside", "n", 1); return nil }),
		driver.Call("unencodable", func(context.Context) (any, error) { return func() {}, nil }),

		driver.Feed1("count", func(_ context.Context, n int) iter.Seq2[int, error] {
			return func(yield func(int, error) bool) {
				for i := 0; i < n && yield(i, nil); i++ {
				}
			}
		}),
		driver.Feed1("feed_fail", func(_ context.Context, how string) iter.Seq2[int, error] {
			return func(yield func(int, error) bool) { _ = yield(1, nil) && yield(0, failures[how]) }
		}),
		driver.Feed("feed_panic", func(context.Context) iter.Seq2[int, error] {
			return func(yield func(int, error) bool) { yield(1, nil); panic("oops") }
		}),
		driver.Feed("feed_wait", func(ctx context.Context) iter.Seq2[int, error] {
			return func(yield func(int, error) bool) {
				if yield(1, nil) {
					b.stuck.Add(1)
					<-ctx.Done()
					b.stuck.Add(-1)
				}
			}
		}),
		driver.Feed("feed_endless", func(ctx context.Context) iter.Seq2[string, error] {
			return func(yield func(string, error) bool) {
				b.stuck.Add(1)
				defer b.stuck.Add(-1)
				for yield(string(make([]byte, 1000)), nil) {
				}
			}
		}),

		driver.Stream("stream_echo", func(context.Context) (*echo, error) { return b.echo(), nil }),
		driver.Stream("stream_packets", func(context.Context) (packets, error) { return packets{b.echo(), make(chan string, 99)}, nil }),
		driver.Stream("stream_die", func(context.Context) (dying, error) { return dying{b.echo()}, nil }),
		driver.Stream("stream_endless", func(context.Context) (endless, error) { return endless{b.echo()}, nil }),
		driver.Stream("stream_panic", func(context.Context) (panicking, error) { return panicking{b.echo()}, nil }),
		driver.Stream("open_panic", func(context.Context) (*echo, error) { panic("oops") }),
		driver.Stream("open_fail", func(context.Context) (*echo, error) { return nil, failures["other"] }),
		driver.Stream("open_argument", func(context.Context) (*echo, error) { return nil, failures["argument"] }),
		driver.Stream("open_refused", func(context.Context) (*echo, error) { return nil, failures["refused"] }),

		driver.Call1("take", func(ctx context.Context, h driver.Handle) (string, error) {
			s, err := env.Open(ctx, h)
			if err != nil {
				return "", err
			}
			defer s.Close()
			text, err := io.ReadAll(s)
			if err == nil {
				err = s.CloseWrite()
			}
			return string(text), err
		}),
		driver.Do2("give", func(ctx context.Context, h driver.Handle, text string) error {
			s, err := env.Open(ctx, h)
			if err != nil {
				return err
			}
			defer s.Close()
			if _, err := io.WriteString(s, text); err != nil {
				return err
			}
			return s.CloseWrite()
		}),
		driver.Do1("take_fail", func(ctx context.Context, h driver.Handle) error {
			s, err := env.Open(ctx, h)
			if err != nil {
				return err
			}
			defer s.Close()
			return failures["other"]
		}),
	}
}

// echo answers with what it is told.
type echo struct {
	b      *bench
	r      *io.PipeReader
	w      *io.PipeWriter
	once   sync.Once
	closed chan struct{}
}

func (b *bench) echo() *echo {
	b.open.Add(1)
	r, w := io.Pipe()
	return &echo{b: b, r: r, w: w, closed: make(chan struct{})}
}

func (e *echo) Read(p []byte) (int, error)  { return e.r.Read(p) }
func (e *echo) Write(p []byte) (int, error) { return e.w.Write(p) }
func (e *echo) CloseWrite() error           { return e.w.Close() }
func (e *echo) Close() error {
	e.once.Do(func() { close(e.closed); e.b.open.Add(-1) })
	e.r.CloseWithError(net.ErrClosed)
	return e.w.CloseWithError(net.ErrClosed)
}

// packets is an echo that keeps boundaries.
type packets struct {
	*echo
	ch chan string
}

func (packets) PacketStream() {}

func (p packets) Read(buf []byte) (int, error) {
	select {
	case s, ok := <-p.ch:
		if !ok {
			return 0, io.EOF
		}
		return copy(buf, s), nil
	case <-p.closed:
		return 0, net.ErrClosed
	}
}

func (p packets) Write(buf []byte) (int, error) {
	select {
	case p.ch <- string(buf):
		return len(buf), nil
	case <-p.closed:
		return 0, net.ErrClosed
	}
}

func (p packets) CloseWrite() error { close(p.ch); return nil }

// dying is an echo whose peer resets the connection when it hears "die".
type dying struct{ *echo }

func (d dying) Write(p []byte) (int, error) {
	if string(p) == "die" {
		d.w.CloseWithError(&net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET})
		return len(p), nil
	}
	return d.echo.Write(p)
}

// endless talks all the time.
type endless struct{ *echo }

func (e endless) Read(p []byte) (int, error) {
	select {
	case <-e.closed:
		return 0, net.ErrClosed
	default:
		return len(p), nil
	}
}

type panicking struct{ *echo }

func (panicking) Write([]byte) (int, error) { panic("oops") }

// call is a DriverCall.
func (b *bench) call(ctx context.Context, path, method string, args ...any) (any, error) {
	return b.callID(ctx, b.id(path), method, args...)
}

func (b *bench) callID(ctx context.Context, id, method string, args ...any) (any, error) {
	r, err := b.export.DriverCall(ctx, &pb.DriverCallRequest{Uuid: id, Method: method, Args: values(args)})
	if err != nil {
		return nil, err
	}
	return r.Result.AsInterface(), nil
}

func values(args []any) []*structpb.Value {
	out := make([]*structpb.Value, len(args))
	for i, a := range args {
		if v, ok := a.(*structpb.Value); ok {
			out[i] = v
			continue
		}
		var err error
		if out[i], err = structpb.NewValue(a); err != nil {
			panic(err)
		}
	}
	return out
}

// feed is a StreamingDriverCall that is read to its end.
func (b *bench) feed(ctx context.Context, id, method string, args ...any) (list []any, err error) {
	s, err := b.export.StreamingDriverCall(ctx, &pb.StreamingDriverCallRequest{Uuid: id, Method: method, Args: values(args)})
	if err != nil {
		return nil, err
	}
	for {
		r, err := s.Recv()
		if err == io.EOF {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		list = append(list, r.Result.AsInterface())
	}
}

type router = grpc.BidiStreamingClient[pb.StreamRequest, pb.StreamResponse]

// stream opens a stream with any metadata.
func (b *bench) stream(ctx context.Context, kv ...string) (router, metadata.MD, error) {
	s, err := b.router.Stream(metadata.AppendToOutgoingContext(ctx, kv...))
	if err != nil {
		return nil, nil, err
	}
	md, err := s.Header()
	if err == nil && md == nil {
		_, err = s.Recv()
	}
	return s, md, err
}

// driverStream opens a driver's stream and fails the test if it cannot.
func (b *bench) driverStream(t testing.TB, ctx context.Context, path, method string) router {
	t.Helper()
	s, _, err := b.stream(ctx, "request", request1("driver", b.id(path), method))
	if err != nil {
		t.Fatalf("Stream(%s, %s) = %v; want nil", path, method, err)
	}
	return s
}

func request1(kind, id, method string) string {
	text, err := json.Marshal(map[string]string{"kind": kind, "uuid": id, "method": method})
	if err != nil {
		panic(err)
	}
	return string(text)
}

// decode reads a handle from the metadata of a resource stream.
func decode(t testing.TB, texts []string) (h map[string]any) {
	t.Helper()
	if len(texts) != 1 {
		t.Fatalf("metadata has %d resources; want 1", len(texts))
	}
	if err := json.Unmarshal([]byte(texts[0]), &h); err != nil {
		t.Fatalf("resource = %q: %v; want JSON", texts[0], err)
	}
	return h
}

// drain reads a stream to the end of the RPC: the data, how many GOAWAYs came,
// and the RPC's error.
func drain(s router) (text string, goaways int, err error) {
	for {
		m, err := s.Recv()
		if err == io.EOF {
			return text, goaways, nil
		}
		if err != nil {
			return text, goaways, err
		}
		if m.FrameType == pb.FrameType_FRAME_TYPE_GOAWAY {
			goaways++
			continue
		}
		text += string(m.Payload)
	}
}

func send(t testing.TB, s router, text string) {
	t.Helper()
	if err := s.Send(&pb.StreamRequest{Payload: []byte(text)}); err != nil {
		t.Fatalf("Send(%q) = %v; want nil", text, err)
	}
}

// finish ends the client's direction as the stock client does.
func finish(t testing.TB, s router) {
	t.Helper()
	if err := s.Send(&pb.StreamRequest{FrameType: pb.FrameType_FRAME_TYPE_GOAWAY}); err != nil {
		t.Fatalf("Send(GOAWAY) = %v; want nil", err)
	}
	if err := s.CloseSend(); err != nil {
		t.Fatalf("CloseSend() = %v; want nil", err)
	}
}

// wantEcho checks that a stream still answers.
func wantEcho(t testing.TB, s router, text string) {
	t.Helper()
	send(t, s, text)
	m, err := s.Recv()
	if err != nil || string(m.Payload) != text {
		t.Fatalf("Recv() = %q, %v; want %q", m.GetPayload(), err, text)
	}
}

// soon is a context for what ought to take no time, generous for loaded machines.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}
