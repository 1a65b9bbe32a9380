package exporter

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/hook"
	"github.com/jumplead/jumplead/exporter/session"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
)

// TestStatuses holds what clients are told, in upstream's words and order, of every
// outcome of both hooks.
func TestStatuses(t *testing.T) {
	script := func(s string, p hook.Policy) *hook.Hook {
		return &hook.Hook{Script: s, Timeout: time.Minute, OnFailure: p}
	}
	slow := func(p hook.Policy) *hook.Hook {
		return &hook.Hook{Script: "sleep 1000", Timeout: time.Second, OnFailure: p}
	}
	const before, ready, after, free = "BEFORE_LEASE_HOOK Running beforeLease hook", "LEASE_READY Ready for commands",
		"AFTER_LEASE_HOOK Running afterLease hooks", "AVAILABLE Available for new lease"
	for _, test := range []struct {
		name string
		hook.Hooks
		want  []string
		fails string // the end
	}{
		{"none", hook.Hooks{}, []string{ready}, ""},
		{"both", hook.Hooks{BeforeLease: script("true", hook.Exit), AfterLease: script("true", hook.Exit)}, []string{before, ready, after, free}, ""},
		{"blank", hook.Hooks{BeforeLease: script(" ", hook.Exit), AfterLease: script("", hook.Exit)}, []string{before, ready, after, free}, ""},
		{"before", hook.Hooks{BeforeLease: script("true", hook.Warn)}, []string{before, ready}, ""},
		{"after", hook.Hooks{AfterLease: script("true", hook.Warn)}, []string{ready, after, free}, ""},
		{"before warns", hook.Hooks{BeforeLease: script("exit 3", hook.Warn), AfterLease: script("true", hook.Warn)},
			[]string{before, "LEASE_READY [HOOK_WARNING] beforeLease hook warning: Hook failed with exit code 3", after, free}, ""},
		{"before ends the lease", hook.Hooks{BeforeLease: script("exit 3", hook.EndLease), AfterLease: script("true", hook.Warn)},
			[]string{before, "BEFORE_LEASE_HOOK_FAILED beforeLease hook failed (on_failure=endLease): Hook failed with exit code 3"}, ""},
		{"before ends the exporter", hook.Hooks{BeforeLease: script("exit 3", hook.Exit), AfterLease: script("true", hook.Warn)},
			[]string{before, "BEFORE_LEASE_HOOK_FAILED beforeLease hook failed (on_failure=exit, shutting down): Hook failed with exit code 3",
				"OFFLINE Exporter shutting down due to beforeLease hook failure"}, "beforeLease with onFailure exit: Hook failed with exit code 3"},
		{"before takes too long", hook.Hooks{BeforeLease: slow(hook.Warn)},
			[]string{before, "LEASE_READY [HOOK_WARNING] beforeLease hook warning: Hook timed out after 1 seconds"}, ""},
		{"before cannot run", hook.Hooks{BeforeLease: &hook.Hook{Script: "true", Exec: "/no/such", Timeout: time.Minute, OnFailure: hook.EndLease}},
			[]string{before, "BEFORE_LEASE_HOOK_FAILED beforeLease hook failed (on_failure=endLease): Error executing hook: fork/exec /no/such: no such file or directory"}, ""},
		{"after warns", hook.Hooks{AfterLease: script("exit 3", hook.Warn)},
			[]string{ready, after, "AVAILABLE [HOOK_WARNING] afterLease hook warning: Hook failed with exit code 3"}, ""},
		{"after ends the lease", hook.Hooks{AfterLease: script("exit 3", hook.EndLease)},
			[]string{ready, after, "AFTER_LEASE_HOOK_FAILED afterLease hook failed (on_failure=endLease): Hook failed with exit code 3"}, ""},
		{"after ends the exporter", hook.Hooks{AfterLease: slow(hook.Exit)},
			[]string{ready, after, "AFTER_LEASE_HOOK_FAILED afterLease hook failed (on_failure=exit, shutting down): Hook timed out after 1 seconds",
				"OFFLINE Exporter shutting down due to afterLease hook failure"}, "afterLease with onFailure exit: Hook timed out after 1 seconds"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			group := driver.Define(driver.Spec{Type: "fake.Group", Role: driver.Group, Contract: driver.Contract{Name: "fake", Client: "fake.Client"}},
				func(context.Context, *driver.Env, struct{}) (driver.Driver, error) { return driver.Driver{}, nil })
			tree, problems := driver.Plan(driver.Decl{}, driver.Options{Specs: []driver.Spec{group}})
			if err := problems.Err(); err != nil {
				t.Fatal(err)
			}
			s := session.New(uuid.New(), tree, session.NewLogs(), session.NewOffers())
			l, err := Options{Hooks: test.Hooks}.newLease("standalone", s, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer l.close()
			var got []string
			l.report = func(now pb.ExporterStatus, message string) {
				s.SetStatus(now, message)
				got = append(got, session.Name(now)+" "+message)
			}
			l.begin()
			if err = l.before(t.Context()); err != nil {
				l.offline(hook.BeforeLease)
			} else if err = l.after(); failure(err) != nil {
				l.offline(hook.AfterLease)
			}
			if strings.Join(got, "\n") != strings.Join(test.want, "\n") {
				t.Errorf("statuses = %q; want %q", got, test.want)
			}
			if v := s.Status().Version; v != uint64(len(got)) {
				t.Errorf("version = %d; want %d", v, len(got))
			}
			if (err != nil) != (test.fails != "") || !strings.Contains(fmt.Sprint(err), test.fails) {
				t.Errorf("it ends with %v; want %q", err, test.fails)
			}
		})
	}
}
