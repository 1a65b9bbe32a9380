package session

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/hook"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
)

// Record is one entry of the log that clients follow.
type Record struct {
	Time       time.Time
	Level      slog.Level
	Source     pb.LogSource
	Message    string
	DriverType string
	Operation  string
	Result     string // "success" or "failure" at the end of a call
	ErrorType  string // of a failure
}

// Logs keeps the latest records for clients. Each consumer has its own place in
// it: two clients see the same records, and one that reads slowly is told how
// many it lost instead of holding up the drivers.
//
// A consumer that is alone starts where the last lone consumer stopped, so that
// the first one gets what was logged before it came, and one that reconnects
// misses nothing. One that joins others starts with what comes next.
type Logs struct {
	mu        sync.Mutex
	ring      []Record
	next      uint64 // number of the record that comes next
	delivered uint64 // the highest number that any consumer was given, plus one
	readers   map[*LogReader]struct{}
}

// LogHistory is how many records are kept, as upstream's exporter keeps them.
const LogHistory = 256

// maxOperation is how much of a method's name a record keeps, in bytes: it comes
// from the wire, and need not be that of any method.
const maxOperation = 256

// NewLogs makes an empty log.
func NewLogs() *Logs {
	return &Logs{ring: make([]Record, 0, 16), readers: map[*LogReader]struct{}{}}
}

// maxMessage is how long a record's text may be, in bytes: clients take no
// messages above 4 MiB, and all records together are to stay below some MiB.
const maxMessage = 16 << 10

// Append adds a record. It never waits.
func (l *Logs) Append(r Record) {
	if len(r.Operation) > maxOperation { // whatever a client calls it
		r.Operation = strings.ToValidUTF8(r.Operation[:maxOperation], "") + "..."
	}
	if len(r.Message) > maxMessage {
		r.Message = fmt.Sprintf("%s... (%d bytes)", strings.ToValidUTF8(r.Message[:maxMessage], ""), len(r.Message))
	}
	r.Message = strings.ToValidUTF8(r.Message, "\uFFFD") // what a device said may be anything
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.ring) < LogHistory {
		l.ring = append(l.ring, r)
	} else {
		l.ring[l.next%LogHistory] = r
	}
	l.next++
	for c := range l.readers {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// LogReader is one consumer's place in the log.
type LogReader struct {
	logs *Logs
	at   uint64
	wake chan struct{}
}

// Follow starts a consumer. It must be closed.
func (l *Logs) Follow() *LogReader {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &LogReader{logs: l, at: l.next, wake: make(chan struct{}, 1)}
	if len(l.readers) == 0 {
		c.at = l.delivered
	}
	l.readers[c] = struct{}{}
	return c
}

// Close ends the consumer.
func (c *LogReader) Close() {
	c.logs.mu.Lock()
	defer c.logs.mu.Unlock()
	delete(c.logs.readers, c)
}

// Next waits for the next record, until the context is done. Asking for it says
// that the record before was delivered: one whose sending failed comes again
// when the client reconnects.
func (c *LogReader) Next(ctx context.Context) (Record, error) {
	for {
		if r, ok := c.take(); ok {
			return r, nil
		}
		select {
		case <-c.wake:
		case <-ctx.Done():
			return Record{}, ctx.Err()
		}
	}
}

func (c *LogReader) take() (Record, bool) {
	l := c.logs
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delivered = max(l.delivered, c.at)
	if first := l.next - uint64(len(l.ring)); c.at < first {
		lost := first - c.at
		c.at = first
		return Record{Time: time.Now(), Level: slog.LevelWarn, Source: pb.LogSource_LOG_SOURCE_SYSTEM,
			Message: fmt.Sprintf("%d older log records were dropped: the log keeps %d", lost, LogHistory)}, true
	}
	if c.at == l.next {
		return Record{}, false
	}
	r := l.ring[c.at%LogHistory]
	c.at++
	return r, true
}

// Handler is a slog handler that writes into the log. Records of drivers are
// those bound with a driver attribute; their level was judged by the driver's
// own setting. Those bound with a hook attribute are a hook's own words. Of the
// rest, nothing below info is of interest to a client.
func (l *Logs) Handler() slog.Handler {
	return &handler{logs: l, source: pb.LogSource_LOG_SOURCE_SYSTEM}
}

type handler struct {
	logs       *Logs
	source     pb.LogSource
	driverType string
	text       string // of the attributes bound so far
	group      string
}

func (h *handler) Enabled(_ context.Context, level slog.Level) bool {
	return h.source == pb.LogSource_LOG_SOURCE_DRIVER || level >= slog.LevelInfo
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	for _, a := range attrs {
		switch {
		case h.group == "" && a.Key == "driver":
			c.source = pb.LogSource_LOG_SOURCE_DRIVER
		case h.group == "" && a.Key == "hook":
			c.source = hookSource(a.Value.String())
		case h.group == "" && a.Key == "driver_type":
			c.driverType = a.Value.String()
		default:
			c.text += c.attr(a)
		}
	}
	return &c
}

func (h *handler) WithGroup(name string) slog.Handler {
	c := *h
	c.group += name + "."
	return &c
}

func (h *handler) attr(a slog.Attr) string {
	if a.Equal(slog.Attr{}) {
		return ""
	}
	v := a.Value.Resolve().String()
	if strings.ContainsAny(v, " \t\n\"") {
		v = strconv.Quote(v)
	}
	return " " + h.group + a.Key + "=" + v
}

func (h *handler) Handle(_ context.Context, r slog.Record) error {
	rec := Record{Time: r.Time, Level: r.Level, Source: h.source, Message: r.Message + h.text, DriverType: h.driverType}
	r.Attrs(func(a slog.Attr) bool {
		rec.Message += h.attr(a)
		return true
	})
	h.logs.Append(rec)
	return nil
}

func hookSource(kind string) pb.LogSource {
	switch hook.Kind(kind) {
	case hook.BeforeLease:
		return pb.LogSource_LOG_SOURCE_BEFORE_LEASE_HOOK
	case hook.AfterLease:
		return pb.LogSource_LOG_SOURCE_AFTER_LEASE_HOOK
	}
	return pb.LogSource_LOG_SOURCE_SYSTEM
}

// LevelName is the severity as Python's logging names it.
func LevelName(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "DEBUG"
	case l < slog.LevelWarn:
		return "INFO"
	case l < slog.LevelError:
		return "WARNING"
	case l < driver.LevelCritical:
		return "ERROR"
	}
	return "CRITICAL"
}
