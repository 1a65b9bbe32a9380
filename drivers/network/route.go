package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/jumplead/jumplead/drivers/driver"
)

// Route tells whether there is a way to an address, host:port: whether the name
// has one, and whether the kernel knows where to send to it. Nothing is sent there.
// Connecting would tell more, but a device under test may take that for a client,
// and be off at the time; and many terminal servers have but one connection.
func Route(ctx context.Context, address string) (string, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "udp", address) // which sends nothing
	if err != nil {
		var dns *net.DNSError
		switch {
		case ctx.Err() != nil:
			return "", fmt.Errorf("connect to %s: %w", address, ctx.Err())
		case errors.As(err, &dns):
			err = fmt.Errorf("%w: %w", driver.ErrUnavailable, dns)
		case unreachable(err), errors.Is(err, syscall.EADDRNOTAVAIL):
			err = fmt.Errorf("%w: no way leads there: %w", driver.ErrUnavailable, err)
		}
		return "", fmt.Errorf("connect to %s: %w", address, err)
	}
	defer c.Close()
	from, _, _ := net.SplitHostPort(c.LocalAddr().String())
	to, _, _ := net.SplitHostPort(c.RemoteAddr().String())
	return fmt.Sprintf("there is a way to %s (%s), from %s; whether it answers was not tried", address, to, from), nil
}

// Probe tells whether there is a way to the service.
func (e Endpoint) Probe(ctx context.Context, _ *driver.Env) (string, error) {
	return Route(ctx, e.String())
}

// Socket tells whether the file of a Unix socket is there. It does not connect. The
// names that begin with @ are in no folder.
func Socket(path string) (string, error) {
	if strings.HasPrefix(path, "@") {
		return "an abstract socket, " + path + ", of which no file tells", nil
	}
	fail := func(err error) (string, error) { return "", fmt.Errorf("connect to %s: %w", path, err) }
	switch info, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return fail(fmt.Errorf("%w: %w: does the service run?", driver.ErrUnavailable, errors.Unwrap(err)))
	case err != nil:
		return fail(errors.Unwrap(err))
	case info.Mode().Type() != fs.ModeSocket:
		return fail(errors.New("it is no socket"))
	}
	return "the socket " + path + "; whether it answers was not tried", nil
}
