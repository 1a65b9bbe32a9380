// Package tcp connects to TCP services.
//
// A connection is the kernel's own (*net.TCPConn): it can be half-closed, sends
// without delay (TCP_NODELAY), and probes a peer that is silent for 15 seconds
// (keep-alive), so that a stream to a device whose power was cut ends after
// some minutes at the latest, and one to a device that was rebooted within
// 15 seconds. A peer's reset is a read error, syscall.ECONNRESET, and never
// io.EOF.
package tcp

import (
	"context"
	"io"
	"log/slog"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/network"
)

// Network is the TCP backend of the network contract.
var Network = driver.Define(driver.Spec{
	Type:     "jumpstarter_driver_network.driver.TcpNetwork",
	Contract: network.Contract,
	Doc:      "a TCP service that the exporter can reach",
}, func(_ context.Context, env *driver.Env, cfg network.Endpoint) (driver.Driver, error) {
	return network.Driver(&service{cfg, env.Log}), nil
})

type service struct {
	at  network.Endpoint
	log *slog.Logger
}

func (s *service) Connect(ctx context.Context) (io.ReadWriteCloser, error) {
	s.log.Debug("connecting", "protocol", "tcp", "address", s.at.String())
	return network.Dial(ctx, "tcp", s.at.String())
}

func (s *service) Address(ctx context.Context) (string, error) { return s.at.URL(ctx, "tcp") }
