package exporter

import (
	"context"

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
func (o Options) reloads(ctx context.Context, s *session.Session) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case r := <-o.Reload:
				r.reload(ctx, s)
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
func (r Reload) reload(ctx context.Context, s *session.Session) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		var what driver.Reloaded
		var problems driver.Problems
		err := guard(func() error {
			var next *driver.Tree
			if next, what, problems = s.Tree().Reload(ctx, r.Export, s.SetTree); next != nil {
				s.SetMOTD(r.MOTD)
			}
			return nil
		})
		if err != nil { // a mistake of ours; whoever waits must not wait for ever
			problems = driver.Problems{{Pos: r.Export.Pos, Text: err.Error()}}
		}
		r.Done(what, problems)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
