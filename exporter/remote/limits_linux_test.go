package remote_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/remote"
	"github.com/jumplead/jumplead/hw/hwtest"
	"github.com/jumplead/jumplead/hw/process"
)

// greedy serves a hosted driver that takes much, with limits, beside a native one.
func greedy(t *testing.T, l driver.Limits) *bench {
	t.Helper()
	python := stock(t)
	here, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PYTHONPATH", here)
	far := driver.Decl{Name: "far", Type: "lab_greedy.Greedy", Limits: &l}
	far.Hosting.Python = python
	return serve(t, far, driver.Decl{Name: "near", Type: native.Type})
}

// A stock driver under limits that leave it enough works, and what it asks for
// beyond them is refused, while it goes on.
func TestLimits(t *testing.T) {
	dir := t.TempDir()
	b := greedy(t, driver.Limits{OpenFiles: 128, FileSize: 4 << 20, CPUTime: time.Hour, NoNewPrivileges: true})
	n := b.find(t, "far")
	state := b.call(t, "far", "state").(map[string]any)
	if state["NoNewPrivs"] != "1" {
		t.Errorf("NoNewPrivs = %v; want 1", state["NoNewPrivs"])
	}
	b.call(t, "far", "on")
	path := filepath.Join(dir, "file")
	if got := b.call(t, "far", "write", path, 3); got != float64(3<<20) {
		t.Errorf("a small file has %v bytes; want %d", got, 3<<20)
	}
	for _, c := range []struct {
		method string
		args   []any
		want   string
	}{
		{"files", []any{1000}, "Too many open files"},
		{"write", []any{path, 8}, "File too large"},
	} {
		_, err := n.Call(soon(t), c.method, c.args...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Call(%s) = %v; want %q", c.method, err, c.want)
		}
		if again := b.call(t, "far", "state").(map[string]any); again["pid"] != state["pid"] {
			t.Errorf("after %s the process is another one", c.method)
		}
	}
	if !strings.Contains(b.log.String(), "hosted drivers have limits") || !strings.Contains(b.log.String(), "open_files 128 for each process") {
		t.Errorf("log = %s; want how limits are kept", b.log)
	}
}

// Memory that is not there is refused, or the process ends and says why; then it is
// back.
func TestMemoryLimit(t *testing.T) {
	l := driver.Limits{Memory: 400 << 20}
	b := greedy(t, l)
	n := b.find(t, "far")
	if got := b.call(t, "far", "hoard", 10); got != float64(10<<20) {
		t.Errorf("hoard(10) = %v; want it", got)
	}
	_, err := n.Call(soon(t), "hoard", 500)
	if err == nil || !strings.Contains(err.Error(), "the memory limit of 400M was reached") {
		t.Errorf("Call(hoard) = %v; want an error that names the limit", err)
	}
	eventually(t, "it is back", func() bool {
		_, err := n.Call(soon(t), "state")
		return err == nil
	})
	if got := b.call(t, "near", "path"); got != "near" {
		t.Errorf("path of a native node = %v; want near", got)
	}
}

// A process whose time is over says so, and is back with a pause.
func TestCPULimit(t *testing.T) {
	b := greedy(t, driver.Limits{CPUTime: 4 * time.Second})
	n := b.find(t, "far")
	before := b.call(t, "far", "state").(map[string]any)["pid"]
	_, err := n.Call(t.Context(), "spin")
	if driver.Classify(err) != driver.Unavailable || !strings.Contains(err.Error(), "the cpu_time limit of 4s was reached") {
		t.Errorf("Call(spin) = %v; want an error of class %v that names the limit", err, driver.Unavailable)
	}
	var after any
	eventually(t, "it is back", func() bool {
		state, err := n.Call(soon(t), "state")
		if err == nil {
			after = state.(map[string]any)["pid"]
		}
		return err == nil
	})
	if after == before {
		t.Errorf("the process is %v as before; want another", after)
	}
}

func TestProcessesLimit(t *testing.T) {
	l := driver.Limits{Processes: 60}
	if _, err := process.Keeps(l, ""); err != nil {
		unkept(t, l, "processes 60 cannot be kept")
		return
	}
	b := greedy(t, l)
	if got := b.call(t, "far", "multiply", 3); got != 3.0 {
		t.Errorf("multiply(3) = %v; want 3", got)
	}
	if _, err := b.find(t, "far").Call(soon(t), "multiply", 100); err == nil || !strings.Contains(err.Error(), "Resource temporarily unavailable") {
		t.Errorf("Call(multiply) = %v; want it refused", err)
	}
	b.call(t, "far", "state")
}

func TestCPUShare(t *testing.T) {
	l := driver.Limits{CPU: 80}
	if _, err := process.Keeps(l, ""); err != nil {
		unkept(t, l, "cpu 80% cannot be kept")
		return
	}
	b := greedy(t, l)
	b.call(t, "far", "on")
}

// unkept expects nodes that say which limit cannot be kept.
func unkept(t *testing.T, l driver.Limits, want string) {
	t.Helper()
	python := stock(t)
	far := driver.Decl{Name: "far", Type: "jumpstarter_driver_power.driver.MockPower", Limits: &l}
	far.Hosting.Python, far.Hosting.Wanted = python, true
	h := &remote.Hosts{}
	defer h.Close()
	if _, problems := plan(t, h, nil, far); problems.Err() == nil || !strings.Contains(problems.Err().Error(), want) {
		t.Errorf("Plan() = %v; want %q", problems, want)
	}
}

// Files are out of a hosted driver's reach but for Python's, the driver's and what
// it is given.
func TestFilesLimit(t *testing.T) {
	// Not hwtest.Landlock, for which all of these tests would run in a virtual machine.
	hwtest.NeedFunc(t, "landlock", func() error {
		_, err := process.Keeps(driver.Limits{Read: []driver.Path{}}, "")
		return err
	})
	dir := t.TempDir()
	for _, name := range []string{"mine", "theirs"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("text"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b := greedy(t, driver.Limits{Read: []driver.Path{driver.Path(filepath.Join(dir, "theirs"))}})
	b.call(t, "far", "on")
	if got := b.call(t, "far", "read", filepath.Join(dir, "theirs")); got != "text" {
		t.Errorf("a file within reach = %v; want its text", got)
	}
	for method, args := range map[string][]any{"read": {filepath.Join(dir, "mine")}, "write": {filepath.Join(dir, "theirs"), 0}} {
		if _, err := b.find(t, "far").Call(soon(t), method, args...); err == nil || !strings.Contains(err.Error(), "Permission denied") {
			t.Errorf("Call(%s, %v) = %v; want it denied", method, args, err)
		}
	}
	scratch, _ := b.call(t, "far", "scratch").(string)
	if !strings.Contains(scratch, "jumplead-") {
		t.Errorf("temporary files are in %q; want a folder of the process's own", scratch)
	}
}

// Limits make processes: nodes with the same share one, and what refers to another
// needs the same.
func TestLimitsPart(t *testing.T) {
	python(t, "ok")
	few := &driver.Limits{OpenFiles: 100}
	limited := func(name string, l *driver.Limits) driver.Decl {
		d := good(name)
		d.Limits = l
		return d
	}
	b := serve(t, limited("a", few), limited("b", &driver.Limits{OpenFiles: 100}), limited("c", nil))
	pids := map[string]any{}
	for _, name := range []string{"a", "b", "c"} {
		pids[name] = b.call(t, name, "pid")
	}
	if pids["a"] != pids["b"] || pids["a"] == pids["c"] {
		t.Errorf("processes = %v; want one for a and b, another for c", pids)
	}
	for _, l := range []*driver.Limits{few, {OpenFiles: 99}, nil} {
		d := limited("a", few)
		d.Children = []driver.Decl{{Name: "other", Ref: "b"}}
		h := &remote.Hosts{Getenv: func(k string) string { return map[string]string{"JUMPLEAD_PYTHON": os.Args[0]}[k] }}
		_, problems := plan(t, h, nil, d, limited("b", l))
		h.Close()
		const want = `a: ref "b" leads into another process: give both the same python, user and limits`
		if err := problems.Err(); (err == nil) != (l == few) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("Plan() with limits %v and %v = %v; want %q", few, l, err, want)
		}
	}
}
