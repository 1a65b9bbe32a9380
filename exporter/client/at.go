package client

import (
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc"
)

// At reaches one node over a connection that is there already, by the UUID that it
// has on the other side.
func At(conn grpc.ClientConnInterface, uuid string) *Node {
	return &Node{UUID: uuid, c: &Client{export: pb.NewExporterServiceClient(conn), router: pb.NewRouterServiceClient(conn)}}
}
