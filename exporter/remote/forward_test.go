package remote_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/exporter/rpc"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Who forwards connections into a stream is told by an end of stream, too, that it
// did not open: by drivers that are elsewhere as by those that are here.
func TestForwardedRefusal(t *testing.T) {
	python(t, "ok")
	b := serve(t, good("far"))
	router := pb.NewRouterServiceClient(b.conn)
	for path, told := range map[string]bool{"far": false, "far.made": true} { // by the classes of their clients
		md := metadata.AppendToOutgoingContext(soon(t), "request",
			fmt.Sprintf(`{"kind":"driver","uuid":%q,"method":"refuse"}`, b.find(t, path).UUID))
		s, err := router.Stream(md)
		if err != nil {
			t.Fatal(err)
		}
		head, _ := s.Header()
		if got := head.Get(rpc.RefusedKey) != nil; got != told {
			t.Errorf("%s: headers = %v; want the refusal in them: %t", path, head, told)
		}
		f, err := s.Recv()
		if told {
			if err != nil || f.FrameType != pb.FrameType_FRAME_TYPE_GOAWAY {
				t.Errorf("%s: Recv() = %v, %v; want an end of stream", path, f, err)
			}
			_, err = s.Recv()
		}
		if status.Code(err) != codes.Unknown || status.Convert(err).Message() != "no stream today" {
			t.Errorf("%s: Recv() = %v; want the other side's words", path, err)
		}
		if _, err := b.find(t, path).Stream(soon(t), "refuse"); err == nil || !strings.Contains(err.Error(), "no stream today") {
			t.Errorf("%s: Stream(refuse) = %v; want the other side's words", path, err)
		}
	}
}

// What it costs to call a driver in another process.
func BenchmarkForwardCall(b *testing.B) {
	python(b, "ok")
	n := serve(b, good("far")).find(b, "far")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := n.Call(b.Context(), "path"); err != nil {
			b.Fatal(err)
		}
	}
}

// What it costs to send through a driver in another process, and to have it come
// back.
func BenchmarkForwardStream(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			python(b, "ok")
			s, err := serve(b, good("far")).find(b, "far").Stream(b.Context(), "connect")
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			done := make(chan error, 1)
			go func() {
				_, err := io.CopyN(io.Discard, s, int64(b.N)*int64(size))
				done <- err
			}()
			buf := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if _, err := s.Write(buf); err != nil {
					b.Fatal(err)
				}
			}
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		})
	}
}
