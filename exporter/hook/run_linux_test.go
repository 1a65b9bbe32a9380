package hook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/hw/process"
)

// record is a log, one record in a line: level, hook, message.
type record struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.String()
}

func (r *record) has(line string) bool { return strings.Contains("\n"+r.String(), "\n"+line+"\n") }

func open(t *testing.T, now <-chan struct{}) (*Runner, *record) {
	t.Helper()
	log := new(record)
	r, err := New(Options{
		Socket: "/run/hook", Lease: "lease-1", Client: "c1", Dir: t.TempDir(), Now: now,
		Log: slog.New(&handler{log: log}),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("Close() = %v; want nil", err)
		}
	})
	return r, log
}

// handler writes records as [record] has them.
type handler struct {
	log  *record
	hook string
}

func (h *handler) Enabled(context.Context, slog.Level) bool { return true }
func (h *handler) WithGroup(string) slog.Handler            { return h }
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	for _, a := range attrs {
		if a.Key == "hook" {
			c.hook = a.Value.String()
		}
	}
	return &c
}
func (h *handler) Handle(_ context.Context, r slog.Record) error {
	if r.Level > slog.LevelDebug {
		fmt.Fprintf(h.log, "%s %s: %s\n", r.Level, h.hook, r.Message)
	}
	return nil
}

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRun holds what a hook says, how that is told, and what becomes of it.
func TestRun(t *testing.T) {
	drivertest.NoLeaks(t)
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "python3"), []byte("#!/bin/sh\necho \"python3 $*\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("PS1", "prompt> ")
	t.Setenv("JMP_MOTD_FILE", "inherited")
	t.Setenv("TERM", "xterm")
	script, snake := file(t, "say.sh", "echo file \"$0\"\n"), file(t, "say.PY", "print()\n")
	for _, test := range []struct {
		name string
		Hook
		fails string // the failure's text
		log   string // INFO lines are without level and kind
	}{
		{"says", Hook{Script: "echo one; echo two >&2"}, "", "one\ntwo\n"},
		{"says nothing", Hook{Script: "true"}, "", ""},
		{"blank", Hook{Script: " \n\t"}, "", ""},
		{"last line without an end", Hook{Script: "printf 'one\\ntwo'"}, "", "one\ntwo\n"},
		{"blank lines and blanks at the end", Hook{Script: "printf '\\n  \\n a \\t\\r\\n\\n\\f\\nb\\034 \\n'"}, "", " a\nb\n"},
		{"no UTF-8", Hook{Script: "printf 'a\\377b\\342\\202\\nc\\n'"}, "", "a\uFFFDb\uFFFD\nc\n"},
		{"has a terminal", Hook{Script: "test -t 0 && test -t 1 && test -t 2 && echo yes"}, "", "yes\n"},
		{"where", Hook{Script: "pwd -P"}, "", here + "\n"},
		{"variables", Hook{Script: "echo $JUMPSTARTER_HOST $JMP_DRIVERS_ALLOW $LEASE_NAME $CLIENT_NAME $TERM $DEBIAN_FRONTEND $GIT_TERMINAL_PROMPT; env | grep ^PS1= || echo none"},
			"", "/run/hook UNSAFE lease-1 c1 dumb noninteractive 0\nnone\n"},
		{"session of its own", Hook{Script: `test "$(cut -d' ' -f6 /proc/$$/stat)" = $$ && echo yes`}, "", "yes\n"},
		{"interpreter", Hook{Script: "a=(x y); echo ${a[1]}", Exec: "bash"}, "", "y\n"},
		{"interpreter by path", Hook{Script: "a=(x y); echo ${a[1]}", Exec: "/bin/bash"}, "", "y\n"},
		{"file", Hook{Script: "\n " + script + " \n"}, "", "file " + script + "\n"},
		{"file for an interpreter", Hook{Script: snake, Exec: "/bin/echo"}, "", snake + "\n"},
		{"file for Python", Hook{Script: snake}, "", "python3 " + snake + "\n"},
		{"folder", Hook{Script: bin, Exec: "/bin/echo"}, "", "-c " + bin + "\n"},
		{"fails", Hook{Script: "echo a; exit 3"}, "Hook failed with exit code 3", "a\n"},
		{"dies", Hook{Script: "kill -9 $$"}, "Hook failed with exit code -9", ""},
		{"no interpreter", Hook{Script: "true", Exec: "/no/such"}, "Error executing hook: fork/exec /no/such: no such file or directory", ""},
		{"no interpreter on the path", Hook{Script: "true", Exec: "no-such"}, `Error executing hook: exec: "no-such": executable file not found in $PATH`, ""},
		{"takes too long", Hook{Script: "echo a; sleep 1000", Timeout: time.Second}, "Hook timed out after 1 seconds", "a\n"},
		{"no time", Hook{Script: "sleep 1000", Timeout: -5 * time.Second}, "Hook timed out after -5 seconds", ""},
		{"a last word", Hook{Script: "trap 'echo bye; exit' TERM; sleep 1000 & wait", Timeout: time.Second}, "Hook timed out after 1 seconds", "bye\n"},
		{"closes its streams", Hook{Script: "echo a; exec <&- >&- 2>&-; sleep 0.3; exit 4"}, "Hook failed with exit code 4", "a\n"},
		{"leaves a writer", Hook{Script: "trap '' HUP; (sleep 0.2; echo late; exec sleep 1000) &"}, "", "late\n"},
		{"long lines", Hook{Script: "head -c 20000 /dev/zero | tr '\\0' x; echo; echo end"},
			"", strings.Repeat("x", process.MaxLine) + "\n" + strings.Repeat("x", process.MaxLine) + "\n" + strings.Repeat("x", 20000-2*process.MaxLine) + "\nend\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, policy := range []Policy{Warn, EndLease, Exit} {
				if test.fails == "" && policy != Warn || test.Timeout != 0 && policy == Exit { // it takes its time
					continue
				}
				r, log := open(t, nil)
				h := test.Hook
				h.OnFailure = policy
				if h.Timeout == 0 {
					h.Timeout = DefaultTimeout
				}
				kind := map[bool]Kind{true: BeforeLease, false: AfterLease}[policy != Exit]
				_, err := r.Run(t.Context(), kind, h)
				var want bytes.Buffer
				for line := range strings.Lines(test.log) {
					fmt.Fprintf(&want, "INFO %s: %s", kind, line)
				}
				if strings.Contains(test.fails, "timed out") {
					fmt.Fprintf(&want, "ERROR %s: %s\n", kind, test.fails)
				}
				var f *Failure
				switch {
				case test.fails == "":
					if err != nil {
						t.Errorf("Run() = %v; want nil", err)
					}
				case !errors.As(err, &f) || *f != (Failure{test.fails, policy}):
					t.Errorf("Run() = %v; want %q, %s", err, test.fails, policy)
				case policy == Warn:
					fmt.Fprintf(&want, "WARN %s: %s (on_failure=warn, continuing)\n", kind, test.fails)
				default:
					fmt.Fprintf(&want, "ERROR %s: %s (on_failure=%s, raising exception)\n", kind, test.fails, policy)
				}
				if got := log.String(); got != want.String() {
					t.Errorf("log = %q; want %q", got, &want)
				}
			}
		})
	}
}

// A directory of ours stands first on the PATH, and the rest behind it.
func TestBin(t *testing.T) {
	bin := t.TempDir()
	if err := os.Symlink("/bin/echo", filepath.Join(bin, "j")); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "j"), []byte("#!/bin/sh\necho the other one\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", other+":"+os.Getenv("PATH"))
	r, log := open(t, nil)
	for _, dir := range []string{bin, ""} {
		r.Bin = dir
		if _, err := r.Run(t.Context(), BeforeLease, Hook{Script: "j ours; expr 1 + 1", Timeout: time.Minute}); err != nil {
			t.Errorf("Run() = %v; want nil", err)
		}
	}
	if got, want := log.String(), "INFO beforeLease: ours\nINFO beforeLease: 2\nINFO beforeLease: the other one\nINFO beforeLease: 2\n"; got != want {
		t.Errorf("log = %q; want %q", got, want)
	}
}

// Lines are told while the hook runs.
func TestLive(t *testing.T) {
	r, log := open(t, nil)
	gate := filepath.Join(t.TempDir(), "gate")
	done := make(chan error, 1)
	go func() {
		_, err := r.Run(t.Context(), BeforeLease, Hook{Script: "echo one; until test -e '" + gate + "'; do sleep 0.02; done; echo two", Timeout: time.Minute})
		done <- err
	}()
	drivertest.Until(t, "the first line is told", func() bool { return log.has("INFO beforeLease: one") })
	if log.has("INFO beforeLease: two") {
		t.Error("the second line is told before it was written")
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || !log.has("INFO beforeLease: two") {
		t.Errorf("Run() = %v, log %q; want nil and the second line", err, log)
	}
}

// A hook that says much says it all.
func TestFlood(t *testing.T) {
	r, log := open(t, nil)
	const n = 20000
	if _, err := r.Run(t.Context(), AfterLease, Hook{Script: fmt.Sprintf("seq %d", n), Timeout: time.Minute}); err != nil {
		t.Errorf("Run() = %v; want nil", err)
	}
	if got := strings.Count(log.String(), "\n"); got != n || !log.has(fmt.Sprintf("INFO afterLease: %d", n)) {
		t.Errorf("log has %d lines; want %d", got, n)
	}
}

// hides are the ways in which processes get away from a hook. HIDDEN stands for a
// command that goes on for long.
var hides = map[string]string{
	"child":             "HIDDEN &",
	"grandchild":        "(HIDDEN & :)",
	"nohup":             "nohup HIDDEN >/dev/null 2>&1 &",
	"job control":       "set -m; HIDDEN & set +m",
	"job control, bare": "set -m; env -i HIDDEN & set +m",
	"session":           "setsid HIDDEN &",
	"daemon":            "setsid bash -c 'cd /; HIDDEN & HIDDEN & exec <&- >/dev/null 2>&1; wait' &",
	"no variables":      "env -i HIDDEN &",
	"session, bare":     "setsid env -i HIDDEN &",
	"daemon, bare":      "(setsid env -i bash -c 'HIDDEN & HIDDEN &' & :)",
	"daemon's children": "setsid env -i bash -c '(HIDDEN &) ; HIDDEN & wait' &",
	"other streams":     "HIDDEN <&- >&- 2>&- &",
	"writes on":         "(while :; do echo noise; sleep 0.01; done) & HIDDEN &",
	"deaf":              "(trap '' TERM HUP INT; HIDDEN; HIDDEN) &",
}

// hiding is a hook that hides processes, which are known by their name, and says
// ready when they run. They are deaf to the signal that a shell's jobs get which
// made the terminal its own, as bash does.
func hiding(hide, then string) (h Hook, mark string) {
	mark = fmt.Sprintf("hidden-%d-%d", os.Getpid(), time.Now().UnixNano())
	command := `bash -c "exec -a ` + mark + ` sleep 1000"`
	if hide != "child" && hide != "session" { // these hold the terminal, for which a hook waits a second
		command += " <&- >/dev/null 2>&1"
	}
	script := "trap '' HUP\n" + strings.ReplaceAll(hides[hide], "HIDDEN", command) + "\n" +
		"until pgrep -f '^" + mark + " ' >/dev/null; do sleep 0.01; done; sleep 0.1; echo ready; " + then
	return Hook{Script: script, Exec: "bash", Timeout: time.Minute, OnFailure: EndLease}, mark
}

// hidden are the living processes with a mark.
func hidden(mark string) (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		text, err := os.ReadFile(f)
		if pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil && strings.HasPrefix(string(text), mark+"\x00") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// zombies are our children that nobody has waited for.
func zombies() (found []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		text, _ := os.ReadFile(f)
		if i := bytes.LastIndexByte(text, ')'); i > 0 && strings.HasPrefix(string(text[i+1:]), fmt.Sprintf(" Z %d ", os.Getpid())) {
			found = append(found, string(text))
		}
	}
	return found
}

// TestEnd ends hooks that have hidden processes.
func TestEnd(t *testing.T) {
	for _, way := range []string{"time", "cancel", "now"} {
		for hide := range hides {
			if way != "now" && hide == "deaf" || way == "time" && !strings.Contains(hide, "session") {
				continue // would take the seconds that they have, which process.Keeper counts
			}
			t.Run(way+"/"+hide, func(t *testing.T) {
				drivertest.NoLeaks(t)
				now := make(chan struct{})
				r, log := open(t, now)
				h, mark := hiding(hide, "sleep 1000")
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if way == "time" {
					h.Timeout = 2 * time.Second
				}
				done := make(chan error, 1)
				go func() {
					_, err := r.Run(ctx, BeforeLease, h)
					done <- err
				}()
				drivertest.Until(t, "the processes are hidden", func() bool { return log.has("INFO beforeLease: ready") })
				if len(hidden(mark)) == 0 {
					t.Error("no process is hidden")
				}
				switch way {
				case "cancel":
					cancel()
				case "now":
					close(now)
				}
				err := <-done
				var f *Failure
				if failed := errors.As(err, &f); failed != (way == "time") || !failed && !errors.Is(err, context.Canceled) {
					t.Errorf("Run() = %v; want a failure only when the time is over", err)
				}
				if left := hidden(mark); len(left) > 0 {
					t.Errorf("%d processes are left; want none", len(left))
				}
			})
		}
	}
	drivertest.Until(t, "all were waited for", func() bool { return len(zombies()) == 0 })
}

// TestLeft leaves processes in the background, which live as long as the lease.
func TestLeft(t *testing.T) {
	for hide := range hides {
		t.Run(hide, func(t *testing.T) {
			drivertest.NoLeaks(t)
			r, log := open(t, nil)
			h, mark := hiding(hide, "exit 0")
			if _, err := r.Run(t.Context(), BeforeLease, h); err != nil {
				t.Errorf("Run() = %v; want nil", err)
			}
			before := hidden(mark)
			if len(before) == 0 {
				t.Error("the processes ended with the hook")
			}
			// Another hook is none of their business, not even one that is ended.
			other := Hook{Script: "echo other; sleep 1000", Timeout: time.Second, OnFailure: Warn}
			if !strings.Contains(hide, "session") {
				other.Script = "echo other; exit 1"
			}
			if _, err := r.Run(t.Context(), AfterLease, other); err == nil {
				t.Error("Run() of another hook = nil; want its failure")
			}
			if got := hidden(mark); len(got) != len(before) {
				t.Errorf("%d processes are left after another hook; want %d", len(got), len(before))
			}
			if !log.has("INFO afterLease: other") {
				t.Errorf("log = %q; want the other hook's line", log)
			}
			if err := r.Close(); err != nil {
				t.Errorf("Close() = %v; want nil", err)
			}
			drivertest.Until(t, "no process is left", func() bool { return len(hidden(mark)) == 0 })
			if strings.Contains(log.String(), "afterLease: noise") {
				t.Error("one hook's process speaks for another")
			}
		})
	}
	drivertest.Until(t, "all were waited for", func() bool { return len(zombies()) == 0 })
}

// TestMOTD holds what users are told.
func TestMOTD(t *testing.T) {
	for _, test := range []struct {
		script, want, log string
	}{
		{`echo hello > "$JMP_MOTD_FILE"`, "hello", ""},
		{`printf '\n two\nlines \n\n' > "$JMP_MOTD_FILE"; exit 3`, "two\nlines", ""},
		{`true`, "", ""},
		{`printf ' \t\n' > "$JMP_MOTD_FILE"`, "", ""},
		{`printf 'a\377b' > "$JMP_MOTD_FILE"`, "a\uFFFDb", ""},
		{`head -c 70000 /dev/zero | tr '\0' x > "$JMP_MOTD_FILE"`, strings.Repeat("x", 65536), ""},
		{`rm "$JMP_MOTD_FILE"`, "", "is ignored"},
		{`rm "$JMP_MOTD_FILE"; mkfifo "$JMP_MOTD_FILE"`, "", "is ignored"},
		{`rm "$JMP_MOTD_FILE"; mkdir "$JMP_MOTD_FILE"`, "", "is ignored"},
		{`rm "$JMP_MOTD_FILE"; ln -s /dev/zero "$JMP_MOTD_FILE"`, "", "is ignored"},
	} {
		r, log := open(t, nil)
		got, err := r.Run(t.Context(), BeforeLease, Hook{Script: test.script, Timeout: time.Minute, OnFailure: Warn})
		if fails := strings.Contains(test.script, "exit"); got != test.want || fails != (err != nil) {
			t.Errorf("Run(%s) = %.80q, %v; want %.80q", test.script, got, err, test.want)
		}
		if !strings.Contains(log.String(), test.log) {
			t.Errorf("Run(%s) logs %q; want %q", test.script, log, test.log)
		}
		if left, _ := filepath.Glob(r.Dir + "/*"); len(left) > 0 {
			t.Errorf("Run(%s) leaves %q; want nothing", test.script, left)
		}
	}
	// What a hook says that ends the lease is for nobody, and afterLease comes late.
	r, log := open(t, nil)
	if got, err := r.Run(t.Context(), BeforeLease, Hook{Script: `echo a > "$JMP_MOTD_FILE"; exit 1`, Timeout: time.Minute, OnFailure: EndLease}); got != "" || err == nil {
		t.Errorf("Run() = %q, %v; want nothing, and an error", got, err)
	}
	t.Setenv("JMP_MOTD_FILE", file(t, "outer", ""))
	if _, err := r.Run(t.Context(), AfterLease, Hook{Script: `echo "<${JMP_MOTD_FILE-none}>"`, Timeout: time.Minute, OnFailure: Warn}); err != nil || !log.has("INFO afterLease: <none>") {
		t.Errorf("Run() = %v, %q; want no JMP_MOTD_FILE", err, log)
	}
}

// A program that the exporter starts elsewhere is not taken for a hook's, and its
// status is its own.
func TestOthers(t *testing.T) {
	r, log := open(t, nil)
	cmd := exec.Command("bash", "-c", "trap 'kill $!; exit 7' TERM; sleep 1000 & echo; wait")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := r.Run(t.Context(), BeforeLease, Hook{Script: "echo go; (sleep 0.01 &); sleep 1000", Timeout: time.Second, OnFailure: Warn})
		done <- err
	}()
	drivertest.Until(t, "the hook runs", func() bool { return log.has("INFO beforeLease: go") })
	if err := <-done; err == nil {
		t.Error("Run() = nil; want a failure")
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("the other program: %v; want it there", err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("the other program: %v; want exit status 7", err)
	}
}
