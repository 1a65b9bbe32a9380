// Package echo is a network service that needs no network: it sends back what
// it is sent. Configurations use it to try streams out.
package echo

import (
	"context"
	"fmt"
	"io"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/network"
)

// Network is the echo backend of the network contract. Each of its streams is a
// [network.Loop].
var Network = driver.Define(driver.Spec{
	Type:     "jumpstarter_driver_network.driver.EchoNetwork",
	Contract: network.Contract,
	Exports:  func() []driver.Export { return network.Exports((*service)(nil)) }, // there is no address
	Doc:      "a service that sends back what it is sent, for trials and tests",
	Lenient:  true,
}, func(_ context.Context, env *driver.Env, _ struct{}) (driver.Driver, error) {
	return network.Driver(&service{env}), nil
})

type service struct{ env *driver.Env }

func (s *service) Connect(ctx context.Context) (io.ReadWriteCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("connect to echo: %w", err)
	}
	s.env.Log.Debug("connecting", "protocol", "echo")
	return network.NewLoop(), nil
}
