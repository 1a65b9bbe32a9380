package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/exporter/client"
	"github.com/jumplead/jumplead/exporter/rpc"
	"github.com/jumplead/jumplead/exporter/session"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// failures are the errors that a backend may return, by the name that the tests
// call them.
var failures = map[string]error{
	"unsupported": errors.ErrUnsupported,
	"argument":    driver.BadArg("pin", "wants a pin"),
	"deadline":    os.ErrDeadlineExceeded,
	"unavailable": fmt.Errorf("relay: %w", driver.ErrUnavailable),
	"refused":     &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED},
	"file":        &fs.PathError{Op: "open", Path: "/dev/x", Err: syscall.ENOENT},
	"other":       errors.New("something else"),
}

// harness is served in this process: a group with a device "dev" that has a
// child "dev.inner", and "fwd", whose streams are forwarded.
type harness struct {
	*session.Session
	driver driver.Driver // dev's, without the wire
	addr   string
	waits  atomic.Int32 // calls that wait for their context
	resets atomic.Int32
}

func (h *harness) Reset(context.Context) error { h.resets.Add(1); return nil }

func (h *harness) rows(env *driver.Env) []driver.Export {
	return []driver.Export{
		driver.Do1("fail", func(_ context.Context, how string) error { return failures[how] }),
		driver.Call1("echo", func(_ context.Context, v any) (any, error) { return v, nil }),
		driver.Do("wait", func(ctx context.Context) error { h.waits.Add(1); <-ctx.Done(); return ctx.Err() }),
		driver.Feed1("count", func(_ context.Context, n int) iter.Seq2[int, error] {
			return func(yield func(int, error) bool) {
				h.waits.Add(1)
				defer h.waits.Add(-1)
				for i := 0; n < 0 || i < n; i++ {
					if !yield(i, nil) {
						return
					}
				}
				yield(0, failures["unavailable"])
			}
		}),
		driver.Stream("connect", func(context.Context) (net.Conn, error) { return h.echo(nil) }),
		driver.Stream("breaks", func(context.Context) (net.Conn, error) { return h.echo(syscall.ECONNRESET) }),
		driver.Stream("refused", func(context.Context) (net.Conn, error) { return nil, failures["refused"] }),
		driver.Stream("slow", func(ctx context.Context) (net.Conn, error) { h.waits.Add(1); <-ctx.Done(); return nil, ctx.Err() }),
		driver.Call1("take", func(ctx context.Context, s driver.Handle) (string, error) {
			r, err := env.Open(ctx, s)
			if err != nil {
				return "", err
			}
			defer r.Close()
			text, err := io.ReadAll(r)
			return string(text), err
		}),
		driver.Do2("give", func(ctx context.Context, s driver.Handle, text string) error {
			w, err := env.Open(ctx, s)
			if err != nil {
				return err
			}
			defer w.Close()
			if _, err := io.WriteString(w, text); err != nil {
				return err
			}
			return w.CloseWrite()
		}),
	}
}

// echo is a connection that answers; with an error, it breaks after one answer.
func (h *harness) echo(broken error) (net.Conn, error) {
	here, there := net.Pipe()
	go func() {
		defer there.Close()
		io.Copy(there, there)
	}()
	if broken != nil {
		return &breaking{Conn: here, err: broken}, nil
	}
	return here, nil
}

type breaking struct {
	net.Conn
	reads int
	err   error
}

func (b *breaking) Read(p []byte) (int, error) {
	if b.reads++; b.reads > 1 {
		return 0, b.err
	}
	return b.Conn.Read(p)
}

func serve(t *testing.T) *harness {
	t.Helper()
	h := &harness{}
	contract := driver.Contract{Name: "fake", Client: "fake.Client", Kind: "fake"}
	forwarded := contract
	forwarded.Forwarded = true
	open := func(_ context.Context, env *driver.Env, _ struct{}) (driver.Driver, error) {
		d := driver.Driver{Exports: h.rows(env), Impl: h}
		if env.Path == "dev" {
			h.driver = d
		}
		return d, nil
	}
	offers, logs := session.NewOffers(), session.NewLogs()
	tree, problems := driver.Plan(driver.Decl{Children: []driver.Decl{
		{Name: "dev", Type: "fake.Dev", Description: "device", Methods: map[string]string{"echo": "say it again"},
			Children: []driver.Decl{{Name: "inner", Type: "fake.Dev"}}},
		{Name: "fwd", Type: "fake.Fwd"},
		{Name: "again", Ref: "dev"},
	}}, driver.Options{Namespace: uuid.New(), Log: slog.New(logs.Handler()), Resources: offers, Specs: []driver.Spec{
		driver.Define(driver.Spec{Type: "fake.Group", Role: driver.Group, Contract: contract},
			func(context.Context, *driver.Env, struct{}) (driver.Driver, error) { return driver.Driver{}, nil }),
		driver.Define(driver.Spec{Type: "fake.Dev", Contract: contract}, open),
		driver.Define(driver.Spec{Type: "fake.Fwd", Contract: forwarded}, open),
	}})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	if err := tree.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.Session = session.New(uuid.New(), tree, logs, offers)
	h.SetMOTD("hello")
	h.End = func() (bool, string) { return true, "bye" }
	h.ready()
	h.addr = listen(t, func(srv *grpc.Server) { rpc.Register(srv, h.Session, slog.New(slog.DiscardHandler)) })
	t.Cleanup(func() { h.Close(context.Background()) })
	return h
}

func (h *harness) ready() {
	h.SetStatus(pb.ExporterStatus_EXPORTER_STATUS_LEASE_READY, "Ready for commands")
}

// listen serves gRPC on a free port of the loopback address.
func listen(t *testing.T, register func(*grpc.Server)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(append(rpc.ServerOptions(), grpc.WaitForHandlers(true))...)
	register(srv)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	t.Cleanup(func() {
		srv.Stop()
		<-served
	})
	return ln.Addr().String()
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func (h *harness) dial(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.Dial(soon(t), h.addr, client.Options{})
	if err != nil {
		t.Fatalf("Dial(%s) = %v; want nil", h.addr, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func find(t *testing.T, c *client.Client, path string) *client.Node {
	t.Helper()
	n, err := c.Find(path)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestDialTree(t *testing.T) {
	drivertest.NoLeaks(t)
	c := serve(t).dial(t)
	if c.MOTD != "hello" || c.Root.Path != "" || c.Root.Class != "fake.Client" {
		t.Errorf("Dial() = %q, %+v; want the motd and the root", c.MOTD, c.Root)
	}
	var paths []string
	var visit func(n *client.Node)
	visit = func(n *client.Node) {
		paths = append(paths, n.Path)
		for _, child := range n.Children {
			visit(child)
		}
	}
	visit(c.Root)
	if want := []string{"", "dev", "dev.inner", "fwd", "again", "again.inner"}; !slices.Equal(paths, want) {
		t.Errorf("the tree is %v; want %v", paths, want)
	}
	dev, again := find(t, c, "dev"), find(t, c, "again")
	if dev.Name != "dev" || dev.Description != "device" || dev.Methods["echo"] != "say it again" || dev.Labels[driver.LabelName] != "dev" {
		t.Errorf("dev = %+v; want what its report says", dev)
	}
	if dev.UUID != again.UUID || again.Name != "again" {
		t.Errorf("again = %+v; want dev under another name", again)
	}
	for path, want := range map[string]string{"de": `did you mean "dev"?`, "dev.iner": `did you mean "dev.inner"?`, "something else": `no driver "something else"`} {
		if n, err := c.Find(path); n != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Find(%q) = %v, %v; want an error with %q", path, n, err, want)
		}
	}
}

func TestDialTargets(t *testing.T) {
	drivertest.NoLeaks(t)
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	h := serve(t)
	srv := grpc.NewServer(rpc.ServerOptions()...)
	rpc.Register(srv, h.Session, slog.New(slog.DiscardHandler))
	go srv.Serve(ln)
	defer srv.Stop()
	for _, target := range []string{path, "unix:" + path, "unix://" + path, h.addr, "localhost" + h.addr[strings.LastIndexByte(h.addr, ':'):]} {
		c, err := client.Dial(soon(t), target, client.Options{})
		if err != nil {
			t.Errorf("Dial(%s) = %v; want nil", target, err)
			continue
		}
		c.Close()
	}
}

// Dialling takes as long as its context lets it, and says why nobody answered.
func TestDialTimeout(t *testing.T) {
	drivertest.NoLeaks(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	silent := ln.Addr().String() // accepts, and says nothing
	defer ln.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	var all sync.WaitGroup
	for target, why := range map[string]string{silent: "", gone.Addr().String(): "refused", filepath.Join(t.TempDir(), "none"): "no such file"} {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			start := time.Now()
			_, err := client.Dial(ctx, target, client.Options{})
			if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took > 5*time.Second {
				t.Errorf("Dial(%s) = %v after %v; want a time-out after 1s", target, err, took)
			}
			if !strings.Contains(fmt.Sprint(err), target) || !strings.Contains(fmt.Sprint(err), why) {
				t.Errorf("Dial(%s) = %v; want the target, and %q", target, err, why)
			}
		})
	}
	all.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.Dial(ctx, silent, client.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Dial() with a context that is done = %v; want %v", err, context.Canceled)
	}
}

// An exporter that starts later is waited for.
func TestDialWaits(t *testing.T) {
	h := serve(t)
	path := filepath.Join(t.TempDir(), "later")
	done := make(chan error, 1)
	go func() {
		c, err := client.Dial(soon(t), path, client.Options{})
		if err == nil {
			err = c.Close()
		}
		done <- err
	}()
	srv := grpc.NewServer(rpc.ServerOptions()...)
	rpc.Register(srv, h.Session, slog.New(slog.DiscardHandler))
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(ln)
	defer srv.Stop()
	if err := <-done; err != nil {
		t.Errorf("Dial() = %v; want nil", err)
	}
}

// An error means on this side of the wire what it meant on the other.
func TestErrors(t *testing.T) {
	h := serve(t)
	c := h.dial(t)
	remote, local := find(t, c, "dev"), driver.Local(h.driver)
	kinds := []error{errors.ErrUnsupported, driver.ErrUnavailable, driver.ErrNoMethod, driver.ErrNotReady, context.DeadlineExceeded, context.Canceled}
	check := func(what string, there, here error) {
		t.Helper()
		if got, want := driver.Classify(there), driver.Classify(here); got != want {
			t.Errorf("%s = %v of class %d; want class %d, as of %v", what, there, got, want, here)
		}
		if there == nil || there.Error() != here.Error() {
			t.Errorf("%s = %q; want %q", what, there, here)
		}
		for _, kind := range kinds {
			if errors.Is(here, kind) && !errors.Is(there, kind) {
				t.Errorf("%s = %v, and is no %v; want that it is", what, there, kind)
			}
		}
	}
	for how := range failures {
		_, there := remote.Call(soon(t), "fail", how)
		_, here := local.Call(soon(t), "fail", how)
		check("fail("+how+")", there, here)
	}
	_, there := remote.Call(soon(t), "fail")
	_, here := local.Call(soon(t), "fail")
	check("fail() without its argument", there, here)

	if _, err := remote.Call(soon(t), "none"); !errors.Is(err, driver.ErrNoMethod) {
		t.Errorf("none() = %v; want %v", err, driver.ErrNoMethod)
	}
	if _, err := remote.Call(soon(t), "echo", func() {}); err == nil || !strings.Contains(err.Error(), "argument 1") {
		t.Errorf("echo(a function) = %v; want an error that names the argument", err)
	}
	h.SetStatus(pb.ExporterStatus_EXPORTER_STATUS_AVAILABLE, "")
	if _, err := remote.Call(soon(t), "echo", 1); !errors.Is(err, driver.ErrNotReady) {
		t.Errorf("echo() of an exporter that is not ready = %v; want %v", err, driver.ErrNotReady)
	}
	h.ready()

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := remote.Call(ctx, "wait"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait() = %v; want %v", err, context.DeadlineExceeded)
	}
	ctx, cancel = context.WithCancel(t.Context())
	before := h.waits.Load()
	go func() {
		drivertest.Until(t, "wait was called", func() bool { return h.waits.Load() > before })
		cancel()
	}()
	if _, err := remote.Call(ctx, "wait"); !errors.Is(err, context.Canceled) {
		t.Errorf("wait() = %v; want %v", err, context.Canceled)
	}
}

func TestValues(t *testing.T) {
	dev := find(t, serve(t).dial(t), "dev")
	type pair struct {
		A int           `json:"a"`
		B time.Duration `json:"b"`
	}
	for _, test := range []struct{ in, want any }{
		{nil, nil}, {1, 1.0}, {true, true}, {[]string{"a"}, []any{"a"}},
		{pair{1, time.Second}, map[string]any{"a": 1.0, "b": 1.0}}, {driver.Base64{1, 2}, "AQI="},
	} {
		got, err := dev.Call(soon(t), "echo", test.in)
		if err != nil || fmt.Sprintf("%#v", got) != fmt.Sprintf("%#v", test.want) {
			t.Errorf("echo(%#v) = %#v, %v; want %#v", test.in, got, err, test.want)
		}
	}
	if got, err := driver.Invoke[pair](soon(t), dev, "echo", pair{1, time.Second}); err != nil || got != (pair{1, time.Second}) {
		t.Errorf("Invoke(echo) = %+v, %v; want the same", got, err)
	}
}

func TestFeed(t *testing.T) {
	drivertest.NoLeaks(t)
	h := serve(t)
	dev := find(t, h.dial(t), "dev")
	var got []any
	var last error
	for v, err := range dev.Feed(soon(t), "count", 3) {
		if err != nil {
			last = err
			break
		}
		got = append(got, v)
	}
	if fmt.Sprint(got) != "[0 1 2]" || !errors.Is(last, driver.ErrUnavailable) {
		t.Errorf("count(3) = %v, %v; want 0, 1, 2, then %v", got, last, driver.ErrUnavailable)
	}
	for range dev.Feed(soon(t), "count", -1) { // one that never ends
		break
	}
	drivertest.Until(t, "the feed that nobody reads has ended", func() bool { return h.waits.Load() == 0 })
	for _, err := range dev.Feed(soon(t), "count", func() {}) {
		if err == nil || !strings.Contains(err.Error(), "argument 1") {
			t.Errorf("count(a function) = %v; want an error that names the argument", err)
		}
	}
}

func TestStream(t *testing.T) {
	drivertest.NoLeaks(t)
	c := serve(t).dial(t)
	for _, path := range []string{"dev", "fwd"} {
		n := find(t, c, path)
		ctx, cancel := context.WithCancel(t.Context())
		s, err := n.Stream(ctx, "connect")
		if err != nil {
			t.Fatalf("%s: Stream(connect) = %v; want nil", path, err)
		}
		cancel() // bounds the opening only
		if got := drivertest.Exchange(t, s, "hello"); got != "hello" {
			t.Errorf("%s: the echo is %q; want hello", path, got)
		}
		if err := s.Close(); err != nil {
			t.Errorf("%s: Close() = %v; want nil", path, err)
		}

		s, err = n.Stream(soon(t), "breaks")
		if err != nil {
			t.Fatalf("%s: Stream(breaks) = %v; want nil", path, err)
		}
		if _, err := s.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(s)
		if string(text) != "hello" || !errors.Is(err, driver.ErrUnavailable) || !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: a stream that breaks = %q, %v; want hello, then a reset", path, text, err)
		}
		s.Close()

		if _, err := n.Stream(soon(t), "refused"); !errors.Is(err, driver.ErrUnavailable) || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: Stream(refused) = %v; want %v", path, err, driver.ErrUnavailable)
		}
		if _, err := n.Stream(soon(t), "none"); !errors.Is(err, driver.ErrNoMethod) {
			t.Errorf("%s: Stream(none) = %v; want %v", path, err, driver.ErrNoMethod)
		}
	}
}

func TestStreamOpeningEnds(t *testing.T) {
	drivertest.NoLeaks(t)
	h := serve(t)
	dev := find(t, h.dial(t), "dev")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := dev.Stream(ctx, "slow"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Stream() = %v; want %v", err, context.DeadlineExceeded)
	}
	drivertest.Until(t, "the driver's opening has begun", func() bool { return h.waits.Load() == 1 })
}

func TestOffer(t *testing.T) {
	drivertest.NoLeaks(t)
	dev := find(t, serve(t).dial(t), "dev")
	want := strings.Repeat("0123456789", 300<<10) // 3 MB
	s, handle, err := dev.Offer(soon(t))
	if err != nil {
		t.Fatalf("Offer() = %v; want nil", err)
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := io.Copy(s, strings.NewReader(want))
		if err == nil {
			err = s.CloseWrite()
		}
		wrote <- err
	}()
	got, err := dev.Call(soon(t), "take", handle)
	if err != nil || got != want {
		t.Errorf("take() = %d bytes, %v; want %d", len(fmt.Sprint(got)), err, len(want))
	}
	if err := <-wrote; err != nil {
		t.Errorf("writing = %v; want nil", err)
	}
	s.Close()

	if s, handle, err = dev.Offer(soon(t)); err != nil {
		t.Fatalf("Offer() = %v; want nil", err)
	}
	if err := driver.Run(soon(t), dev, "give", handle, "hello"); err != nil {
		t.Errorf("give() = %v; want nil", err)
	}
	if text, err := io.ReadAll(s); string(text) != "hello" || err != nil {
		t.Errorf("ReadAll() = %q, %v; want hello", text, err)
	}
	s.Close()

	// an upload that is given up is no upload
	if s, handle, err = dev.Offer(soon(t)); err != nil {
		t.Fatalf("Offer() = %v; want nil", err)
	}
	taken := make(chan error, 1)
	go func() {
		_, err := dev.Call(soon(t), "take", handle)
		taken <- err
	}()
	if _, err := s.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := <-taken; err == nil {
		t.Error("take() of an upload that was given up = nil; want an error")
	}
}

func TestSession(t *testing.T) {
	h := serve(t)
	c := h.dial(t)
	if err := c.Reset(soon(t)); err != nil || h.resets.Load() != 3 {
		t.Errorf("Reset() = %v with %d drivers reset; want 3", err, h.resets.Load())
	}
	if ok, message, err := c.EndSession(soon(t)); !ok || message != "bye" || err != nil {
		t.Errorf("EndSession() = %t, %q, %v; want true, bye", ok, message, err)
	}
	h.Logs.Append(session.Record{Message: "hello"})
	for r, err := range c.Logs(soon(t)) {
		if err != nil || r.Message != "hello" {
			t.Errorf("Logs() = %v, %v; want hello", r, err)
		}
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range c.Logs(ctx) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Logs() with a context that is done = %v; want %v", err, context.Canceled)
		}
	}
	c.Close()
	if _, err := c.Status(soon(t)); err == nil {
		t.Error("Status() of a closed client = nil; want an error")
	}
}

func TestWaitReady(t *testing.T) {
	h := serve(t)
	c := h.dial(t)
	if err := c.WaitReady(soon(t)); err != nil {
		t.Errorf("WaitReady() = %v; want nil", err)
	}
	h.SetStatus(pb.ExporterStatus_EXPORTER_STATUS_BEFORE_LEASE_HOOK, "")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.WaitReady(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("WaitReady() during a hook = %v; want %v", err, context.DeadlineExceeded)
	}
	waited := make(chan error, 1)
	go func() { waited <- c.WaitReady(soon(t)) }()
	h.ready()
	if err := <-waited; err != nil {
		t.Errorf("WaitReady() = %v; want nil", err)
	}
	h.SetStatus(pb.ExporterStatus_EXPORTER_STATUS_BEFORE_LEASE_HOOK_FAILED, "exit status 3")
	if err := c.WaitReady(soon(t)); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("WaitReady() after a hook that failed = %v; want why", err)
	}
}

// reporter is an exporter that reports what a test wants.
type reporter struct {
	pb.UnimplementedExporterServiceServer
	reports []*pb.DriverInstanceReport
}

func (r *reporter) GetReport(context.Context, *emptypb.Empty) (*pb.GetReportResponse, error) {
	return &pb.GetReportResponse{Reports: r.reports}, nil
}

func TestRefresh(t *testing.T) {
	report := func(id, parent, name string) *pb.DriverInstanceReport {
		r := &pb.DriverInstanceReport{Uuid: id, Labels: map[string]string{}}
		if parent != "" {
			r.ParentUuid = &parent
		}
		if name != "" {
			r.Labels[driver.LabelName] = name
		}
		return r
	}
	r := &reporter{reports: []*pb.DriverInstanceReport{report("1", "", ""), report("2", "1", "old")}}
	c, err := client.Dial(soon(t), listen(t, func(srv *grpc.Server) { pb.RegisterExporterServiceServer(srv, r) }), client.Options{})
	if err != nil {
		t.Fatalf("Dial() = %v; want nil", err)
	}
	defer c.Close()
	find(t, c, "old")
	r.reports = []*pb.DriverInstanceReport{report("1", "", ""), report("2", "1", "new")}
	if err := c.Refresh(soon(t)); err != nil {
		t.Errorf("Refresh() = %v; want nil", err)
	}
	find(t, c, "new")
	if _, err := c.Find("old"); err == nil {
		t.Error("Find(old) = nil; want an error")
	}
	for name, reports := range map[string][]*pb.DriverInstanceReport{
		"no drivers":        {},
		"two drivers":       {report("1", "", ""), report("2", "", "")},
		"before its parent": {report("1", "", ""), report("2", "3", "x"), report("3", "1", "y")},
	} {
		r.reports = reports
		if err := c.Refresh(soon(t)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("Refresh() of %v = %v; want an error with %q", reports, err, name)
		}
	}
	find(t, c, "new") // what was there stays
	if _, err := c.Status(soon(t)); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Status() of an exporter without it = %v; want %v", err, errors.ErrUnsupported)
	}
}

// A large answer is moved whole, one above gRPC's limit is an error.
func TestLargeAnswers(t *testing.T) {
	dev := find(t, serve(t).dial(t), "dev")
	large := string(bytes.Repeat([]byte("x"), 3<<20))
	if got, err := dev.Call(soon(t), "echo", large); got != large || err != nil {
		t.Errorf("echo(3 MB) = %d bytes, %v; want the same", len(fmt.Sprint(got)), err)
	}
	if _, err := dev.Call(soon(t), "echo", large+large); err == nil || !strings.Contains(err.Error(), "larger than max") {
		t.Errorf("echo(6 MB) = %v; want an error about its size", err)
	}
}

// Without FailFast Dial waits for the exporter, with it the absence is told.
func TestDialAbsent(t *testing.T) {
	socket := "unix:" + filepath.Join(t.TempDir(), "s")
	_, err := client.Dial(t.Context(), socket, client.Options{FailFast: true})
	if driver.Classify(err) != driver.Unavailable {
		t.Errorf("Dial(FailFast) = %v (%v); want %v", err, driver.Classify(err), driver.Unavailable)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := client.Dial(ctx, socket, client.Options{}); driver.Classify(err) != driver.Timeout || ctx.Err() == nil {
		t.Errorf("Dial() = %v (%v) before the context is done: %v; want %v, then", err, driver.Classify(err), ctx.Err() == nil, driver.Timeout)
	}
}
