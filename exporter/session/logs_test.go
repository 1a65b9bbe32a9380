package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/jumplead/jumplead/drivers/driver"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
)

func add(l *Logs, from, to int) {
	for i := from; i < to; i++ {
		l.Append(Record{Message: fmt.Sprint(i)})
	}
}

// read takes n records and fails the test if one is not there.
func read(t *testing.T, c *LogReader, n int) (list []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for len(list) < n {
		r, err := c.Next(ctx)
		if err != nil {
			t.Fatalf("Next() = %v after %d records; want %d", err, len(list), n)
		}
		list = append(list, r.Message)
	}
	return list
}

func wantRecords(t *testing.T, c *LogReader, from, to int) {
	t.Helper()
	for i, got := range read(t, c, to-from) {
		if want := fmt.Sprint(from + i); got != want {
			t.Fatalf("record %d = %q; want %q", i, got, want)
		}
	}
}

// wantNone checks that the log has nothing more for a consumer, and tells it
// that all before was delivered.
func wantNone(t *testing.T, c *LogReader) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r, err := c.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("Next() = %q, %v; want nothing more", r.Message, err)
	}
}

func TestLogsHistory(t *testing.T) {
	l := NewLogs()
	add(l, 0, LogHistory)
	c := l.Follow()
	defer c.Close()
	wantRecords(t, c, 0, LogHistory)
	wantNone(t, c)
}

func TestLogsForgetOldest(t *testing.T) {
	l := NewLogs()
	add(l, 0, LogHistory+7)
	c := l.Follow()
	defer c.Close()
	if got := read(t, c, 1)[0]; !strings.HasPrefix(got, "7 older") {
		t.Errorf("first record = %q; want how many were dropped, 7", got)
	}
	wantRecords(t, c, 7, LogHistory+7)
	wantNone(t, c)
}

// Two consumers do not take records from each other.
func TestLogsConsumers(t *testing.T) {
	l := NewLogs()
	add(l, 0, 3)
	a := l.Follow()
	defer a.Close()
	wantRecords(t, a, 0, 3)
	b := l.Follow()
	defer b.Close()
	add(l, 3, 10)
	wantRecords(t, a, 3, 10)
	wantRecords(t, b, 3, 10)
	wantNone(t, a)
	wantNone(t, b)
}

func TestLogsReconnect(t *testing.T) {
	l := NewLogs()
	add(l, 0, 5)
	a := l.Follow()
	wantRecords(t, a, 0, 4) // the fourth may not have reached the client
	a.Close()
	add(l, 5, 8)
	b := l.Follow()
	wantRecords(t, b, 3, 8)
	wantNone(t, b)
	b.Close()
	add(l, 8, 9)
	c := l.Follow()
	defer c.Close()
	wantRecords(t, c, 8, 9)
	wantNone(t, c)
}

func TestLogsSlowConsumer(t *testing.T) {
	l := NewLogs()
	slow, fast := l.Follow(), l.Follow()
	defer slow.Close()
	defer fast.Close()
	for i := range 3 * LogHistory {
		add(l, i, i+1)
		wantRecords(t, fast, i, i+1)
	}
	if got, want := read(t, slow, 1)[0], fmt.Sprintf("%d older", 2*LogHistory); !strings.HasPrefix(got, want) {
		t.Errorf("record of a slow consumer = %q; want %q", got, want)
	}
	wantRecords(t, slow, 2*LogHistory, 3*LogHistory)
	wantNone(t, slow)
}

// A record that cannot be sent would end every client's log for good.
func TestLogsCanBeSent(t *testing.T) {
	l := NewLogs()
	c := l.Follow()
	defer c.Close()
	l.Append(Record{Message: "caf\xe9"})
	l.Append(Record{Message: strings.Repeat("ä", 5<<20)})
	got := read(t, c, 2)
	if got[0] != "caf\uFFFD" {
		t.Errorf("a record that is not UTF-8 = %q; want the replacement character in it", got[0])
	}
	if n := len(got[1]); n > maxMessage+100 || !strings.HasSuffix(got[1], "ä... (10485760 bytes)") || !utf8.ValidString(got[1]) {
		t.Errorf("a long record = %d bytes, ending in %q; want about %d, and how long it was", n, got[1][n-30:], maxMessage)
	}
}

func TestLogsNextWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLogs()
		c := l.Follow()
		defer c.Close()
		got := make(chan string, 1)
		go func() {
			r, _ := c.Next(t.Context())
			got <- r.Message
		}()
		synctest.Wait()
		add(l, 0, 1)
		if m := <-got; m != "0" {
			t.Errorf("Next() = %q; want 0", m)
		}
	})
}

func TestLogsConcurrent(t *testing.T) {
	const writers, each = 4, 200
	l := NewLogs()
	readers := make([]*LogReader, 4)
	for i := range readers {
		readers[i] = l.Follow()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for _, c := range readers {
		all.Go(func() {
			defer c.Close()
			for seen := 0; seen < writers*each; seen++ {
				r, err := c.Next(ctx)
				if err != nil {
					t.Errorf("Next() = %v after %d records; want %d", err, seen, writers*each)
					return
				}
				var lost int
				if _, err := fmt.Sscanf(r.Message, "%d older", &lost); err == nil {
					seen += lost - 1
				}
			}
		})
	}
	for range writers {
		all.Go(func() { add(l, 0, each) })
	}
	all.Wait()
}

func TestHandler(t *testing.T) {
	l := NewLogs()
	log := slog.New(l.Handler())
	bound := log.With("driver", "dut.power", "driver_type", "power")
	log.Debug("internal")
	log.Info("plain", "a", 1, "text", "with blanks")
	bound.Debug("fine")
	bound.WithGroup("g").With("x", "y").Warn("grouped", "z", 2)
	bound.Log(t.Context(), driver.LevelCritical, "burning", slog.Attr{})
	for _, kind := range []string{"beforeLease", "afterLease", "other"} {
		hook := log.With("hook", kind)
		hook.Debug("internal")
		hook.Info("said")
	}

	c := l.Follow()
	defer c.Close()
	want := []Record{
		{Level: slog.LevelInfo, Source: pb.LogSource_LOG_SOURCE_SYSTEM, Message: `plain a=1 text="with blanks"`},
		{Level: slog.LevelDebug, Source: pb.LogSource_LOG_SOURCE_DRIVER, Message: "fine", DriverType: "power"},
		{Level: slog.LevelWarn, Source: pb.LogSource_LOG_SOURCE_DRIVER, Message: "grouped g.x=y g.z=2", DriverType: "power"},
		{Level: driver.LevelCritical, Source: pb.LogSource_LOG_SOURCE_DRIVER, Message: "burning", DriverType: "power"},
		{Level: slog.LevelInfo, Source: pb.LogSource_LOG_SOURCE_BEFORE_LEASE_HOOK, Message: "said"},
		{Level: slog.LevelInfo, Source: pb.LogSource_LOG_SOURCE_AFTER_LEASE_HOOK, Message: "said"},
		{Level: slog.LevelInfo, Source: pb.LogSource_LOG_SOURCE_SYSTEM, Message: "said"},
	}
	for i, w := range want {
		got, err := c.Next(t.Context())
		if err != nil || got.Time.IsZero() {
			t.Fatalf("record %d = %+v, %v; want one with a time", i, got, err)
		}
		got.Time = w.Time
		if got != w {
			t.Errorf("record %d = %+v; want %+v", i, got, w)
		}
	}
	wantNone(t, c)
}

func TestLevelName(t *testing.T) {
	for level, want := range map[slog.Level]string{
		slog.LevelDebug: "DEBUG", slog.LevelDebug - 4: "DEBUG", slog.LevelInfo: "INFO", slog.LevelInfo + 1: "INFO",
		slog.LevelWarn: "WARNING", slog.LevelError: "ERROR", driver.LevelCritical: "CRITICAL", driver.LevelCritical + 9: "CRITICAL",
	} {
		if got := LevelName(level); got != want {
			t.Errorf("LevelName(%v) = %q; want %q", level, got, want)
		}
	}
}
