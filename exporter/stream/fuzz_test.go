package stream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// script of a client: the first byte chooses the driver's stream and how the
// client ends; then each frame is its type, a length and as many bytes.
func parseFrames(text []byte) (mode byte, list []message) {
	if len(text) == 0 {
		return 0, nil
	}
	mode, text = text[0], text[1:]
	for len(text) >= 2 {
		n := min(int(text[1]), len(text)-2)
		list = append(list, message{pb.FrameType(text[0]), string(text[2 : 2+n])})
		text = text[2+n:]
	}
	return mode, list
}

// FuzzFrames serves an echo to clients that send whatever frames they like:
// what they said up to their GOAWAY comes back, Serve returns, and nothing is
// left behind.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x00\x00\x03abc\x07\x00"))
	f.Add([]byte("\x01\x00\x01a\x00\x00\x00\x02bb\x07\x03why\x00\x01x"))
	f.Add([]byte("\x02\x06\x00\x03\x01r\x63\x02zz\x00\x01a"))
	f.Add([]byte("\x03\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, text []byte) {
		mode, frames := parseFrames(text)
		whole, vanish := mode&1 != 0, mode&2 != 0
		before := runtime.NumGoroutine()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var s io.ReadWriteCloser = newEcho()
		if whole {
			s = newPackets()
		}
		r := newRPC(ctx, 1)
		served := make(chan error, 1)
		go func() { served <- Serve(ctx, r, s, mode&4 != 0) }()
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for _, m := range frames {
				select {
				case r.in <- m:
				case <-ctx.Done():
					return
				}
			}
			if vanish {
				cancel()
			}
			r.end()
		}()

		var want []message // what an echo answers
		for _, m := range frames {
			if m.t == goaway {
				break
			}
			if m.t == data && (whole || m.payload != "") {
				want = append(want, m)
			}
		}
		var got []message
		deadline := time.After(10 * time.Second)
		var err error
	loop:
		for {
			select {
			case m := <-r.out:
				got = append(got, m)
			case err = <-served:
				break loop
			case <-deadline:
				t.Fatal("Serve() is still running after 10s; want it to return")
			}
		}
		got = append(got, r.sent()...)
		if !vanish || err == nil {
			if want = append(want, message{goaway, ""}); err != nil || !slices.Equal(joined(got, whole), joined(want, whole)) {
				t.Errorf("Serve() = %v after sending %v; want nil after %v", err, got, want)
			}
		} else if !errors.Is(err, errGone) && !errors.Is(err, ErrPeer) {
			t.Errorf("Serve() of a client that vanished = %v; want an error of either side", err)
		}
		cancel()
		<-sent
		drivertest.Until(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
	})
}

// joined are the frames as far as the receiver can rely on them: a byte stream
// has no boundaries.
func joined(list []message, whole bool) []message {
	if whole {
		return list
	}
	var out []message
	for _, m := range list {
		if n := len(out); n > 0 && m.t == data && out[n-1].t == data {
			out[n-1].payload += m.payload
			continue
		}
		out = append(out, m)
	}
	return out
}

// FuzzCodec holds our reading of frames against protobuf's, for messages in one
// buffer and in several.
func FuzzCodec(f *testing.F) {
	for _, m := range []*pb.StreamRequest{
		{}, {Payload: []byte("abc")}, {FrameType: goaway}, {FrameType: goaway, Payload: []byte("why")}, {Payload: make([]byte, 300)},
	} {
		text, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, uint(1))
		f.Add(text, uint(200))
	}
	f.Add([]byte("\x0a\x01a\x0a\x01b\x10\x07"), uint(2))
	f.Add([]byte("\x0a\x05a"), uint(0))
	f.Fuzz(func(t *testing.T, text []byte, cut uint) {
		var want pb.StreamRequest
		wantErr := proto.Unmarshal(text, &want)
		at := int(cut % uint(len(text)+1))
		in := mem.BufferSlice{mem.SliceBuffer(text[:at]), mem.SliceBuffer(text[at:])}
		var got Frame
		err := Codec{}.Unmarshal(in, &got)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("Unmarshal(%x) = %v; want %v", text, err, wantErr)
		}
		if err != nil {
			return
		}
		var whole bytes.Buffer
		for _, p := range got.pieces(nil) {
			whole.Write(p)
		}
		if got.Type != want.FrameType || got.Len() != len(want.Payload) || !bytes.Equal(whole.Bytes(), want.Payload) {
			t.Fatalf("Unmarshal(%x) = %v, %d bytes, %x; want %v, %x", text, got.Type, got.Len(), whole.Bytes(), want.FrameType, want.Payload)
		}
		if got.Len() > 0 && !bytes.Equal(got.Payload(), want.Payload) {
			t.Fatalf("Unmarshal(%x): Payload() = %x; want %x", text, got.Payload(), want.Payload)
		}
		out, err := Codec{}.Marshal(&got)
		if err != nil {
			t.Fatalf("Marshal(%x) = %v; want nil", text, err)
		}
		var again pb.StreamRequest
		if err := proto.Unmarshal(out.Materialize(), &again); err != nil || again.FrameType != want.FrameType || !bytes.Equal(again.Payload, want.Payload) {
			t.Fatalf("Marshal(Unmarshal(%x)) = %x, %v; want what it was", text, out.Materialize(), err)
		}
	})
}
