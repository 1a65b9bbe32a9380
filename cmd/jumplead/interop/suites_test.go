package interop

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write testdata/suites.golden anew")

// suites are the packages of the stock release whose own tests are run.
var suites = []string{
	"jumpstarter_driver_pyserial",
	"jumpstarter_driver_network",
	"jumpstarter_driver_power",
	"jumpstarter_driver_composite",
	"jumpstarter_driver_opendal",
	"jumpstarter_driver_shell",
	"jumpstarter_driver_ssh",
	"jumpstarter_driver_tmt",
	"jumpstarter_driver_vnc",
	"jumpstarter_testing",
}

// passes is how many tests of each suite must pass where every program that
// they use is absent.
var passes = map[string]int{
	"jumpstarter_driver_pyserial":  34,
	"jumpstarter_driver_network":   27,
	"jumpstarter_driver_power":     5,
	"jumpstarter_driver_composite": 2,
	"jumpstarter_driver_opendal":   43,
	"jumpstarter_driver_shell":     17,
	"jumpstarter_driver_ssh":       17,
	"jumpstarter_driver_tmt":       15,
	"jumpstarter_testing":          1,
}

// misses are tests that the stock exporter passes and jumplead does not, with
// what the failure says.
var misses = map[string]string{
	"jumpstarter_driver_opendal/driver_test.py::test_driver_opendal_presign": "only fs is, a local directory",
}

// An outcome is what became of one upstream test.
type outcome struct {
	Test    string
	Outcome string // pass, fail; miss, see misses; skip by our plugin; absent, a skip by the test for want of a program
	Why     string
}

const suitesGolden = "testdata/suites.golden"

const suitesHeader = `# What becomes of each test that ships in the wheels of the stock release when
# it is run against another exporter, the stock one included. Written by
# go test -run TestSuites -update ./cmd/jumplead/interop
#
#   pass    it passes
#   miss    it passes with the stock exporter and not with jumplead; why
#   skip    it cannot be asked of another exporter; why
#   absent  it needs a program; where there is one, it may pass
#
`

// TestSuites runs upstream's own client tests against both exporters and
// compares what becomes of each with a golden list, so that none is lost
// unseen.
func TestSuites(t *testing.T) {
	needPython(t)
	// One after the other: some of the tests use fixed ports.
	forBoth(t, func(t *testing.T, f flavour) { f.checkSuites(t) })
}

// TestSuitesHosted does the same where jumplead hosts every driver in Python: what
// the stock exporter passes, passes there.
func TestSuitesHosted(t *testing.T) {
	env := needPython(t)
	program, err := buildJumplead()
	if err != nil {
		t.Fatal(err)
	}
	wrapper := filepath.Join(scratch, "hosted")
	script := "#!/bin/sh\n# run --exporter-config FILE ...\n" +
		"echo 'x-jumplead: {hosted: true, python: " + env.Bin("python") + "}' >>\"$3\"\nexec " + program + " \"$@\"\n"
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	flavour{name: "hosted", program: wrapper, hosting: true}.checkSuites(t)
}

func (f flavour) checkSuites(t *testing.T) {
	env := needPython(t)
	got, report := f.runSuites(t, env.Bin("python"))
	if *update && !f.hosting {
		writeGolden(t, got)
	}
	want := readGolden(t)
	passed := map[string]int{}
	for _, o := range got {
		if o.Outcome == "pass" {
			suite, _, _ := strings.Cut(o.Test, "/")
			passed[suite]++
		}
		w, ok := want[o.Test]
		delete(want, o.Test)
		switch {
		case !ok:
			t.Errorf("%s: %s, and it is not in %s", o.Test, o.Outcome, suitesGolden)
		case w.Outcome == "absent" && o.Outcome != "fail":
		case o.Outcome != w.Outcome || o.Why != w.Why:
			t.Errorf("%s: %s: %s; want %s: %s", o.Test, o.Outcome, o.Why, w.Outcome, w.Why)
		}
	}
	for test := range want {
		t.Errorf("%s is in %s and was not run", test, suitesGolden)
	}
	for suite, n := range passes {
		if passed[suite] < n {
			t.Errorf("%s: %d tests pass; want at least %d", suite, passed[suite], n)
		}
	}
	if t.Failed() {
		t.Logf("pytest said:\n%s", report[max(0, len(report)-8000):])
	}
}

// runSuites runs pytest once for all suites, and returns what it said too.
func (f flavour) runSuites(t *testing.T, python string) ([]outcome, string) {
	t.Helper()
	dir, err := os.MkdirTemp(scratch, f.name+"-")
	if err != nil {
		t.Fatal(err)
	}
	ini, outcomes := filepath.Join(dir, "pytest.ini"), filepath.Join(dir, "outcomes")
	if err := os.WriteFile(ini, []byte("[pytest]\nasyncio_default_fixture_loop_scope = function\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	plugin, err := filepath.Abs("testdata/foreign")
	if err != nil {
		t.Fatal(err)
	}
	// The stock exporter takes a second to start and one to stop, so its run
	// forks it, and keeps some for tests that ask for the same harness;
	// jumplead starts for each.
	keep, forked := "6", "yes"
	switch {
	case f.hosting: // is as slow
		forked = ""
	case f.ours:
		keep, forked = "0", ""
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, append([]string{
		"-m", "pytest", "-p", "foreign_exporter", "-p", "no:cacheprovider", "-c", ini, "--rootdir", dir,
		// Fabric's test reads standard input, which pytest forbids while it captures.
		"--capture=no", "-W", "ignore", "--timeout=60", "-q", "-ra", "--doctest-modules", "--pyargs",
	}, suites...)...)
	cmd.Dir = dir
	cmd.Env = environment(
		"PYTHONPATH="+plugin,
		"FOREIGN_EXPORTER="+f.program+" run --exporter-config {config} --tls-grpc-listener {address} --tls-grpc-insecure",
		"FOREIGN_OUTCOMES="+outcomes,
		"FOREIGN_KEEP="+keep,
		"FOREIGN_FORKED="+forked,
	)
	said, err := cmd.CombinedOutput()
	// Status 1 is a failed test, which the outcomes tell as well.
	if code := cmd.ProcessState.ExitCode(); code != 0 && code != 1 {
		t.Fatalf("pytest: %v: %s", err, said)
	}
	text, err := os.ReadFile(outcomes)
	if err != nil {
		t.Fatalf("pytest: %v: %s", err, said)
	}
	var got []outcome
	for line := range strings.Lines(string(text)) {
		var o outcome
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		why, miss := misses[o.Test]
		switch {
		case !miss:
		case f.ours && o.Outcome == "fail" && strings.Contains(o.Why, why), !f.ours && o.Outcome == "pass":
			o.Outcome, o.Why = "miss", why
		}
		got = append(got, o)
	}
	return got, string(said)
}

func writeGolden(t *testing.T, got []outcome) {
	t.Helper()
	var b strings.Builder
	b.WriteString(suitesHeader)
	for _, o := range got {
		fmt.Fprintf(&b, "%-6s %s", o.Outcome, o.Test)
		if o.Why != "" {
			fmt.Fprintf(&b, " | %s", o.Why)
		}
		b.WriteByte('\n')
	}
	if err := os.WriteFile(suitesGolden, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readGolden(t *testing.T) map[string]outcome {
	t.Helper()
	text, err := os.ReadFile(suitesGolden)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]outcome{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		line, why, _ := strings.Cut(line, " | ")
		what, test, ok := strings.Cut(line, " ")
		if !ok {
			t.Fatalf("%s: malformed line %q", suitesGolden, line)
		}
		want[strings.TrimSpace(test)] = outcome{strings.TrimSpace(test), what, why}
	}
	return want
}
