// Package unix connects to Unix domain sockets of the stream kind, such as a
// simulator's monitor.
//
// A connection is the kernel's own (*net.UnixConn) and can be half-closed. When
// the listener's queue is full, connecting waits for room.
package unix

import (
	"context"
	"io"
	"log/slog"
	"syscall"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/network"
)

// Config is the config of a Unix socket.
type Config struct {
	Path string `yaml:"path" doc:"the socket's file, relative to the exporter's working directory; a leading @ names an abstract socket, as ss and systemd write it"`
}

// maxPath is what the kernel's socket address holds, less the byte that ends a
// file name.
const maxPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// Validate implements [driver.Validator].
func (c Config) Validate() error {
	switch {
	case c.Path == "":
		return driver.BadKey("path", "is empty: wants the name of a socket")
	case len(c.Path) > maxPath:
		return driver.BadKey("path", "has %d bytes, and the kernel takes %d: use a shorter or a relative name", len(c.Path), maxPath)
	}
	return nil
}

// Probe looks for the socket's file.
func (c Config) Probe(context.Context, *driver.Env) (string, error) { return network.Socket(c.Path) }

// Network is the Unix socket backend of the network contract.
var Network = driver.Define(driver.Spec{
	Type:     "jumpstarter_driver_network.driver.UnixNetwork",
	Contract: network.Contract,
	Exports:  func() []driver.Export { return network.Exports((*service)(nil)) }, // there is no address
	Doc:      "a Unix domain socket on the exporter's machine",
}, func(_ context.Context, env *driver.Env, cfg Config) (driver.Driver, error) {
	return network.Driver(&service{cfg.Path, env.Log}), nil
})

type service struct {
	path string
	log  *slog.Logger
}

func (s *service) Connect(ctx context.Context) (io.ReadWriteCloser, error) {
	s.log.Debug("connecting", "protocol", "unix", "address", s.path)
	return network.Dial(ctx, "unix", s.path)
}
