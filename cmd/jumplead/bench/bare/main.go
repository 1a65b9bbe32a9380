// Bare is what the benchmark compares jumplead with: a gRPC server of the same
// messages and nothing else. It has no drivers, no sessions and no options; its
// answers are constants and its streams copy from and to one TCP peer.
//
// Usage: bare LISTEN PEER
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"

	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc"
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

func main() {
	ln, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	g, s := grpc.NewServer(), &server{peer: os.Args[2]}
	pb.RegisterExporterServiceServer(g, s)
	pb.RegisterRouterServiceServer(g, s)
	if err := g.Serve(ln); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
