// Bare is what the benchmark compares jumplead with: a gRPC server of the same
// messages and nothing else. It has no drivers, no sessions and no options; its
// answers are constants and its streams copy from and to one TCP peer.
//
// As a forwarder it passes calls and streams on to an exporter, as they come, and
// knows no nodes: what anything costs at least that stands between a client and an
// exporter and speaks gRPC with both.
//
// Usage: bare LISTEN PEER
//
//	bare LISTEN forward EXPORTER
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/jumplead/jumplead/exporter/rpc"
	"github.com/jumplead/jumplead/exporter/stream"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"
)

type server struct {
	pb.UnimplementedExporterServiceServer
	pb.UnimplementedRouterServiceServer
	peer string
}

const uuid = "00000000-0000-0000-0000-000000000001"

func (*server) GetReport(context.Context, *emptypb.Empty) (*pb.GetReportResponse, error) {
	return &pb.GetReportResponse{Uuid: uuid, Reports: []*pb.DriverInstanceReport{{
		Uuid:   uuid,
		Labels: map[string]string{"jumpstarter.dev/client": "jumpstarter_driver_composite.client.CompositeClient"},
	}}}, nil
}

func (*server) DriverCall(context.Context, *pb.DriverCallRequest) (*pb.DriverCallResponse, error) {
	return &pb.DriverCallResponse{Uuid: uuid, Result: structpb.NewNullValue()}, nil
}

func (s *server) Stream(rpc grpc.BidiStreamingServer[pb.StreamRequest, pb.StreamResponse]) error {
	c, err := net.Dial("tcp", s.peer)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := rpc.SendHeader(nil); err != nil {
		return err
	}
	go func() {
		for {
			m, err := rpc.Recv()
			if err != nil || m.FrameType != pb.FrameType_FRAME_TYPE_DATA {
				c.(*net.TCPConn).CloseWrite()
				return
			}
			if _, err := c.Write(m.Payload); err != nil {
				return
			}
		}
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if n > 0 {
			if err := rpc.Send(&pb.StreamResponse{Payload: buf[:n]}); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return rpc.Send(&pb.StreamResponse{FrameType: pb.FrameType_FRAME_TYPE_GOAWAY})
		}
		if err != nil {
			return err
		}
	}
}

// forwarder passes on all RPCs.
type forwarder struct{ to *grpc.ClientConn }

func (f forwarder) forward(_ any, from grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(from)
	md, _ := metadata.FromIncomingContext(from.Context())
	out := metadata.MD{}
	if request := md.Get("request"); request != nil {
		out.Set("request", request...)
	}
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(from.Context(), out))
	defer cancel()
	to, err := f.to.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	go func() {
		for {
			var m stream.Raw
			if err := from.RecvMsg(&m); err == io.EOF {
				_ = to.CloseSend()
				return
			} else if err != nil {
				cancel()
				return
			}
			err := to.SendMsg(&m)
			m.Free()
			if err != nil {
				return
			}
		}
	}()
	head, err := to.Header()
	if err == nil && head != nil {
		err = from.SendHeader(metadata.MD{"resource": head.Get("resource")})
	}
	for err == nil {
		var m stream.Raw
		if err = to.RecvMsg(&m); err == nil {
			err = from.SendMsg(&m)
			m.Free()
		}
	}
	if err == io.EOF {
		err = nil
	}
	return err
}

func newServer() (*grpc.Server, error) {
	if len(os.Args) > 3 {
		cc, err := grpc.NewClient("passthrough:///"+os.Args[3], append(rpc.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
		if err != nil {
			return nil, err
		}
		return grpc.NewServer(append(rpc.ServerOptions(), grpc.UnknownServiceHandler(forwarder{cc}.forward))...), nil
	}
	g, s := grpc.NewServer(), &server{peer: os.Args[2]}
	pb.RegisterExporterServiceServer(g, s)
	pb.RegisterRouterServiceServer(g, s)
	return g, nil
}

func main() {
	ln, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	g, err := newServer()
	if err == nil {
		err = g.Serve(ln)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
