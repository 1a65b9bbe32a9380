package app

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jumplead/jumplead/hw/hwtest"
)

// manager is the service manager's end of the notification socket.
func manager(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func received(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal("waiting for a notification:", err)
	}
	return string(b[:n])
}

func TestSupervise(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	me := strconv.Itoa(os.Getpid())
	for _, tt := range []struct {
		name string
		env  []string
		want time.Duration
	}{
		{"none", nil, 0},
		{"no watchdog", []string{"NOTIFY_SOCKET=" + socket}, 0},
		{"watchdog", []string{"NOTIFY_SOCKET=" + socket, "WATCHDOG_USEC=3000000"}, 3 * time.Second},
		{"ours", []string{"NOTIFY_SOCKET=" + socket, "WATCHDOG_PID=" + me, "WATCHDOG_USEC=3000000"}, 3 * time.Second},
		{"another's", []string{"NOTIFY_SOCKET=" + socket, "WATCHDOG_PID=1", "WATCHDOG_USEC=3000000"}, 0},
		{"nobody to tell", []string{"WATCHDOG_USEC=3000000"}, 0},
		{"nonsense", []string{"NOTIFY_SOCKET=" + socket, "WATCHDOG_USEC=soon"}, 0},
		{"never", []string{"NOTIFY_SOCKET=" + socket, "WATCHDOG_USEC=0"}, 0},
		{"longer than a duration", []string{"NOTIFY_SOCKET=" + socket, "WATCHDOG_USEC=9223372036854775807"}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := &program{Proc: &Proc{Env: append([]string{"HOME=/root"}, tt.env...)}}
			s := p.supervise(slog.New(slog.DiscardHandler))
			if s.watchdog != tt.want {
				t.Errorf("supervise().watchdog = %v; want %v", s.watchdog, tt.want)
			}
			if got := strings.Join(p.Env, " "); got != "HOME=/root" {
				t.Errorf("supervise() left %q; want the variables of the service manager gone", got)
			}
		})
	}
}

func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	for _, socket := range []string{path, "@jumplead-test-" + strconv.Itoa(os.Getpid())} {
		c := manager(t, strings.Replace(socket, "@", "\x00", 1))
		s := &supervisor{socket: socket, log: slog.New(slog.DiscardHandler)}
		s.notify("READY=1", status("serving %s\non %s", "bench", ":1"))
		if got, want := received(t, c), "READY=1\nSTATUS=serving bench on :1"; got != want {
			t.Errorf("notify() to %q sent %q; want %q", socket, got, want)
		}
	}
	var log bytes.Buffer
	s := &supervisor{socket: path + ".gone", log: slog.New(slog.NewTextHandler(&log, nil))}
	s.notify("READY=1")
	if !strings.Contains(log.String(), "the service manager cannot be told") {
		t.Errorf("notify() to nobody logged %q; want a warning", &log)
	}
}

// What the program starts, such as a hook, does not inherit the manager's variables.
func TestUnsetenv(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/run/none")
	t.Setenv("WATCHDOG_USEC", "1000000")
	proc := OS()
	p := &program{Proc: &proc}
	if s := p.supervise(slog.New(slog.DiscardHandler)); s.socket != "/run/none" || s.watchdog != time.Second {
		t.Errorf("supervise() = %q, %v; want what the environment says", s.socket, s.watchdog)
	}
	for _, k := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC"} {
		if v, ok := os.LookupEnv(k); ok {
			t.Errorf("programs inherit %s=%s; want it gone", k, v)
		}
	}
}

// A manager that does not read does not hold us up.
func TestNotifyStuck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	manager(t, path)
	full, err := net.Dial("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	if err := full.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = full.Write([]byte("x"))
	}
	var log bytes.Buffer
	s := &supervisor{socket: path, log: slog.New(slog.NewTextHandler(&log, nil))}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.notify("STOPPING=1")
	}()
	select {
	case <-done:
		if !strings.Contains(log.String(), "i/o timeout") {
			t.Errorf("notify() logged %q; want a time-out", &log)
		}
	case <-time.After(10 * time.Second):
		t.Error("notify() still waits after 10s")
	}
}

// The watchdog is fed after a check only, and a check that hangs or fails is not
// taken for one that succeeded.
func TestWatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	c := manager(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	var log bytes.Buffer
	s := &supervisor{socket: path, watchdog: 30 * time.Millisecond, log: slog.New(slog.NewTextHandler(&log, nil))}
	checks := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.watch(ctx, func(ctx context.Context) error {
			switch checks++; checks {
			case 1, 4:
				return nil
			case 2:
				return errors.New("no answer")
			case 3: // hangs
				<-ctx.Done()
				return ctx.Err()
			}
			cancel()
			return nil
		})
	}()
	for range 2 {
		if got := received(t, c); got != "WATCHDOG=1" {
			t.Errorf("watch() sent %q; want WATCHDOG=1", got)
		}
	}
	<-done
	if checks != 5 {
		t.Errorf("watch() checked %d times for its 2 signs of life; want 5, the last of which ended it", checks)
	}
	if n := strings.Count(log.String(), "does not answer itself"); n != 2 {
		t.Errorf("watch() logged %d failures; want 2:\n%s", n, &log)
	}
}

func TestJournal(t *testing.T) {
	for _, format := range []string{"", "text"} {
		var out bytes.Buffer
		log := slog.New(logOptions{level: slog.LevelDebug, format: format}.handler(&out, false, true)).With("driver", "dut")
		log.Debug("d")
		log.Info("i")
		log.Warn("w")
		log.Error("one\ntwo")
		log.Log(t.Context(), slog.LevelError+4, "c")
		var prefixes []string
		for line := range strings.Lines(out.String()) {
			prefixes = append(prefixes, line[:3])
		}
		got, want := strings.Join(prefixes, ""), "<7><6><4><3><2>"
		if format == "text" { // a message may have lines there
			want = "<7><6><4><3><3><2>"
		}
		if got != want {
			t.Errorf("priorities of %q lines = %s; want %s:\n%s", format, got, want, &out)
		}
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "journal"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	for stream, want := range map[string]bool{"": false, "1:1": false, fileID(fi): true} {
		t.Setenv("JOURNAL_STREAM", stream)
		if got := journal(f); got != want {
			t.Errorf("journal() with JOURNAL_STREAM=%s = %v; want %v", stream, got, want)
		}
	}
}

// The example unit is sound, and gives away as little as its drivers allow.
func TestUnit(t *testing.T) {
	hwtest.Need(t, hwtest.Systemd)
	const name = "jumplead@.service"
	text, err := os.ReadFile(filepath.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	// verify wants the program to be there
	unit := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(unit, bytes.ReplaceAll(text, []byte("/usr/local/bin/jumplead"), []byte("/bin/true")), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"verify", "--man=no", unit},
		{"security", "--no-pager", "--offline=true", "--threshold=25", unit},
	} {
		out, err := exec.Command("systemd-analyze", args...).CombinedOutput()
		if err != nil || args[0] == "verify" && len(out) > 0 {
			t.Errorf("systemd-analyze %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
