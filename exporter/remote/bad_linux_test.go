package remote_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/remote"
)

var update = flag.Bool("update", false, "write the golden files anew")

// A bad is a process or a driver in it that goes wrong.
type bad struct {
	name  string
	mode  string        // of the process that stands in for Python; "" is Python itself
	typ   string        // of the node x; the node other is good
	start time.Duration // how long it may take to be ready; 0 is 10 s
	limit time.Duration // for the call; 0 is 10 s
	calls int           // how often x is called until it has gone wrong; 0 is once
}

// What goes wrong with hosted drivers is told in words that name the node and the
// cause: when the config is read, in the log of the start, and to who calls the
// node. Nothing of it reaches another node for longer than a restart takes. The
// words are in testdata.
func TestBad(t *testing.T) {
	checkBad(t, "testdata/bad.golden", []bad{
		{name: "prints what is no text before it is ready", mode: "prints"},
		{name: "prints without end", mode: "noisy"},
		{name: "closes its pipe before it is ready", mode: "closes", start: 5 * time.Second},
		{name: "says that it is ready, and serves nothing", mode: "nosocket"},
		{name: "speaks no gRPC on its socket", mode: "garbage"},
		{name: "says nothing on its socket", mode: "mute", limit: 300 * time.Millisecond},
		{name: "closes its pipe", mode: "ok", typ: "fake.Closes"},
		{name: "says too much", mode: "ok", typ: "fake.Huge"},
		{name: "answers twice, and what was not asked", mode: "ok", typ: "fake.Twice"},
		{name: "reports no base64", mode: "ok", typ: "fake.NotBase64"},
		{name: "reports no message", mode: "ok", typ: "fake.NotProto"},
		{name: "reports nothing", mode: "ok", typ: "fake.Nothing"},
		{name: "reports two roots", mode: "ok", typ: "fake.TwoRoots"},
		{name: "reports a child first", mode: "ok", typ: "fake.Orphan"},
		{name: "reports a child without a name", mode: "ok", typ: "fake.Nameless"},
		{name: "reports too many", mode: "ok", typ: "fake.Many"},
	})
}

// TestPythonBad does it with Python and the stock release.
func TestPythonBad(t *testing.T) {
	checkBad(t, "testdata/python.golden", []bad{
		{name: "is not there", typ: "jumpstarter_driver_nowhere.driver.X"},
		{name: "lacks what it needs", typ: "lab_needs.X"},
		{name: "is no Python", typ: "lab_syntax.X"},
		{name: "raises when it is imported", typ: "lab_raise.X"},
		{name: "exits when it is imported", typ: "lab_exit.X"},
		{name: "ends Python when it is imported", typ: "lab_gone.X"},
		{name: "hangs when it is imported", typ: "lab_hang.X", start: 6 * time.Second},
		{name: "raises when it is made", typ: "lab_bad.Raises"},
		{name: "exits when it is made", typ: "lab_bad.Exits"},
		{name: "ends Python when it is made", typ: "lab_bad.Dies"},
		{name: "hangs when it is made", typ: "lab_bad.Hangs", start: 6 * time.Second},
		{name: "raises when it is asked for its report", typ: "lab_bad.ReportRaises"},
		{name: "ends Python when it is asked for its report", typ: "lab_bad.ReportDies"},
		{name: "does not reset", typ: "lab_bad.ResetRaises"},
		{name: "crashes Python in a call", typ: "lab_bad.Segfaults"},
		{name: "ends Python in a call", typ: "lab_bad.CallExits"},
		{name: "exits in a call", typ: "lab_bad.CallRaises"},
		{name: "prints, and reads what is not its own", typ: "lab_bad.Loud"},
		{name: "closes what is not its own", typ: "lab_bad.Closes"},
	})
}

func checkBad(t *testing.T, golden string, all []bad) {
	t.Helper()
	var got strings.Builder
	for _, c := range all {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			fmt.Fprintf(&got, "-- %s --\n%s\n", c.name, c.run(t))
		})
	}
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	sections := func(text string) []string { return strings.Split(strings.TrimSpace(text), "\n\n") }
	want := sections(string(text))
	for _, s := range sections(got.String()) {
		if !slices.Contains(want, s) {
			t.Errorf("%s says\n%s\nwant what it has under that name, or -update", golden, s)
		}
	}
}

// vague replaces what is different each time.
var vague = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`\S*/(bin/python[0-9.]*|remote\.test)`), "PYTHON"},
	{regexp.MustCompile(`\bremote\.test\b`), "PYTHON"},
	{regexp.MustCompile(`/\S*/(jumplead-|remote-)[^/ ]*`), "DIR"},
	{regexp.MustCompile(`/\S*/(site-packages|testdata/hosted|lib/python[0-9.]+)/`), "LIB/"},
	{regexp.MustCompile(`python3?(\.\d+)* (ended|was)`), "PYTHON $2"},
	{regexp.MustCompile(`PYTHON (ended|was)`), "python $1"},
	{regexp.MustCompile(`line \d+`), "line N"},
	{regexp.MustCompile(`0x[0-9a-f]{6,}`), "0xN"},
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "UUID"},
	// What Python adds differs by its version.
	{regexp.MustCompile(`(status \d+|Segmentation fault)(:   File| \| ).*`), "$1 ..."},
	{regexp.MustCompile(`driver_type=\S* `), ""},
	{regexp.MustCompile(`\x{a0}|\\u00a0`), " "}, // package proto likes to change its errors
	{regexp.MustCompile(`x{50,}`), "xxx..."},
}

func steadied(text string) string {
	for _, v := range vague {
		text = v.what.ReplaceAllString(text, v.with)
	}
	return text
}

// run tells what is said of it.
func (c bad) run(t *testing.T) string {
	t.Helper()
	var interpreter string
	if c.mode == "" {
		interpreter = stock(t)
	} else {
		interpreter = python(t, c.mode)
	}
	good, typ := "fake.Good", c.typ
	if c.mode == "" {
		good = "lab_gadget.Gadget"
	}
	if typ == "" {
		typ = good
	}
	var said strings.Builder
	log := new(records)
	h := &remote.Hosts{Getenv: func(k string) string { return map[string]string{"JUMPLEAD_PYTHON": interpreter}[k] }, Start: 10 * time.Second}
	if c.start > 0 {
		h.Start = c.start
	}
	defer h.Close()
	tree, problems := plan(t, h, slog.New(slog.NewTextHandler(log, nil)),
		driver.Decl{Name: "near", Type: native.Type}, driver.Decl{Name: "other", Type: good}, driver.Decl{Name: "x", Type: typ})
	for _, p := range problems {
		kind := "error"
		if p.Warning {
			kind = "warning"
		}
		fmt.Fprintf(&said, "check: %s: %s\n", kind, p.Text)
	}
	if problems.Err() != nil {
		return steadied(said.String())
	}
	began := time.Now()
	if err := tree.Open(t.Context()); err != nil {
		t.Fatalf("Open() = %v; want nil, whatever happens to hosted drivers", err)
	}
	if d := time.Since(began); d > 3*h.Start {
		t.Errorf("Open() took %v; want at most the time that three starts may take, %v each", d, h.Start)
	}
	defer func() {
		began := time.Now()
		if err := tree.Close(); err != nil {
			t.Errorf("Close() = %v; want nil", err)
		}
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("Close() took %v; want at most 10 s", d)
		}
	}()
	caller := func(name string) driver.Caller {
		for _, n := range tree.Nodes() {
			if n.Path == name {
				return n.Caller()
			}
		}
		t.Fatalf("there is no node %s", name)
		return nil
	}
	limit := c.limit
	if limit == 0 {
		limit = 10 * time.Second
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	method := "on"
	if c.mode != "" {
		method = "path"
	}
	switch v, err := caller("x").Call(ctx, method); {
	case err != nil:
		fmt.Fprintf(&said, "call: %v: %v\n", driver.Classify(err), err)
	default:
		fmt.Fprintf(&said, "call: %v\n", v)
	}
	told := false
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "hosted driver cannot be used now") && strings.Contains(line, "driver=x") && !told { // the first
			told = true
			_, text, _ := strings.Cut(strings.TrimSpace(line), "level=")
			fmt.Fprintf(&said, "log: %s\n", text)
		}
	}
	if v, err := caller("near").Call(soon(t), "path"); err != nil || v != "near" {
		t.Errorf("path of a native node = %v, %v; want near", v, err)
	}
	if c.typ != "" {
		state := "state"
		if c.mode != "" {
			state = "path"
		}
		eventually(t, "the other one answers", func() bool {
			remote.Forget(h)
			_, err := caller("other").Call(soon(t), state)
			return err == nil
		})
	}
	return steadied(said.String())
}

// A driver may have other children after a restart. Who asks for those that are
// gone is told to read the report again, and finds the new ones there.
func TestChanges(t *testing.T) {
	python(t, "ok")
	b := serve(t, driver.Decl{Name: "far", Type: "fake.Changes"}, good("other"))
	pid := int(b.call(t, "far", "pid").(float64))
	old := b.find(t, fmt.Sprintf("far.made%d", pid))
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var now int
	eventually(t, "the node is back", func() bool {
		v, err := b.find(t, "far").Call(soon(t), "pid")
		if err == nil {
			now = int(v.(float64))
		}
		return now != 0 && now != pid
	})
	if _, err := old.Call(soon(t), "path"); err == nil || !strings.Contains(err.Error(), old.UUID) || !strings.Contains(err.Error(), "read the report again") {
		t.Errorf("Call() on a child that is gone = %v; want that it is, and what to do", err)
	}
	if err := b.client.Refresh(soon(t)); err != nil {
		t.Fatal(err)
	}
	if got := b.call(t, fmt.Sprintf("far.made%d", now), "pid"); got != float64(now) {
		t.Errorf("process of the new child = %v; want %d", got, now)
	}
	if n, err := b.client.Find(old.Path); err == nil {
		t.Errorf("Find(%s) = %v; want nothing", old.Path, n)
	}
}

// A process that is stopped answers nothing. It costs its own nodes their time, and
// the end of the session a bounded one.
func TestStopped(t *testing.T) {
	python(t, "ok")
	b := serve(t, good("far"), driver.Decl{Name: "near", Type: native.Type})
	pid := int(b.call(t, "far", "pid").(float64))
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is stopped", func() bool {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err == nil && strings.Contains(string(text), ") T ")
	})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := b.find(t, "far").Call(ctx, "path"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Call() on what is stopped = %v; want the end of its time", err)
	}
	if got := b.call(t, "near", "path"); got != "near" {
		t.Errorf("path of a native node = %v; want near", got)
	}
	began := time.Now()
	if err := b.tree.Close(); err == nil || !strings.Contains(err.Error(), "far") {
		t.Errorf("Close() = %v; want that far does not close", err)
	}
	b.hosts.Close()
	if d := time.Since(began); d > 10*time.Second || alive(pid) {
		t.Errorf("the session ended after %v, process %d runs: %t; want at most 10 s, and that it does not", d, pid, alive(pid))
	}
}

// An exporter that is mounted and does not speak as it should is not there, and
// says why.
func TestBadExporter(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[string]string{
		"dies":    "ended with status 4: no report today",
		"exits":   "ended with status 7: it will not do",
		"garbage": "there: ",
		"roots":   "it reports two drivers without a parent",
		"nothing": "it reports no drivers",
		"refuses": "not now",
	} {
		t.Run(mode, func(t *testing.T) {
			b := serve(t, exporterNode(t, fmt.Sprintf("command: [env, '%s=%s {socket}', %s]", asExporter, mode, self)),
				driver.Decl{Name: "near", Type: native.Type})
			var text string
			eventually(t, "it is known why it is not there", func() bool {
				_, err := b.find(t, "there").Call(soon(t), "path")
				if driver.Classify(err) != driver.Unavailable {
					t.Fatalf("Call() = %v; want unavailable", err)
				}
				text = err.Error()
				return !strings.Contains(text, "it was not reached yet")
			})
			if !strings.Contains(text, want) {
				t.Errorf("Call() = %s; want %q in it", text, want)
			}
			if got := b.call(t, "near", "path"); got != "near" {
				t.Errorf("path of a native node = %v; want near", got)
			}
		})
	}
}
