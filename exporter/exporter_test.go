package exporter_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/exporter"
	"github.com/jumplead/jumplead/exporter/client"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
)

// harness is a group with two drivers, "a" and "b".
type harness struct {
	release chan struct{} // ends what is stuck
	stuck   atomic.Int32  // how much is
	log     drivertest.Log

	opening, closing func(path string) error // nil: nothing to wait for

	mu     sync.Mutex
	events []string // "open a", "close a"
}

func newHarness(t testing.TB) *harness {
	h := &harness{release: make(chan struct{})}
	t.Cleanup(func() { close(h.release) })
	return h
}

func (h *harness) happened(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, what)
}

func (h *harness) history() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.events)
}

func (h *harness) hang() { h.stuck.Add(1); <-h.release }

type device struct {
	h    *harness
	path string
}

func (d device) Close() error {
	d.h.happened("close " + d.path)
	if d.h.closing != nil {
		return d.h.closing(d.path)
	}
	return nil
}

// options are those of an exporter on a free port.
func (h *harness) options() exporter.Options {
	contract := driver.Contract{Name: "fake", Client: "fake.Client", Kind: "fake"}
	return exporter.Options{
		Namespace: "lab", Name: "one", MOTD: "hello",
		Listen: exporter.Address{Network: "tcp", Address: "127.0.0.1:0"},
		Log:    slog.NewTextHandler(&h.log, nil),
		Export: driver.Decl{Children: []driver.Decl{{Name: "a", Type: "fake.Device"}, {Name: "b", Type: "fake.Device"}}},
		Driver: driver.Options{Specs: []driver.Spec{
			driver.Define(driver.Spec{Type: "fake.Group", Role: driver.Group, Contract: contract},
				func(context.Context, *driver.Env, struct{}) (driver.Driver, error) { return driver.Driver{}, nil }),
			driver.Define(driver.Spec{Type: "fake.Device", Contract: contract},
				func(_ context.Context, env *driver.Env, _ struct{}) (driver.Driver, error) {
					h.happened("open " + env.Path)
					if h.opening != nil {
						if err := h.opening(env.Path); err != nil {
							return driver.Driver{}, err
						}
					}
					env.Log.Info("opened")
					return driver.Driver{Exports: h.rows(), Impl: device{h, env.Path}}, nil
				}),
		}},
	}
}

func (h *harness) rows() []driver.Export {
	return []driver.Export{
		driver.Call1("echo", func(_ context.Context, v any) (any, error) { return v, nil }),
		driver.Do("stuck", func(context.Context) error { h.hang(); return nil }),
		driver.Do("brief", func(ctx context.Context) error {
			h.stuck.Add(1)
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
			return ctx.Err()
		}),
		driver.Stream("connect", func(context.Context) (net.Conn, error) {
			here, there := net.Pipe()
			go func() { io.Copy(there, there); there.Close() }()
			return here, nil
		}),
		driver.Stream("sticky", func(context.Context) (sticky, error) { return sticky{h}, nil }),
	}
}

// sticky is a stream in which everything hangs, Close too.
type sticky struct{ h *harness }

func (s sticky) Read([]byte) (int, error)  { s.h.hang(); return 0, io.EOF }
func (s sticky) Write([]byte) (int, error) { s.h.hang(); return 0, io.EOF }
func (s sticky) Close() error              { s.h.hang(); return nil }

// running is an exporter that runs.
type running struct {
	t    testing.TB
	addr net.Addr
	end  context.CancelFunc
	done chan error
}

func run(t testing.TB, o exporter.Options) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{t: t, end: cancel, done: make(chan error, 1)}
	ready := make(chan net.Addr, 1)
	o.Ready = func(a net.Addr) { ready <- a }
	go func() { r.done <- exporter.Run(ctx, o) }()
	t.Cleanup(func() { cancel() })
	select {
	case r.addr = <-ready:
	case err := <-r.done:
		t.Fatalf("Run() = %v; want it to serve", err)
	}
	return r
}

// stop ends the exporter and returns how long that took.
func (r *running) stop() time.Duration {
	r.t.Helper()
	start := time.Now()
	r.end()
	select {
	case err := <-r.done:
		if err != nil {
			r.t.Errorf("Run() = %v; want nil", err)
		}
	case <-time.After(10 * time.Second):
		r.t.Fatal("Run() still runs 10s after the end of its context")
	}
	return time.Since(start)
}

func (r *running) dial(opt client.Options) *client.Client {
	r.t.Helper()
	c, err := client.Dial(soon(r.t), r.target(), opt)
	if err != nil {
		r.t.Fatalf("Dial(%s) = %v; want nil", r.addr, err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

func (r *running) target() string {
	if r.addr.Network() == "unix" {
		return "unix:" + r.addr.String()
	}
	return r.addr.String()
}

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func find(t testing.TB, c *client.Client, path string) *client.Node {
	t.Helper()
	n, err := c.Find(path)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestRun(t *testing.T) {
	drivertest.NoLeaks(t)
	h := newHarness(t)
	r := run(t, h.options())
	c := r.dial(client.Options{})
	ready := pb.ExporterStatus_EXPORTER_STATUS_LEASE_READY
	st, err := c.Status(soon(t))
	if err != nil || st.Status != ready || st.StatusVersion != 1 || st.PreviousStatus == nil ||
		*st.PreviousStatus != pb.ExporterStatus_EXPORTER_STATUS_AVAILABLE || st.GetMessage() != "Ready for commands" {
		t.Errorf("GetStatus() = %v, %v; want LEASE_READY, version 1, AVAILABLE before it", st, err)
	}
	if c.MOTD != "hello" || c.Root.Name != "" || len(c.Root.Children) != 2 {
		t.Errorf("report = %q, %v; want the motd and two children", c.MOTD, c.Root)
	}
	ok, message, err := c.EndSession(soon(t))
	if err != nil || !ok || message == "" {
		t.Errorf("EndSession() = %t, %q, %v; want success", ok, message, err)
	}
	if st, err := c.Status(soon(t)); err != nil || st.Status != ready || st.StatusVersion != 1 {
		t.Errorf("GetStatus() after EndSession = %v, %v; want LEASE_READY as before", st, err)
	}
	if got, err := find(t, c, "b").Call(soon(t), "echo", "x"); got != "x" || err != nil {
		t.Errorf("echo after EndSession = %v, %v; want x", got, err)
	}
	for rec, err := range c.Logs(soon(t)) { // from before there was a client
		if err != nil || rec.Message != "opened" || rec.GetSource() != pb.LogSource_LOG_SOURCE_DRIVER {
			t.Errorf("first record = %v, %v; want that a driver was opened", rec, err)
		}
		break
	}
	t.Logf("Run() ended after %v", r.stop())
	if want := []string{"open a", "open b", "close a", "close b"}; !slices.Equal(h.history(), want) {
		t.Errorf("happened: %v; want %v", h.history(), want)
	}

	// again, on the same port: the same identities
	o := h.options()
	o.Listen.Address = r.addr.String()
	again := run(t, o)
	if err := c.Refresh(soon(t)); err != nil {
		t.Errorf("Refresh() = %v; want nil", err)
	}
	if got, err := find(t, c, "a").Call(soon(t), "echo", "y"); got != "y" || err != nil {
		t.Errorf("echo after a restart = %v, %v; want y", got, err)
	}
	again.stop()
	c.Close()
}

func TestRunIdentity(t *testing.T) {
	uuids := map[string]bool{}
	for _, name := range []string{"one", "two", "one"} {
		o := newHarness(t).options()
		o.Name = name
		tree, problems := o.Plan()
		if err := problems.Err(); err != nil {
			t.Fatal(err)
		}
		for _, n := range tree.Nodes() {
			uuids[n.UUID.String()] = true
		}
	}
	if len(uuids) != 2*3 {
		t.Errorf("three plans of two exporters with three nodes have %d UUIDs; want 6", len(uuids))
	}
}

// Nothing is touched when the exporter cannot be reached anyway.
func TestRunPortTaken(t *testing.T) {
	drivertest.NoLeaks(t)
	h := newHarness(t)
	r := run(t, h.options())
	o := h.options()
	o.Listen.Address = r.addr.String()
	err := exporter.Run(t.Context(), o)
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), r.addr.String()) {
		t.Errorf("Run() on a port that is taken = %v; want %v with the address", err, syscall.EADDRINUSE)
	}
	if got := h.history(); len(got) != 2 {
		t.Errorf("happened: %v; want nothing after the first exporter's start", got)
	}
	r.stop()
}

func TestRunBadPlan(t *testing.T) {
	o := newHarness(t).options()
	o.Export.Children[0].Type = "fake.Devise"
	if err := exporter.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), `"fake.Device"`) {
		t.Errorf("Run() of an unknown type = %v; want the nearest known type", err)
	}
	o.Listen.Network = "carrier pigeon"
	o.Export.Children = nil
	if err := exporter.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "carrier pigeon") {
		t.Errorf("Run() on an unknown network = %v; want an error that names it", err)
	}
}

var errPanic = errors.New("panic: oops")

func TestRunOpenFails(t *testing.T) {
	drivertest.NoLeaks(t)
	broken := errors.New("broken")
	tests := []struct {
		name string
		err  error
		want error // of Run; nil: it serves
	}{
		{"fails", broken, broken},
		{"panics", errPanic, errPanic},
		{"absent", driver.ErrUnavailable, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := newHarness(t)
			h.opening = func(path string) error {
				if path == "b" && test.err == errPanic {
					panic(errPanic)
				}
				if path == "b" {
					return test.err
				}
				return nil
			}
			if test.want != nil {
				if err := exporter.Run(t.Context(), h.options()); err == nil || !strings.Contains(err.Error(), test.want.Error()) {
					t.Errorf("Run() = %v; want %v", err, test.want)
				}
				if want := []string{"open a", "open b", "close a"}; !slices.Equal(h.history(), want) {
					t.Errorf("happened: %v; want %v", h.history(), want)
				}
				return
			}
			r := run(t, h.options())
			c := r.dial(client.Options{})
			if _, err := find(t, c, "b").Call(soon(t), "echo", 1); !errors.Is(err, driver.ErrUnavailable) {
				t.Errorf("b.echo = %v; want %v", err, driver.ErrUnavailable)
			}
			if got, err := find(t, c, "a").Call(soon(t), "echo", 1); err != nil {
				t.Errorf("a.echo = %v, %v; want 1", got, err)
			}
			c.Close()
			r.stop()
		})
	}
}

// limit is how long the end may take in a test. It is to take no more than a
// fifth of a second; machines that run tests may be slow.
const limit = time.Second

// Whatever is going on, the exporter ends when it is told to.
func TestRunEnds(t *testing.T) {
	tests := []struct {
		name  string
		setup func(t *testing.T, h *harness, r *running, c *client.Client)
	}{
		{"idle", func(*testing.T, *harness, *running, *client.Client) {}},
		{"stuck call", func(t *testing.T, h *harness, r *running, c *client.Client) {
			a := find(t, c, "a")
			go a.Call(t.Context(), "stuck")
			drivertest.Until(t, "the call is stuck", func() bool { return h.stuck.Load() == 1 })
		}},
		{"stuck call of a client that went", func(t *testing.T, h *harness, r *running, c *client.Client) {
			a := find(t, c, "a")
			go a.Call(t.Context(), "stuck")
			drivertest.Until(t, "the call is stuck", func() bool { return h.stuck.Load() == 1 })
			c.Close()
		}},
		{"open streams", func(t *testing.T, h *harness, r *running, c *client.Client) {
			for range 10 {
				s, err := find(t, c, "a").Stream(t.Context(), "connect")
				if err != nil {
					t.Fatal(err)
				}
				if got := drivertest.Exchange(t, s, "x"); got != "x" {
					t.Fatalf("echo = %q; want x", got)
				}
			}
		}},
		{"sticky stream", func(t *testing.T, h *harness, r *running, c *client.Client) {
			s, err := find(t, c, "a").Stream(t.Context(), "sticky")
			if err != nil {
				t.Fatal(err)
			}
			s.Write([]byte("x"))
			drivertest.Until(t, "reading and writing are stuck", func() bool { return h.stuck.Load() == 2 })
		}},
		{"offered resource", func(t *testing.T, h *harness, r *running, c *client.Client) {
			s, _, err := find(t, c, "a").Offer(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			s.Write([]byte("x"))
		}},
		{"log follower", func(t *testing.T, h *harness, r *running, c *client.Client) {
			got := make(chan struct{}, 100)
			go func() {
				for range c.Logs(t.Context()) {
					got <- struct{}{}
				}
			}()
			<-got
		}},
		{"stuck close", func(t *testing.T, h *harness, r *running, c *client.Client) {
			h.closing = func(string) error { h.hang(); return nil }
		}},
		{"panic in close", func(t *testing.T, h *harness, r *running, c *client.Client) {
			h.closing = func(string) error { panic("oops") }
		}},
		{"silent connections", func(t *testing.T, h *harness, r *running, c *client.Client) {
			for _, hello := range []string{"", "GET / HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"} {
				conn, err := net.Dial("tcp", r.addr.String())
				if err != nil {
					t.Fatal(err)
				}
				io.WriteString(conn, hello)
				t.Cleanup(func() {
					conn.SetReadDeadline(time.Now().Add(5 * time.Second))
					if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("a connection that said %q is open after the end; want it closed", hello)
					}
					conn.Close()
				})
			}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			drivertest.NoLeaks(t)
			h := newHarness(t)
			r := run(t, h.options())
			c := r.dial(client.Options{})
			test.setup(t, h, r, c)
			took := r.stop()
			t.Logf("Run() ended after %v", took.Round(time.Millisecond))
			if took > limit {
				t.Errorf("Run() ended after %v; want at most %v", took, limit)
			}
			if conn, err := net.Dial("tcp", r.addr.String()); err == nil {
				conn.Close()
				t.Error("the port is still served; want it free")
			}
		})
	}
}

// A context that ends while a driver is being opened ends the exporter, too.
func TestRunEndsWhileOpening(t *testing.T) {
	drivertest.NoLeaks(t)
	h := newHarness(t)
	h.opening = func(path string) error { h.hang(); return nil }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- exporter.Run(ctx, h.options()) }()
	drivertest.Until(t, "opening hangs", func() bool { return h.stuck.Load() == 1 })
	start := time.Now()
	cancel()
	select {
	case err := <-done:
		if took := time.Since(start); err != nil || took > limit {
			t.Errorf("Run() = %v after %v; want nil within %v", err, took, limit)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Run() still runs 10s after the end of its context")
	}
}

// A call that is nearly done is let finish. On a machine that is busy with other
// things the grace may be over before the call gets its turn, but not every time.
func TestRunLetsCallsFinish(t *testing.T) {
	var err error
	for range 5 {
		h := newHarness(t)
		r := run(t, h.options())
		c := r.dial(client.Options{})
		a, done := find(t, c, "a"), make(chan error, 1)
		go func() {
			_, err := a.Call(t.Context(), "brief")
			done <- err
		}()
		drivertest.Until(t, "the call is in progress", func() bool { return h.stuck.Load() == 1 })
		r.stop()
		if err = <-done; err == nil {
			return
		}
	}
	t.Errorf("a call of 20 ms that was in progress = %v; want nil", err)
}

func TestRunCloseErrors(t *testing.T) {
	h := newHarness(t)
	h.closing = func(path string) error { return fmt.Errorf("%s does not want to", path) }
	run(t, h.options()).stop()
	if log := h.log.String(); !strings.Contains(log, "a does not want to") || !strings.Contains(log, "b does not want to") {
		t.Errorf("log = %s; want both errors", log)
	}
}

func TestRunPassphrase(t *testing.T) {
	h := newHarness(t)
	o := h.options()
	o.Passphrase = "open sesame"
	r := run(t, o)
	for _, p := range []string{"", "open barley"} {
		c, err := client.Dial(soon(t), r.target(), client.Options{Passphrase: p})
		if err == nil {
			c.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "invalid or missing passphrase") {
			t.Errorf("Dial() with passphrase %q = %v; want a refusal", p, err)
		}
	}
	c := r.dial(client.Options{Passphrase: "open sesame"})
	if got, err := find(t, c, "a").Call(soon(t), "echo", true); got != true || err != nil {
		t.Errorf("echo = %v, %v; want true", got, err)
	}
	log := h.log.String()
	if !strings.Contains(log, "authentication failed: invalid or missing passphrase") || strings.Contains(log, "sesame") || strings.Contains(log, "barley") {
		t.Errorf("log = %s; want a refusal, and no passphrase", log)
	}
	c.Close()
	r.stop()
}

// certificate is a certificate for a server on the loopback address, and what
// trusts it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestRunTLS(t *testing.T) {
	drivertest.NoLeaks(t)
	cert, pool := certificate(t)
	_, stranger := certificate(t)
	h := newHarness(t)
	o := h.options()
	o.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	o.Passphrase = "open sesame"
	r := run(t, o)

	good := client.Options{TLS: &tls.Config{RootCAs: pool}, Passphrase: "open sesame"}
	c := r.dial(good)
	s, err := find(t, c, "a").Stream(soon(t), "connect")
	if err != nil {
		t.Fatal(err)
	}
	drivertest.Exchange(t, s, "secret")
	s.Close()

	if bad, err := client.Dial(soon(t), r.target(), client.Options{TLS: good.TLS}); err == nil {
		bad.Close()
		t.Error("Dial() without the passphrase = nil; want an error")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := client.Dial(ctx, r.target(), client.Options{Passphrase: "open sesame"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Dial() without TLS = %v; want that it tries to the end", err)
	}
	for name, bad := range map[string]*tls.Config{
		"another root": {RootCAs: stranger},
		"another name": {RootCAs: pool, ServerName: "example.com"},
		"TLS 1.1":      {RootCAs: pool, MaxVersion: tls.VersionTLS11},
	} {
		if conn, err := tls.Dial("tcp", r.addr.String(), bad); err == nil {
			conn.Close()
			t.Errorf("TLS with %s = nil; want an error", name)
		}
	}

	silent, err := net.Dial("tcp", r.addr.String()) // never says hello
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if took := r.stop(); took > limit {
		t.Errorf("Run() ended after %v; want at most %v", took, limit)
	}
	c.Close()
}

func TestRunUnix(t *testing.T) {
	drivertest.NoLeaks(t)
	h := newHarness(t)
	path := filepath.Join(t.TempDir(), "run", "socket")
	o := h.options()
	o.Listen = exporter.Address{Network: "unix", Address: path}
	r := run(t, o)
	if got, want := o.Listen.String(), "unix:"+path; got != want {
		t.Errorf("Address.String() = %q; want %q", got, want)
	}
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		fi, err := os.Stat(name)
		if err != nil || fi.Mode().Perm() != want {
			t.Errorf("Stat(%s) = %v, %v; want mode %v", name, fi, err, want)
		}
	}
	c := r.dial(client.Options{})
	if got, err := find(t, c, "a").Call(soon(t), "echo", "x"); got != "x" || err != nil {
		t.Errorf("echo = %v, %v; want x", got, err)
	}
	if err := exporter.Run(t.Context(), o); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("Run() on a socket that is served = %v; want %v", err, syscall.EADDRINUSE)
	}
	c.Close()
	r.stop()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Lstat() of the socket after the end = %v; want that it is gone", err)
	}
}

func TestRunUnixPaths(t *testing.T) {
	h := newHarness(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		file:                     "no socket",
		dir:                      "no socket",
		filepath.Join(file, "x"): "not a directory",
		filepath.Join(dir, strings.Repeat("x", 150)): "107 bytes",
	} {
		o := h.options()
		o.Listen = exporter.Address{Network: "unix", Address: path}
		if err := exporter.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Run() on unix:%s = %v; want an error with %q", path, err, want)
		}
	}
	if got, err := os.ReadFile(file); string(got) != "precious" {
		t.Errorf("the file that was in the way = %q, %v; want it untouched", got, err)
	}

	stale := filepath.Join(dir, "stale") // of an exporter that was killed
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	o := h.options()
	o.Listen = exporter.Address{Network: "unix", Address: stale}
	r := run(t, o)
	c := r.dial(client.Options{})
	if err := c.WaitReady(soon(t)); err != nil {
		t.Errorf("WaitReady() = %v; want nil", err)
	}
	c.Close()
	r.stop()
}
