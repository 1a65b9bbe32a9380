// Package exporter is the life of an exporter: it opens a harness, serves it to
// clients, and closes it again.
//
// An exporter that is not led by a controller serves one session for as long as
// it runs, on a TCP address with or without TLS (direct mode) or on a Unix
// socket (local mode). Its life has five steps, each undone in reverse order by
// whatever ends it:
//
//  1. the listener is taken: an address that is in use is an error before any
//     hardware is touched;
//  2. the drivers are opened, children first;
//  3. the status becomes LEASE_READY;
//  4. clients are served, until the context is done;
//  5. calls in progress get a short while to finish, and the drivers are closed.
package exporter

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/rpc"
	"github.com/jumplead/jumplead/exporter/session"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// Options are what an exporter is run with.
type Options struct {
	Namespace, Name string // of the exporter, as its config's metadata has them
	MOTD            string
	Export          driver.Decl
	Driver          driver.Options // Namespace, Log and Resources are filled in
	Log             slog.Handler   // where the exporter's own log goes

	Listen     Address
	TLS        *tls.Config // nil: plaintext
	Passphrase string      // "" : none is asked for

	// Ready is called when clients are served; the address is the real one.
	Ready func(net.Addr)
}

// Address is where an exporter listens.
type Address struct {
	Network string // "tcp" or "unix"
	Address string
}

func (a Address) String() string {
	if a.Network == "unix" {
		return "unix:" + a.Address
	}
	return a.Address
}

// Grace periods at the end, which together stay below a fifth of a second: a
// supervisor that stops a unit should not have to wait, and a call that takes
// longer than that would not have finished anyway.
const (
	callGrace  = 60 * time.Millisecond
	closeGrace = 80 * time.Millisecond
)

// Plan is the tree that the options describe, without any hardware touched.
// The UUIDs derive from the exporter's name, so that they survive a restart.
func (o Options) Plan() (*driver.Tree, driver.Problems) {
	d := o.Driver
	d.Namespace = o.uuid()
	return driver.Plan(o.Export, d)
}

func (o Options) uuid() uuid.UUID {
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte("jumpstarter.dev/exporter/"+o.Namespace+"/"+o.Name))
}

// Run serves until the context is done. Ending that way is no error.
func Run(ctx context.Context, o Options) error {
	logs, offers := session.NewLogs(), session.NewOffers()
	log := slog.New(fanout{o.Log, logs.Handler()})
	o.Driver.Log, o.Driver.Resources = log, offers
	tree, problems := o.Plan()
	if err := problems.Err(); err != nil {
		return err
	}

	ln, err := o.Listen.listen()
	if err != nil {
		return err
	}
	defer ln.Close()
	s := session.New(o.uuid(), tree, logs, offers)
	s.MOTD = o.MOTD
	s.Labels = map[string]string{driver.LabelName: o.Name}
	s.End = func() (bool, string) {
		return true, "this exporter is not leased: the session stays open for other clients"
	}
	if err := tree.Open(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("open drivers: %w", err)
	}
	defer closeWithin(closeGrace, s, log)

	opts := rpc.ServerOptions()
	if o.Passphrase != "" {
		opts = append(opts, rpc.RequirePassphrase(o.Passphrase, log)...)
	}
	if o.TLS != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(o.TLS)))
	}
	srv := grpc.NewServer(opts...)
	rpc.Register(srv, s, log)
	s.SetStatus(pb.ExporterStatus_EXPORTER_STATUS_LEASE_READY, "Ready for commands")
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	if o.Ready != nil {
		o.Ready(ln.Addr())
	}
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", o.Listen, err)
	case <-ctx.Done():
	}
	stopWithin(callGrace, srv)
	<-served
	return nil
}

// stopWithin lets calls finish, and cuts off what takes longer, such as streams
// that only their client ends.
func stopWithin(d time.Duration, srv *grpc.Server) {
	done := make(chan struct{})
	go func() {
		srv.GracefulStop()
		close(done)
	}()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
		srv.Stop()
		<-done
	}
}

// closeWithin closes the drivers. One that does not come to an end is left to
// the end of the process.
func closeWithin(d time.Duration, s *session.Session, log *slog.Logger) {
	done := make(chan error, 1)
	go func() { done <- s.Close(context.Background()) }()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case err := <-done:
		if err != nil {
			log.Error("closing drivers", "error", err)
		}
	case <-t.C:
		log.Error("some drivers did not close in time; leaving them to the end of the process")
	}
}

func (a Address) listen() (net.Listener, error) {
	if a.Network == "unix" {
		return listenUnix(a.Address)
	}
	ln, err := net.Listen(a.Network, a.Address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("listen on %s: another program has this port; stop it or choose another port: %w", a, err)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", a, err)
	}
	return ln, nil
}

// listenUnix takes a socket path over when nobody listens on it any more, and
// leaves it to its owner when somebody does. The socket is for the exporter's
// own user: who can open it can drive the harness.
func listenUnix(path string) (net.Listener, error) {
	fail := func(err error) (net.Listener, error) { return nil, fmt.Errorf("listen on unix:%s: %w", path, err) }
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fail(err)
	}
	if fi, err := os.Lstat(path); err == nil {
		if fi.Mode()&os.ModeSocket == 0 {
			return fail(errors.New("the path exists and is no socket"))
		}
		if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
			c.Close()
			return fail(fmt.Errorf("another program listens there: %w", syscall.EADDRINUSE))
		} else if !errors.Is(err, syscall.ECONNREFUSED) {
			return fail(err)
		}
		if err := os.Remove(path); err != nil {
			return fail(err)
		}
	}
	umask.Lock()
	old := setUmask(0o177)
	ln, err := net.Listen("unix", path)
	setUmask(old)
	umask.Unlock()
	if err != nil {
		if strings.Contains(err.Error(), "invalid argument") {
			err = fmt.Errorf("%w (the path may be longer than the 107 bytes that a socket's name may have)", err)
		}
		return fail(err)
	}
	return ln, nil
}

var umask sync.Mutex // the umask belongs to the process
