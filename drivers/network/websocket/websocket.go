// Package websocket connects to WebSocket services (RFC 6455).
//
// A WebSocket is a connection that begins as an HTTP request and then carries
// messages, whose boundaries a stream of this package keeps: each Write sends a
// binary message, each ReadPacket yields one. Text is passed on as the bytes
// that it is. A message is as large as the exporter's own wire carries in one
// piece, [MaxMessage]; larger ones are errors.
//
// # How a stream ends
//
// A WebSocket cannot be half-closed: the one who closes still listens, but only
// for the other's farewell. A stream ends with io.EOF when the peer closes with
// status 1000 or none. Any other status is an error that names it, among them
// 1001, with which a server says that it goes away, whatever was under way. So
// is a connection that ends without a farewell. Close says farewell itself, and
// waits a second at most for the peer to have read what was sent before.
//
// # Silence
//
// Proxies cut connections on which nothing moves, often after a minute, so that
// a stream sends a ping every 20 seconds. It does not insist on the answer: a
// device that erases its flash reads nothing meanwhile, and lives. Whether the
// machine at the other end does is for TCP to find out, as in package tcp.
//
// # Proxies
//
// wss goes through the proxy that HTTPS_PROXY names, if any; ws goes straight to
// its server, because proxies of plain HTTP carry no WebSockets.
//
// # Why this is not a library
//
// What net/http does well it does here, too: connecting, TLS, redirects, proxies.
// What is left is framing, which is small, and in which the libraries that were
// looked at do not keep what this package promises. github.com/coder/websocket
// (v1.8.14) takes a message that was cut short for a whole one when the cut meets
// the end of a read, and gives up a connection when a ping cannot be answered
// within five seconds. github.com/gorilla/websocket (v1.5.3) sends a client's
// long messages in fragments, which small servers do not put together.
// golang.org/x/net/websocket does not answer a farewell.
package websocket

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/network"
)

// Config is the config of a WebSocket service.
type Config struct {
	URL           string `yaml:"url" doc:"the service: ws://host:port/path, or wss:// with TLS; user:password@ logs in"`
	EnableAddress bool   `yaml:"enable_address" default:"true" doc:"tell clients the URL, so that they may connect to it directly"`
}

// Probe tells whether there is a way to the service.
func (c Config) Probe(ctx context.Context, _ *driver.Env) (string, error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return "", errors.Unwrap(err)
	}
	port := u.Port()
	if port == "" {
		if port = "80"; u.Scheme == "wss" {
			port = "443"
		}
	}
	return network.Route(ctx, net.JoinHostPort(u.Hostname(), port))
}

// Validate implements [driver.Validator].
func (c Config) Validate() error {
	u, err := url.Parse(c.URL)
	switch {
	case err != nil: // whose text holds the URL, and that perhaps a password
		return driver.BadKey("url", "is no URL: %v", errors.Unwrap(err))
	case u.Scheme != "ws" && u.Scheme != "wss":
		return driver.BadKey("url", "has the scheme %q: wants ws or wss", u.Scheme)
	case u.Hostname() == "":
		return driver.BadKey("url", "names no host")
	case u.Fragment != "":
		return driver.BadKey("url", "has a fragment (#%s), which means nothing to a service", u.Fragment)
	}
	return nil
}

// Network is the WebSocket backend of the network contract.
var Network = driver.Define(driver.Spec{
	Type:     "jumpstarter_driver_network.driver.WebsocketNetwork",
	Contract: network.Contract,
	Doc:      "a WebSocket service that the exporter can reach",
}, func(_ context.Context, env *driver.Env, cfg Config) (driver.Driver, error) {
	return network.Driver(&service{cfg: cfg, log: env.Log, limit: network.DialTimeout}), nil
})

type service struct {
	cfg   Config
	log   *slog.Logger
	limit time.Duration // for connecting
	tls   *tls.Config   // nil outside tests
}

func (s *service) Address(context.Context) (string, error) {
	if !s.cfg.EnableAddress {
		return "", network.ErrHidden
	}
	return s.cfg.URL, nil
}

func (s *service) Connect(ctx context.Context) (io.ReadWriteCloser, error) {
	at, err := url.Parse(s.cfg.URL)
	if err != nil {
		return nil, err // Validate has seen it
	}
	name := public(at)
	s.log.Debug("connecting", "protocol", "websocket", "address", name)
	limited, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	c, err := s.handshake(limited, at)
	if err == nil {
		return c, nil
	}
	if bad := (*url.Error)(nil); errors.As(err, &bad) {
		err = bad.Err // it names the URL, and too much of it
	}
	switch {
	case limited.Err() != nil && ctx.Err() == nil:
		err = fmt.Errorf("no answer within %v: %w", s.limit, err)
	case err == io.EOF:
		err = fmt.Errorf("the server hangs up instead of answering: %w", driver.ErrUnavailable)
	}
	return nil, fmt.Errorf("%s: %w", name, err)
}

// public is what of a URL may be shown: the rest can hold passwords and tokens.
func public(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// web are the schemes of the requests with which WebSockets begin.
var web = map[string]string{"ws": "http", "wss": "https"}

// handshake asks the server to speak WebSocket from here on.
func (s *service) handshake(ctx context.Context, at *url.URL) (*stream, error) {
	var conn net.Conn // the last one that was dialled
	client := http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network_, address string) (c net.Conn, err error) {
				c, err = network.Dial(ctx, network_, address)
				conn = c
				return c, err
			},
			Proxy: func(r *http.Request) (*url.URL, error) {
				if r.URL.Scheme != "https" {
					return nil, nil
				}
				return http.ProxyFromEnvironment(r)
			},
			TLSClientConfig:        s.tls,
			DisableKeepAlives:      true, // what is no WebSocket is closed
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if scheme, ok := web[r.URL.Scheme]; ok {
				r.URL.Scheme = scheme
			}
			switch {
			case len(via) > 10:
				return errors.New("the server redirects more than 10 times")
			case via[0].URL.Scheme == "https" && r.URL.Scheme != "https":
				return fmt.Errorf("the server redirects to %s, without TLS", public(r.URL))
			}
			return nil
		},
	}
	u := *at
	u.Scheme = web[at.Scheme]
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	key := base64.StdEncoding.EncodeToString([]byte(rand.Text()[:16]))
	r.Header = http.Header{
		"Upgrade":               {"websocket"},
		"Connection":            {"Upgrade"},
		"Sec-Websocket-Key":     {key},
		"Sec-Websocket-Version": {"13"},
		"User-Agent":            {"jumplead"},
	}
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	err = accepted(resp, key)
	body, ok := resp.Body.(io.ReadWriteCloser) // what net/http makes of a 101
	if err == nil && !ok {
		err = errors.New("the server's Connection header does not say Upgrade")
	}
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	return newStream(body, conn), nil
}

// accepted says why a response is not the beginning of a WebSocket.
func accepted(resp *http.Response, key string) error {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	h := resp.Header
	switch {
	case resp.StatusCode >= 500: // a proxy whose service is not there, mostly
		return fmt.Errorf("the server answers %s: %w", resp.Status, driver.ErrUnavailable)
	case resp.StatusCode != http.StatusSwitchingProtocols:
		return fmt.Errorf("the server answers %s; a WebSocket begins with 101", resp.Status)
	case !strings.EqualFold(h.Get("Upgrade"), "websocket"):
		return fmt.Errorf("the server switches to %q instead of websocket", h.Get("Upgrade"))
	case h.Get("Sec-Websocket-Accept") != base64.StdEncoding.EncodeToString(sum[:]):
		return errors.New("the server's Sec-WebSocket-Accept is not the answer to our key")
	case h.Get("Sec-Websocket-Extensions") != "" || h.Get("Sec-Websocket-Protocol") != "":
		return fmt.Errorf("the server chooses the extension %q and the protocol %q, and none was offered",
			h.Get("Sec-Websocket-Extensions"), h.Get("Sec-Websocket-Protocol"))
	}
	return nil
}
