// Package network reaches the services of a device under test: its SSH daemon,
// a debug server's socket, a port of the machine that simulates it.
//
// The contract is upstream's. Connect opens a new connection, and a client may
// have as many as it likes: they share nothing, so a network node claims
// nothing. Address tells where a client that stands on the same network could
// connect to directly, instead of through the exporter.
//
// # Streams
//
// What Connect returns says what it can do by its methods. A stream with
// CloseWrite can be half-closed: the peer sees the end of what was sent and may
// still answer, as `echo request | nc` needs. A [driver.PacketStream] keeps the
// boundaries of what is written. A stream that ends in order ends with io.EOF;
// one whose peer reset it, or vanished, ends with another error, and whoever
// passes data on must let the far side see the difference: a transfer that
// broke off must not look complete.
package network

import (
	"context"
	"io"

	"github.com/jumplead/jumplead/drivers/driver"
)

// Contract is upstream's network interface.
var Contract = driver.Contract{
	Name:   "network",
	Client: "jumpstarter_driver_network.client.NetworkClient",
	Kind:   "network",

	Forwarded: true, // upstream's port forwarders connect to it
	Exports:   func() []driver.Export { return Exports((*Client)(nil)) },
}

// Interface is a service that can be connected to.
type Interface interface {
	// Connect opens a connection. The context bounds the opening only; the
	// connection lives until it is closed. A peer that refuses or cannot be
	// reached is [driver.ErrUnavailable] or classifies as it.
	Connect(context.Context) (io.ReadWriteCloser, error)
}

// Addresser is a service that has an address of its own on a network.
type Addresser interface {
	// Address is where the service is, as a URL: "tcp://192.0.2.7:22". An
	// exporter that does not tell answers with a [driver.ArgError].
	Address(context.Context) (string, error)
}

// Exports is the contract on the wire. The address row is there when n is an
// [Addresser].
func Exports(n Interface) []driver.Export {
	rows := []driver.Export{driver.Stream("connect", n.Connect).Help("Connect to the service")}
	if a, ok := n.(Addresser); ok {
		rows = append(rows, driver.Call("address", a.Address).Help("Where the service can be reached directly"))
	}
	return rows
}

// Driver offers a service to remote callers.
func Driver(n Interface) driver.Driver { return driver.Driver{Exports: Exports(n), Impl: n} }

// Client is a service behind a [driver.Caller].
type Client struct{ c driver.Caller }

var (
	_ Interface = (*Client)(nil)
	_ Addresser = (*Client)(nil)
)

// NewClient makes a client of a network node.
func NewClient(c driver.Caller) *Client { return &Client{c} }

// Connect opens a connection to the service.
func (c *Client) Connect(ctx context.Context) (io.ReadWriteCloser, error) {
	return c.c.Stream(ctx, "connect")
}

// Address is where the service can be reached directly. Nodes without an
// address of their own answer [driver.ErrNoMethod].
func (c *Client) Address(ctx context.Context) (string, error) {
	return driver.Invoke[string](ctx, c.c, "address")
}
