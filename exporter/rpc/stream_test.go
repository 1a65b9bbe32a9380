package rpc

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/exporter/stream"
	"github.com/jumplead/jumplead/exporter/stream/codec"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// The client ends first; what is still on its way comes, then the end.
func TestStreamHalfClose(t *testing.T) {
	drivertest.NoLeaks(t)
	b := newBench(t)
	s := b.driverStream(t, soon(t), "dev", "stream_echo")
	want := ""
	for i := range 20 {
		part := strings.Repeat(fmt.Sprint(i%10), 1<<i>>2) // from nothing to 128 KiB
		send(t, s, part)
		want += part
	}
	finish(t, s)
	text, goaways, err := drain(s)
	if err != nil || goaways != 1 || text != want {
		t.Errorf("got %d bytes, %d GOAWAYs, %v; want the %d that were sent, 1, OK", len(text), goaways, err, len(want))
	}
	drivertest.Until(t, "the driver's stream is closed", func() bool { return b.open.Load() == 0 })
}

// A GOAWAY alone, or the half-close of the RPC alone, ends a direction, too.
func TestStreamHalfCloseAlone(t *testing.T) {
	b := newBench(t)
	for _, how := range []string{"GOAWAY", "half-close"} {
		s := b.driverStream(t, soon(t), "dev", "stream_echo")
		wantEcho(t, s, "x")
		if how == "GOAWAY" {
			if err := s.Send(&pb.StreamRequest{FrameType: pb.FrameType_FRAME_TYPE_GOAWAY}); err != nil {
				t.Fatal(err)
			}
		} else if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if text, goaways, err := drain(s); err != nil || goaways != 1 || text != "" {
			t.Errorf("after a %s: %q, %d GOAWAYs, %v; want only a GOAWAY and OK", how, text, goaways, err)
		}
	}
}

func TestStreamIgnoresOtherFrames(t *testing.T) {
	b := newBench(t)
	s := b.driverStream(t, soon(t), "dev", "stream_echo")
	for _, f := range []pb.FrameType{pb.FrameType_FRAME_TYPE_PING, pb.FrameType_FRAME_TYPE_RST_STREAM, 1, 99, -1} {
		if err := s.Send(&pb.StreamRequest{FrameType: f, Payload: []byte("not data")}); err != nil {
			t.Fatal(err)
		}
	}
	send(t, s, "") // nothing to write
	wantEcho(t, s, "data")
	finish(t, s)
	if text, goaways, err := drain(s); err != nil || goaways != 1 || text != "" {
		t.Errorf("then %q, %d GOAWAYs, %v; want an orderly end", text, goaways, err)
	}
}

func TestStreamPackets(t *testing.T) {
	b := newBench(t)
	s := b.driverStream(t, soon(t), "dev", "stream_packets")
	packets := []string{"a", "", "bb", "", "", strings.Repeat("x", 65507)}
	for _, p := range packets {
		send(t, s, p)
	}
	for i, want := range packets {
		m, err := s.Recv()
		if err != nil || string(m.Payload) != want || m.FrameType != pb.FrameType_FRAME_TYPE_DATA {
			t.Fatalf("packet %d = %d bytes, %v; want %d", i, len(m.GetPayload()), err, len(want))
		}
	}
	finish(t, s)
	if _, goaways, err := drain(s); err != nil || goaways != 1 {
		t.Errorf("then %d GOAWAYs, %v; want an orderly end", goaways, err)
	}
}

// A peer that resets its connection must not look like one that closed it.
func TestStreamPeerResets(t *testing.T) {
	b := newBench(t)
	for path, want := range map[string]int{"dev": 0, "forwarded": 1} {
		s := b.driverStream(t, soon(t), path, "stream_die")
		wantEcho(t, s, "alive")
		send(t, s, "die")
		text, goaways, err := drain(s)
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "reset") || goaways != want || text != "" {
			t.Errorf("%s: %q, %d GOAWAYs, %v; want %d GOAWAYs and UNAVAILABLE", path, text, goaways, err, want)
		}
	}
	if log := b.log.String(); strings.Count(log, "stream broke") != 2 {
		t.Errorf("log = %s; want two broken streams", log)
	}
	if n := b.open.Load(); n != 0 {
		t.Errorf("%d driver streams are open; want 0", n)
	}
}

// A client that goes without a word leaves nothing open.
func TestStreamClientVanishes(t *testing.T) {
	drivertest.NoLeaks(t)
	b := newBench(t)
	for _, method := range []string{"stream_echo", "stream_packets", "stream_endless"} {
		for _, how := range []string{"cancel", "connection"} {
			t.Run(method+"/"+how, func(t *testing.T) {
				ctx, cancel := context.WithCancel(soon(t))
				defer cancel()
				var kill func()
				conn, err := grpc.NewClient("passthrough:///bench", grpc.WithTransportCredentials(insecure.NewCredentials()),
					grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
						c, err := b.ln.DialContext(ctx)
						kill = func() { c.Close() }
						return c, err
					}))
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				s, err := pb.NewRouterServiceClient(conn).Stream(metadata.AppendToOutgoingContext(ctx, "request", request1("driver", b.id("dev"), method)))
				if err == nil {
					send(t, s, "x")
					_, err = s.Recv()
				}
				if err != nil || b.open.Load() != 1 {
					t.Fatalf("Stream = %v with %d streams of drivers; want one that answers", err, b.open.Load())
				}
				if how == "cancel" {
					cancel()
				} else {
					kill()
				}
				drivertest.Until(t, "the driver's stream is closed", func() bool { return b.open.Load() == 0 })
			})
		}
	}
}

// Clients that do not read what an endless stream says, and that write what its
// driver does not take, make the exporter hold some windows of it, and hold
// nobody else up, on their own connection either.
func TestStreamBackPressure(t *testing.T) {
	b := newBench(t).ready()
	before := heap()
	const n = 8
	var full atomic.Int32
	for range n {
		s := b.driverStream(t, t.Context(), "dev", "stream_endless")
		go func() {
			full.Add(1)
			for s.Send(&pb.StreamRequest{Payload: make([]byte, 64<<10)}) == nil {
			}
		}()
	}
	drivertest.Until(t, "all clients write", func() bool { return full.Load() == n })
	start := time.Now()
	for i := range 100 {
		if _, err := b.call(soon(t), "dev", "nop"); err != nil {
			t.Fatalf("call %d = %v; want nil", i, err)
		}
	}
	wantEcho(t, b.driverStream(t, soon(t), "dev", "stream_echo"), "x")
	took := time.Since(start)
	grown := heap() - before
	t.Logf("%d stalled clients: %d KiB each, on both sides; 100 calls beside them took %v", n, grown/n>>10, took)
	if limit := int64(n * 12 << 20); grown > limit {
		t.Errorf("%d stalled clients make the heap grow by %d KiB; want less than %d", n, grown>>10, limit>>10)
	}
	if took > 5*time.Second {
		t.Errorf("100 calls took %v; want next to nothing", took)
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Streams that are opened and dropped in any state leave nothing behind.
func TestStreamsDropped(t *testing.T) {
	drivertest.NoLeaks(t)
	b := newBench(t).ready()
	const total, parallel = 1000, 64
	turns := make(chan int)
	var all sync.WaitGroup
	for range parallel {
		all.Go(func() {
			for i := range turns {
				if err := b.drop(soon(t), i); err != nil {
					t.Errorf("stream %d: %v", i, err)
				}
			}
		})
	}
	for i := range total {
		turns <- i
	}
	close(turns)
	all.Wait()
	if _, err := b.call(soon(t), "dev", "nop"); err != nil {
		t.Errorf("a call after that = %v; want nil", err)
	}
	drivertest.Until(t, "all streams of drivers are closed", func() bool { return b.open.Load() == 0 })
}

// drop opens a stream and drops it, in one of several ways.
func (b *bench) drop(ctx context.Context, i int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	kind, method := "driver", "stream_echo"
	switch i % 5 {
	case 3:
		method = "stream_packets"
	case 4:
		kind = "resource"
	}
	s, err := b.router.Stream(metadata.AppendToOutgoingContext(ctx, "request", request1(kind, b.id("dev"), method)))
	if err != nil || i%5 == 0 { // not even waited for
		return err
	}
	if _, err := s.Header(); err != nil || i%5 == 1 {
		return err
	}
	if err := s.Send(&pb.StreamRequest{Payload: []byte("x")}); err != nil || kind == "resource" {
		return err
	}
	if m, err := s.Recv(); err != nil || string(m.Payload) != "x" {
		return fmt.Errorf("echo: %q, %w", m.GetPayload(), err)
	}
	if i%2 == 0 {
		return s.Send(&pb.StreamRequest{FrameType: pb.FrameType_FRAME_TYPE_GOAWAY})
	}
	return nil
}

// 64 streams at once, each with its own data, both ways at full speed.
func TestStreamsConcurrent(t *testing.T) {
	drivertest.NoLeaks(t)
	b := newBench(t)
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			s := b.driverStream(t, soon(t), "dev", "stream_echo")
			part := strings.Repeat(fmt.Sprintf("%04d", i), 1000)
			go func() {
				for range 16 {
					_ = s.Send(&pb.StreamRequest{Payload: []byte(part)})
				}
				_ = s.Send(&pb.StreamRequest{FrameType: pb.FrameType_FRAME_TYPE_GOAWAY})
				_ = s.CloseSend()
			}()
			text, goaways, err := drain(s)
			if err != nil || goaways != 1 || text != strings.Repeat(part, 16) {
				t.Errorf("stream %d: %d bytes, %d GOAWAYs, %v; want its own %d bytes", i, len(text), goaways, err, 16*len(part))
			}
		})
	}
	all.Wait()
}

// offer opens a resource stream and returns it with its handle.
func (b *bench) offer(t *testing.T, ctx context.Context, path string, encoding any) (router, map[string]any) {
	t.Helper()
	text := `{"kind":"resource","uuid":"` + b.id(path) + `"}`
	if encoding != nil {
		text = fmt.Sprintf(`{"kind":"resource","uuid":%q,"x_jmp_content_encoding":%q}`, b.id(path), encoding)
	}
	s, md, err := b.stream(ctx, "request", text)
	if err != nil {
		t.Fatalf("Stream(resource) = %v; want nil", err)
	}
	// The key, even with nothing in it, takes the client's own codec over.
	var agreed any
	if name, _ := encoding.(string); stream.Agrees(name) {
		agreed = name
	}
	if got, ok := md["x_jmp_accept_encoding"]; ok != (agreed != nil) || ok && got[0] != agreed {
		t.Errorf("x_jmp_accept_encoding = %v; want %v", got, agreed)
	}
	h := decode(t, md.Get("resource"))
	if h["kind"] != "client_stream" || len(h) != 3 {
		t.Errorf("handle = %v; want a client_stream", h)
	}
	if enc, ok := h["x_jmp_content_encoding"]; enc != agreed || !ok {
		t.Errorf("handle = %v; want x_jmp_content_encoding %v", h, agreed)
	}
	return s, h
}

func TestResourceTake(t *testing.T) {
	drivertest.NoLeaks(t)
	b := newBench(t).ready()
	for _, encoding := range []any{nil, "br", "GZIP", ""} { // none that we agree to: as it is
		s, h := b.offer(t, soon(t), "dev", encoding)
		want := strings.Repeat("0123456789", 100<<10) // 1 MB, before the call even starts
		go func() {
			for part := want; part != ""; part = part[min(len(part), 64<<10):] {
				_ = s.Send(&pb.StreamRequest{Payload: []byte(part[:min(len(part), 64<<10)])})
			}
			_ = s.Send(&pb.StreamRequest{FrameType: pb.FrameType_FRAME_TYPE_GOAWAY})
			_ = s.CloseSend()
		}()
		got, err := b.call(soon(t), "dev", "take", h)
		if err != nil || got != want {
			t.Errorf("take = %d bytes, %v; want the %d that were sent", len(fmt.Sprint(got)), err, len(want))
		}
		if _, _, err := drain(s); err != nil { // the driver is done with it
			t.Errorf("the stream = %v; want an orderly end", err)
		}
	}
}

func TestResourceGive(t *testing.T) {
	b := newBench(t).ready()
	s, h := b.offer(t, soon(t), "dev", nil)
	want := strings.Repeat("0123456789", 1<<10)
	if _, err := b.call(soon(t), "dev", "give", h, want); err != nil {
		t.Errorf("give = %v; want nil", err)
	}
	text := ""
	for m, err := s.Recv(); m.GetFrameType() != pb.FrameType_FRAME_TYPE_GOAWAY; m, err = s.Recv() {
		if err != nil {
			t.Fatalf("Recv() after %d bytes = %v; want %d and GOAWAY", len(text), err, len(want))
		}
		text += string(m.Payload)
	}
	if text != want {
		t.Errorf("the stream = %d bytes; want the %d that the driver wrote", len(text), len(want))
	}
	// Until the client has ended its direction, the stock one would lose what
	// it has not read yet.
	ended := make(chan error, 1)
	go func() {
		_, err := s.Recv()
		ended <- err
	}()
	select {
	case err := <-ended:
		t.Fatalf("the RPC ended with %v; want it to wait for the client's end", err)
	case <-time.After(100 * time.Millisecond):
	}
	finish(t, s)
	if err := <-ended; err != io.EOF {
		t.Errorf("the RPC ended with %v; want %v", err, io.EOF)
	}
}

// Content that travels packed is unpacked for the driver and packed for the
// client, and what is cut short or damaged is an error of the call.
func TestResourceEncodings(t *testing.T) {
	drivertest.NoLeaks(t)
	b := newBench(t).ready()
	want := strings.Repeat("0123456789", 30<<10)
	send := func(s router, data []byte) {
		for part := range slices.Chunk(data, 1000) {
			_ = s.Send(&pb.StreamRequest{Payload: part})
		}
		_ = s.Send(&pb.StreamRequest{FrameType: pb.FrameType_FRAME_TYPE_GOAWAY})
		_ = s.CloseSend()
	}
	for _, encoding := range codec.Encodings() {
		t.Run(encoding, func(t *testing.T) {
			var packed bytes.Buffer
			w, err := codec.NewWriter(encoding, &packed)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(w, want); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}

			s, h := b.offer(t, soon(t), "dev", encoding)
			go send(s, packed.Bytes())
			got, err := b.call(soon(t), "dev", "take", h)
			if err != nil || got != want {
				t.Errorf("take = %d bytes, %v; want %d", len(fmt.Sprint(got)), err, len(want))
			}
			// a stock client that sends cannot take anything
			if text, _, err := drain(s); err != nil || text != "" {
				t.Errorf("the stream = %q, %v; want nothing and an orderly end", text, err)
			}

			s, h = b.offer(t, soon(t), "dev", encoding)
			go send(s, packed.Bytes()[:packed.Len()-1])
			_, err = b.call(soon(t), "dev", "take", h)
			wantStatus(t, "take of what is cut short", err, codes.Unknown, "truncated")
			_, _, _ = drain(s)

			s, h = b.offer(t, soon(t), "dev", encoding)
			go send(s, append(slices.Clone(packed.Bytes()), "and more"...))
			_, err = b.call(soon(t), "dev", "take", h)
			wantStatus(t, "take with something behind it", err, codes.Unknown, "byte")
			_, _, _ = drain(s)

			for _, text := range []string{want, ""} {
				s, h = b.offer(t, soon(t), "dev", encoding)
				finish(t, s)
				if _, err := b.call(soon(t), "dev", "give", h, text); err != nil {
					t.Errorf("give = %v; want nil", err)
				}
				packed, _, err := drain(s)
				if err != nil {
					t.Errorf("the stream = %v; want an orderly end", err)
				}
				r, err := codec.NewReader(encoding, strings.NewReader(packed))
				if err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(r); err != nil || string(got) != text {
					t.Errorf("give made %d packed bytes of %d: %v; want them whole", len(packed), len(text), err)
				}
			}
		})
	}
}

func TestResourceErrors(t *testing.T) {
	var active rpcs
	b := newBench(t, grpc.StatsHandler(&active)).ready()
	s, h := b.offer(t, soon(t), "dev", nil)
	finish(t, s)
	with := func(key string, v any) map[string]any {
		out := map[string]any{}
		for k, x := range h {
			out[k] = x
		}
		out[key] = v
		return out
	}
	tests := []struct {
		name   string
		path   string
		handle any
		code   codes.Code
	}{
		{"null", "dev", nil, codes.InvalidArgument},
		{"text", "dev", h["uuid"], codes.InvalidArgument},
		{"empty", "dev", map[string]any{}, codes.InvalidArgument},
		{"unknown kind", "dev", with("kind", "stream"), codes.InvalidArgument},
		{"malformed uuid", "dev", with("uuid", "x"), codes.InvalidArgument},
		{"uuid of another type", "dev", with("uuid", 1), codes.InvalidArgument},
		{"unknown uuid", "dev", with("uuid", b.id("dev")), codes.Unknown},
		{"foreign", "dev.inner", h, codes.Unknown},
		{"the right one", "dev", h, codes.OK},
		{"used", "dev", h, codes.Unknown},
	}
	for _, test := range tests {
		_, err := b.call(soon(t), test.path, "take", test.handle)
		wantStatus(t, test.name, err, test.code, "")
	}

	gone, cancel := context.WithCancel(soon(t))
	_, h = b.offer(t, gone, "dev", nil)
	cancel()
	drivertest.Until(t, "the stream of the client that went has ended", func() bool { return active.Load() == 0 })
	_, err := b.call(soon(t), "dev", "take", h)
	wantStatus(t, "the handle of a client that went", err, codes.Unknown, "no open stream")

	// a call that fails ends the stream that its handle names, and not as if
	// all of it had come
	s, h = b.offer(t, soon(t), "dev", nil)
	_, err = b.call(soon(t), "dev", "take_fail", h)
	wantStatus(t, "take_fail", err, codes.Unknown, "something else")
	_, _, err = drain(s)
	wantStatus(t, "its stream", err, codes.Aborted, "gave up")
}

// A transfer whose client goes half way fails, and says how far it came. The
// stock client's streams end with a GOAWAY even then; but what is cut off by the
// connection, or by the client's end, is seen here.
func TestResourceClientVanishes(t *testing.T) {
	b := newBench(t).ready()
	ends := map[string]func(s router, cancel func()){
		"cancels":                    func(_ router, cancel func()) { cancel() },
		"half-closes with no GOAWAY": func(s router, _ func()) { _ = s.CloseSend() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(soon(t))
			defer cancel()
			s, h := b.offer(t, ctx, "dev", nil)
			done := make(chan error, 1)
			go func() {
				_, err := b.call(soon(t), "dev", "take", h)
				done <- err
			}()
			send(t, s, "half")
			drivertest.Until(t, "the handle is taken", func() bool {
				_, err := b.call(soon(t), "dev.inner", "take", h)
				return strings.Contains(fmt.Sprint(err), "no open stream")
			})
			end(s, cancel)
			err := <-done
			wantStatus(t, "take", err, codes.Unavailable, "after 4 bytes")
		})
	}
}

// A driver that writes while its client is not reading, and whose stream is
// closed under it, is let go.
func TestResourceGiveUnread(t *testing.T) {
	drivertest.NoLeaks(t)
	b := newBench(t).ready()
	ctx, cancel := context.WithCancel(soon(t))
	_, h := b.offer(t, ctx, "dev", nil)
	done := make(chan error, 1)
	go func() {
		_, err := b.call(soon(t), "dev", "give", h, strings.Repeat("x", 3<<20))
		done <- err
	}()
	drivertest.Until(t, "the handle is taken", func() bool {
		_, err := b.call(soon(t), "dev.inner", "take", h)
		return strings.Contains(fmt.Sprint(err), "no open stream")
	})
	cancel()
	wantStatus(t, "give", <-done, codes.Unavailable, "went away")
}

// BenchmarkIdleStreams measures what an open stream costs while nothing moves,
// on the exporter's side and on the client's together.
func BenchmarkIdleStreams(b *testing.B) {
	for _, method := range []string{"stream_echo", "stream_packets"} {
		b.Run(method, func(tb *testing.B) {
			bench := newBench(tb)
			bench.driverStream(tb, tb.Context(), "dev", method)
			var before, after runtime.MemStats
			for tb.Loop() {
				runtime.GC()
				runtime.ReadMemStats(&before)
				const n = 1000
				for range n {
					bench.driverStream(tb, tb.Context(), "dev", method)
				}
				runtime.GC()
				runtime.ReadMemStats(&after)
				tb.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "heap-B/stream")
				tb.ReportMetric(float64(after.StackInuse-before.StackInuse)/n, "stack-B/stream")
			}
		})
	}
}
