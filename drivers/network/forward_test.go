package network_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/network"
	"github.com/jumplead/jumplead/drivers/network/networktest"
)

// peer is a service at an address.
type peer struct{ network, address string }

func (p peer) Connect(ctx context.Context) (io.ReadWriteCloser, error) {
	return network.Dial(ctx, p.network, p.address)
}

// serve starts a TCP peer.
func serve(t *testing.T, handle func(net.Conn)) peer {
	t.Helper()
	ln := networktest.Listen(t, "tcp", "127.0.0.1:0")
	networktest.Serve(t, ln, handle)
	return peer{"tcp", ln.Addr().String()}
}

// forward starts a forwarder that ends with the test.
func forward(t *testing.T, kind, address string, n network.Interface, log io.Writer) peer {
	t.Helper()
	ln := networktest.Listen(t, kind, address)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- network.Forward(ctx, ln, n, slog.New(slog.NewTextHandler(log, nil))) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Forward() = %v; want nil", err)
		}
	})
	return peer{kind, ln.Addr().String()}
}

func connect(t *testing.T, n network.Interface) io.ReadWriteCloser {
	t.Helper()
	c, err := n.Connect(t.Context())
	if err != nil {
		t.Fatalf("Connect() = %v; want a stream", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// A forwarded service is as good as the service: it passes the same suite.
func TestForward(t *testing.T) {
	for _, kind := range []string{"tcp", "unix"} {
		t.Run(kind, func(t *testing.T) {
			networktest.Test(t, func(t *testing.T) networktest.Service {
				address := func(name string) string {
					if kind == "unix" {
						return filepath.Join(t.TempDir(), name)
					}
					return "127.0.0.1:0"
				}
				s := networktest.Service{
					Interface: forward(t, kind, address("e"), serve(t, networktest.Echo), io.Discard),
					HalfClose: true,
				}
				if kind == "tcp" { // a Unix socket cannot be told to reset
					s.Resetting = forward(t, kind, address("r"), serve(t, networktest.Reset), io.Discard)
				}
				return s
			})
		})
	}
}

// isReset waits for the end of a stream and says whether it was a reset.
func isReset(c io.Reader) error {
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("stream ended with %v; want %v", err, syscall.ECONNRESET)
	}
	return nil
}

func TestForwardAbsent(t *testing.T) {
	ln := networktest.Listen(t, "tcp", "127.0.0.1:0")
	ln.Close()
	log := &drivertest.Log{}
	c, err := forward(t, "tcp", "127.0.0.1:0", peer{"tcp", ln.Addr().String()}, log).Connect(t.Context())
	if err == nil {
		defer c.Close()
		err = isReset(c)
	} else if errors.Is(err, syscall.ECONNRESET) { // so soon that it still counts as connecting
		err = nil
	}
	if err != nil {
		t.Error(err)
	}
	until(t, func() bool { return strings.Contains(log.String(), "connection refused") })
}

func TestForwardLocalReset(t *testing.T) {
	ended := make(chan error, 1)
	c := connect(t, forward(t, "tcp", "127.0.0.1:0", serve(t, func(c net.Conn) {
		io.WriteString(c, "x")
		ended <- isReset(c)
	}), io.Discard)).(*net.TCPConn)
	if _, err := c.Read(make([]byte, 1)); err != nil { // the service is there
		t.Fatal(err)
	}
	c.SetLinger(0)
	c.Close()
	if err := <-ended; err != nil {
		t.Errorf("at the service: %v", err)
	}
}

// The service's end of sending reaches the client, which may go on sending.
func TestForwardHalfCloseBack(t *testing.T) {
	got := make(chan string, 1)
	c := connect(t, forward(t, "tcp", "127.0.0.1:0", serve(t, func(c net.Conn) {
		io.WriteString(c, "banner")
		c.(*net.TCPConn).CloseWrite()
		b, _ := io.ReadAll(c)
		got <- string(b)
	}), io.Discard)).(*net.TCPConn)
	if b, err := io.ReadAll(c); string(b) != "banner" || err != nil {
		t.Errorf("ReadAll() = %q, %v; want banner", b, err)
	}
	io.WriteString(c, "thanks")
	c.CloseWrite()
	if text := <-got; text != "thanks" {
		t.Errorf("service got %q; want thanks", text)
	}
}

// When the context ends, so do all connections, and a client can tell that from
// an orderly end. Nothing is left behind.
func TestForwardEnds(t *testing.T) {
	service := serve(t, networktest.Echo)
	settled := networktest.Settled(t)
	ln := networktest.Listen(t, "tcp", "127.0.0.1:0")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	log := &drivertest.Log{}
	go func() {
		done <- network.Forward(ctx, ln, service, slog.New(slog.NewTextHandler(log, nil)))
	}()
	var conns []io.ReadWriteCloser
	for range 10 {
		c := connect(t, peer{"tcp", ln.Addr().String()})
		if got := drivertest.Exchange(t, c, "hello"); got != "hello" {
			t.Errorf("Exchange(hello) = %q; want hello", got)
		}
		conns = append(conns, c)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Forward() = %v; want nil", err)
	}
	for _, c := range conns {
		if err := isReset(c); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	if c, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		c.Close()
		t.Error("Dial() after the end succeeds; want the listener closed")
	}
	if text := log.String(); text != "" {
		t.Errorf("log = %s; want nothing: the end was asked for", text)
	}
	settled()
}

// A service that answers Connect slowly, or never, does not hold the end up.
func TestForwardEndsWhileConnecting(t *testing.T) {
	ln := networktest.Listen(t, "tcp", "127.0.0.1:0")
	ctx, cancel := context.WithCancel(t.Context())
	connecting := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- network.Forward(ctx, ln, connector(func(ctx context.Context) (io.ReadWriteCloser, error) {
			close(connecting)
			<-ctx.Done()
			return nil, ctx.Err()
		}), slog.New(slog.DiscardHandler))
	}()
	connect(t, peer{"tcp", ln.Addr().String()})
	<-connecting
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Forward() = %v; want nil", err)
	}
}

type connector func(context.Context) (io.ReadWriteCloser, error)

func (c connector) Connect(ctx context.Context) (io.ReadWriteCloser, error) { return c(ctx) }

// broken is a listener that fails after its first connection.
type broken struct {
	net.Listener
	once sync.Once
	next chan error
}

func (b *broken) Accept() (c net.Conn, err error) {
	err = <-b.next
	b.once.Do(func() { c, err = b.Listener.Accept() })
	return c, err
}

func TestForwardListenerFails(t *testing.T) {
	ln := &broken{Listener: networktest.Listen(t, "tcp", "127.0.0.1:0"), next: make(chan error)}
	done := make(chan error, 1)
	go func() {
		done <- network.Forward(t.Context(), ln, serve(t, networktest.Echo), slog.New(slog.DiscardHandler))
	}()
	c := connect(t, peer{"tcp", ln.Addr().String()})
	ln.next <- nil
	drivertest.Exchange(t, c, "hello")
	ln.next <- syscall.EMFILE
	if err := <-done; !errors.Is(err, syscall.EMFILE) {
		t.Errorf("Forward() = %v; want %v", err, syscall.EMFILE)
	}
	if err := isReset(c); err != nil {
		t.Error(err)
	}
}

// pipe is a service without half-close that records what it gets.
type pipe struct{ net.Conn }

func (p pipe) CloseWrite() {} // another shape: not a half-close

func TestForwardWholeClose(t *testing.T) {
	near, far := net.Pipe()
	c := connect(t, forward(t, "tcp", "127.0.0.1:0", connector(func(context.Context) (io.ReadWriteCloser, error) {
		return pipe{near}, nil
	}), io.Discard)).(*net.TCPConn)
	io.WriteString(c, "last words")
	c.CloseWrite()
	if b, err := io.ReadAll(far); string(b) != "last words" || err != nil {
		t.Errorf("service got %q, %v; want last words", b, err)
	}
}

func TestClient(t *testing.T) {
	d := network.Driver(named{serve(t, networktest.Echo)})
	drivertest.Rows(t, d)
	c := network.NewClient(driver.Local(d))
	if got, err := c.Address(t.Context()); got != "tcp://192.0.2.7:22" || err != nil {
		t.Errorf("Address() = %q, %v; want tcp://192.0.2.7:22", got, err)
	}
	if got := drivertest.Exchange(t, connect(t, c), "hello"); got != "hello" {
		t.Errorf("Exchange(hello) = %q; want hello", got)
	}
	c = network.NewClient(driver.Local(network.Driver(serve(t, networktest.Echo))))
	if got, err := c.Address(t.Context()); !errors.Is(err, driver.ErrNoMethod) {
		t.Errorf("Address() of a service without = %q, %v; want %v", got, err, driver.ErrNoMethod)
	}
}

// named is a peer with an address.
type named struct{ peer }

func (named) Address(context.Context) (string, error) { return "tcp://192.0.2.7:22", nil }

func until(t *testing.T, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("condition does not come true")
		}
	}
}
