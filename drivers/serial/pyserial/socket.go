package pyserial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/network"
	"github.com/jumplead/jumplead/drivers/serial"
)

// sockets is a line without modem lines. Setting one is accepted and does
// nothing; the server is not disturbed by a connection for it.
type sockets struct{ *serial.Line }

func (sockets) SetDTR(context.Context, bool) error { return nil }
func (sockets) SetRTS(context.Context, bool) error { return nil }

// tcp is a serial port at the far end of a TCP connection, without the modem
// lines and buffers of a real one.
type tcp struct {
	net.Conn
	addr string
}

var _ serial.Port = tcp{}

func dial(ctx context.Context, addr string) (serial.Port, error) {
	c, err := network.Dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return tcp{c, addr}, nil
}

// Read takes the peer's end of stream for what it is to a serial line: a loss.
func (c tcp) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("read %s: %w: the peer closed the connection", c.addr, driver.ErrUnavailable)
	}
	return n, err
}

// The rest has no counterpart on a socket. What was written leaves in the
// background, also after Close.
func (tcp) SetDTR(bool) error           { return nil }
func (tcp) SetRTS(bool) error           { return nil }
func (tcp) Drain(context.Context) error { return nil }
func (tcp) DiscardOutput() error        { return nil }
