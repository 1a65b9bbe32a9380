package exporter_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/exporter/client"
	"github.com/jumplead/jumplead/exporter/hook"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
)

func script(text string, p hook.Policy) *hook.Hook {
	return &hook.Hook{Script: text, Timeout: time.Minute, OnFailure: p}
}

// follow tells what hooks say to a client.
func follow(t *testing.T, c *client.Client) <-chan string {
	t.Helper()
	said := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		defer close(said)
		for rec, err := range c.Logs(ctx) {
			if err != nil {
				return
			}
			if s := rec.GetSource(); s != pb.LogSource_LOG_SOURCE_DRIVER && s != pb.LogSource_LOG_SOURCE_SYSTEM {
				said <- fmt.Sprintf("%s %s: %s", rec.Severity, strings.TrimPrefix(s.String(), "LOG_SOURCE_"), rec.Message)
			}
		}
	}()
	return said
}

func hear(t *testing.T, said <-chan string, want string) {
	t.Helper()
	select {
	case got := <-said:
		if got != want {
			t.Errorf("the log says %q; want %q", got, want)
		}
	case <-soon(t).Done():
		t.Fatalf("the log says nothing; want %q", want)
	}
}

func status(t *testing.T, c *client.Client) *pb.GetStatusResponse {
	t.Helper()
	st, err := c.Status(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func gone(path string) bool { _, err := os.Lstat(path); return os.IsNotExist(err) }

// TestHooks goes through the life of an exporter with both hooks, one of which
// leaves a process behind.
func TestHooks(t *testing.T) {
	drivertest.NoLeaks(t)
	dir := t.TempDir()
	gate, last, pid := filepath.Join(dir, "gate"), filepath.Join(dir, "last"), filepath.Join(dir, "pid")
	h := newHarness(t)
	var early []string
	h.closing = func(path string) error {
		if gone(last) {
			early = append(early, path)
		}
		return nil
	}
	o := h.options()
	o.Passphrase = "secret"
	o.J = "/bin/echo"
	wait := "until test -e '" + gate + "'; do sleep 0.02; done\n"
	o.Hooks = hook.Hooks{
		BeforeLease: script("echo $JUMPSTARTER_HOST; j one two\n"+wait+"echo word > $JMP_MOTD_FILE; setsid env -i sleep 1000 & echo $! > '"+pid+"'", hook.EndLease),
		AfterLease:  script("echo tidy; sleep 0.2; touch '"+last+"'; exit 3", hook.Warn),
	}
	r := run(t, o)
	c := r.dial(client.Options{Passphrase: "secret"})
	if st := status(t, c); st.Status != pb.ExporterStatus_EXPORTER_STATUS_BEFORE_LEASE_HOOK || st.StatusVersion != 1 {
		t.Errorf("GetStatus() = %v; want BEFORE_LEASE_HOOK, version 1", st)
	}
	said := follow(t, c)
	line := <-said
	socket, ok := strings.CutPrefix(line, "INFO BEFORE_LEASE_HOOK: ")
	if !ok {
		t.Fatalf("the log says %q; want the socket", line)
	}
	hear(t, said, "INFO BEFORE_LEASE_HOOK: one two")
	for path, want := range map[string]os.FileMode{socket: os.ModeSocket | 0o600, filepath.Dir(socket): os.ModeDir | 0o700} {
		if fi, err := os.Lstat(path); err != nil || fi.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", path, fi.Mode(), err, want)
		}
	}
	inside, err := client.Dial(soon(t), socket, client.Options{})
	if err != nil {
		t.Fatalf("Dial() of the hook's socket = %v; want nil, without a passphrase", err)
	}
	defer inside.Close()
	for _, c := range []*client.Client{inside, c} {
		if got, err := find(t, c, "a").Call(soon(t), "echo", "x"); got != "x" || err != nil {
			t.Errorf("echo while the hook runs = %v, %v; want x", got, err)
		}
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	drivertest.Until(t, "the lease is ready", func() bool {
		return status(t, c).Status == pb.ExporterStatus_EXPORTER_STATUS_LEASE_READY
	})
	if st := status(t, c); st.StatusVersion != 2 || *st.PreviousStatus != pb.ExporterStatus_EXPORTER_STATUS_BEFORE_LEASE_HOOK {
		t.Errorf("GetStatus() = %v; want version 2, BEFORE_LEASE_HOOK before it", st)
	}
	if err := c.Refresh(soon(t)); err != nil || c.MOTD != "hello\nword" {
		t.Errorf("Refresh() = %v, motd %q; want the hook's word behind the exporter's", err, c.MOTD)
	}
	text, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	left := "/proc/" + strings.TrimSpace(string(text))
	if gone(left) {
		t.Error("what the hook has left is gone while the lease lasts")
	}
	if ok, _, err := c.EndSession(soon(t)); !ok || err != nil {
		t.Errorf("EndSession() = %t, %v; want success", ok, err)
	}
	if st := status(t, c); st.StatusVersion != 2 {
		t.Errorf("GetStatus() after EndSession = %v; want it as it was", st)
	}

	// The end: clients see the hook, and what came of it.
	r.end()
	hear(t, said, "INFO AFTER_LEASE_HOOK: tidy")
	hear(t, said, "WARNING AFTER_LEASE_HOOK: Hook failed with exit code 3 (on_failure=warn, continuing)")
	drivertest.Until(t, "clients are told how it ended", func() bool {
		st := status(t, c)
		return st.Status == pb.ExporterStatus_EXPORTER_STATUS_AVAILABLE && st.StatusVersion == 4 &&
			*st.Message == "[HOOK_WARNING] afterLease hook warning: Hook failed with exit code 3"
	})
	c.Close()
	inside.Close()
	if err := <-r.done; err != nil {
		t.Errorf("Run() = %v; want nil", err)
	}
	if len(early) > 0 || !slices.Contains(h.history(), "close a") {
		t.Errorf("drivers %q were closed before the hook had ended, of %q", early, h.history())
	}
	if !gone(filepath.Dir(socket)) {
		t.Errorf("%s is left", filepath.Dir(socket))
	}
	drivertest.Until(t, "what the hook has left has ended", func() bool { return gone(left) })
}

// Hooks that want the exporter to end do so, and a failure is one for a supervisor.
func TestHooksExit(t *testing.T) {
	for _, test := range []struct {
		hook.Hooks
		end  bool // we do
		want string
		said string // in the exporter's log
		mute string // not in it
	}{
		{hook.Hooks{BeforeLease: script("echo one; exit 5", hook.Exit), AfterLease: script("echo two", hook.Warn)},
			false, "hooks.beforeLease with onFailure exit: Hook failed with exit code 5", "one", "two"},
		{hook.Hooks{AfterLease: script("echo two; exit 6", hook.Exit)},
			true, "hooks.afterLease with onFailure exit: Hook failed with exit code 6", "two", "one"},
		{hook.Hooks{AfterLease: script("echo two; exit 6", hook.EndLease)}, true, "", "two", "one"},
		{hook.Hooks{BeforeLease: script("echo one", hook.EndLease)}, true, "", "one", "two"},
	} {
		drivertest.NoLeaks(t)
		h := newHarness(t)
		o := h.options()
		o.Hooks = test.Hooks
		r := run(t, o)
		if test.end {
			if test.BeforeLease != nil {
				drivertest.Until(t, "the hook has run", func() bool { return strings.Contains(h.log.String(), "msg="+test.said) })
			}
			r.end()
		}
		err := <-r.done
		if (err != nil) != (test.want != "") || err != nil && err.Error() != test.want {
			t.Errorf("Run() = %v; want %q", err, test.want)
		}
		if !slices.Contains(h.history(), "close b") {
			t.Errorf("happened: %q; want the drivers closed", h.history())
		}
		if log := h.log.String(); !strings.Contains(log, "msg="+test.said) || strings.Contains(log, "msg="+test.mute) {
			t.Errorf("log = %s; want %q, not %q", log, test.said, test.mute)
		}
	}
}

// A client that watches sees what failed before the exporter goes, and need not
// hurry.
func TestHooksExitWatched(t *testing.T) {
	h := newHarness(t)
	o := h.options()
	gate := filepath.Join(t.TempDir(), "gate")
	o.Hooks.BeforeLease = script("until test -e '"+gate+"'; do sleep 0.02; done; exit 5", hook.Exit)
	r := run(t, o)
	c := r.dial(client.Options{})
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	drivertest.Until(t, "the failure is told", func() bool {
		return status(t, c).Status == pb.ExporterStatus_EXPORTER_STATUS_BEFORE_LEASE_HOOK_FAILED
	})
	if _, err := find(t, c, "a").Call(soon(t), "echo", "x"); driver.Classify(err) != driver.NotReady {
		t.Errorf("echo = %v; want an error of class %v", err, driver.NotReady)
	}
	c.Close()
	if err := <-r.done; err == nil {
		t.Error("Run() = nil; want the hook's failure")
	}
}

// After a beforeLease hook that ends the lease the exporter stays, without one.
func TestHooksEndLease(t *testing.T) {
	h := newHarness(t)
	o := h.options()
	o.Hooks = hook.Hooks{BeforeLease: script("exit 5", hook.EndLease), AfterLease: script("echo two", hook.Warn)}
	r := run(t, o)
	c := r.dial(client.Options{})
	drivertest.Until(t, "the failure is told", func() bool {
		return status(t, c).Status == pb.ExporterStatus_EXPORTER_STATUS_BEFORE_LEASE_HOOK_FAILED
	})
	if _, err := find(t, c, "a").Call(soon(t), "echo", "x"); driver.Classify(err) != driver.NotReady {
		t.Errorf("echo = %v; want an error of class %v", err, driver.NotReady)
	}
	r.stop()
	if log := h.log.String(); strings.Contains(log, "two") {
		t.Errorf("log = %s; want no afterLease hook", log)
	}
}

// An exporter that ends does not wait for its beforeLease hook, nor, when it is
// told twice, for anything.
func TestHooksNow(t *testing.T) {
	for _, twice := range []bool{false, true} {
		drivertest.NoLeaks(t)
		pid := filepath.Join(t.TempDir(), "pid")
		h := newHarness(t)
		now := make(chan struct{})
		o := h.options()
		o.Now = now
		o.Hooks = hook.Hooks{BeforeLease: script("echo one; sleep 1000", hook.Exit), AfterLease: script("echo two", hook.Warn)}
		if twice {
			o.Hooks.AfterLease.Script = "trap '' TERM; (setsid env -i sleep 1000 & echo $! > '" + pid + "'); echo two; sleep 1000; sleep 1000"
		}
		r := run(t, o)
		drivertest.Until(t, "the first hook runs", func() bool { return strings.Contains(h.log.String(), "msg=one") })
		r.end()
		drivertest.Until(t, "the second hook runs", func() bool { return strings.Contains(h.log.String(), "msg=two") })
		if !twice {
			if err := <-r.done; err != nil {
				t.Errorf("Run() = %v; want nil", err)
			}
			continue
		}
		close(now)
		start := time.Now()
		if err := <-r.done; err == nil || !strings.Contains(err.Error(), "hooks.afterLease was ended before its time") {
			t.Errorf("Run() = %v; want that the hook did not end", err)
		}
		if took := time.Since(start); took > 4*time.Second { // less than SIGTERM has
			t.Errorf("Run() ends after %v; want it at once", took)
		}
		text, _ := os.ReadFile(pid)
		drivertest.Until(t, "no process is left", func() bool { return gone("/proc/" + strings.TrimSpace(string(text))) })
	}
}

// Without an afterLease hook an exporter ends as quickly as without any, whatever
// is left in the background.
func TestHooksEndQuickly(t *testing.T) {
	least := time.Hour
	for range 5 {
		h := newHarness(t)
		o := h.options()
		o.Hooks.BeforeLease = script("trap '' TERM HUP; setsid sleep 1000 </dev/null >/dev/null 2>&1 &", hook.Warn)
		r := run(t, o)
		c := r.dial(client.Options{})
		drivertest.Until(t, "the lease is ready", func() bool {
			return status(t, c).Status == pb.ExporterStatus_EXPORTER_STATUS_LEASE_READY
		})
		if least = min(least, r.stop()); least < 200*time.Millisecond {
			return
		}
	}
	t.Errorf("Run() ends after %v at best; want less than 200ms", least)
}
