package exporter

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

type failing struct{ slog.Handler }

func (failing) Handle(context.Context, slog.Record) error { return errors.New("disk full") }

func TestFanout(t *testing.T) {
	var all, few bytes.Buffer
	f := fanout{
		slog.NewTextHandler(&all, &slog.HandlerOptions{Level: slog.LevelDebug}),
		slog.NewTextHandler(&few, &slog.HandlerOptions{Level: slog.LevelWarn}),
	}
	log := slog.New(f).With("a", 1).WithGroup("g")
	log.Debug("fine", "b", 2)
	log.Warn("bad", "b", 3)
	for name, got := range map[string]string{"all": all.String(), "few": few.String()} {
		if !strings.Contains(got, "msg=bad a=1 g.b=3") || strings.Contains(got, "msg=fine a=1 g.b=2") != (name == "all") {
			t.Errorf("%s = %q; want what is of its level, with attributes", name, got)
		}
	}
	if f[1:].Enabled(t.Context(), slog.LevelInfo) || !f.Enabled(t.Context(), slog.LevelInfo) {
		t.Error("Enabled(INFO) is not what one of the handlers says")
	}
	broken := fanout{failing{f[0]}, f[1]}
	few.Reset()
	if err := broken.Handle(t.Context(), slog.Record{Level: slog.LevelError, Message: "worse"}); err == nil || !strings.Contains(few.String(), "worse") {
		t.Errorf("Handle() = %v with %q in the other; want the error, and the record in the other", err, few.String())
	}
}
