//go:build unix

// Package shelltest is the conformance suite of the shell contract. The same
// suite serves a backend, its in-process round trip and a client behind a wire.
// The scripts run under bash, on the machine that the test runs on: the suite
// looks at their processes.
package shelltest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/shell"
)

// patience bounds every call.
const patience = 60 * time.Second

// Test runs the suite. Open makes the scripts of a config, which is a YAML
// mapping with the keys of upstream's driver, and registers their cleanup.
func Test(t *testing.T, open func(t *testing.T, config string) shell.Interface) {
	t.Run("methods", func(t *testing.T) {
		s := open(t, "{methods: {zulu: 'exit 0', Alpha: {}, two words: {command: ls}, _mike: {description: ''}}}")
		want := []string{"zulu", "Alpha", "two words", "_mike"}
		if got, err := s.Methods(t.Context()); err != nil || !slices.Equal(got, want) {
			t.Errorf("Methods() = %q, %v; want %q, nil", got, err, want)
		}
		s = open(t, "{methods: {}}")
		if got, err := s.Methods(t.Context()); err != nil || len(got) != 0 {
			t.Errorf("Methods() = %q, %v; want none, nil", got, err)
		}
	})
	t.Run("call", func(t *testing.T) {
		s := open(t, `
methods:
  name: echo "$0"
  first: echo "$1"
  all: 'printf "%s\n" "$#" "$@"'
  lines: |
    echo one
    echo two
  env: echo "$ENV1"
  print: printenv "$1"
  inherited: 'test -n "$PATH" && echo yes'
  stderr: echo "$1" >&2
  both: echo out; echo err >&2; exit 3
  silent: exit 0
  exit: exit "$1"
  kill: kill -"$1" $$
  input: 'cat; read -r x; echo "$?"'
  terminal: '[ -t 0 ] || [ -t 1 ] || [ -t 2 ] || echo none'
  default: {}
  mapping: {command: echo mapped, description: a mapping, timeout: 60}
  closed: 'exec >&- 2>&-; exit 4'
  missing: no-such-program-anywhere
`)
		for _, c := range []struct {
			method         string
			env            map[string]string
			args           []string
			stdout, stderr string
			code           int
		}{
			{"name", nil, nil, "name\n", "", 0},
			{"first", nil, []string{"hello"}, "hello\n", "", 0},
			{"first", nil, nil, "\n", "", 0},
			{"all", nil, []string{"a b", "", "$x", "'\"`", "-e", "line\nbreak", "ünï€"}, "7\na b\n\n$x\n'\"`\n-e\nline\nbreak\nünï€\n", "", 0},
			{"lines", nil, nil, "one\ntwo\n", "", 0},
			{"env", map[string]string{"ENV1": "a = b\n$c"}, nil, "a = b\n$c\n", "", 0},
			{"env", map[string]string{}, nil, "\n", "", 0},
			{"print", map[string]string{"_été2": "ü"}, []string{"_été2"}, "ü\n", "", 0},
			{"inherited", nil, nil, "yes\n", "", 0},
			{"stderr", nil, []string{"error"}, "", "error\n", 0},
			{"both", nil, nil, "out\n", "err\n", 3},
			{"silent", nil, nil, "", "", 0},
			{"exit", nil, []string{"1"}, "", "", 1},
			{"exit", nil, []string{"42"}, "", "", 42},
			{"exit", nil, []string{"255"}, "", "", 255},
			{"kill", nil, []string{"KILL"}, "", "", -9},
			{"kill", nil, []string{"TERM"}, "", "", -15},
			{"input", nil, nil, "1\n", "", 0},
			{"terminal", nil, nil, "none\n", "", 0},
			{"default", nil, nil, "Hello\n", "", 0},
			{"mapping", nil, nil, "mapped\n", "", 0},
			{"closed", nil, nil, "", "", 4},
		} {
			stdout, stderr, code := call(t, s, c.method, c.env, c.args...)
			if stdout != c.stdout || stderr != c.stderr || code != c.code {
				t.Errorf("Call(%s, %q, %q) = %q, %q, %d; want %q, %q, %d",
					c.method, c.env, c.args, stdout, stderr, code, c.stdout, c.stderr, c.code)
			}
		}
		if _, stderr, code := call(t, s, "missing", nil); code != 127 || !strings.Contains(stderr, "no-such-program") {
			t.Errorf("Call(missing) = %q, %d; want an error of the shell, 127", stderr, code)
		}
	})
	t.Run("mistakes", func(t *testing.T) {
		dir := t.TempDir()
		s := open(t, "{methods: {make: 'echo > \""+dir+"/made\"'}}")
		type env = map[string]string
		for _, c := range []struct {
			method string
			env    env
			args   []string
			want   string
		}{
			{"mak", nil, nil, "not found in available methods"},
			{"", nil, nil, "not found in available methods"},
			{"get_methods", nil, nil, "not found in available methods"},
			{"make", env{"": "x"}, nil, "invalid environment variable name"},
			{"make", env{"1A": "x"}, nil, "invalid environment variable name"},
			{"make", env{"A-B": "x"}, nil, "invalid environment variable name"},
			{"make", env{"A B": "x"}, nil, "invalid environment variable name"},
			{"make", env{"A=B": "x"}, nil, "invalid environment variable name"},
			{"make", env{"BASH_FUNC_ls%%": "() { :; }"}, nil, "invalid environment variable name"},
			{"make", env{"A": "x\x00y"}, nil, "NUL"},
			{"make", nil, []string{"a", "\x00"}, "NUL"},
			{"make", env{"OK": "x", "PATH": "x"}, nil, "blocked for security reasons"},
			{"make", env{"LD_PRELOAD": "x"}, nil, "blocked for security reasons"},
			{"make", env{"LD_LIBRARY_PATH": "x"}, nil, "blocked for security reasons"},
			{"make", env{"LD_": "x"}, nil, "blocked for security reasons"},
			{"make", env{"LD_AUDIT": "x"}, nil, "blocked for security reasons"},
			{"make", env{"BASH_FUNC_x": "x"}, nil, "blocked for security reasons"},
			{"make", env{"PYTHONPATH": "x"}, nil, "blocked for security reasons"},
			{"make", env{"BASH_ENV": "x"}, nil, "blocked for security reasons"},
			{"make", env{"KUBECONFIG": "x"}, nil, "blocked for security reasons"},
			{"make", env{"HOME": ""}, nil, "blocked for security reasons"},
		} {
			code, err := shell.Run(t.Context(), s, nil, nil, c.method, c.env, c.args...)
			if driver.Classify(err) != driver.Invalid || !strings.Contains(fmt.Sprint(err), c.want) {
				t.Errorf("Call(%q, %q, %q) = %d, %v; want an error of class %v with %q",
					c.method, c.env, c.args, code, err, driver.Invalid, c.want)
			}
		}
		if files, _ := filepath.Glob(dir + "/*"); len(files) > 0 {
			t.Errorf("a refused call made %q; want nothing done", files)
		}
	})
	t.Run("as it comes", func(t *testing.T) {
		s := open(t, `{methods: {talk: 'exec 3<>"$1"; for i in 1 2 3; do printf "$i?"; read -r x <&3; echo " $x"; done'}}`)
		fifo := filepath.Join(t.TempDir(), "fifo")
		if err := syscall.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(fifo, os.O_RDWR, 0) // waits for nobody
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var said strings.Builder
		answered := 0
		for o := range output(t, s, "talk", nil, fifo) {
			said.WriteString(o.Stdout)
			// The script goes on only when it has its answer.
			if strings.Count(said.String(), "?") > answered {
				answered++
				fmt.Fprintf(f, "answer %d\n", answered)
			}
		}
		if got, want := said.String(), "1? answer 1\n2? answer 2\n3? answer 3\n"; got != want {
			t.Errorf("Call(talk) = %q; want %q", got, want)
		}
	})
	t.Run("text", func(t *testing.T) {
		s := open(t, `
methods:
  bad: printf 'a\377\376b\342\202c\355\240\200\360\237\230'
  many: yes 'a€😀' | head -c 9000000
`)
		if got, _, _ := call(t, s, "bad", nil); got != "a\uFFFD\uFFFDb\uFFFDc\uFFFD\uFFFD\uFFFD\uFFFD" {
			t.Errorf("Call(bad) = %q; want every fault replaced", got)
		}
		want := strings.Repeat("a€😀\n", 1_000_000)
		if got, _, _ := call(t, s, "many", nil); got != want {
			t.Errorf("Call(many) = %d bytes, of them %d U+FFFD; want %d, none", len(got), strings.Count(got, "\uFFFD"), len(want))
		}
	})
	t.Run("bulk", func(t *testing.T) {
		s := open(t, `{methods: {zero: 'head -c "$1" /dev/zero', count: 'seq 1 "$1" & seq 1 "$1" >&2; wait'}}`)
		for _, size := range []int{0, 1, 65535, 65536, 65537, 100_000_000} {
			var got counter
			if code, err := shell.Run(within(t), s, &got, &got, "zero", nil, strconv.Itoa(size)); code != 0 || err != nil || int(got) != size {
				t.Fatalf("Call(zero, %d) = %d bytes, %d, %v; want all, 0, nil", size, got, code, err)
			}
		}
		const lines = 300_000
		want := sha256.New()
		for i := range lines {
			fmt.Fprintf(want, "%d\n", i+1)
		}
		stdout, stderr := sha256.New(), sha256.New()
		code, err := shell.Run(within(t), s, stdout, stderr, "count", nil, strconv.Itoa(lines))
		if code != 0 || err != nil {
			t.Fatalf("Call(count) = %d, %v; want 0, nil", code, err)
		}
		for name, got := range map[string]hash.Hash{"standard output": stdout, "standard error": stderr} {
			if string(got.Sum(nil)) != string(want.Sum(nil)) {
				t.Errorf("%s of two writers at once differs from what was written", name)
			}
		}
	})
	t.Run("overlap", func(t *testing.T) {
		s := open(t, `{methods: {meet: 'echo > "$1/$2"; until [ "$(ls "$1" | wc -l)" -ge "$3" ]; do sleep 0.01; done; echo "$2"; exit "$2"'}}`)
		dir := t.TempDir()
		const n = 8 // each of which ends when all have begun
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				var out strings.Builder
				code, err := shell.Run(within(t), s, &out, nil, "meet", nil, dir, strconv.Itoa(i), strconv.Itoa(n))
				if code != i || err != nil || out.String() != strconv.Itoa(i)+"\n" {
					t.Errorf("Call(meet, %d) = %q, %d, %v; want %d, %d, nil", i, &out, code, err, i, i)
				}
			})
		}
		all.Wait()
	})
	t.Run("time", func(t *testing.T) {
		s := open(t, `
timeout: 60
methods:
  short: {command: 'sleep 1000 & echo $$ $!; wait', timeout: 0.2}
  none: {command: sleep 1000, timeout: 0}
  tidy: {command: 'trap "echo tidied; exit 0" TERM; echo $$; while :; do sleep 0.01; done', timeout: 1}
  once: {command: 'trap "n=x\$n" TERM; echo $$; while [ -z "$n" ]; do sleep 0.01; done; sleep 0.1; echo "$n"', timeout: 1}
  enough: {command: 'echo done; exit 5', timeout: 60}
`)
		for _, method := range []string{"short", "none", "tidy", "once"} {
			stdout, stderr, code := call(t, s, method, nil)
			if code != shell.TimeoutCode || !strings.Contains(stderr, "\nTimeout expired while running "+method+": ") {
				t.Errorf("Call(%s) = %q, %q, %d; want a time-out, %d", method, stdout, stderr, code, shell.TimeoutCode)
			}
			rest := gone(t, stdout)
			if want := map[string]string{"tidy": "tidied\n", "once": "x\n"}[method]; rest != want {
				t.Errorf("Call(%s) says at its end %q; want %q", method, rest, want)
			}
		}
		if stdout, stderr, code := call(t, s, "enough", nil); stdout != "done\n" || stderr != "" || code != 5 {
			t.Errorf("Call(enough) = %q, %q, %d; want done, nothing, 5", stdout, stderr, code)
		}
	})
	for _, cancels := range []bool{true, false} {
		name := "stop listening"
		if cancels {
			name = "cancel"
		}
		t.Run(name, func(t *testing.T) {
			s := open(t, `{methods: {wait: 'sleep 1000 & echo $$ $! >&2; wait', flood: 'yes & echo $$ $! >&2; wait'}}`)
			for _, method := range []string{"wait", "flood"} {
				ctx, cancel := context.WithCancel(within(t))
				var pids string
				var last error
				for o, err := range s.Call(ctx, method, nil) {
					last = err
					if pids += o.Stderr; !strings.Contains(pids, "\n") {
						continue
					}
					if !cancels {
						break
					}
					cancel()
				}
				cancel()
				if cancels && !errors.Is(last, context.Canceled) {
					t.Errorf("Call(%s) ends with %v; want %v", method, last, context.Canceled)
				}
				gone(t, pids)
			}
		})
	}
	t.Run("background", func(t *testing.T) {
		s := open(t, `
methods:
  quiet: sleep 1000 >/dev/null 2>&1 & echo $!; exit 6
  holds: sleep 1000 & echo $!; exit 6
  floods: 'yes >&2 & echo $!; exit 6'
  late: '(sleep 0.1; echo late) & echo now'
`)
		for _, method := range []string{"quiet", "holds", "floods"} {
			stdout, _, code := call(t, s, method, nil)
			if pids := pids(t, stdout); code != 6 || !Alive(pids[0]) {
				t.Errorf("Call(%s) = %d, and what it started is alive = %t; want 6, true", method, code, Alive(pids[0]))
			}
		}
		if stdout, _, code := call(t, s, "late", nil); stdout != "now\nlate\n" || code != 0 {
			t.Errorf("Call(late) = %q, %d; want both lines, 0", stdout, code)
		}
	})
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// output is a call that must not fail.
func output(t *testing.T, s shell.Interface, method string, env map[string]string, args ...string) func(func(shell.Output) bool) {
	return func(yield func(shell.Output) bool) {
		t.Helper()
		for o, err := range s.Call(within(t), method, env, args...) {
			if err != nil {
				t.Fatalf("Call(%s) = %v; want its output", method, err)
			}
			if !yield(o) {
				return
			}
		}
	}
}

// call is all that a call yields.
func call(t *testing.T, s shell.Interface, method string, env map[string]string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, err strings.Builder
	n := 0
	for o := range output(t, s, method, env, args...) {
		out.WriteString(o.Stdout)
		err.WriteString(o.Stderr)
		if n > 0 {
			t.Errorf("Call(%s) yields %+v behind its exit status; want nothing", method, o)
		}
		if o.Code != nil {
			code, n = *o.Code, n+1
		}
	}
	if n == 0 {
		t.Errorf("Call(%s) yields no exit status; want one", method)
	}
	return out.String(), err.String(), code
}

// pids are the numbers in the first line of a script's output.
func pids(t *testing.T, out string) (list []int) {
	t.Helper()
	line, _, _ := strings.Cut(out, "\n")
	for _, f := range strings.Fields(line) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			t.Fatalf("output = %q; want process numbers first", out)
		}
		list = append(list, pid)
	}
	return list
}

// gone checks that the processes in the first line of a script's output have
// ended, or are ending, and returns the rest of the output.
func gone(t *testing.T, out string) string {
	t.Helper()
	for _, pid := range pids(t, out) {
		drivertest.Until(t, fmt.Sprintf("process %d has ended", pid), func() bool { return !Alive(pid) })
	}
	_, rest, _ := strings.Cut(out, "\n")
	return rest
}

// Alive reports whether there is a process of that number that has not ended. One
// that nobody has waited for has.
func Alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	return rest == "" || !strings.ContainsRune("ZX", rune(rest[0]))
}

// counter counts what is written to it.
type counter int

var _ io.Writer = (*counter)(nil)

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
