// Package serial talks to a device under test over a serial line: its console,
// its boot loader, a microcontroller's debug port.
//
// The contract is upstream's: connect hands out the line as a byte stream,
// close drops a connection whoever holds it, set_dtr and set_rts drive the two
// modem lines that development boards abuse for reset and boot selection.
//
// # What a line is
//
// Bytes pass both ways as they are. A line has no end of file: that a client
// has finished writing changes nothing, and a device that is unplugged ends the
// stream with an error. One client at a time has a line, as two readers of one
// port would each get a part of the bytes; one that has finished writing may
// read on until the next client comes.
//
// # DTR and RTS
//
// Opening a port asserts both lines, and closing it releases them again unless
// the port is told to leave them alone. A line that is to stay as it was set
// must therefore be set while a client is connected, or on a port that does not
// hang up.
//
// [Line] is this behaviour for any port that a backend can open.
package serial

import (
	"context"
	"io"

	"github.com/jumplead/jumplead/drivers/driver"
)

// Contract is upstream's serial interface.
var Contract = driver.Contract{
	Name:   "serial",
	Client: "jumpstarter_driver_pyserial.client.PySerialClient",
	Kind:   "serial",

	Exports: func() []driver.Export { return Exports((*Client)(nil)) },
}

// Interface is a serial line.
type Interface interface {
	// Connect opens the line. The context bounds the opening; closing the
	// stream ends it. While another client is connected the error is
	// [driver.ErrBusy], on lines that cannot be shared.
	Connect(context.Context) (io.ReadWriteCloser, error)
	// Close drops what is connected: to its holder the stream is at its end.
	// Nobody being connected is no error.
	Close(context.Context) error
	// SetDTR and SetRTS assert (true) or release (false) a line.
	SetDTR(ctx context.Context, asserted bool) error
	SetRTS(ctx context.Context, asserted bool) error
}

// Exports is the contract on the wire.
func Exports(p Interface) []driver.Export {
	return []driver.Export{
		driver.Stream("connect", p.Connect).Help("Open the line"),
		driver.Do("close", p.Close).Help("Drop the active connection"),
		driver.Do1("set_dtr", p.SetDTR).Args("value").Lax().Help("Assert or release Data Terminal Ready"),
		driver.Do1("set_rts", p.SetRTS).Args("value").Lax().Help("Assert or release Request To Send"),
	}
}

// Driver offers a line to remote callers. Release is called once, when the node
// is closed for good.
func Driver(p Interface, release func() error) driver.Driver {
	return driver.Driver{Exports: Exports(p), Impl: closer(release)}
}

// closer is apart from the line, whose own Close is a method on the wire.
type closer func() error

func (c closer) Close() error { return c() }

// Client is a line behind a [driver.Caller].
type Client struct{ c driver.Caller }

var _ Interface = (*Client)(nil)

// NewClient makes a client of a serial node.
func NewClient(c driver.Caller) *Client { return &Client{c} }

func (c *Client) Connect(ctx context.Context) (io.ReadWriteCloser, error) {
	return c.c.Stream(ctx, "connect")
}

func (c *Client) Close(ctx context.Context) error { return driver.Run(ctx, c.c, "close") }

func (c *Client) SetDTR(ctx context.Context, asserted bool) error {
	return driver.Run(ctx, c.c, "set_dtr", asserted)
}

func (c *Client) SetRTS(ctx context.Context, asserted bool) error {
	return driver.Run(ctx, c.c, "set_rts", asserted)
}
