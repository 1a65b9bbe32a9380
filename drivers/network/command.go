package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/jumplead/jumplead/drivers/cli"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/spf13/cobra"
)

// DbusClient is the client class of a message bus, whose commands are those of
// any service.
const DbusClient = "jumpstarter_driver_network.client.DbusNetworkClient"

// Command makes the commands of a service.
func Command(n *cli.Node) *cobra.Command {
	s := NewClient(n.Caller)
	var local string
	tcp := &cobra.Command{Use: "forward-tcp PORT", ValidArgsFunction: cobra.NoFileCompletions, Long: "Forward a local TCP port to the service\n\nPORT is the port to listen on, 0 for any that is free.",
		RunE: func(c *cobra.Command, args []string) error {
			port, err := strconv.Atoi(args[0])
			if err != nil {
				return cli.Usage(c, "Invalid value for 'PORT': '%s' is not a valid integer.", args[0])
			}
			ln, err := net.Listen("tcp", net.JoinHostPort(local, strconv.Itoa(port)))
			if err != nil {
				return err
			}
			return forward(c, n.Session, ln, s)
		}}
	tcp.Flags().StringVar(&local, "address", "localhost", "Address to listen on")
	unix := &cobra.Command{Use: "forward-unix [PATH]", Long: "Forward a local Unix socket to the service\n\nPATH is where the socket is made. It defaults to a new folder below $XDG_RUNTIME_DIR.",
		RunE: func(c *cobra.Command, args []string) error {
			path := ""
			if len(args) > 0 {
				path = args[0]
			} else {
				dir, err := os.MkdirTemp(n.Session.Getenv("XDG_RUNTIME_DIR"), "jumpstarter-")
				if err != nil {
					return err
				}
				defer os.RemoveAll(dir)
				path = filepath.Join(dir, "socket")
			}
			ln, err := net.Listen("unix", path)
			if err != nil {
				return err
			}
			return forward(c, n.Session, ln, s)
		}}
	return n.Group("Generic network connection", tcp, unix, addressCommand(n, s))
}

// forward serves a listener until the user ends it.
func forward(c *cobra.Command, s *cli.Session, ln net.Listener, n Interface) error {
	at := ln.Addr().String()
	if err := s.Print(c, map[string]string{"address": at}, "%s", at); err != nil {
		ln.Close()
		return err
	}
	if err := Forward(c.Context(), ln, n, s.Log); err != nil {
		return err
	}
	return c.Context().Err()
}

// Join connects to a service for a local connection and carries data both ways,
// as [Forward] does, until both sides have ended or the context is done.
func Join(ctx context.Context, local net.Conn, n Interface) error { return serve(ctx, local, n) }

// Tunnel forwards a port of the loopback to a service while f runs.
func Tunnel(ctx context.Context, s *cli.Session, n Interface, f func(ctx context.Context, host string, port int) error) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	at := ln.Addr().(*net.TCPAddr)
	ctx, cancel := context.WithCancelCause(ctx)
	forwarded := make(chan error, 1)
	go func() {
		err := Forward(ctx, ln, n, s.Log)
		if err != nil {
			cancel(err)
		}
		forwarded <- err
	}()
	err = f(ctx, at.IP.String(), at.Port)
	cancel(nil)
	return errors.Join(err, <-forwarded)
}

func addressCommand(n *cli.Node, s *Client) *cobra.Command {
	var host, port bool
	c := &cobra.Command{Use: "address", Long: "Tell where the service can be reached directly", RunE: func(c *cobra.Command, _ []string) error {
		text, err := s.Address(c.Context())
		switch class := driver.Classify(err); {
		case err == nil:
		case class == driver.Invalid:
			return fmt.Errorf("enable_address mode is not true in the exporter configuration: %w", err)
		case class == driver.NoMethod || class == driver.Unsupported:
			return errors.New("this driver tells no address: a service without one of its own is reached with forward-tcp or forward-unix")
		default:
			return err
		}
		a := parseAddress(text)
		switch {
		case host == port:
			return n.Session.Print(c, a, "%s", a.text)
		case host:
			return n.Session.Print(c, a, "%s", a.Host)
		}
		return n.Session.Print(c, a, "%s", a.Port)
	}}
	c.Flags().BoolVar(&host, "host", false, "Only the host")
	c.Flags().BoolVar(&port, "port", false, "Only the port")
	return c
}

// address is an address apart.
type address struct {
	URL  string `json:"url"`
	Host string `json:"host"`
	Port string `json:"port"`
	text string // without the scheme
}

func parseAddress(s string) address {
	a := address{URL: s, text: s}
	if !strings.Contains(s, "://") {
		s = "tcp://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		return a
	}
	a.Host, a.Port = u.Hostname(), u.Port()
	if a.text = u.Host; a.text == "" {
		a.text = a.URL
	}
	return a
}

// NoAddress reports whether an error of Address says that clients are to go
// through the exporter: the service has no address, or the exporter tells none.
func NoAddress(err error) bool {
	switch driver.Classify(err) {
	case driver.Invalid, driver.NoMethod, driver.Unsupported:
		return true
	}
	return false
}

// HostPort is where a service is as a host and a port, if it says so.
func HostPort(ctx context.Context, s Addresser) (host string, port int, err error) {
	text, err := s.Address(ctx)
	if err != nil {
		return "", 0, err
	}
	a := parseAddress(text)
	port, err = strconv.Atoi(a.Port)
	if err != nil || a.Host == "" {
		return "", 0, driver.BadArg("", "invalid address %q", text)
	}
	return a.Host, port, nil
}
