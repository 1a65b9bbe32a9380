package app

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// supervisor speaks to the service manager that started the program, in the
// protocol of sd_notify(3): datagrams of KEY=VALUE lines to the Unix socket that
// NOTIFY_SOCKET names. Nothing is sent where there is none.
type supervisor struct {
	socket   string
	watchdog time.Duration // how often a sign of life is wanted, or 0
	log      *slog.Logger
}

// supervise finds the service manager in the environment, and takes it out, so
// that no process of ours takes itself for the service.
func (p *program) supervise(log *slog.Logger) *supervisor {
	s := &supervisor{socket: p.getenv("NOTIFY_SOCKET"), log: log}
	if pid := p.getenv("WATCHDOG_PID"); pid == "" || pid == strconv.Itoa(os.Getpid()) {
		if usec, err := strconv.ParseInt(p.getenv("WATCHDOG_USEC"), 10, 64); err == nil && usec > 0 && usec <= math.MaxInt64/1000 {
			s.watchdog = time.Duration(usec) * time.Microsecond
		}
	}
	p.unsetenv("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
	if s.socket == "" {
		s.watchdog = 0
	}
	return s
}

// notifyLimit is how long a manager may take to make room for a datagram. One that
// is stuck must not keep the exporter from serving, nor from ending.
const notifyLimit = time.Second

// notify sends lines such as READY=1. A manager that cannot be reached is
// logged: there is nothing else to be done about it.
func (s *supervisor) notify(lines ...string) {
	if s.socket == "" {
		return
	}
	name := s.socket
	if strings.HasPrefix(name, "@") { // in the abstract namespace
		name = "\x00" + name[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err == nil {
		defer c.Close()
		_ = c.SetWriteDeadline(time.Now().Add(notifyLimit))
		_, err = c.Write([]byte(strings.Join(lines, "\n")))
	}
	if err != nil {
		s.log.Warn("the service manager cannot be told", "what", lines[0], "error", err)
	}
}

// status is a line that people see in the service's status.
func status(format string, args ...any) string {
	return "STATUS=" + strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ")
}

// watch feeds the watchdog until the context is done, each time after a check
// has succeeded. A check that fails or hangs is logged and not fed for: when it
// stays so, the manager restarts the service.
func (s *supervisor) watch(ctx context.Context, check func(context.Context) error) {
	if s.watchdog == 0 {
		return
	}
	every := s.watchdog / 3 // one that fails by accident leaves time for another
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		in, cancel := context.WithTimeout(ctx, every)
		err := check(in)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.log.Error("the exporter does not answer itself; the service manager's watchdog is not fed", "error", err)
		default:
			s.notify("WATCHDOG=1")
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}
