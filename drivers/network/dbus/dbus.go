// Package dbus connects to a message bus of the exporter's machine: the system
// bus, on which services such as NetworkManager or BlueZ are reached, or the
// session bus of the exporter's user.
//
// The driver carries bytes and looks at none of them. The client's side listens
// on a port and points the bus's environment variable there, so that any D-Bus
// program of the client's finds the harness's bus as if it were its own.
//
// # Who the client is
//
// A bus asks the kernel who is at the other end of its socket, and that is the
// exporter. Clients act with its rights, and those that insist on a name of
// their own (AUTH EXTERNAL with a user number) are let in only if it is the
// exporter's.
//
// # What does not pass
//
// D-Bus can hand over open files, which is more than bytes. Programs that reach
// the bus by TCP, as upstream's client makes them, know that: they never ask for
// it (NEGOTIATE_UNIX_FD), and the bus answers with an error where a method would
// hand one over. A program that is pointed at a forwarded Unix socket does ask,
// and loses its connection when a message with a file in it arrives without.
//
// # Addresses
//
// Where a bus is stands in the environment of the exporter, in
// DBUS_SYSTEM_BUS_ADDRESS or DBUS_SESSION_BUS_ADDRESS, in the syntax of the
// D-Bus specification: a list of addresses divided by semicolons, each a
// transport, a colon and key=value pairs divided by commas, in which %20 is a
// space. The first address that answers is used. The transports are
//
//	unix:path=/run/dbus/system_bus_socket
//	unix:abstract=/tmp/dbus-x
//	tcp:host=192.0.2.1,port=55556,family=ipv4
//
// Others (autolaunch, unixexec) start programs, and are passed over.
package dbus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/network"
)

// Contract is the network contract with upstream's client for buses.
var Contract = driver.Contract{
	Name:      network.Contract.Name,
	Client:    "jumpstarter_driver_network.client.DbusNetworkClient",
	Kind:      network.Contract.Kind,
	Forwarded: true,

	Exports: func() []driver.Export { return network.Exports((*bus)(nil)) }, // there is no address
}

// LabelKind is the label of a node that tells the client which bus it is.
const LabelKind = "jumpstarter.dev/dbusnetwork/kind"

// Config is the config of a bus.
type Config struct {
	Kind string `yaml:"kind" oneof:"system session" doc:"which bus of the exporter's machine: system, or session, that of the exporter's user"`
}

// Labels implements [driver.Labeler].
func (c Config) Labels() map[string]string { return map[string]string{LabelKind: c.Kind} }

// Validate implements [driver.Validator]: an exporter whose environment is wrong
// should not start and fail later.
func (c Config) Validate() error {
	_, err := c.addresses()
	if err != nil {
		return driver.BadKey("kind", "%v", err)
	}
	return nil
}

// addresses are where the bus may be, as the environment says.
func (c Config) addresses() ([]address, error) {
	variable, text := "DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/run/dbus/system_bus_socket"
	if c.Kind == "session" {
		variable, text = "DBUS_SESSION_BUS_ADDRESS", fmt.Sprintf("unix:path=/run/user/%d/bus", os.Getuid())
	}
	if env := os.Getenv(variable); env != "" {
		text = env
	}
	list, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s is %q: %w", variable, text, err)
	}
	return list, nil
}

// Probe looks for the bus where the environment says that it is.
func (c Config) Probe(ctx context.Context, _ *driver.Env) (string, error) {
	list, err := c.addresses()
	if err != nil {
		return "", err
	}
	var failed error
	for _, a := range list {
		probe := func() (string, error) { return network.Route(ctx, a.name) }
		if a.network == "unix" {
			probe = func() (string, error) { return network.Socket(a.name) }
		}
		found, err := probe()
		if err == nil {
			return found, nil
		}
		if failed == nil {
			failed = err
		}
	}
	return "", failed
}

// Network is the D-Bus backend of the network contract.
var Network = driver.Define(driver.Spec{
	Type:     "jumpstarter_driver_network.driver.DbusNetwork",
	Contract: Contract,
	Doc:      "a D-Bus message bus of the exporter's machine",
}, func(_ context.Context, env *driver.Env, cfg Config) (driver.Driver, error) {
	list, err := cfg.addresses()
	if err != nil {
		return driver.Driver{}, err
	}
	return network.Driver(&bus{list, env.Log}), nil
})

type bus struct {
	list []address
	log  *slog.Logger
}

func (b *bus) Connect(ctx context.Context) (io.ReadWriteCloser, error) {
	var failed error
	for _, a := range b.list {
		b.log.Debug("connecting", "protocol", a.network, "address", a.name)
		c, err := network.Dial(ctx, a.network, a.name)
		switch {
		case err == nil:
			return c, nil
		case failed == nil:
			failed = err
		default:
			failed = fmt.Errorf("%w; %w", failed, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

// address is a place to connect to, in the words of package net.
type address struct{ network, name string }

// parse reads a list of addresses, at least one of which can be connected to.
func parse(text string) (list []address, err error) {
	var others []string
	for entry := range strings.SplitSeq(text, ";") {
		if entry == "" {
			continue // a semicolon too many
		}
		transport, rest, ok := strings.Cut(entry, ":")
		if !ok {
			return nil, fmt.Errorf("%q has no transport: wants unix:path=... or tcp:host=...,port=", entry)
		}
		keys, err := pairs(rest)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", entry, err)
		}
		var a address
		switch transport {
		case "unix":
			a, err = unixAddress(keys)
		case "tcp":
			a, err = tcpAddress(keys)
		default:
			others = append(others, transport)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", entry, err)
		}
		list = append(list, a)
	}
	switch {
	case len(list) > 0:
		return list, nil
	case len(others) > 0:
		return nil, fmt.Errorf("transport %s cannot be used, only unix and tcp can", strings.Join(others, ", "))
	}
	return nil, errors.New("no address is given")
}

// pairs reads the keys of an address and their values, of which the special
// bytes are spelt %XX.
func pairs(text string) (map[string]string, error) {
	keys := map[string]string{}
	if text == "" {
		return keys, nil
	}
	for pair := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("%q is no key=value", pair)
		}
		if _, twice := keys[key]; twice {
			return nil, fmt.Errorf("key %s stands twice", key)
		}
		plain, err := url.PathUnescape(value)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", key, err)
		}
		keys[key] = plain
	}
	return keys, nil
}

func unixAddress(keys map[string]string) (address, error) {
	path, file := keys["path"]
	name, abstract := keys["abstract"]
	switch {
	case file && abstract:
		return address{}, errors.New("path and abstract cannot both be given")
	case abstract:
		path = "@" + name
	case strings.HasPrefix(path, "@"): // to package net that is an abstract one
		path = "./" + path
	}
	if path == "" || path == "@" || strings.ContainsRune(path, 0) {
		return address{}, errors.New("path (or abstract) is not the name of a socket")
	}
	if most := len(syscall.RawSockaddrUnix{}.Path) - 1; len(path) > most {
		return address{}, fmt.Errorf("the socket's name has %d bytes, and the kernel takes %d", len(path), most)
	}
	return address{"unix", path}, nil
}

func tcpAddress(keys map[string]string) (address, error) {
	port, err := strconv.ParseUint(keys["port"], 10, 16)
	if err != nil || port == 0 {
		return address{}, fmt.Errorf("port is %q: wants a number from 1 to 65535", keys["port"])
	}
	if keys["host"] == "" {
		return address{}, errors.New("host is missing")
	}
	family, ok := map[string]string{"": "tcp", "ipv4": "tcp4", "ipv6": "tcp6"}[keys["family"]]
	if !ok {
		return address{}, fmt.Errorf("family is %q: wants ipv4 or ipv6", keys["family"])
	}
	return address{family, net.JoinHostPort(keys["host"], keys["port"])}, nil
}
