package interop

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/rpc"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const hostedStreams = `apiVersion: jumpstarter.dev/v1alpha1
kind: ExporterConfig
metadata: {namespace: lab, name: streams}
export:
  tcp: {type: jumpstarter_driver_network.driver.TcpNetwork, config: {host: 127.0.0.1, port: PORT}}
  dead: {type: jumpstarter_driver_network.driver.TcpNetwork, config: {host: 127.0.0.1, port: 1}}
x-jumplead: {hosted: true}
`

// TestHostedStreams moves chunks of all sizes through drivers in Python, many
// streams at once: all comes back, in order, and then the end.
func TestHostedStreams(t *testing.T) {
	h := host(t, strings.ReplaceAll(hostedStreams, "PORT", echoPeer(t)))
	n := h.find(t, "tcp")
	echo := func(seed uint64, sizes ...int) error {
		s, err := n.Stream(t.Context(), "connect")
		if err != nil {
			return err
		}
		defer s.Close()
		var want bytes.Buffer
		r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
		for _, size := range sizes {
			if _, err := io.CopyN(&want, r, int64(size)); err != nil {
				return err
			}
		}
		sent := make(chan error, 1)
		go func() {
			rest := want.Bytes()
			for _, size := range sizes {
				if _, err := s.Write(rest[:size]); err != nil {
					sent <- err
					return
				}
				rest = rest[size:]
			}
			sent <- s.(interface{ CloseWrite() error }).CloseWrite()
		}()
		got, err := io.ReadAll(s)
		if err != nil || !bytes.Equal(got, want.Bytes()) {
			return fmt.Errorf("%d bytes came back of %d, or others, %v", len(got), want.Len(), err)
		}
		return <-sent
	}
	for _, sizes := range [][]int{{3 << 20, 1 << 20}, {1, 256<<10 - 13, 256 << 10, 128<<10 - 1, 64 << 10, 5}} { // around the sizes of buffers
		if err := echo(1, sizes...); err != nil {
			t.Errorf("chunks of %d bytes: %v", sizes, err)
		}
	}
	var all sync.WaitGroup
	for i := range uint64(30) {
		all.Go(func() {
			r := rand.New(rand.NewPCG(i, 1))
			sizes := make([]int, 20)
			for j := range sizes {
				sizes[j] = []int{1, 7, 100, 4 << 10, 64 << 10, 300_000}[r.IntN(6)]
			}
			if err := echo(i, sizes...); err != nil {
				t.Errorf("stream %d: chunks of %d bytes: %v", i, sizes, err)
			}
		})
	}
	all.Wait()
}

// TestHostedRefused opens a stream to a port where nobody listens. The stock
// client's forwarders of ports close the local connection when the stream ends.
func TestHostedRefused(t *testing.T) {
	h := host(t, strings.ReplaceAll(hostedStreams, "PORT", "1"))
	n := h.find(t, "dead")
	if _, err := n.Stream(t.Context(), "connect"); driver.Classify(err) != driver.Internal || !strings.Contains(err.Error(), "All connection attempts failed") {
		t.Errorf("Stream() = %v; want what Python says", err)
	}
	h.says(t, "dead: Stream failed: OSError: ")
	cc, err := grpc.NewClient("passthrough:///"+h.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "request", fmt.Sprintf(`{"kind":"driver","uuid":%q,"method":"connect"}`, n.UUID))
	s, err := pb.NewRouterServiceClient(cc).Stream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if md, err := s.Header(); err != nil || md.Get(rpc.RefusedKey) == nil {
		t.Errorf("Header() = %v, %v; want %s in it", md, err, rpc.RefusedKey)
	}
	if f, err := s.Recv(); err != nil || f.FrameType != pb.FrameType_FRAME_TYPE_GOAWAY {
		t.Errorf("Recv() = %v, %v; want an end of stream", f, err)
	}
	if _, err := s.Recv(); !strings.HasPrefix(status.Convert(err).Message(), "Unexpected <class 'OSError'>: ") {
		t.Errorf("Recv() = %v; want the error as gRPC's Python server has it", err)
	}
}
