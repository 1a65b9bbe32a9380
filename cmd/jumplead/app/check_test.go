package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/jumplead/jumplead/cmd/jumplead/app"
	"github.com/jumplead/jumplead/drivers/all"
	"github.com/jumplead/jumplead/drivers/driver"
)

var update = flag.Bool("update", false, "write what was printed into the want sections of testdata")

// archive is a file in the txtar format: text, then sections that begin with
// lines of the form "-- name --".
type archive struct {
	comment string
	names   []string
	files   map[string]string
}

func readArchive(t testing.TB, path string) *archive {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	a := &archive{files: map[string]string{}}
	name := ""
	for line := range strings.SplitAfterSeq(string(text), "\n") {
		if s, ok := strings.CutPrefix(line, "-- "); ok {
			if s, ok = strings.CutSuffix(s, " --\n"); ok {
				name = s
				a.set(name, "")
				continue
			}
		}
		if name == "" {
			a.comment += line
		} else {
			a.files[name] += line
		}
	}
	return a
}

func (a *archive) set(name, text string) {
	if !slices.Contains(a.names, name) {
		a.names = append(a.names, name)
	}
	a.files[name] = text
}

func (a *archive) write(t testing.TB, path string) {
	t.Helper()
	var b bytes.Buffer
	b.WriteString(a.comment)
	for _, name := range a.names {
		fmt.Fprintf(&b, "-- %s --\n%s", name, a.files[name])
	}
	if err := os.WriteFile(path, b.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
}

// golden holds what was printed against a section.
func (a *archive) golden(t *testing.T, section, got string) {
	t.Helper()
	if *update {
		a.set(section, got)
	} else if want := a.files[section]; got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
}

// check runs the command on the files of an archive.
func check(t *testing.T, a *archive, specs ...driver.Spec) (status int, stdout string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for _, name := range a.names {
		switch name {
		case "args", "env", "want":
			continue
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(a.files[name]), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	args := strings.Fields(a.files["args"])
	if len(args) == 0 {
		args = []string{"config.yaml"}
	}
	var out, stderr buffer
	status = app.Main(t.Context(), app.Proc{Args: append([]string{"jumplead", "check"}, args...), Env: append([]string{"JUMPLEAD_PYTHON=/nowhere/python"}, strings.Fields(a.files["env"])...),
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &stderr}, append(all.Specs(), specs...)...)
	if s := stderr.String(); s != "" {
		t.Errorf("check %s says on stderr %q; want nothing", args, s)
	}
	return status, out.String()
}

// corpus lists the archives of a folder of testdata.
func corpus(t testing.TB, dir string, least int) []string {
	t.Helper()
	paths, err := filepath.Glob(dir + "/*.txtar")
	if err != nil || len(paths) < least {
		t.Fatalf("%s holds %d archives, %v; want at least %d", dir, len(paths), err, least)
	}
	for i, p := range paths {
		if paths[i], err = filepath.Abs(p); err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

func base(path string) string { return strings.TrimSuffix(filepath.Base(path), ".txtar") }

// TestCheck holds what check prints of each file of the corpus against its want
// section. A broken file is refused, an odd one draws warnings, a good one nothing.
func TestCheck(t *testing.T) {
	for kind, c := range map[string]struct{ least, status int }{"broken": {60, 1}, "odd": {8, 0}, "good": {15, 0}} {
		for _, path := range corpus(t, "testdata/check/"+kind, c.least) {
			t.Run(kind+"/"+base(path), func(t *testing.T) {
				a := readArchive(t, path)
				status, got := check(t, a)
				if status != c.status {
					t.Errorf("check = %d; want %d", status, c.status)
				}
				if warns := strings.Contains(got, "warning: "); kind != "broken" && warns != (kind == "odd") {
					t.Errorf("check warns: %t; want %t", warns, kind == "odd")
				}
				a.golden(t, "want", got)
				if *update {
					a.write(t, path)
				}
			})
		}
	}
}

// inLab stands for the drivers that the corpus of exporter/config makes up.
func inLab(typ string) driver.Spec {
	return driver.Define(driver.Spec{Type: typ, Lenient: true, Contract: driver.Contract{Name: "lab", Client: "lab.Client"}},
		func(context.Context, *driver.Env, struct{}) (driver.Driver, error) { return driver.Driver{}, nil })
}

// TestCheckEnvelope does so for the corpus of exporter/config, in which the
// mistakes are in what surrounds the drivers' own keys.
func TestCheckEnvelope(t *testing.T) {
	golden, err := filepath.Abs("testdata/check/envelope.txtar")
	if err != nil {
		t.Fatal(err)
	}
	a := readArchive(t, golden)
	before := a.names
	if *update {
		a.names, a.files = nil, map[string]string{}
	}
	seen := map[string]bool{}
	for kind, least := range map[string]int{"broken": 50, "good": 20} {
		for _, path := range corpus(t, "../../../exporter/config/testdata/"+kind, least) {
			name := kind + "/" + base(path)
			seen[name] = true
			t.Run(name, func(t *testing.T) {
				in := readArchive(t, path)
				status, got := check(t, in, inLab("lab.X"), inLab("lab.First"), inLab("lab.Second"), inLab("lab.Other"), inLab("my_lab.driver.Mux"))
				// What only has no effect may be refused here, as a typo.
				if refused := strings.Contains(got, " error: "); (status != 0) != refused || kind == "broken" && !refused ||
					kind == "good" && refused && !strings.Contains(got, "error: ") {
					t.Errorf("check = %d; want what it prints:\n%s", status, got)
				}
				a.golden(t, name, got)
			})
		}
	}
	if *update {
		slices.Sort(a.names)
		a.write(t, golden)
		return
	}
	for _, name := range before {
		if !seen[name] {
			t.Errorf("%s holds %s, of which there is no file", golden, name)
		}
	}
}

// TestCheckUpstream does so for the examples of upstream's documentation. Each of
// them is good; or has a type that is not built in yet, and nothing else is wrong
// with it; or says in its comment why upstream itself cannot run it, or which key
// of it nobody reads.
func TestCheckUpstream(t *testing.T) {
	count := map[string]int{}
	for _, path := range corpus(t, "testdata/check/upstream", 100) {
		t.Run(base(path), func(t *testing.T) {
			a := readArchive(t, path)
			status, got := check(t, a)
			a.golden(t, "want", got)
			if *update {
				a.write(t, path)
			}
			kind := "good"
			switch {
			case strings.Contains(a.comment, "Upstream cannot run it: "):
				kind = "upstream cannot run"
			case strings.Contains(a.comment, "Upstream ignores a key of it: "):
				kind = "with a key that nobody reads"
			case strings.Contains(got, "hosted: not checked here"):
				kind = "of types that are not built in"
			}
			count[kind]++
			for line := range strings.Lines(got) {
				if !strings.Contains(line, ": error: ") {
					continue
				}
				ok := strings.Contains(line, "no driver of type ")
				switch kind {
				case "good":
					ok = false
				case "of types that are not built in":
					ok = false
				case "upstream cannot run":
					ok = true
				case "with a key that nobody reads":
					ok = ok || strings.Contains(line, "unknown key ")
				}
				if !ok {
					t.Errorf("%s says %swant none of that from an example that is %s", path, line, kind)
				}
			}
			if (status != 0) != strings.Contains(got, ": error: ") {
				t.Errorf("check = %d; want what it prints:\n%s", status, got)
			}
		})
	}
	t.Logf("examples: %v", count)
	if count["good"] < 30 {
		t.Errorf("%d examples are good; want at least 30", count["good"])
	}
}

// TestCheckStdin: what comes on standard input is as good as a file.
func TestCheckStdin(t *testing.T) {
	for _, test := range []struct {
		text   string
		status int
		want   string
	}{
		{small, 0, "stdin: good: 1 node\n"},
		{small + "extra: 1\n", 1, "stdin:7:1: error: unknown key \"extra\" is ignored\n    7 | extra: 1\n      | ^^^^^\nstdin: not good: 1 node, 1 error\n"},
		{"\uFEFF" + small + "#" + strings.Repeat("x", 3<<20), 1, "stdin: error: the file is larger than 1048576 bytes"},
		{small + "description: |\n  " + strings.Repeat("a\x1b", 3), 1, "the character U+001B must not be in a YAML file\n    8 |   a\uFFFDa\uFFFDa\uFFFD\n"},
	} {
		var stdout, stderr buffer
		status := app.Main(t.Context(), app.Proc{Args: []string{"jumplead", "check", "-"}, Stdin: strings.NewReader(test.text), Stdout: &stdout, Stderr: &stderr},
			all.Specs()...)
		if got := stdout.String(); status != test.status || !strings.Contains(got, test.want) || stderr.String() != "" {
			t.Errorf("check of %.80q = %d, %q, %q; want %d, %q", test.text, status, got, stderr.String(), test.status, test.want)
		}
	}
}

// forty is a config with forty nodes.
func forty() string {
	var b strings.Builder
	b.WriteString("metadata: {namespace: lab, name: bench}\nexport:\n")
	for i := range 20 {
		fmt.Fprintf(&b, "  p%d: {type: jumpstarter_driver_power.driver.MockPower, config: {log_level: DEBUG}}\n", i)
		fmt.Fprintf(&b, "  c%d: {type: jumpstarter_driver_pyserial.driver.PySerial, config: {url: /dev/ttyUSB%d, baudrate: 9600, check_present: no}}\n", i, i)
	}
	return b.String()
}

// TestCheckSpeed: a check is part of a person's typing, and of a CI's every run.
func TestCheckSpeed(t *testing.T) {
	path := file(t, "forty.yaml", forty())
	least := time.Hour
	for range 5 { // the machine may be busy with something else
		start := time.Now()
		if got := jumplead(t.Context(), nil, "check", path); got.status != 0 || !strings.Contains(got.stdout, "good: 40 nodes\n") {
			t.Fatalf("check = %d, %s; want 40 good nodes", got.status, got.stdout)
		}
		least = min(least, time.Since(start))
	}
	if least > 100*time.Millisecond {
		t.Errorf("check of 40 nodes takes %v; want milliseconds", least)
	}
}

func BenchmarkCheck(b *testing.B) {
	path := filepath.Join(b.TempDir(), "forty.yaml")
	if err := os.WriteFile(path, []byte(forty()), 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if got := jumplead(b.Context(), nil, "check", path); got.status != 0 {
			b.Fatal(got)
		}
	}
}

// TestDrivers: the list and the details are those of the specs.
func TestDrivers(t *testing.T) {
	list := jumplead(t.Context(), nil, "drivers")
	for _, s := range all.Specs() {
		if !strings.Contains(list.stdout, s.Type+" ") || !strings.Contains(list.stdout, s.Doc+"\n") {
			t.Errorf("drivers = %s; want %s and %q in it", list.stdout, s.Type, s.Doc)
		}
		got := jumplead(t.Context(), nil, "drivers", s.Type)
		want := []string{s.Type, s.Doc, s.Contract.Name, s.Contract.Client}
		for _, k := range s.Keys() {
			want = append(want, "  "+k.Name+": ", k.Doc)
		}
		for _, e := range s.Table() {
			want = append(want, "  "+e.Usage(), e.Doc())
		}
		for _, w := range want {
			if got.status != 0 || !strings.Contains(got.stdout, w) {
				t.Errorf("drivers %s = %d, %s; want %q in it", s.Type, got.status, got.stdout, w)
			}
		}
	}

	a := readArchive(t, "testdata/drivers.txtar")
	for _, name := range []string{"PySerial", "shell", "sshwrapper"} {
		t.Run(name, func(t *testing.T) { a.golden(t, name, jumplead(t.Context(), nil, "drivers", name).stdout) })
	}
	if *update {
		a.write(t, "testdata/drivers.txtar")
	}

	for args, want := range map[string]string{"pyserail": `did you mean "PySerial"?`, "--schema pyserial": "it takes no TYPE", "zebra": `no driver of type "zebra"`} {
		if got := jumplead(t.Context(), nil, append([]string{"drivers"}, strings.Fields(args)...)...); got.status != 2 || !strings.Contains(got.stderr, want) {
			t.Errorf("drivers %s = %d, %q; want 2 and %q", args, got.status, got.stderr, want)
		}
	}
}

func TestDriversJSON(t *testing.T) {
	var got struct {
		Drivers []struct {
			Type   string
			Client string
			Config []struct {
				Name, Type, Default, Min, Max, Doc string
				Required                           bool
			}
			Methods []struct {
				Name, Kind, Result string
				Params             []struct{ Name, Type string }
			}
		}
		CommonConfig []struct{ Name string }
	}
	out := jumplead(t.Context(), nil, "drivers", "--json", "PySerial")
	if err := json.Unmarshal([]byte(out.stdout), &got); err != nil || len(got.Drivers) != 1 {
		t.Fatalf("drivers --json = %v of %s; want one driver", err, out.stdout)
	}
	d := got.Drivers[0]
	if d.Client != "jumpstarter_driver_pyserial.client.PySerialClient" || len(d.Config) != 5 || len(d.Methods) != 4 || len(got.CommonConfig) != 3 {
		t.Errorf("drivers --json = %s; want five keys, four methods, three common keys", out.stdout)
	}
	if k := d.Config[1]; k.Name != "baudrate" || k.Type != "integer" || k.Default != "115200" || k.Min != "1" || k.Required {
		t.Errorf("config[1] = %+v; want baudrate", k)
	}
	if m := d.Methods[2]; m.Name != "set_dtr" || m.Kind != "call" || len(m.Params) != 1 || m.Params[0].Name != "value" || m.Params[0].Type != "true or false" {
		t.Errorf("methods[2] = %+v; want set_dtr", m)
	}
	all := jumplead(t.Context(), nil, "drivers", "--json")
	if err := json.Unmarshal([]byte(all.stdout), &got); err != nil || len(got.Drivers) < 20 {
		t.Errorf("drivers --json = %v, %d drivers; want all", err, len(got.Drivers))
	}
}

func TestVersion(t *testing.T) {
	var got struct {
		Version, Go, Target string
		Hardware, Missing   []string
		Drivers             []string
	}
	out := jumplead(t.Context(), nil, "version", "--json")
	if err := json.Unmarshal([]byte(out.stdout), &got); err != nil {
		t.Fatalf("version --json = %v of %s", err, out.stdout)
	}
	if got.Version == "" || !strings.HasPrefix(got.Go, "go") || !strings.Contains(got.Target, "/") || len(got.Drivers) != len(all.Specs()) {
		t.Errorf("version --json = %+v; want version, Go, target and all drivers", got)
	}
	if len(got.Hardware) != 0 || !slices.Contains(got.Missing, "serial") {
		t.Errorf("version --json of a program without a board = %v, %v; want that serial is missing", got.Hardware, got.Missing)
	}
	var stdout buffer
	app.Main(t.Context(), app.Proc{Args: []string{"jumplead", "version", "--verbose"}, Stdout: &stdout, Stderr: &stdout, Host: app.OS().Host}, all.Specs()...)
	if s := stdout.String(); !strings.Contains(s, "hardware  serial") || !strings.Contains(s, "\n  jumpstarter_driver_power.driver.MockPower\n") {
		t.Errorf("version --verbose = %s; want serial ports and MockPower", s)
	}
}

// FuzzCheck: no text breaks what shows its lines.
func FuzzCheck(f *testing.F) {
	for _, dir := range []string{"broken", "odd"} {
		for _, path := range corpus(f, "testdata/check/"+dir, 8) {
			if text := readArchive(f, path).files["config.yaml"]; len(text) < 2000 {
				f.Add(text)
			}
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		var stdout, stderr buffer
		status := app.Main(t.Context(), app.Proc{Args: []string{"jumplead", "check", "-"}, Stdin: strings.NewReader(text), Stdout: &stdout, Stderr: &stderr},
			all.Specs()...)
		said := stdout.String()
		if status > 1 || stderr.String() != "" || (status == 0) != strings.Contains(said, "stdin: good: ") {
			t.Errorf("check = %d, %q, %q; want 0 or 1 and a verdict", status, said, stderr.String())
		}
		if i := strings.IndexFunc(said, func(c rune) bool { return c != '\n' && unicode.IsControl(c) }); i >= 0 {
			t.Errorf("check prints a control character: %q", said)
		}
	})
}
