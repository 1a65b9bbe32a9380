package interop

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jumplead/jumplead/cmd/jumplead/interop/pyenv"
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
	hostingIn(t, env).checkSuites(t)
}

// hostingIn is jumplead with a Python that it hosts every driver in.
func hostingIn(t *testing.T, env *pyenv.Env) flavour {
	t.Helper()
	program, err := buildJumplead()
	if err != nil {
		t.Fatal(err)
	}
	wrapper := filepath.Join(scratch, "hosted-"+filepath.Base(env.Dir()))
	script := "#!/bin/sh\n# run --exporter-config FILE ...\n" +
		"echo 'x-jumplead: {hosted: true, python: " + env.Bin("python") + "}' >>\"$3\"\nexec " + program + " \"$@\"\n"
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return flavour{name: "hosted", program: wrapper, hosting: true}
}

func (f flavour) checkSuites(t *testing.T) {
	env := needPython(t)
	got, report := f.runSuites(t, env.Bin("python"), suites, nil)
	if *update && !f.hosting {
		writeGolden(t, suitesGolden, suitesHeader, got)
	}
	want := readGolden(t, suitesGolden)
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

// runSuites runs pytest once for all suites, or for some of their tests, and
// returns what it said too.
func (f flavour) runSuites(t *testing.T, python string, suites, only []string) ([]outcome, string) {
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
	limit := "60" // seconds a test
	if *update && only == nil {
		limit = "20" // many that do not convert wait for what never comes
	}
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, append([]string{
		"-m", "pytest", "-p", "foreign_exporter", "-p", "no:cacheprovider", "-c", ini, "--rootdir", dir,
		// Fabric's test reads standard input, which pytest forbids while it captures.
		"--capture=no", "-W", "ignore", "--timeout=" + limit, "-q", "-ra", "--continue-on-collection-errors", "--doctest-modules", "--pyargs",
	}, suites...)...)
	cmd.Dir = dir
	cmd.Env = environment(
		"PYTHONPATH="+plugin,
		"FOREIGN_EXPORTER="+f.program+" run --exporter-config {config} --tls-grpc-listener {address} --tls-grpc-insecure",
		"FOREIGN_OUTCOMES="+outcomes,
		"FOREIGN_KEEP="+keep,
		"FOREIGN_FORKED="+forked,
	)
	if only != nil {
		list := filepath.Join(dir, "only")
		if err := os.WriteFile(list, []byte(strings.Join(only, "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd.Env = append(cmd.Env, "FOREIGN_ONLY="+list)
	}
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

func writeGolden(t *testing.T, path, header string, got []outcome) {
	t.Helper()
	var b strings.Builder
	b.WriteString(header)
	for _, o := range got {
		fmt.Fprintf(&b, "%-6s %s", o.Outcome, o.Test)
		if o.Why != "" {
			fmt.Fprintf(&b, " | %s", o.Why)
		}
		b.WriteByte('\n')
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readGolden(t *testing.T, path string) map[string]outcome {
	t.Helper()
	text, err := os.ReadFile(path)
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
			t.Fatalf("%s: malformed line %q", path, line)
		}
		want[strings.TrimSpace(test)] = outcome{strings.TrimSpace(test), what, why}
	}
	return want
}

const driversGolden = "testdata/suites-drivers.golden"

const driversHeader = `# What becomes of each test of the driver packages that are not in suites.golden
# when it is run against another exporter. Written, with both exporters, by
# go test -timeout 60m -run TestSuitesDrivers -update ./cmd/jumplead/interop
#
#   pass    it passes with the stock exporter, and with jumplead, which hosts the driver
#   miss    it passes with the stock exporter alone; why
#   unfit   it does not pass with the stock exporter when that is a program of its
#           own: it replaces parts of the driver in the test's process, or wants
#           hardware; what it says
#   skip    it cannot be asked of another exporter; why
#   absent  it needs a program, or the file something that wheels lack
#
# Tests that ask nothing of an exporter are left out.
#
`

// unasked are driver packages whose tests are not asked for at all.
var unasked = map[string]string{
	"jumpstarter_driver_flashers": "they fetch bundles from a registry",
}

// accidents are tests that pass with the stock exporter where they are not really
// asked of it.
var accidents = map[string]string{
	"jumpstarter_driver_someip/driver_test.py::test_someip_receive_message": "it patches the driver in its own process, and gets what an earlier test has sent",
}

// TestSuitesDrivers runs the tests of all other driver packages where jumplead hosts
// the drivers. Which of them can be asked of another exporter does not change with
// jumplead, so the stock exporter is asked only for a new golden list.
func TestSuitesDrivers(t *testing.T) {
	env := needDrivers(t)
	f := hostingIn(t, env)
	if *update {
		f.updateDrivers(t, env)
	}
	want := readGolden(t, driversGolden)
	var only []string
	for test, o := range want {
		if o.Outcome == "pass" {
			only = append(only, test)
		}
	}
	got, report := f.runSuites(t, env.Bin("python"), suitesOf(only), only)
	passed := map[string]int{}
	for _, o := range got {
		if !slices.Contains(only, o.Test) {
			continue // a file that cannot be read
		}
		suite, _, _ := strings.Cut(o.Test, "/")
		passed[suite]++
		if o.Outcome != "pass" {
			t.Errorf("%s: %s: %s; want a pass", o.Test, o.Outcome, o.Why)
		}
	}
	for _, suite := range suitesOf(only) {
		if n := len(slices.DeleteFunc(slices.Clone(only), func(test string) bool { return !strings.HasPrefix(test, suite+"/") })); n != passed[suite] {
			t.Errorf("%s: %d tests were run; want %d", suite, passed[suite], n)
		}
	}
	t.Logf("passed: %v", passed)
	if t.Failed() {
		t.Logf("pytest said:\n%s", report[max(0, len(report)-8000):])
	}
}

// suitesOf lists the packages that tests are of.
func suitesOf(tests []string) (list []string) {
	for _, test := range tests {
		suite, _, _ := strings.Cut(test, "/")
		list = append(list, suite)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// otherSuites lists the driver packages that are not in suites.
func otherSuites(t *testing.T, env *pyenv.Env) (other []string) {
	t.Helper()
	const list = "import pkgutil; print(*(p.name for p in pkgutil.iter_modules() if p.name.startswith('jumpstarter_driver_')))"
	out, err := exec.Command(env.Bin("python"), "-c", list).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(string(out)) {
		if !slices.Contains(suites, name) && unasked[name] == "" {
			other = append(other, name)
		}
	}
	slices.Sort(other)
	return other
}

func (f flavour) updateDrivers(t *testing.T, env *pyenv.Env) {
	t.Helper()
	jmp := filepath.Join(scratch, "jmp-drivers")
	if err := os.WriteFile(jmp, []byte("#!/bin/sh\nexec "+env.Bin("python")+" -m jumpstarter_cli \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	other := otherSuites(t, env)
	all, _ := flavour{name: "python", program: jmp}.runSuites(t, env.Bin("python"), other, nil)
	var only []string
	var asked []outcome
	for _, o := range all {
		switch why := accidents[o.Test]; {
		case why != "":
			o.Outcome, o.Why = "unfit", why
		case o.Outcome == "pass":
			only = append(only, o.Test)
		case o.Outcome == "fail":
			o.Outcome, o.Why = "unfit", lastWords(o.Why)
		case o.Why == "asks nothing of an exporter": // hundreds
			continue
		default:
			o.Why = steadyWhy(o.Why)
		}
		asked = append(asked, o)
	}
	got, _ := f.runSuites(t, env.Bin("python"), suitesOf(only), only)
	for _, o := range got {
		if i := slices.IndexFunc(asked, func(c outcome) bool { return c.Test == o.Test }); i >= 0 && o.Outcome != "pass" {
			asked[i].Outcome, asked[i].Why = "miss", lastWords(o.Why)
		}
	}
	writeGolden(t, driversGolden, driversHeader, asked)
}

// lastWords is the last error that pytest reports of a test.
func lastWords(text string) string {
	why := ""
	for line := range strings.Lines(text) {
		if e, ok := strings.CutPrefix(line, "E "); ok && strings.TrimSpace(e) != "" {
			why = strings.TrimSpace(e)
		}
	}
	return steadyWhy(why)
}

var whyVaries = regexp.MustCompile(`\S*/site-packages/|/tmp/\S+|\(uuid=.*|<MagicMock.*|0x[0-9a-f]{6,}`)

// steadyWhy leaves out of a reason what is different each time, and its end.
func steadyWhy(why string) string {
	why = strings.TrimSpace(whyVaries.ReplaceAllString(why, "..."))
	if len(why) > 100 {
		why = strings.ToValidUTF8(why[:100], "") + "..."
	}
	return why
}
