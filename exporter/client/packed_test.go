package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/exporter/client"
	"github.com/jumplead/jumplead/exporter/stream/codec"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

func pack(t testing.TB, encoding, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := codec.NewWriter(encoding, &b)
	if err == nil {
		_, err = io.WriteString(w, text)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unpack(encoding string, packed []byte) (string, error) {
	r, err := codec.NewReader(encoding, bytes.NewReader(packed))
	if err != nil {
		return "", err
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	return string(text), err
}

func TestOfferPacked(t *testing.T) {
	drivertest.NoLeaks(t)
	dev := find(t, serve(t).dial(t), "dev")
	want := strings.Repeat("0123456789", 50_000)
	for _, e := range codec.Encodings() {
		tr := driver.Transfer{Encoding: e}
		var got string
		take := func(ctx context.Context, h driver.Handle) (err error) {
			got, err = driver.Invoke[string](ctx, dev, "take", h)
			return err
		}
		if err := tr.Upload(soon(t), dev, bytes.NewReader(pack(t, e, want)), take); err != nil || got != want {
			t.Errorf("%s: Upload() = %v with %d bytes; want %d", e, err, len(got), len(want))
		}
		var b bytes.Buffer
		give := func(ctx context.Context, h driver.Handle) error { return driver.Run(ctx, dev, "give", h, want) }
		if err := tr.Download(soon(t), dev, &b, give); err != nil {
			t.Errorf("%s: Download() = %v; want nil", e, err)
		}
		if text, err := unpack(e, b.Bytes()); text != want || err != nil {
			t.Errorf("%s: Download() brought %d bytes, %v; want %d", e, len(text), err, len(want))
		}
	}
	if _, _, err := dev.OfferPacked(soon(t), "lz4"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("OfferPacked(lz4) = %v; want %v", err, errors.ErrUnsupported)
	}
}

// plain is an exporter that moves data as it is, and answers to a request for an
// encoding as a test wants it to.
type plain struct {
	reporter
	pb.UnimplementedRouterServiceServer
	got chan []byte // what a client sent to its end

	mu     sync.Mutex
	answer metadata.MD
	gives  string
}

func (p *plain) will(answer metadata.MD, gives string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer, p.gives = answer, gives
}

func (p *plain) Stream(s grpc.BidiStreamingServer[pb.StreamRequest, pb.StreamResponse]) error {
	p.mu.Lock()
	answer, gives := p.answer, p.gives
	p.mu.Unlock()
	if err := s.SendHeader(answer); err != nil {
		return err
	}
	if gives != "" {
		for _, part := range []string{gives[:1], gives[1:]} {
			if err := s.Send(&pb.StreamResponse{Payload: []byte(part)}); err != nil {
				return err
			}
		}
		if err := s.Send(&pb.StreamResponse{FrameType: pb.FrameType_FRAME_TYPE_GOAWAY}); err != nil {
			return err
		}
	}
	var got []byte
	for {
		in, err := s.Recv()
		if err != nil {
			return err
		}
		if in.FrameType == pb.FrameType_FRAME_TYPE_GOAWAY {
			p.got <- got
			return nil
		}
		got = append(got, in.Payload...)
	}
}

// An exporter that leaves the encoding to its client is sent, and sends, data as
// it is.
func TestOfferPackedHere(t *testing.T) {
	drivertest.NoLeaks(t)
	root := &pb.DriverInstanceReport{Uuid: "1", Labels: map[string]string{}}
	p := &plain{reporter: reporter{reports: []*pb.DriverInstanceReport{root}}, got: make(chan []byte, 1)}
	c, err := client.Dial(soon(t), listen(t, func(srv *grpc.Server) {
		pb.RegisterExporterServiceServer(srv, &p.reporter)
		pb.RegisterRouterServiceServer(srv, p)
	}), client.Options{})
	if err != nil {
		t.Fatalf("Dial() = %v; want nil", err)
	}
	t.Cleanup(func() { c.Close() })
	answer := metadata.Pairs("resource", `{"kind":"client_stream","uuid":"x","x_jmp_content_encoding":null}`)
	want := strings.Repeat("0123456789", 50_000)
	for _, e := range codec.Encodings() {
		p.will(answer, "")
		packed := pack(t, e, want)
		r, _, err := c.Root.OfferPacked(soon(t), e)
		if err != nil {
			t.Fatalf("%s: OfferPacked() = %v; want nil", e, err)
		}
		if _, err := r.Write(packed); err != nil {
			t.Errorf("%s: Write() = %v; want nil", e, err)
		}
		if err := r.CloseWrite(); err != nil {
			t.Errorf("%s: CloseWrite() = %v; want nil", e, err)
		}
		if got := <-p.got; string(got) != want {
			t.Errorf("%s: the exporter got %d bytes; want %d, not packed", e, len(got), len(want))
		}
		r.Close()

		r, _, err = c.Root.OfferPacked(soon(t), e)
		if err != nil {
			t.Fatal(err)
		}
		_, werr := r.Write(packed[:len(packed)-1])
		if err := errors.Join(werr, r.CloseWrite()); !errors.Is(err, codec.ErrTruncated) {
			t.Errorf("%s: CloseWrite() of what is cut = %v; want %v", e, err, codec.ErrTruncated)
		}
		r.Close() // half way; the exporter has no end of it
		select {
		case got := <-p.got:
			t.Errorf("%s: the exporter got %d bytes to the end; want no end", e, len(got))
		default:
		}

		p.will(answer, want)
		if r, _, err = c.Root.OfferPacked(soon(t), e); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if text, uerr := unpack(e, got); text != want || err != nil || uerr != nil {
			t.Errorf("%s: ReadAll() = %d bytes that unpack to %d, %v, %v; want %d", e, len(got), len(text), err, uerr, len(want))
		}
		r.Close()
		if r, _, err = c.Root.OfferPacked(soon(t), e); err != nil {
			t.Fatal(err)
		}
		r.Read(make([]byte, 1))
		r.Close() // while it packs
	}

	for _, bad := range []metadata.MD{
		metadata.Pairs("resource", `{"kind":"client_stream","uuid":"x","x_jmp_content_encoding":null}`, "x_jmp_accept_encoding", "gzip"),
		metadata.Pairs("resource", `{"kind":"client_stream","uuid":"x","x_jmp_content_encoding":"gzip"}`),
		metadata.Pairs("resource", `{"kind":"client_stream","uuid":"x","x_jmp_content_encoding":"xz"}`, "x_jmp_accept_encoding", ""),
		metadata.Pairs("resource", `null`),
		metadata.Pairs("resource", `[]`),
		metadata.Pairs("nothing", "x"),
	} {
		p.will(bad, "")
		if r, _, err := c.Root.OfferPacked(soon(t), "gzip"); err == nil {
			t.Errorf("OfferPacked() with the answer %v = %v, nil; want an error", bad, r)
			r.Close()
		}
	}
}
