// Package vsock connects to services of virtual machines over vsock (vsock(7)):
// sockets between a machine and its guests that need no network.
//
// An address is a context, which stands for a machine, and a port. 2 is the
// host, for those who are guests; guests have the number that their hypervisor
// was told (guest-cid of QEMU's vhost-vsock-pci); 1 is this machine itself, if
// its kernel has the module vsock_loopback.
//
// A connection behaves like one of TCP: its bytes come in order or not at all,
// and it can be half-closed. It differs in how it ends. The kernel closes the
// sockets of a process that dies as the process itself would, so that its peer
// reads an orderly end; only a machine that vanishes is an error. Nobody who
// listens is a reset (ECONNRESET), as the guest's kernel puts it, no machine of
// that number ENODEV or, after the kernel's two seconds, a time-out.
package vsock

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/network"
)

// Config is the address of a service.
type Config struct {
	CID  uint32 `yaml:"cid" max:"4294967294" doc:"context: the number of the virtual machine; 2 is the host, 1 is this machine"`
	Port uint32 `yaml:"port" max:"4294967294" doc:"port number of the service there"`
}

// String is the address as socat and others write it.
func (c Config) String() string { return fmt.Sprintf("vsock:%d:%d", c.CID, c.Port) }

// Network is the vsock backend of the network contract.
var Network = driver.Define(driver.Spec{
	Type:     "jumpstarter_driver_network.driver.VsockNetwork",
	Contract: network.Contract,
	Exports:  func() []driver.Export { return network.Exports((*service)(nil)) }, // there is no address
	Doc:      "a service of a virtual machine, over vsock",
}, func(_ context.Context, env *driver.Env, cfg Config) (driver.Driver, error) {
	return network.Driver(&service{cfg, env.Log}), nil
})

type service struct {
	at  Config
	log *slog.Logger
}

func (s *service) Connect(ctx context.Context) (io.ReadWriteCloser, error) {
	s.log.Debug("connecting", "protocol", "vsock", "address", s.at.String())
	ctx, cancel := context.WithTimeout(ctx, network.DialTimeout)
	defer cancel()
	c, err := dial(ctx, s.at)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", s.at, err)
	}
	return c, nil
}
