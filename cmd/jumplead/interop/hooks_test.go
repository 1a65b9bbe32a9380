package interop

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What the stock exporter does with hooks that ours does not.
const (
	hookGuarded = "its hooks' j sends no passphrase, and is refused"
	hookExit    = "an exporter that a hook has ended says with status 0 that all is well"
	hookOrphans = "only a hook's own shell is ended when its time is over"
)

// TestHooks runs hooks before the stock client, as a user sees them.
func TestHooks(t *testing.T) {
	table := []struct {
		name       string
		hooks      string // of the config; MARK is a text that no other process has
		passphrase bool
		code       int      // of jmp shell
		shows      []string // by jmp shell, as regular expressions
		hides      []string
		status     int      // of the exporter
		says       []string // in its log, after its end
		leaves     bool     // a process
		defect     string   // the stock exporter's
	}{
		{name: "both", hooks: `
  beforeLease:
    script: |
      echo "BEFORE lease=$LEASE_NAME client=<$CLIENT_NAME> $TERM $JMP_DRIVERS_ALLOW"
      j power on && echo "BEFORE power"
      test -S "$JUMPSTARTER_HOST" && test -t 0 && test -t 1 && printf 'BEFORE end'
  afterLease:
    script: |
      echo "AFTER one"
      j power off && echo "AFTER power"
`, shows: []string{`exporter:beforeLease\S* *BEFORE lease=standalone client=<> dumb UNSAFE`, `BEFORE power`, `BEFORE end`},
			hides: []string{"AFTER", "exporter:driver"}, says: []string{"AFTER one", "AFTER power"}},
		{name: "Python", hooks: `
  beforeLease:
    exec: python
    script: |
      from jumpstarter.utils.env import env
      with env() as client:
          client.power.on()
      print("PYTHON done")
`, shows: []string{`exporter:beforeLease\S* *PYTHON done`}},
		{name: "behind a passphrase", passphrase: true, hooks: `
  beforeLease: {script: 'j power on && echo "BEFORE power"', onFailure: endLease}
`, shows: []string{`BEFORE power`}, defect: hookGuarded},
		{name: "before warns", hooks: `
  beforeLease: {script: 'echo "BEFORE fails"; exit 3'}
`, shows: []string{`BEFORE fails`, `Hook failed with exit code 3 \(on_failure=warn, continuing\)`, `Warning: beforeLease hook warning: Hook failed with exit code 3`}},
		{name: "before ends the lease", code: 1, hooks: `
  beforeLease: {script: 'echo "BEFORE fails"; exit 3', onFailure: endLease}
  afterLease: {script: 'echo "AFTER runs"'}
`, shows: []string{`beforeLease hook fail`, `Hook failed with exit code 3`}, hides: []string{"AFTER"}},
		{name: "before takes too long", code: 1, hooks: `
  beforeLease: {script: 'setsid sleep MARK & sleep MARK', timeout: 1, onFailure: endLease}
`, shows: []string{`Hook timed out after 1 seconds`}, defect: hookOrphans, leaves: true},
		{name: "after warns", hooks: `
  afterLease: {script: 'echo "AFTER fails"; exit 3'}
`, says: []string{"AFTER fails", `Hook failed with exit code 3 \(on_failure=warn, continuing\)`}},
		{name: "after ends the exporter", status: 1, hooks: `
  afterLease: {script: 'echo "AFTER fails"; exit 3', onFailure: exit}
`, says: []string{"AFTER fails", `Hook failed with exit code 3`}, defect: hookExit},
	}
	env := needPython(t)
	forBoth(t, func(t *testing.T, f flavour) {
		for i, c := range table {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				// No other process sleeps for so many seconds.
				mark := fmt.Sprintf("%d%d", 100000+os.Getpid(), i)
				p, address := f.hooked(t, env.Bin(""), strings.ReplaceAll(c.hooks, "MARK", mark), c.passphrase)
				defect := !f.ours && c.defect != ""
				args := []string{"shell", "--tls-grpc", address, "--tls-grpc-insecure"}
				if c.passphrase {
					args = append(args, "--passphrase", secret)
				}
				out, code := jmp(t, env.Bin(""), append(args, "--", "j", "power", "on")...)
				if defect && c.defect == hookGuarded {
					if code == 0 || strings.Contains(out, "BEFORE power") {
						t.Errorf("jmp shell = %d, %s; want the defect", code, out)
					}
					return
				}
				if code != c.code {
					t.Errorf("jmp shell = %d, %s; want %d", code, out, c.code)
				}
				for _, want := range c.shows {
					if !regexp.MustCompile(want).MatchString(out) {
						t.Errorf("jmp shell shows %s; want %s", out, want)
					}
				}
				for _, not := range c.hides {
					if strings.Contains(out, not) {
						t.Errorf("jmp shell shows %s; want no %s", out, not)
					}
				}
				if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
				status, err := p.status(30 * time.Second)
				if err != nil {
					t.Fatal(err)
				}
				if want := c.status; defect && c.defect == hookExit {
					if status != 0 {
						t.Errorf("exit status = %d; want the defect", status)
					}
				} else if status != want {
					t.Errorf("exit status = %d; want %d:\n%s", status, want, p.stderr.tail())
				}
				for _, want := range c.says {
					if !regexp.MustCompile(want).MatchString(p.stderr.String()) {
						t.Errorf("the exporter says %s; want %s", p.stderr.tail(), want)
					}
				}
				left := sleepers(mark)
				for _, pid := range left {
					syscall.Kill(pid, syscall.SIGKILL)
				}
				if leaves := c.leaves && defect; (len(left) > 0) != leaves {
					t.Errorf("%d processes of hooks are left; want some: %t", len(left), leaves)
				}
			})
		}
	})
}

// TestHooksOfOurs tries what only a process of its own shows.
func TestHooksOfOurs(t *testing.T) {
	f, err := jumplead()
	if err != nil {
		t.Fatal(err)
	}
	said := func(t *testing.T, p *process, what string) {
		t.Helper()
		limit, tick := time.After(30*time.Second), time.NewTicker(10*time.Millisecond)
		defer tick.Stop()
		for !strings.Contains(p.stderr.String(), what) {
			select {
			case <-tick.C:
			case <-limit:
				t.Fatalf("the exporter does not say %q:\n%s", what, p.stderr.tail())
			}
		}
	}
	// A j that others have put on the PATH is not the one that hooks call.
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "j"), []byte("#!/bin/sh\necho other\n"), 0o700); err != nil {
		t.Fatal(err)
	}

	t.Run("j", func(t *testing.T) {
		p, _ := f.hooked(t, other, `
  beforeLease:
    script: |
      echo "j is $(readlink -f "$(command -v j)")"
      j power on; echo "j ends with $?."
      j power nonsense || echo "j fails"
      echo done
`, true)
		said(t, p, "done")
		for _, want := range []string{"j is " + f.program, "j ends with 0.", "power on", "j fails"} {
			if !strings.Contains(p.stderr.String(), want) {
				t.Errorf("the exporter says %s; want %q", p.stderr.tail(), want)
			}
		}
		if err := p.stop(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	})
	t.Run("before ends the exporter", func(t *testing.T) {
		p, _ := f.hooked(t, other, `
  beforeLease: {script: exit 3, onFailure: exit}
  afterLease: {script: echo AFTER}
`, false)
		code, err := p.status(10 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if said := p.stderr.String(); code != 1 || !strings.Contains(said, "Hook failed with exit code 3") || strings.Contains(said, "AFTER") {
			t.Errorf("exit status = %d; want 1, and no afterLease hook:\n%s", code, said)
		}
	})
	t.Run("second signal", func(t *testing.T) {
		mark := fmt.Sprintf("%d91", 100000+os.Getpid())
		p, _ := f.hooked(t, other, `
  afterLease: {script: 'trap "" TERM; (setsid env -i sleep `+mark+` &); echo RUNS; sleep `+mark+`; sleep `+mark+`'}
`, false)
		said(t, p, `"serving"`)
		p.cmd.Process.Signal(syscall.SIGTERM)
		said(t, p, "RUNS")
		start := time.Now()
		p.cmd.Process.Signal(syscall.SIGINT)
		code, err := p.status(10 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); code != 1 || took > 4*time.Second {
			t.Errorf("exit status = %d after %v; want 1 at once:\n%s", code, took, p.stderr.tail())
		}
		if left := sleepers(mark); len(left) > 0 {
			t.Errorf("%d processes are left; want none", len(left))
		}
	})
}

// hooked starts an exporter with a power node and hooks, and with a directory in
// front of its PATH.
func (f flavour) hooked(t *testing.T, path, hooks string, passphrase bool) (p *process, address string) {
	t.Helper()
	config := filepath.Join(t.TempDir(), "hooks.yaml")
	text := someMetadata + "export:\n  power: {type: jumpstarter_driver_power.driver.MockPower}\nhooks:" + hooks
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	address = port(t)
	args := []string{"run", "--exporter-config", config, "--tls-grpc-listener", address, "--tls-grpc-insecure"}
	if passphrase {
		args = append(args, "--passphrase", secret)
	}
	cmd := exec.Command(f.program, args...)
	cmd.Env = environment("PATH=" + path + ":" + os.Getenv("PATH"))
	p, err := start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	limit, tick := time.After(30*time.Second), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for { // a client that comes too early is refused
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return p, address
		}
		select {
		case <-p.done: // it may be meant to
			return p, address
		case <-tick.C:
		case <-limit:
			t.Fatalf("nobody listens on %s:\n%s", address, p.stderr.tail())
		}
	}
}

// jmp runs the stock client, whose words are not to be wrapped.
func jmp(t *testing.T, bin string, args ...string) (out string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "jmp"), args...)
	cmd.Env = environment("PATH="+bin+":"+os.Getenv("PATH"), "COLUMNS=300")
	text, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("jmp %q: %v: %s", args, ctx.Err(), text)
	}
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

// sleepers are the processes that sleep for so many seconds.
func sleepers(seconds string) (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		text, _ := os.ReadFile(f)
		pid := 0
		if string(text) == "sleep\x00"+seconds+"\x00" {
			fmt.Sscanf(f, "/proc/%d/", &pid)
			pids = append(pids, pid)
		}
	}
	return pids
}
