package hook

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jumplead/jumplead/hw/hwtest"
	"github.com/jumplead/jumplead/hw/process"
)

// A hook that runs into a limit fails, and says so.
func TestLimits(t *testing.T) {
	r, log := open(t, nil)
	h := Hook{Script: "while :; do :; done", Timeout: time.Minute, OnFailure: EndLease, Limits: &process.Limits{CPUTime: time.Second}}
	_, err := r.Run(t.Context(), BeforeLease, h)
	var f *Failure
	if want := "Hook failed with exit code -24: the cpu_time limit of 1s was reached"; !errors.As(err, &f) || f.Text != want {
		t.Errorf("Run() = %v; want %s", err, want)
	}
	h = Hook{Script: "ulimit -n; echo hello > $JMP_MOTD_FILE", Timeout: time.Minute, Limits: &process.Limits{OpenFiles: 77}}
	if motd, err := r.Run(t.Context(), BeforeLease, h); err != nil || motd != "hello" || !log.has("INFO beforeLease: 77") {
		t.Errorf("Run() = %q, %v, %s; want hello, nil, and its limit", motd, err, log)
	}
}

// What a hook needs of its lease is within its reach, and the file that it is.
func TestLimitedFiles(t *testing.T) {
	// Not hwtest.Landlock, for which all of these tests would run in a virtual machine.
	hwtest.NeedFunc(t, "landlock", func() error {
		_, err := process.Keeps(process.Limits{Read: []process.Path{}}, "")
		return err
	})
	dir := t.TempDir()
	script, secret := filepath.Join(dir, "script"), filepath.Join(dir, "secret")
	for path, text := range map[string]string{secret: "secret", script: "cat " + secret + " || echo hello > $JMP_MOTD_FILE && mktemp\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r, log := open(t, nil)
	h := Hook{Script: script, Timeout: time.Minute, Limits: &process.Limits{Read: []process.Path{}}}
	motd, err := r.Run(t.Context(), BeforeLease, h)
	if err != nil || motd != "hello" || !strings.Contains(log.String(), "Permission denied") || !strings.Contains(log.String(), r.Dir) {
		t.Errorf("Run() = %q, %v, %s; want hello, nil, a file denied and another one made", motd, err, log)
	}
}

// Limits that cannot be kept fail the hook, and nothing runs.
func TestUnkept(t *testing.T) {
	l := process.Limits{CPU: 50}
	_, unkept := process.Keeps(l, "")
	r, log := open(t, nil)
	_, err := r.Run(t.Context(), AfterLease, Hook{Script: "echo runs", Timeout: time.Minute, OnFailure: EndLease, Limits: &l})
	if (unkept == nil) != (err == nil) || log.has("INFO afterLease: runs") != (err == nil) {
		t.Errorf("Run() = %v, %s; want %v", err, log, unkept)
	}
}
