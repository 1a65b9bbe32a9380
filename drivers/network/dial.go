package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
)

// Time limits. The kernel would try for two minutes; by then whoever asked has
// given up, and is better served by an error that names the peer.
const (
	DialTimeout   = 30 * time.Second // for all of a name's addresses together
	lookupTimeout = 5 * time.Second  // of Address, which can do without
)

// Endpoint is the config of a backend that connects to a host and a port.
type Endpoint struct {
	Host          string `yaml:"host" doc:"name or IP address of the machine to connect to, as the exporter knows it"`
	Port          int    `yaml:"port" min:"1" max:"65535" doc:"port number of the service"`
	EnableAddress bool   `yaml:"enable_address" default:"true" doc:"tell clients the service's address, so that they may connect to it directly"`
}

// Validate implements [driver.Validator].
func (e Endpoint) Validate() error {
	if e.Host == "" { // the resolver would take it for this machine
		return driver.BadKey("host", "is empty: wants a name or an IP address")
	}
	return nil
}

// ErrHidden is what Address answers where the config has it that clients are not
// told addresses. The words are upstream's.
var ErrHidden = driver.BadArg("", "enable_address mode is not true in the exporter configuration")

// String is the endpoint as host:port, with brackets around an IPv6 address.
func (e Endpoint) String() string { return net.JoinHostPort(e.Host, strconv.Itoa(e.Port)) }

// URL is the endpoint's address for a client: scheme://ip:port. A host that
// cannot be resolved, or not within 5 seconds, stands there by its name: the
// client's resolver may know better.
func (e Endpoint) URL(ctx context.Context, scheme string) (string, error) {
	if !e.EnableAddress {
		return "", ErrHidden
	}
	var err error
	if e.Host, err = resolve(ctx, net.DefaultResolver, e.Host); err != nil {
		return "", fmt.Errorf("address of %s: %w", e, err)
	}
	return scheme + "://" + e.String(), nil
}

type resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// resolve is the first address of a host, or the host as it was given when it
// has none. It fails only when ctx is done.
func resolve(ctx context.Context, r resolver, host string) (string, error) {
	if _, err := netip.ParseAddr(host); err == nil {
		return host, nil
	}
	limited, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addrs, err := r.LookupNetIP(limited, "ip", host)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil || len(addrs) == 0:
		return host, nil
	}
	return addrs[0].Unmap().String(), nil // the resolver may spell IPv4 in IPv6
}

// Dial connects as [net.Dialer] does, within [DialTimeout]: TCP connections
// probe a silent peer (keep-alive) and send without delay (TCP_NODELAY). Errors
// name the address; a peer that refuses or cannot be reached is
// [driver.ErrUnavailable] or classifies as it.
func Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return dial(ctx, network, address, DialTimeout)
}

func dial(ctx context.Context, network, address string, limit time.Duration) (net.Conn, error) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(limited, network, address)
	for errors.Is(err, syscall.EAGAIN) {
		// The listener of a Unix socket has its queue full. A blocking connect
		// waits for room; this one is told to come back, and by nobody when.
		select {
		case <-time.After(20 * time.Millisecond):
			c, err = d.DialContext(limited, network, address)
		case <-limited.Done():
			err = limited.Err()
		}
	}
	if err == nil {
		return c, nil
	}
	// net's own text repeats the address, unless it was a name until now.
	var op *net.OpError
	if errors.As(err, &op) && (op.Addr == nil || op.Addr.String() == address) {
		err = op.Err
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		ours, _ := limited.Deadline()
		if callers, ok := ctx.Deadline(); !ok || ours.Before(callers) {
			err = fmt.Errorf("no answer within %v: %w", limit, err)
		}
	case errors.Is(err, context.Canceled): // says nothing of the peer
	case unreachable(err):
		err = fmt.Errorf("%w: %w", driver.ErrUnavailable, err)
	}
	return nil, fmt.Errorf("connect to %s: %w", address, err)
}

// unreachable reports whether a connection failed for want of a peer, and may
// succeed when that is there. Without it a missing socket file or an unplugged
// cable would count as a fault of the exporter.
func unreachable(err error) bool {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return true
	}
	for _, e := range []syscall.Errno{syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN, syscall.ENOENT} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
