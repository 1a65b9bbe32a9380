// Package vnc tells clients how to show the screen of a device under test.
//
// The contract is upstream's. VNC (the RFB protocol, RFC 6143) runs in the
// client's browser; the exporter carries its bytes through a child of the node,
// which is called tcp and is the VNC server as the exporter reaches it. All that
// the node itself says is whether the browser encrypts its connection unless its
// user decides otherwise.
package vnc

import (
	"context"

	"github.com/jumplead/jumplead/drivers/driver"
)

// Contract is upstream's VNC node.
var Contract = driver.Contract{
	Name:   "vnc",
	Client: "jumpstarter_driver_vnc.client.VNClient",
	Kind:   "composite",

	Exports: func() []driver.Export { return Exports((*Client)(nil)) },
}

// Service is the child that every node of the contract has: where the VNC server
// is.
const Service = "tcp"

// Interface is a screen.
type Interface interface {
	// DefaultEncrypt says whether the browser's connection is encrypted unless
	// its user decides otherwise.
	DefaultEncrypt(context.Context) (bool, error)
}

// Exports is the contract on the wire.
func Exports(v Interface) []driver.Export {
	return []driver.Export{
		driver.Call("get_default_encrypt", v.DefaultEncrypt).Help("Whether connections are encrypted by default"),
	}
}

// Driver offers a screen to remote callers.
func Driver(v Interface) driver.Driver { return driver.Driver{Exports: Exports(v), Impl: v} }

// Client is a screen behind a [driver.Caller].
type Client struct{ c driver.Caller }

var _ Interface = (*Client)(nil)

// NewClient makes a client of a VNC node.
func NewClient(c driver.Caller) *Client { return &Client{c} }

func (c *Client) DefaultEncrypt(ctx context.Context) (bool, error) {
	return driver.Invoke[bool](ctx, c.c, "get_default_encrypt")
}

// Config is the config of a node of the contract.
type Config struct {
	Encrypt bool `yaml:"default_encrypt" default:"false" doc:"encrypt the browser's connection unless its user decides otherwise"`
}

// VNC is the contract's driver.
var VNC = driver.Define(driver.Spec{
	Type:     "jumpstarter_driver_vnc.driver.Vnc",
	Contract: Contract,
	Doc:      "the DUT's screen, for clients that show it in a browser",
	Children: []string{Service},
}, func(_ context.Context, _ *driver.Env, cfg Config) (driver.Driver, error) {
	return Driver(screen(cfg)), nil
})

type screen Config

func (s screen) DefaultEncrypt(context.Context) (bool, error) { return s.Encrypt, nil }
