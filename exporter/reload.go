package exporter

import (
	"context"
	"log/slog"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/session"
)

// Reload is a new declaration for an exporter that runs. Its identity, and where
// it is served, are settled for the length of its life.
type Reload struct {
	Export driver.Decl
	MOTD   string

	// Done is told what became of it. When there are errors among the problems,
	// all is as it was.
	Done func(driver.Reloaded, driver.Problems)
}

// reloads reloads what is asked for, one after the other, until the context is
// done or stop is called.
func (o Options) reloads(ctx context.Context, s *session.Session, log *slog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case r := <-o.Reload:
				r.reload(ctx, s, log)
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// reload exchanges what a session serves. It returns when that is done, or when
// the context is, which ends the opening of drivers.
func (r Reload) reload(ctx context.Context, s *session.Session, log *slog.Logger) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := guard(func() error {
			next, what, problems := s.Tree().Reload(ctx, r.Export, s.SetTree)
			if next != nil {
				s.SetMOTD(r.MOTD)
			}
			r.Done(what, problems)
			return nil
		})
		if err != nil {
			log.Error("reload", "error", err)
		}
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
