// Package exporter is the life of an exporter: it opens a harness, serves it to
// clients, and closes it again.
//
// An exporter that is not led by a controller serves one session for as long as
// it runs, on a TCP address with or without TLS (direct mode) or on a Unix
// socket (local mode). Its life has these steps, each undone in reverse order by
// whatever ends it:
//
//  1. the listener is taken: an address that is in use is an error before any
//     hardware is touched;
//  2. the drivers are opened, children first; those in other processes, which may
//     take long to start, beside the rest, and a client's first report waits for them;
//  3. clients are served, while the beforeLease hook runs if there is one; then
//     the status becomes LEASE_READY;
//  4. when the context is done, the afterLease hook runs, and clients can see what
//     it says;
//  5. calls in progress get a short while to finish, what hooks have left in the
//     background ends, and the drivers are closed.
package exporter

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/hook"
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

	Hooks hook.Hooks
	J     string          // program that hooks find as j on their PATH; "" leaves that to the PATH
	Now   <-chan struct{} // closed when the end has no time for hooks

	// Ready is called when clients are served; the address is the real one.
	Ready func(net.Addr)
	// Reload yields what is to be served from then on; it may be nil.
	Reload <-chan Reload
}

// Grace periods at the end, which together stay below a fifth of a second: a
// supervisor that stops a unit should not have to wait, and a call that takes
// longer than that would not have finished anyway.
const (
	callGrace  = 60 * time.Millisecond // for calls to come to their end
	cutGrace   = 20 * time.Millisecond // for those that were cut off then
	closeGrace = 80 * time.Millisecond // for drivers to close
)

// helloLimit is how long a client may take to say which protocol it speaks.
const helloLimit = 20 * time.Second

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
	if o.Log == nil {
		o.Log = slog.DiscardHandler
	}
	logs, offers := session.NewLogs(), session.NewOffers()
	log := slog.New(fanout{o.Log, logs.Handler()})
	offers.Log = log
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
	s.SetMOTD(o.MOTD)
	s.Labels = map[string]string{driver.LabelName: o.Name}
	s.End = func() (bool, string) {
		return true, "this exporter is not leased: the session stays open for other clients"
	}
	defer closeWithin(s, log)
	if err := open(ctx, tree); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("open drivers: %w", err)
	}
	defer o.reloads(ctx, s)()

	opts := append(rpc.ServerOptions(), grpc.ConnectionTimeout(helloLimit))
	if o.Passphrase != "" {
		opts = append(opts, rpc.RequirePassphrase(o.Passphrase, slog.New(o.Log))...)
	}
	if o.TLS != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(o.TLS)))
	}
	srv := grpc.NewServer(opts...)
	rpc.Register(srv, s, log)
	conns, served := track(ln), make(chan error, 1)
	serve := func() {
		go func() { served <- srv.Serve(conns) }()
		if o.Ready != nil {
			o.Ready(ln.Addr())
		}
	}
	if !o.Hooks.Any() {
		s.SetStatus(pb.ExporterStatus_EXPORTER_STATUS_LEASE_READY, "Ready for commands")
		serve()
		defer stop(srv, conns)
		select {
		case err := <-served:
			return fmt.Errorf("serve %s: %w", o.Listen, err)
		case <-ctx.Done():
			return nil
		}
	}

	l, err := o.newLease("standalone", s, log)
	if err != nil {
		return err
	}
	l.begin()
	serve()
	defer func() {
		done := make(chan struct{})
		go func() {
			defer close(done)
			l.close()
		}()
		stop(srv, conns)
		<-done
	}()
	return o.lead(ctx, l, conns, served)
}

// lead leads clients through a lease that has hooks, until the context is done or
// a hook ends the exporter.
func (o Options) lead(ctx context.Context, l *lease, conns *connections, served <-chan error) (err error) {
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	before := make(chan error, 1)
	go func() { before <- l.before(run) }()
	running := true
	select {
	case err = <-before:
		running = false
		if err != nil {
			conns.wait(lastWord, o.Now)
			l.offline(hook.BeforeLease)
			return err
		}
		select {
		case err = <-served:
		case <-ctx.Done():
		}
	case err = <-served:
	case <-ctx.Done():
	}
	if err != nil {
		err = fmt.Errorf("serve %s: %w", o.Listen, err)
	}
	if cancel(); running {
		err = cmp.Or(err, <-before)
	}
	if l.AfterLease == nil || l.failed {
		return err
	}
	failed := l.after()
	conns.wait(lastWord, o.Now)
	if f := failure(failed); f != nil {
		l.offline(hook.AfterLease)
	}
	return cmp.Or(err, failed)
}

// open opens the drivers. One that is stuck in its opening when the context ends
// is left to the end of the process.
func open(ctx context.Context, tree *driver.Tree) error {
	opened := make(chan error, 1)
	go func() { opened <- guard(func() error { return tree.Open(ctx) }) }()
	select {
	case err := <-opened:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-opened:
		return cmp.Or(err, ctx.Err())
	case <-time.After(callGrace):
		return ctx.Err()
	}
}

// stop lets calls finish, and cuts off what takes longer, such as streams that
// only their client ends. A call that is stuck in a driver even then is left to
// the end of the process.
func stop(srv *grpc.Server, conns *connections) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.GracefulStop()
	}()
	select {
	case <-done:
		return
	case <-time.After(callGrace):
	}
	conns.closeAll()
	select {
	case <-done:
	case <-time.After(cutGrace):
	}
}

// closeWithin closes the drivers. One that does not come to an end is left to
// the end of the process.
func closeWithin(s *session.Session, log *slog.Logger) {
	d := max(closeGrace, s.Tree().Grace())
	done := make(chan error, 1)
	go func() { done <- guard(func() error { return s.Close(context.Background()) }) }()
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

// guard turns a driver's panic into an error, so that the other drivers can
// still be closed.
func guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	return f()
}
