package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/session"
)

type logOptions struct {
	level  slog.Level
	format string // "", json, text
}

func (o *logOptions) setLevel(name string) error {
	levels := []string{"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}
	if !slices.Contains(levels, name) {
		return fmt.Errorf("it is none of %s", strings.Join(levels, ", "))
	}
	o.level, _ = driver.ParseLevel(name)
	return nil
}

func (o *logOptions) setFormat(name string) error {
	switch name {
	case "auto":
		name = ""
	case "json", "text":
	default:
		return fmt.Errorf("it is none of auto, json, text")
	}
	o.format = name
	return nil
}

// handler writes the log to w: lines for people on a terminal, else JSON with
// the keys that log collectors know from the Python exporter (ts, level,
// logger, msg, component). In the journal, each has its priority.
func (o logOptions) handler(w io.Writer, terminal, journal bool) slog.Handler {
	if journal {
		j := &journalWriter{w: w}
		return &journalHandler{o.handler(j, false, false), j}
	}
	if o.format == "text" || o.format == "" && terminal {
		return &textHandler{w: w, mu: new(sync.Mutex), level: o.level}
	}
	return &jsonHandler{slog.NewJSONHandler(w, &slog.HandlerOptions{
		Level: o.level,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) > 0 {
				return a
			}
			switch a.Key {
			case slog.TimeKey:
				if a.Value.Kind() != slog.KindTime {
					return a // a driver's own
				}
				return slog.String("ts", a.Value.Time().UTC().Format("2006-01-02T15:04:05.000000Z"))
			case slog.LevelKey:
				l, ok := a.Value.Any().(slog.Level)
				if !ok {
					return a
				}
				return slog.String("level", strings.ToLower(session.LevelName(l)))
			}
			return a
		},
	}).WithAttrs([]slog.Attr{slog.String("component", "exporter")}), ""}
}

// journalHandler puts the priority in front of each line that the journal reads
// there, see sd-daemon(3); it takes it off again.
type journalHandler struct {
	slog.Handler
	w *journalWriter
}

func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	switch {
	case r.Level >= driver.LevelCritical:
		h.w.priority = "<2>"
	case r.Level >= slog.LevelError:
		h.w.priority = "<3>"
	case r.Level >= slog.LevelWarn:
		h.w.priority = "<4>"
	case r.Level >= slog.LevelInfo:
		h.w.priority = "<6>"
	default:
		h.w.priority = "<7>"
	}
	return h.Handler.Handle(ctx, r)
}

func (h *journalHandler) WithAttrs(a []slog.Attr) slog.Handler {
	return &journalHandler{h.Handler.WithAttrs(a), h.w}
}

func (h *journalHandler) WithGroup(name string) slog.Handler {
	return &journalHandler{h.Handler.WithGroup(name), h.w}
}

// journalWriter is written to once a record.
type journalWriter struct {
	mu       sync.Mutex
	priority string
	w        io.Writer
}

func (w *journalWriter) Write(p []byte) (int, error) {
	lines := strings.ReplaceAll(strings.TrimSuffix(string(p), "\n"), "\n", "\n"+w.priority)
	if _, err := io.WriteString(w.w, w.priority+lines+"\n"); err != nil {
		return 0, err
	}
	return len(p), nil
}

// journal reports whether a file is the journal, as systemd says of the standard
// error that it gave to a service: JOURNAL_STREAM holds its device and inode.
func journal(f *os.File) bool {
	fi, err := f.Stat()
	if err != nil {
		return false
	}
	id := fileID(fi)
	return id != "" && os.Getenv("JOURNAL_STREAM") == id
}

// jsonHandler adds the logger's name: the driver's, or the exporter's own.
type jsonHandler struct {
	slog.Handler
	driver string
}

func (h *jsonHandler) Handle(ctx context.Context, r slog.Record) error {
	name := "jumplead"
	if h.driver != "" {
		name = "driver." + h.driver
	}
	r.AddAttrs(slog.String("logger", name))
	return h.Handler.Handle(ctx, r)
}

func (h *jsonHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	name := h.driver
	for _, a := range attrs {
		if a.Key == "driver" {
			name = a.Value.String()
		}
	}
	return &jsonHandler{h.Handler.WithAttrs(attrs), name}
}

func (h *jsonHandler) WithGroup(name string) slog.Handler {
	return &jsonHandler{h.Handler.WithGroup(name), h.driver}
}

// textHandler writes one line a record: time, level, source, message, and what
// else is known.
type textHandler struct {
	w      io.Writer
	mu     *sync.Mutex
	level  slog.Level
	source string
	attrs  []slog.Attr
}

func (h *textHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

func (h *textHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = append([]slog.Attr(nil), h.attrs...)
	for _, a := range attrs {
		switch a.Key {
		case "driver":
			c.source = a.Value.String()
		case "driver_type":
		default:
			c.attrs = append(c.attrs, a)
		}
	}
	return &c
}

func (h *textHandler) WithGroup(string) slog.Handler { return h }

func (h *textHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(r.Time.Format(time.TimeOnly))
	fmt.Fprintf(&b, " %-7s ", session.LevelName(r.Level))
	if h.source != "" {
		b.WriteString(h.source + ": ")
	}
	b.WriteString(r.Message)
	add := func(a slog.Attr) bool {
		v := a.Value.Resolve().String()
		if strings.ContainsAny(v, " \n\t") {
			v = fmt.Sprintf("%q", v)
		}
		b.WriteString(" " + a.Key + "=" + v)
		return true
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	b.WriteByte('\n')
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := io.WriteString(h.w, b.String())
	return err
}
