// Package pyserial opens serial lines by the URLs that pySerial knows: the path
// of a device, loop:// and socket://HOST:PORT.
//
// # The URLs
//
// A path is a port of this machine: /dev/ttyUSB0 or, better, a link below
// /dev/serial/by-id, which leads to the same adapter wherever that is plugged
// in. It has one client at a time.
//
// socket://HOST:PORT is the raw TCP port of a terminal server such as ser2net.
// Each client gets a connection of its own; what becomes of several is the
// server's affair. There are no modem lines and no line speed: setting them is
// accepted and does nothing.
//
// loop:// sends back what it gets. Each client has a loop to itself, in which
// up to 32 writes wait to be read. It is the only line that ends when its client
// has finished writing.
//
// # Presence
//
// A device that is not there does not keep the exporter from starting; its node
// answers "unavailable" until it is plugged in. With check_present the exporter
// looks at the device file when a session begins, so that the log tells early of a
// device that is missing, forbidden or no serial port. It only looks: opening the
// port would pulse DTR, which resets many boards. A socket is not tried before a client connects, because
// many terminal servers serve one connection only.
package pyserial

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/network"
	"github.com/jumplead/jumplead/drivers/serial"
	"github.com/jumplead/jumplead/hw"
)

// Config is upstream's.
type Config struct {
	URL          string   `yaml:"url" doc:"a device path, loop:// or socket://HOST:PORT"`
	Baudrate     int      `yaml:"baudrate" default:"115200" min:"1" max:"4294967295" doc:"line speed in bits per second"`
	CheckPresent bool     `yaml:"check_present" default:"true" doc:"look for the device when a session begins, not only when a client connects"`
	CPS          *float64 `yaml:"cps" doc:"bytes per second at most towards the device; 0 for no limit"`
	DisableHUPCL bool     `yaml:"disable_hupcl" default:"false" doc:"leave DTR and RTS alone when the port is closed, so that the device is not reset"`
}

// Spec is upstream's driver.
var Spec = driver.Define(driver.Spec{
	Type:     "jumpstarter_driver_pyserial.driver.PySerial",
	Contract: serial.Contract,
	Doc:      "a serial port, a TCP connection to one, or a loop",
}, open)

// Validate checks the URL.
func (c *Config) Validate() error {
	if _, _, err := c.target(); err != nil {
		return driver.BadKey("url", "%v", err)
	}
	return nil
}

// Claims is the device that only one node can use.
func (c *Config) Claims() []driver.Claim {
	if k, path, err := c.target(); err == nil && k == device {
		return []driver.Claim{{Kind: "serial port", Name: filepath.Clean(path)}}
	}
	return nil
}

// kind is what a URL leads to.
type kind uint8

const (
	device kind = iota // a path
	loop
	socket // HOST:PORT
)

// elsewhere are pySerial's other schemes, and what to do instead.
var elsewhere = map[string]string{
	"rfc2217": "let the server offer the line as a raw TCP port and use socket://",
	"spy":     "drop spy:// and its options",
	"alt":     "give the path alone",
	"hwgrep":  "give the device's path below /dev/serial/by-id",
	"cp2110":  "HID adapters cannot be used",
}

// target takes the URL apart.
func (c *Config) target() (kind, string, error) {
	scheme, rest, ok := strings.Cut(c.URL, "://")
	if !ok {
		if c.URL == "" {
			return 0, "", errors.New("is empty; it needs a device path, loop:// or socket://HOST:PORT")
		}
		return device, c.URL, nil
	}
	switch scheme = strings.ToLower(scheme); scheme {
	case "loop":
		if rest != "" {
			return 0, "", fmt.Errorf("loop:// takes no options, got %q", rest)
		}
		return loop, "", nil
	case "socket":
		addr, err := address(rest)
		if err != nil {
			return 0, "", fmt.Errorf("%q: %w; it needs the form socket://HOST:PORT", c.URL, err)
		}
		return socket, addr, nil
	}
	instead, known := elsewhere[scheme]
	if !known {
		return 0, "", fmt.Errorf("%s:// is unknown; supported are a device path, loop:// and socket://HOST:PORT", scheme)
	}
	return 0, "", fmt.Errorf("%s:// is not supported: %s; supported are a device path, loop:// and socket://HOST:PORT", scheme, instead)
}

// address reads what follows socket://. As in pySerial, a path has no meaning,
// and the one option, logging, is about pySerial's own log.
func address(s string) (string, error) {
	u, err := url.Parse("socket://" + s)
	if err != nil {
		return "", errors.Unwrap(err)
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil || port == 0 {
		return "", fmt.Errorf("port %q is not a number from 1 to 65535", u.Port())
	}
	for option, values := range u.Query() {
		if option != "logging" {
			return "", fmt.Errorf("unknown option %q", option)
		}
		if !slices.Contains([]string{"debug", "info", "warning", "error"}, values[0]) {
			return "", fmt.Errorf("logging=%s is none of debug, info, warning, error", values[0])
		}
	}
	return net.JoinHostPort(u.Hostname(), strconv.FormatUint(port, 10)), nil
}

func open(ctx context.Context, env *driver.Env, c Config) (driver.Driver, error) {
	kind, where, err := c.target()
	if err != nil {
		return driver.Driver{}, fmt.Errorf("url: %w", err)
	}
	o := serial.Options{Log: env.Log.With("url", c.URL)}
	if c.CPS != nil {
		o.CPS = *c.CPS
	}
	if kind != device && c.DisableHUPCL {
		o.Log.Warn("disable_hupcl has no effect: this is no terminal")
	}
	switch kind {
	case loop:
		p := &loops{cps: o.CPS}
		return serial.Driver(p, p.release), nil
	case socket:
		o.Many = true
		l := serial.NewLine(func(ctx context.Context) (serial.Port, error) {
			return dial(ctx, where)
		}, o)
		return serial.Driver(sockets{l}, l.Release), nil
	}
	if c.CheckPresent {
		if err := present(ctx, env.Host, where); err != nil {
			return driver.Driver{}, err
		}
	}
	// The kernel holds 4 KiB of output, and an adapter may hold as much again.
	// A byte is ten bits on the wire. The kernel itself would wait for 30 s.
	o.Linger = min(30*time.Second, time.Second+time.Duration(8192*10/float64(c.Baudrate)*float64(time.Second)))
	o.Log = o.Log.With("baudrate", c.Baudrate)
	l := serial.NewLine(func(ctx context.Context) (serial.Port, error) {
		return env.Host.OpenSerial(ctx, where, hw.SerialOptions{Baud: c.Baudrate, DisableHUPCL: c.DisableHUPCL})
	}, o)
	return serial.Driver(l, l.Release), nil
}

// present looks whether the port could be opened, without opening it. That somebody
// has it now may be over when a client connects.
func present(ctx context.Context, h hw.Host, path string) error {
	_, err := h.ProbeSerial(ctx, path)
	if errors.Is(err, hw.ErrBusy) || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// Probe looks at the port from outside. Of a socket it finds out whether there is
// a way to its host, and of a loop nothing.
func (c *Config) Probe(ctx context.Context, env *driver.Env) (string, error) {
	kind, where, err := c.target()
	switch {
	case err != nil:
		return "", fmt.Errorf("url: %w", err)
	case kind == loop:
		return "a loop in memory", nil
	case kind == socket:
		return network.Route(ctx, where)
	}
	info, err := env.Host.ProbeSerial(ctx, where)
	if err != nil {
		return "", err
	}
	return info.String() + ", which nobody is seen to use", nil
}
