package app

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"reflect"
	"strings"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter"
	"github.com/jumplead/jumplead/exporter/config"
)

// reloader reads the config anew when it is told to.
type reloader struct {
	p       *program
	f       runFlags
	manager *supervisor
	log     *slog.Logger
	options exporter.Options

	cfg *config.Config // as the exporter was started with
	at  string         // where it is served
}

// catchReload catches the signal for reloading from now on: one that comes too early
// must not end the program, as is the system's way with it. What it asks for is
// answered by serve.
func catchReload() (asked <-chan os.Signal, stop func()) {
	got := make(chan os.Signal, 1)
	if len(reloadSignals) > 0 { // none would be all
		signal.Notify(got, reloadSignals...)
	}
	return got, func() { signal.Stop(got) }
}

// serve reloads as often as it is asked to, until the context is done.
func (r *reloader) serve(ctx context.Context, asked <-chan os.Signal, to chan<- exporter.Reload) {
	for {
		select {
		case <-asked:
		case <-ctx.Done():
			return
		}
		r.manager.notify("RELOADING=1", status("reading the config anew"))
		text := r.reload(ctx, to)
		if ctx.Err() == nil {
			r.manager.notify("READY=1", status("serving %s on %s%s", r.cfg.Name, r.at, text))
		}
	}
}

// reload reads the config and exchanges the tree. It returns what people should
// know at a glance if it was not done in full.
func (r *reloader) reload(ctx context.Context, to chan<- exporter.Reload) string {
	const refused = "; the config has mistakes, and was not reloaded"
	cfg, problems, err := r.p.load(r.f.configFile)
	if err == nil {
		err = problems.Err()
	}
	if err == nil { // other mistakes are found when it is done
		planned := r.options
		planned.Export = cfg.Export
		tree, _ := planned.Plan()
		err = unkept(tree, cfg).Err()
	}
	if err != nil {
		r.log.Error("the config was not reloaded", "error", err)
		return refused
	}
	text := ""
	done := make(chan struct{})
	reload := exporter.Reload{Export: cfg.Export, MOTD: cfg.MOTD, Done: func(what driver.Reloaded, more driver.Problems) {
		defer close(done)
		if err := more.Err(); err != nil {
			r.log.Error("the config was not reloaded", "error", err)
			text = refused
			return
		}
		problems = append(problems, more...)
		problems.Sort()
		for _, w := range problems {
			r.log.Warn(strings.Replace(w.String(), ": warning: ", ": ", 1))
		}
		if cfg.Name != r.cfg.Name || cfg.Namespace != r.cfg.Namespace {
			r.log.Warn("metadata are other ones now: the exporter keeps its name until it is started again", "name", cfg.Name, "namespace", cfg.Namespace)
		}
		if !reflect.DeepEqual(cfg.Hooks, r.cfg.Hooks) {
			r.log.Warn("hooks are other ones now: they count when the exporter is started again")
		}
		if len(what.Busy) > 0 {
			busy := strings.Join(what.Busy, ", ")
			r.log.Warn("in use, and left as it was: reload again when it is free", "nodes", busy)
			text = "; in use when it was reloaded: " + busy
		}
		r.log.Info("the config was reloaded", "added", strings.Join(what.Added, ", "),
			"changed", strings.Join(what.Changed, ", "), "removed", strings.Join(what.Removed, ", "))
	}}
	select {
	case to <- reload:
	case <-ctx.Done():
		return ""
	}
	select {
	case <-done:
		return text
	case <-ctx.Done():
		return ""
	}
}
