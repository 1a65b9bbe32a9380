package remote_test

import (
	"net"
	"os"

	"github.com/jumplead/jumplead/exporter/remote"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
)

// host serves as hosted.py does.
func (f *fake) host(socket string) error {
	// Once the socket is there it takes connections.
	ln, err := net.Listen("unix", socket+"~")
	if err == nil {
		err = os.Rename(socket+"~", socket)
	}
	if err != nil {
		return err
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			p := new(remote.Peer)
			pb.RegisterExporterServiceServer(p, f)
			pb.RegisterRouterServiceServer(p, f)
			_ = p.Serve(c) // until it breaks
		}()
	}
}
