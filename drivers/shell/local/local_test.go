//go:build unix

package local_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/shell"
	"github.com/jumplead/jumplead/drivers/shell/local"
	"github.com/jumplead/jumplead/drivers/shell/shelltest"
	"github.com/jumplead/jumplead/exporter"
	"github.com/jumplead/jumplead/exporter/client"
	"gopkg.in/yaml.v3"
)

func open(t testing.TB, config string) *shell.Client {
	t.Helper()
	return shell.NewClient(drivertest.Open(t, config, local.Shell))
}

// wire serves the scripts over gRPC, as an exporter does.
func wire(t testing.TB, config string) *shell.Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "shell") // paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan net.Addr, 1), make(chan error, 1)
	go func() {
		done <- exporter.Run(ctx, exporter.Options{
			Name:   "test",
			Export: driver.Decl{Type: local.Shell.Type, Config: drivertest.YAML(t, config)},
			Driver: driver.Options{Specs: []driver.Spec{local.Shell}},
			Listen: exporter.Address{Network: "unix", Address: filepath.Join(dir, "s")},
			Ready:  func(a net.Addr) { ready <- a },
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run() = %v; want nil", err)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		done <- err
		t.Fatalf("Run() = %v; want it to serve", err)
	}
	c, err := client.Dial(t.Context(), filepath.Join(dir, "s"), client.Options{})
	if err != nil {
		t.Fatalf("Dial() = %v; want nil", err)
	}
	t.Cleanup(func() { c.Close() })
	return shell.NewClient(c.Root)
}

func TestConformance(t *testing.T) {
	drivertest.NoLeaks(t)
	shelltest.Test(t, func(t *testing.T, config string) shell.Interface { return open(t, config) })
}

func TestConformanceOverTheWire(t *testing.T) {
	drivertest.NoLeaks(t)
	shelltest.Test(t, func(t *testing.T, config string) shell.Interface { return wire(t, config) })
}

func TestSpec(t *testing.T) {
	const config = "{methods: {a: ls}}"
	drivertest.Spec(t, local.Shell, config)
	d, err := drivertest.Bench{}.Tree(t, config, local.Shell).Root.Driver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	drivertest.Rows(t, d)
	var got []string
	for _, e := range d.Exports {
		got = append(got, e.Kind().String()+" "+e.Usage())
	}
	if want := []string{"call get_methods()", "feed call_method(method, env=null, *args)"}; !slices.Equal(got, want) {
		t.Errorf("Exports = %q; want %q", got, want)
	}
}

func TestConfig(t *testing.T) {
	for _, test := range []struct{ config, want string }{
		{"methods: {}", ""},
		{"methods: {a: ls, b: {command: ls}, c: {}, d: {description: text, timeout: 1800}, e: {command: ls, timeout: null}, f: }", ""},
		{"{methods: {a: ls}, shell: [/bin/sh, -e, -c], timeout: 0.5, cwd: /nowhere, log_level: DEBUG}", ""},
		{"{methods: {a: ls}, shell: [], cwd: null}", ""},
		{"", `key "methods" is missing`},
		{"{}", `key "methods" is missing`},
		{"methods: [ls]", "methods: wants a mapping, got a list"},
		{"methods: {a: [ls]}", "methods.a: wants a mapping, got a list"},
		{"methods: {a: ''}", "methods.a: the script is empty"},
		{"methods: {a: {command: ' \n'}}", "methods.a.command: the script is empty"},
		{"methods: {a: {cmd: ls}}", `unknown key "methods.a.cmd"`},
		{"methods: {a: {descripton: x}}", `unknown key "methods.a.descripton"; did you mean "description"?`},
		{"methods: {a: {timeout: soon}}", "methods.a.timeout: wants a number of seconds"},
		{"methods: {a: {timeout: -1}}", "methods.a.timeout: -1 is out of range"},
		{"{methods: {a: ls}, timeout: -1}", "timeout: -1 is out of range"},
		{"{methods: {a: ls}, shell: bash -c}", "shell: wants a list"},
		{"{methods: {a: ls}, cwd: [/]}", "cwd: wants text"},
		{"{methods: {a: ls}, user: root}", `unknown key "user"`},
	} {
		_, problems := drivertest.Bench{}.Plan(t, test.config, local.Shell)
		got := fmt.Sprint(problems.Err())
		if test.want == "" && problems.Err() != nil || !strings.Contains(got, test.want) {
			t.Errorf("Plan(%s) = %v; want an error with %q", test.config, got, test.want)
		}
	}
}

// Descriptions are under the methods' names as they are written.
func TestDescriptions(t *testing.T) {
	tree, problems := driver.Plan(driver.Decl{Type: local.Shell.Type,
		Methods: map[string]string{"Some_Method": "loses", "other": "stays"},
		Config:  drivertest.YAML(t, "methods: {Some_Method: {description: wins}, none: ls, empty: {description: ''}, other: ls}"),
	}, driver.Options{Specs: []driver.Spec{local.Shell}})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"Some_Method": "wins", "empty": "", "other": "stays"}
	if got := tree.Reports()[0].Methods; !maps.Equal(got, want) {
		t.Errorf("described methods = %q; want %q", got, want)
	}
}

// Callers of other languages send what they like.
func TestArguments(t *testing.T) {
	d, err := drivertest.Bench{}.Tree(t, `{methods: {echo: 'echo "$1$X"'}}`, local.Shell).Root.Driver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e, _ := d.Export("call_method")
	for _, test := range []struct {
		args []any
		want string // in an ArgError, or the output
		fail bool
	}{
		{[]any{"echo", nil, "a"}, "[a\n  <nil>]", false},
		{[]any{"echo", map[string]any{"X": "b"}}, "[b\n  <nil>]", false},
		{[]any{"echo"}, "[\n  <nil>]", false},
		{nil, "arguments given: 0", true},
		{[]any{nil}, "method: wants text, got null", true},
		{[]any{5.0, nil}, "method: wants text, got 5", true},
		{[]any{"echo", "X=b"}, "env: wants a mapping", true},
		{[]any{"echo", map[string]any{"X": 5.0}}, "env.X: wants text, got 5", true},
		{[]any{"echo", nil, "a", 5.0}, "args[1]: wants text, got 5", true},
		{[]any{"echo", nil, nil}, "args[0]: wants text, got null", true},
	} {
		var got any
		seq, err := e.Feed(t.Context(), test.args)
		if err == nil {
			for v, e := range seq {
				if err = e; got == nil {
					got = v
				}
			}
		}
		var bad *driver.ArgError
		switch {
		case test.fail && (!errors.As(err, &bad) || !strings.Contains(err.Error(), test.want)):
			t.Errorf("call_method(%v) = %v; want an ArgError with %q", test.args, err, test.want)
		case !test.fail && (err != nil || fmt.Sprint(got) != test.want):
			t.Errorf("call_method(%v) = %q, %v; want %q", test.args, got, err, test.want)
		}
	}
}

// said is the standard output of a call that goes well.
func said(t testing.TB, s shell.Interface, method string, args ...string) string {
	t.Helper()
	var out, errs strings.Builder
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	code, err := shell.Run(ctx, s, &out, &errs, method, nil, args...)
	if code != 0 || err != nil {
		t.Fatalf("Run(%s) = %d, %v, %q; want 0, nil", method, code, err, &errs)
	}
	return strings.TrimSuffix(out.String(), "\n")
}

func TestWorkingDirectory(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	file, sub := filepath.Join(dir, "file"), filepath.Join(dir, "sub")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for cwd, want := range map[string]string{dir: dir, "": here, "null": here, ".": here} {
		if got := said(t, open(t, "{methods: {pwd: pwd -P}, cwd: "+cwd+"}"), "pwd"); got != want {
			t.Errorf("cwd %q is %s; want %s", cwd, got, want)
		}
	}
	for _, cwd := range []string{file, sub} {
		s := open(t, "{methods: {pwd: pwd -P}, cwd: "+cwd+"}")
		_, err := shell.Run(t.Context(), s, nil, nil, "pwd", nil)
		if driver.Classify(err) != driver.Invalid || !strings.Contains(err.Error(), "working directory does not exist: "+cwd) {
			t.Errorf("cwd %s: Run() = %v; want an error of class %v", cwd, err, driver.Invalid)
		}
		if cwd == sub { // it may come
			if err := os.Mkdir(sub, 0o700); err != nil {
				t.Fatal(err)
			}
			if got := said(t, s, "pwd"); got != sub {
				t.Errorf("cwd %q is %s; want %s", cwd, got, sub)
			}
		}
	}
}

func TestShells(t *testing.T) {
	for shell, want := range map[string]string{
		"[bash, -c]":           "m x y",
		"[/bin/sh, -eu, -c]":   "m x y",
		"[env, Z=z, bash, -c]": "m x yz",
		"[echo, -n]":           "echo $0 $1 $2${Z-} m x y",
	} {
		got := said(t, open(t, "{methods: {m: 'echo $0 $1 $2${Z-}'}, shell: "+shell+"}"), "m", "x", "y")
		if got != want {
			t.Errorf("shell %s says %q; want %q", shell, got, want)
		}
	}
	// Without a shell the script is the program.
	if got := said(t, open(t, "{methods: {m: echo}, shell: []}"), "m", "x"); got != "m x" {
		t.Errorf("no shell says %q; want %q", got, "m x")
	}
	for _, missing := range []string{"no-such-shell", "/no/such/shell", "/etc"} {
		_, err := shell.Run(t.Context(), open(t, "{methods: {m: ls}, shell: ["+missing+", -c]}"), nil, nil, "m", nil)
		if driver.Classify(err) != driver.Device || !strings.Contains(fmt.Sprint(err), missing) {
			t.Errorf("shell %s: Run() = %v; want an error of class %v that names it", missing, err, driver.Device)
		}
	}
}

// What is known of a script's caller is known of its log, but for the values of
// variables, which may be secrets.
func TestLog(t *testing.T) {
	var log drivertest.Log
	s := shell.NewClient(drivertest.Bench{Log: &log}.Open(t,
		`{methods: {fail: exit 3, slow: {command: sleep 1000, timeout: 0}, leave: sleep 1000 &}}`, local.Shell))
	for _, method := range []string{"fail", "slow", "leave"} {
		if _, err := shell.Run(t.Context(), s, nil, nil, method, map[string]string{"TOKEN": "hush"}, "arg1"); err != nil {
			t.Errorf("Run(%s) = %v; want nil", method, err)
		}
	}
	got := log.String()
	for _, want := range []string{
		"level=INFO msg=calling driver=root driver_type=shell method=fail args=[arg1]",
		"level=INFO msg=returned driver=root driver_type=shell method=fail code=3",
		`level=ERROR msg="time is over" driver=root driver_type=shell method=slow timeout=0s`,
		`level=WARN msg="processes in the background keep the output open; what they write from now on is dropped" driver=root driver_type=shell method=leave`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("log = %s; want a record with %s", got, want)
		}
	}
	if strings.Contains(got, "hush") {
		t.Errorf("log = %s; want no values of variables", got)
	}
}

// hides are the ways in which processes get away from a script's process group.
// HIDDEN stands for a command that goes on for long.
var hides = map[string]string{
	"child":             "HIDDEN &",
	"grandchild":        "(HIDDEN & :)",
	"nohup":             "nohup HIDDEN >/dev/null 2>&1 &",
	"disowned":          "HIDDEN & disown",
	"job control":       "set -m; HIDDEN & set +m",
	"job control, bare": "set -m; env -i HIDDEN & set +m",
	"timeout":           "timeout 2000 HIDDEN &",
	"session":           "setsid HIDDEN &",
	"daemon":            "setsid bash -c 'cd /; HIDDEN & HIDDEN & exec >/dev/null 2>&1; wait' &",
	"no variables":      "env -i HIDDEN &",
	"deaf":              "(trap '' TERM HUP INT; HIDDEN; HIDDEN) &",
	"other streams":     "HIDDEN <&- >&- 2>&- &",
}

// hiding opens a script that hides a process and, when that runs, says so and
// goes on with what is given. The process is known by its name, the mark.
func hiding(t *testing.T, hide, then string) (tree *driver.Tree, s shell.Interface, mark string) {
	t.Helper()
	mark = fmt.Sprintf("hidden-%d-%d", os.Getpid(), time.Now().UnixNano())
	script := "{ " + strings.ReplaceAll(hides[hide], "HIDDEN", `bash -c "exec -a $M sleep 1000"`) + `
} >/dev/null 2>&1
until pgrep -f "^$M " >/dev/null; do sleep 0.01; done; echo ready; ` + then
	tree = drivertest.Bench{}.Tree(t, fmt.Sprintf("methods: {m: %q}", "export M="+mark+"; "+script), local.Shell)
	return tree, shell.NewClient(tree.Root.Caller()), mark
}

// hidden are the living processes with a mark.
func hidden(mark string) (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		text, err := os.ReadFile(f)
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err == nil && strings.HasPrefix(string(text), mark+"\x00") && shelltest.Alive(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// ready follows a call until its script has hidden its process, and then until it
// ends or the function says that it has heard enough.
func ready(t *testing.T, s shell.Interface, then func() bool) (last error) {
	t.Helper()
	for o, err := range s.Call(t.Context(), "m", nil) {
		if last = err; strings.Contains(o.Stdout, "ready") && !then() {
			return nil
		}
	}
	return last
}

func closing(t *testing.T, tree *driver.Tree, mark string) {
	t.Helper()
	if err := tree.Close(); err != nil {
		t.Errorf("Close() = %v; want nil", err)
	}
	// Close has killed them; on a busy machine the kernel takes a moment more.
	drivertest.Until(t, "no process is left", func() bool { return len(hidden(mark)) == 0 })
}

// TestEnd ends calls whose scripts have hidden processes.
func TestEnd(t *testing.T) {
	drivertest.NoLeaks(t)
	for hide := range hides {
		t.Run("session/"+hide, func(t *testing.T) {
			tree, s, mark := hiding(t, hide, "sleep 1000")
			err := ready(t, s, func() bool {
				closing(t, tree, mark)
				return true
			})
			if driver.Classify(err) != driver.Unavailable {
				t.Errorf("Call() = %v; want an error of class %v", err, driver.Unavailable)
			}
		})
		if hide == "deaf" {
			continue // would take the five seconds that it has, which TestKeeper counts
		}
		t.Run("call/"+hide, func(t *testing.T) {
			_, s, mark := hiding(t, hide, "sleep 1000")
			if err := ready(t, s, func() bool { return false }); err != nil {
				t.Errorf("Call() = %v; want output", err)
			}
			if left := hidden(mark); len(left) > 0 {
				t.Errorf("a call that was left leaves %d processes; want none", len(left))
			}
		})
	}
}

// What a script leaves behind lives until the end of the session.
func TestLeft(t *testing.T) {
	drivertest.NoLeaks(t)
	for hide := range hides {
		t.Run(hide, func(t *testing.T) {
			tree, s, mark := hiding(t, hide, "exit 0")
			if err := ready(t, s, func() bool { return true }); err != nil {
				t.Errorf("Call() = %v; want its end", err)
			}
			if len(hidden(mark)) == 0 {
				t.Error("the process has ended with the call; want it alive")
			}
			closing(t, tree, mark)
			if _, err := shell.Run(t.Context(), s, nil, nil, "m", nil); driver.Classify(err) != driver.Unavailable {
				t.Errorf("Run() after Close = %v; want an error of class %v", err, driver.Unavailable)
			}
		})
	}
}

// One call's end does not concern the others, and one node's none of another's.
func TestOthers(t *testing.T) {
	const config = "{methods: {m: 'echo $$; sleep 1000'}}"
	a, b := drivertest.Bench{}.Tree(t, config, local.Shell), drivertest.Bench{}.Tree(t, config, local.Shell)
	var pids []int
	var begin func(trees ...*driver.Tree)
	begin = func(trees ...*driver.Tree) {
		if len(trees) == 0 {
			if err := a.Close(); err != nil {
				t.Errorf("Close() = %v; want nil", err)
			}
			if !shelltest.Alive(pids[2]) || shelltest.Alive(pids[0]) || shelltest.Alive(pids[1]) {
				t.Error("Close() of one node ends other scripts than its own")
			}
			return
		}
		for o, err := range shell.NewClient(trees[0].Root.Caller()).Call(t.Context(), "m", nil) {
			if err != nil {
				break // of those that were closed
			}
			pid, err := strconv.Atoi(strings.TrimSpace(o.Stdout))
			if err != nil {
				t.Fatalf("Call() = %+v; want a process number", o)
			}
			pids = append(pids, pid)
			begin(trees[1:]...)
			if len(trees) == 1 {
				break
			}
		}
		if i := 2 - len(trees) + 1; len(trees) == 1 && !shelltest.Alive(pids[i]) && i < 2 {
			t.Error("the end of one call ends another")
		}
	}
	begin(a, a, b)
}

// TestSlowReader looks at how far a script gets whose output nobody takes.
func TestSlowReader(t *testing.T) {
	const block, blocks = 65536, 160
	for name, test := range map[string]struct {
		open func(testing.TB, string) *shell.Client
		most int
	}{
		"in process":    {open, 4},                 // a pipe, a chunk at the reader, a chunk at the caller, one on its way
		"over the wire": {wire, (4 << 20) / block}, // and gRPC's windows and buffers
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "progress")
			s := test.open(t, `{methods: {m: 'for ((i = 1; i <= $2; i++)); do head -c "$3" /dev/zero; echo $i > "$1"; done'}}`)
			progress := func() int {
				text, _ := os.ReadFile(file)
				n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
				return n
			}
			got, stalled := 0, false
			for o, err := range s.Call(t.Context(), "m", nil, file, strconv.Itoa(blocks), strconv.Itoa(block)) {
				if err != nil {
					t.Fatalf("Call() = %v; want output", err)
				}
				if got += len(o.Stdout); stalled {
					continue
				}
				stalled = true
				last, same := -1, 0
				drivertest.Until(t, "the script waits", func() bool {
					if now := progress(); now == last {
						same++
					} else {
						last, same = now, 0
					}
					return same == 250
				})
				if last > test.most {
					t.Errorf("a script without a reader writes %d KiB; want at most %d", last*block>>10, test.most*block>>10)
				}
			}
			if got != blocks*block {
				t.Errorf("Call() = %d bytes; want %d", got, blocks*block)
			}
		})
	}
}

// A script's time passes also when nobody takes its output, and what it wrote
// until then is not lost.
func TestTimeWithoutReader(t *testing.T) {
	s := open(t, `{methods: {m: {command: 'echo $$; head -c 70000 /dev/zero; sleep 1000', timeout: 0.5}}}`)
	pid, got, code := 0, 0, 0
	for o, err := range s.Call(t.Context(), "m", nil) {
		if err != nil {
			t.Fatalf("Call() = %v; want output", err)
		}
		if pid == 0 {
			line, _, _ := strings.Cut(o.Stdout, "\n")
			pid, _ = strconv.Atoi(line)
			got -= len(line) + 1
			drivertest.Until(t, "the script has ended", func() bool { return !shelltest.Alive(pid) })
		}
		got += len(o.Stdout)
		if o.Code != nil {
			code = *o.Code
		}
	}
	if got != 70000 || code != shell.TimeoutCode {
		t.Errorf("Call() = %d bytes, %d; want 70000, %d", got, code, shell.TimeoutCode)
	}
}

// A reader that takes its time costs a script that has ended neither its output
// nor its exit status.
func TestSlowerThanTimeout(t *testing.T) {
	s := open(t, `{methods: {m: {command: 'echo $$; head -c 60000 /dev/zero; exit 7', timeout: 0.5}}}`)
	got, code := 0, 0
	var late <-chan time.Time
	for o, err := range s.Call(t.Context(), "m", nil) {
		if err != nil {
			t.Fatalf("Call() = %v; want output", err)
		}
		if late == nil {
			late = time.After(time.Second)
			<-late
		}
		got += strings.Count(o.Stdout, "\x00")
		if o.Code != nil {
			code = *o.Code
		}
	}
	if got != 60000 || code != 7 {
		t.Errorf("Call() = %d bytes, %d; want 60000, 7", got, code)
	}
}

// A caller that panics leaves nothing behind.
func TestPanic(t *testing.T) {
	drivertest.NoLeaks(t)
	s := open(t, "{methods: {m: 'echo $$; sleep 1000'}}")
	pid := 0
	func() {
		defer func() {
			if v := recover(); v != "caller" {
				t.Errorf("recover() = %v; want the caller's own panic", v)
			}
		}()
		for o := range s.Call(t.Context(), "m", nil) {
			pid, _ = strconv.Atoi(strings.TrimSpace(o.Stdout))
			panic("caller")
		}
	}()
	if pid == 0 || shelltest.Alive(pid) {
		t.Errorf("process %d is alive; want it to end with its caller", pid)
	}
}

// doomed says that the test program is the exporter that TestKilled kills.
const doomed = "JUMPLEAD_TEST_DOOMED"

func TestMain(m *testing.M) {
	if os.Getenv(doomed) != "" {
		fmt.Println("exporter:", serve())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// serve runs a script that does not end, and prints what it says.
func serve() error {
	var config yaml.Node
	if err := yaml.Unmarshal([]byte("{methods: {m: 'echo $$; exec sleep 1000'}}"), &config); err != nil {
		return err
	}
	tree, problems := driver.Plan(driver.Decl{Type: local.Shell.Type, Config: &config}, driver.Options{Specs: []driver.Spec{local.Shell}})
	if err := problems.Err(); err != nil {
		return err
	}
	_, err := shell.Run(context.Background(), shell.NewClient(tree.Root.Caller()), os.Stdout, os.Stdout, "m", nil)
	return err
}

// An exporter that is killed takes its scripts' shells along.
func TestKilled(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), doomed+"=1")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	pid, _ := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || !shelltest.Alive(pid) {
		t.Errorf("the script says %q, %v; want its number", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	drivertest.Until(t, "the script has ended", func() bool { return !shelltest.Alive(pid) })
}
