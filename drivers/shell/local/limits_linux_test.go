package local_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/shell"
	"github.com/jumplead/jumplead/drivers/shell/local"
	"github.com/jumplead/jumplead/drivers/shell/shelltest"
	"github.com/jumplead/jumplead/hw/hwtest"
	"github.com/jumplead/jumplead/hw/process"
)

// limited opens scripts with limits.
func limited(t testing.TB, config string, l driver.Limits) *shell.Client {
	t.Helper()
	tree, problems := driver.Plan(driver.Decl{Type: local.Shell.Type, Config: drivertest.YAML(t, config), Limits: &l},
		driver.Options{Specs: []driver.Spec{local.Shell}})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tree.Close(); err != nil {
			t.Errorf("Close() = %v; want nil", err)
		}
	})
	if err := tree.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return shell.NewClient(tree.Root.Caller())
}

// A script that runs into a limit says so.
func TestLimits(t *testing.T) {
	drivertest.NoLeaks(t)
	file, hoards := filepath.Join(t.TempDir(), "file"), 2 // as bash ends when it gets no more
	if how, _ := process.Keeps(driver.Limits{Memory: 48 << 20}, ""); strings.Contains(how, "by a control group") {
		hoards = -int(syscall.SIGKILL)
	}
	for _, c := range []struct {
		name, script string
		limits       driver.Limits
		code         int
		want         string
	}{
		{"computes", `while :; do :; done`, driver.Limits{CPUTime: time.Second}, -int(syscall.SIGXCPU), "m: the cpu_time limit of 1s was reached"},
		{"writes", `exec head -c 1M /dev/zero > "$1"`, driver.Limits{FileSize: 64 << 10}, -int(syscall.SIGXFSZ), "m: the file_size limit of 64K was reached"},
		{"hoards", `x=$(head -c 100M /dev/zero | tr "\\0" x); exit 9`, driver.Limits{Memory: 48 << 20}, hoards, "m: the memory limit of 48M was reached"},
		{"behaves", `exec true`, driver.Limits{CPUTime: time.Minute, OpenFiles: 64, NoNewPrivileges: true}, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := limited(t, "{methods: {m: '"+c.script+"'}}", c.limits)
			var stderr strings.Builder
			code, err := shell.Run(t.Context(), s, nil, &stderr, "m", nil, file)
			said := strings.TrimSpace(stderr.String())
			if got := said[strings.LastIndexByte(said, '\n')+1:]; err != nil || code != c.code || got != c.want {
				t.Errorf("Run() = %d, %q, %v; want %d, %q", code, got, err, c.code, c.want)
			}
		})
	}
}

// Files are out of reach but for those that the script is given: among them a
// folder of its own, which goes with the session.
func TestLimitedFiles(t *testing.T) {
	// Not hwtest.Landlock, for which all of these tests would run in a virtual machine.
	hwtest.NeedFunc(t, "landlock", func() error {
		_, err := process.Keeps(driver.Limits{Read: []driver.Path{}}, "")
		return err
	})
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	const methods = `methods: {tmp: 'echo "$TMPDIR" > "$TMPDIR/name" && cat "$TMPDIR/name"', cat: 'cat "$1"', mk: mktemp}`
	l := driver.Limits{Read: []driver.Path{}}
	scratch := ""
	t.Run("session", func(t *testing.T) {
		s := limited(t, "{"+methods+"}", l)
		scratch = said(t, s, "tmp")
		if got := said(t, s, "mk"); filepath.Dir(got) != scratch {
			t.Errorf("mktemp = %s; want a file in %s", got, scratch)
		}
		var stderr strings.Builder
		code, err := shell.Run(t.Context(), s, nil, &stderr, "cat", nil, filepath.Join(dir, "file"))
		if err != nil || code == 0 || !strings.Contains(stderr.String(), "Permission denied") {
			t.Errorf("reading what is out of reach = %d, %q, %v; want it denied", code, &stderr, err)
		}
	})
	if _, err := os.Stat(scratch); !os.IsNotExist(err) {
		t.Errorf("the scripts' folder %q after the session: %v; want it gone", scratch, err)
	}
	if got := said(t, limited(t, "{"+methods+", cwd: "+dir+"}", l), "cat", "file"); got != "text" {
		t.Errorf("a file of the working directory = %q; want its text", got)
	}
	l.Read = []driver.Path{driver.Path(dir)}
	if got := said(t, limited(t, "{"+methods+"}", l), "cat", filepath.Join(dir, "file")); got != "text" {
		t.Errorf("a file within reach = %q; want its text", got)
	}
}

// Limits that cannot be kept are told, and nothing is run without them.
func TestUnkept(t *testing.T) {
	l := driver.Limits{CPU: 50}
	_, unkept := process.Keeps(l, "")
	s := limited(t, "{methods: {m: 'echo runs'}}", l)
	var out strings.Builder
	_, err := shell.Run(t.Context(), s, &out, nil, "m", nil)
	switch {
	case unkept == nil && (err != nil || out.String() != "runs\n"):
		t.Errorf("Run() = %q, %v; want the script run", &out, err)
	case unkept != nil && (driver.Classify(err) != driver.Unavailable || !strings.Contains(err.Error(), "cpu 50% cannot be kept") || out.Len() > 0):
		t.Errorf("Run() = %q, %v; want an error that says what cannot be kept", &out, err)
	}
}

// The end of a call, and of the session, is that of all that the script has started,
// limits or not.
func TestLimitedEnds(t *testing.T) {
	drivertest.NoLeaks(t)
	s := limited(t, `{methods: {m: 'setsid setsid sleep 1000 >/dev/null 2>&1 & echo $!; sleep 1000'}}`, driver.Limits{OpenFiles: 64, NoNewPrivileges: true})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	pid := 0
	for o, err := range s.Call(ctx, "m", nil) {
		if err == nil && pid == 0 {
			if pid, err = strconv.Atoi(strings.TrimSpace(o.Stdout)); err != nil {
				t.Errorf("Call() = %+v; want a process number", o)
			}
			cancel()
		}
	}
	if pid == 0 || shelltest.Alive(pid) {
		t.Errorf("process %d is alive; want it to end with the call", pid)
	}
}

// BenchmarkLimitedCall is [BenchmarkCall] with limits.
func BenchmarkLimitedCall(b *testing.B) {
	s := limited(b, "{methods: {nothing: 'exit 0'}}", driver.Limits{OpenFiles: 64})
	for b.Loop() {
		if code, err := shell.Run(b.Context(), s, nil, nil, "nothing", nil); code != 0 || err != nil {
			b.Fatalf("Run() = %d, %v; want 0, nil", code, err)
		}
	}
}
