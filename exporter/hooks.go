package exporter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/jumplead/jumplead/exporter/hook"
	"github.com/jumplead/jumplead/exporter/rpc"
	"github.com/jumplead/jumplead/exporter/scratch"
	"github.com/jumplead/jumplead/exporter/session"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc"
)

// lastWord is how long clients may take to see what the end of a lease came to.
const lastWord = 1 * time.Second

// lease is what hooks need of a session, and what they do to it: their socket,
// the status that they lead through, and what they leave behind.
type lease struct {
	hook.Hooks
	s      *session.Session
	report func(pb.ExporterStatus, string)
	log    *slog.Logger
	runner *hook.Runner
	dir    *scratch.Folder // with the socket
	srv    *grpc.Server
	conns  *connections

	failed bool // beforeLease did, so that there is nothing for afterLease
}

// newLease serves a session to its hooks. The socket is for the exporter's own
// user, and asks for no passphrase: who can open it can also read the exporter's
// memory.
func (o Options) newLease(name string, s *session.Session, log *slog.Logger) (_ *lease, err error) {
	dir, err := scratch.Make("jumplead-hooks", os.Getenv("XDG_RUNTIME_DIR"))
	if err != nil {
		return nil, fmt.Errorf("a place for the hooks' socket: %w", err)
	}
	l := &lease{Hooks: o.Hooks, s: s, report: s.SetStatus, log: log, dir: dir}
	defer func() {
		if err != nil {
			dir.Remove()
		}
	}()
	bin := ""
	if o.J != "" {
		bin = filepath.Join(dir.Path, "bin")
		if err := errors.Join(os.Mkdir(bin, 0o700), os.Symlink(o.J, filepath.Join(bin, "j"))); err != nil {
			return nil, fmt.Errorf("the hooks' j: %w", err)
		}
	}
	at := Address{"unix", filepath.Join(dir.Path, "hook")}
	ln, err := at.listen()
	if err != nil {
		return nil, err
	}
	l.runner, err = hook.New(hook.Options{Socket: at.Address, Lease: name, Bin: bin, Dir: dir.Path, Log: log, Now: o.Now})
	if err != nil {
		ln.Close()
		return nil, err
	}
	l.srv, l.conns = grpc.NewServer(append(rpc.ServerOptions(), grpc.ConnectionTimeout(helloLimit))...), track(ln)
	rpc.Register(l.srv, s, log)
	go l.srv.Serve(l.conns)
	return l, nil
}

// begin says what clients are told at first.
func (l *lease) begin() {
	if l.BeforeLease == nil {
		l.report(pb.ExporterStatus_EXPORTER_STATUS_LEASE_READY, "Ready for commands")
		return
	}
	l.report(pb.ExporterStatus_EXPORTER_STATUS_BEFORE_LEASE_HOOK, "Running beforeLease hook")
}

// before runs the beforeLease hook. The error is of a hook that wants the exporter
// to end.
func (l *lease) before(ctx context.Context) error {
	if l.BeforeLease == nil {
		return nil
	}
	motd, err := l.runner.Run(ctx, hook.BeforeLease, *l.BeforeLease)
	f := failure(err)
	switch {
	case f == nil && err != nil: // the exporter ends first
	case f == nil:
		l.s.AddMOTD(motd)
		l.report(pb.ExporterStatus_EXPORTER_STATUS_LEASE_READY, "Ready for commands")
	case f.OnFailure == hook.Warn:
		l.s.AddMOTD(motd)
		l.report(pb.ExporterStatus_EXPORTER_STATUS_LEASE_READY, "[HOOK_WARNING] beforeLease hook warning: "+f.Text)
	case f.OnFailure == hook.EndLease:
		l.failed = true
		l.report(pb.ExporterStatus_EXPORTER_STATUS_BEFORE_LEASE_HOOK_FAILED, "beforeLease hook failed (on_failure=endLease): "+f.Text)
		l.log.Error("the exporter is not ready, and will not be until it is started again", "hooks", "beforeLease", "error", f.Text)
	default:
		l.failed = true
		l.report(pb.ExporterStatus_EXPORTER_STATUS_BEFORE_LEASE_HOOK_FAILED, "beforeLease hook failed (on_failure=exit, shutting down): "+f.Text)
		return fmt.Errorf("hooks.beforeLease with onFailure exit: %w", f)
	}
	return nil
}

// after runs the afterLease hook. The error is of a hook that wants the exporter
// to end, or did not come to its own end.
func (l *lease) after() error {
	if l.AfterLease == nil || l.failed {
		return nil
	}
	l.report(pb.ExporterStatus_EXPORTER_STATUS_AFTER_LEASE_HOOK, "Running afterLease hooks")
	_, err := l.runner.Run(context.Background(), hook.AfterLease, *l.AfterLease)
	f := failure(err)
	switch {
	case f == nil && err != nil:
		return errors.New("hooks.afterLease was ended before its time")
	case f == nil:
		l.report(pb.ExporterStatus_EXPORTER_STATUS_AVAILABLE, "Available for new lease")
	case f.OnFailure == hook.Warn:
		l.report(pb.ExporterStatus_EXPORTER_STATUS_AVAILABLE, "[HOOK_WARNING] afterLease hook warning: "+f.Text)
	case f.OnFailure == hook.EndLease:
		l.report(pb.ExporterStatus_EXPORTER_STATUS_AFTER_LEASE_HOOK_FAILED, "afterLease hook failed (on_failure=endLease): "+f.Text)
	default:
		l.report(pb.ExporterStatus_EXPORTER_STATUS_AFTER_LEASE_HOOK_FAILED, "afterLease hook failed (on_failure=exit, shutting down): "+f.Text)
		return fmt.Errorf("hooks.afterLease with onFailure exit: %w", f)
	}
	return nil
}

// offline says that a hook has ended the exporter.
func (l *lease) offline(kind hook.Kind) {
	l.report(pb.ExporterStatus_EXPORTER_STATUS_OFFLINE, fmt.Sprintf("Exporter shutting down due to %s hook failure", kind))
}

func failure(err error) *hook.Failure {
	var f *hook.Failure
	errors.As(err, &f)
	return f
}

// close ends what the hooks have left, and takes their socket away.
func (l *lease) close() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := l.runner.Close(); err != nil {
			l.log.Error("ending what hooks have left", "error", err)
		}
	}()
	stop(l.srv, l.conns)
	<-done
	if err := l.dir.Remove(); err != nil {
		l.log.Warn("removing the hooks' socket", "error", err)
	}
}
