//go:build linux

package example

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jumplead/jumplead/cmd/jumplead/interop/pyenv"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/power"
	"github.com/jumplead/jumplead/exporter/client"
)

// section is the part of the README that the tests are about.
const section = "### A driver of one's own\n"

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text2, ok := strings.Cut(string(text), "\n"+section)
	if !ok {
		t.Fatalf("the README has no section %q", section)
	}
	end := strings.Index(text2, "\n## ")
	if i := strings.Index(text2, "\n### "); i >= 0 && i < end {
		end = i
	}
	return text2[:end]
}

// files are the blocks of code in a text, by the names that their first lines say.
func files(t *testing.T, text string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for i, block := range strings.Split(text, "\n```") {
		if i%2 == 0 {
			continue
		}
		_, code, _ := strings.Cut(block, "\n") // the language
		first, _, _ := strings.Cut(code, "\n")
		name := strings.TrimLeft(first, "/# ")
		if name == "" || all[name] != "" {
			t.Fatalf("a block of code begins with %q; want a comment with the name of its file", first)
		}
		all[name] = code + "\n"
	}
	return all
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := pyenv.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// read reads the files of one of the examples.
func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(text)
	}
	return all
}

// A lab is a module of a lab's, outside of our tree.
type lab struct{ dir string }

func newLab(t *testing.T, files map[string]string) lab {
	t.Helper()
	l := lab{t.TempDir()}
	ours := map[string]string{}
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(root(t), name))
		if err != nil {
			t.Fatal(err)
		}
		ours[name] = string(text)
	}
	l.write(t, "go.sum", ours["go.sum"])
	// What go mod tidy would find out, so that nothing is fetched: our module at this
	// place, and the versions that it is built with.
	_, versions, _ := strings.Cut(ours["go.mod"], "\n\n")
	l.write(t, "go.mod", fmt.Sprintf(`module example.com/lab

%s
require github.com/jumplead/jumplead v0.0.0

replace github.com/jumplead/jumplead => %s
`, versions, root(t)))
	for name, text := range files {
		l.write(t, name, text)
	}
	return l
}

func (l lab) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(l.dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// environment is what programs are run with: nothing that steers jumplead.
func environment(more ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return strings.HasPrefix(name, "JMP_") || strings.HasPrefix(name, "JUMPSTARTER_") || strings.HasPrefix(name, "JUMPLEAD_") ||
			strings.HasSuffix(strings.ToLower(name), "_proxy")
	})
	return append(env, more...)
}

// run runs a program in the module's folder.
func (l lab) run(t *testing.T, env []string, argv ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if strings.HasPrefix(argv[0], "./") {
		argv[0] = filepath.Join(l.dir, argv[0])
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = l.dir, env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

type result struct {
	status         int
	stdout, stderr string
}

// build makes the lab's jumplead. Modules come from the cache: this test was built
// with them.
func (l lab) build(t *testing.T, more ...[]string) {
	t.Helper()
	env := environment("GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
	for _, argv := range append([][]string{{"go", "build", "-buildvcs=false", "-o", "jumplead", "."}}, more...) {
		if r := l.run(t, env, argv...); r.status != 0 {
			t.Fatalf("%s = %d:\n%s%s", strings.Join(argv, " "), r.status, r.stdout, r.stderr)
		}
	}
}

// An exporter runs in the lab.
type exporter struct {
	address string
	c       *client.Client
	log     *drivertest.Log
	stop    func()
}

func (l lab) export(t *testing.T, config string) *exporter {
	t.Helper()
	e := &exporter{address: port(t), log: new(drivertest.Log)}
	cmd := exec.Command(filepath.Join(l.dir, "jumplead"), "--log-format", "text", "run", "--exporter-config", config,
		"--tls-grpc-listener", e.address, "--tls-grpc-insecure")
	cmd.Dir, cmd.Env, cmd.Stderr = l.dir, environment("JUMPLEAD_PYTHON=/nowhere"), e.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	e.stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		<-ended
		if code := cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("exit status of run = %d; want 0:\n%s", code, e.log)
		}
	})
	t.Cleanup(e.stop)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var err error
	if e.c, err = client.Dial(ctx, e.address, client.Options{}); err == nil {
		t.Cleanup(func() { e.c.Close() })
		err = e.c.WaitReady(ctx)
	}
	if err != nil {
		t.Fatalf("no exporter of the lab's own: %v:\n%s", err, e.log)
	}
	return e
}

func (e *exporter) find(t *testing.T, path string) *client.Node {
	t.Helper()
	n, err := e.c.Find(path)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// env is what a shell gives the programs in it.
func (e *exporter) env(more ...string) []string {
	return environment(append([]string{"JUMPSTARTER_HOST=" + e.address, "JMP_GRPC_INSECURE=1", "JMP_DRIVERS_ALLOW=UNSAFE", "PYTHONDONTWRITEBYTECODE=1"}, more...)...)
}

func port(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// relayLab is a lab with what the README shows, and a relay whose level is in a file.
func relayLab(t *testing.T) (l lab, config, level string) {
	t.Helper()
	blocks := files(t, readme(t))
	l = newLab(t, map[string]string{"main.go": blocks["main.go"], "relay.go": blocks["relay.go"],
		"relay_test.go": blocks["relay_test.go"], "bench.yaml": blocks["bench.yaml"], "brightness": "0"})
	level = filepath.Join(l.dir, "brightness")
	l.write(t, "here.yaml", strings.ReplaceAll(blocks["bench.yaml"], "/sys/class/leds/relay1/brightness", level))
	return l, "here.yaml", level
}

// The README shows the examples as they are.
func TestReadme(t *testing.T) {
	blocks, want := files(t, readme(t)), read(t, "relay")
	want["tools/bench.yaml"] = read(t, "tools")["bench.yaml"]
	for name, code := range want {
		if blocks[name] != code {
			t.Errorf("the README's %s is not the example's:\n%s\nwant\n%s", name, blocks[name], code)
		}
	}
	for name := range blocks {
		if want[name] == "" {
			t.Errorf("the README has a block %q that no example has", name)
		}
	}
}

// TestRelay builds the README's program as the README says, and uses it for all
// that jumplead is good for.
func TestRelay(t *testing.T) {
	l, config, file := relayLab(t)
	l.build(t, []string{"go", "vet", "."}, []string{"go", "test", "."})
	env := environment("JUMPLEAD_PYTHON=/nowhere")

	t.Run("console", func(t *testing.T) {
		said := transcripts(readme(t))
		if len(said) == 0 {
			t.Fatal("the README shows no program run")
		}
		for command, want := range said {
			if r := l.run(t, env, strings.Fields(command)...); r.stdout != want || r.stderr != "" {
				t.Errorf("$ %s\n%s%s\nwant\n%s", command, r.stdout, r.stderr, want)
			}
		}
	})

	t.Run("tells", func(t *testing.T) {
		for call, want := range map[string]string{
			"version":                 "\nprogram   example.com/lab",
			"version --verbose":       "; of the program's own lab.power.Relay\n",
			"version --json":          `"ownDrivers": [` + "\n    \"lab.power.Relay\"\n",
			"drivers":                 "lab.power.Relay",
			"drivers --json relay":    `"client": "jumpstarter_driver_power.client.PowerClient"`,
			"drivers --schema":        `"const": "lab.power.Relay"`,
			"drivers --schema --json": "such as /sys/class/leds/relay1/brightness",
			"check --json " + config:  `"relay ` + file + `"`,
		} {
			if r := l.run(t, env, append([]string{"./jumplead"}, strings.Fields(call)...)...); r.status != 0 || !strings.Contains(r.stdout, want) {
				t.Errorf("jumplead %s = %d, %s%s; want %q", call, r.status, r.stdout, r.stderr, want)
			}
		}
	})

	t.Run("check", func(t *testing.T) {
		const head = "apiVersion: jumpstarter.dev/v1alpha1\nkind: ExporterConfig\nmetadata: {namespace: default, name: bench}\nexport:\n"
		for nodes, want := range map[string]string{
			"  a: {type: lab.power.Rely}\n":                                       `bad.yaml:5:13: error: a: no driver of type "lab.power.Rely"; did you mean "lab.power.Relay"?`,
			"  a: {type: lab.power.Relay}\n":                                      `bad.yaml:5:6: error: a: key "file" is missing: what takes 1 and 0`,
			"  a: {type: lab.power.Relay, config: {flie: /x}}\n":                  `bad.yaml:5:39: error: a: unknown key "flie"; did you mean "file"?`,
			"  a: {type: lab.power.Relay, config: {file: [x]}}\n":                 "bad.yaml:5:45: error: a: file: wants text, got a list",
			"  a: &a {type: lab.power.Relay, config: {file: /x}}\n  b: *a\n":      "a and b both use relay /x",
			"  a: {type: jumpstarter_driver_power.driver.MokPower, config: {}}\n": `did you mean "jumpstarter_driver_power.driver.MockPower"?`,
		} {
			l.write(t, "bad.yaml", head+nodes)
			for _, python := range []string{"/nowhere", "/usr/bin/env"} { // neither has jumpstarter
				r := l.run(t, environment("JUMPLEAD_PYTHON="+python), "./jumplead", "check", "--strict", "bad.yaml")
				if r.status != 1 || !strings.Contains(r.stdout, want) {
					t.Errorf("check of %s = %d, %s%s; want %q", nodes, r.status, r.stdout, r.stderr, want)
				}
			}
		}
	})

	level := func(t *testing.T, what, want string) {
		t.Helper()
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("after %s the relay has %q, %v; want %q", what, got, err, want)
		}
	}
	t.Run("shell", func(t *testing.T) {
		for word, want := range map[string]string{"on": "1", "off": "0"} {
			if r := l.run(t, env, "./jumplead", "shell", "--exporter-config", config, "--", "j", "power", word); r.status != 0 {
				t.Errorf("j power %s = %d, %s%s; want 0", word, r.status, r.stdout, r.stderr)
			}
			level(t, "j power "+word, want)
		}
		r := l.run(t, env, "./jumplead", "shell", "--exporter-config", config, "--", "j", "power", "read")
		if want := "Error: unsupported operation\n"; r.status != 1 || r.stderr != want {
			t.Errorf("j power read = %d, %s; want 1, %s", r.status, r.stderr, want)
		}
	})

	e := l.export(t, config)
	t.Run("go client", func(t *testing.T) {
		p := power.NewClient(e.find(t, "power"))
		if err := p.On(t.Context()); err != nil {
			t.Errorf("On() = %v; want nil", err)
		}
		level(t, "On()", "1")
		if err := os.Rename(file, file+".away"); err != nil {
			t.Fatal(err)
		}
		if err := p.Off(t.Context()); driver.Classify(err) != driver.Unavailable || !strings.Contains(err.Error(), file) {
			t.Errorf("Off() without the relay = %v; want unavailable, and the file's name", err)
		}
		if err := os.Rename(file+".away", file); err != nil {
			t.Fatal(err)
		}
		if err := p.Off(t.Context()); err != nil {
			t.Errorf("Off() = %v; want nil", err)
		}
		level(t, "Off()", "0")
		drivertest.Until(t, "the exporter's log has what the driver says", func() bool {
			return strings.Contains(e.log.String(), "power: switching ")
		})
	})
	t.Run("stock client", func(t *testing.T) {
		stock := pyenv.Need(t)
		r := l.run(t, e.env(), stock.Bin("j"), "power", "on")
		if r.status != 0 {
			t.Errorf("stock j power on = %d, %s%s; want 0", r.status, r.stdout, r.stderr)
		}
		level(t, "stock j power on", "1")
	})
	t.Run("demo", func(t *testing.T) {
		if r := l.run(t, env, "./jumplead", "demo", "--tour"); r.status != 0 {
			t.Errorf("demo --tour = %d, %s%s; want 0", r.status, r.stdout, r.stderr)
		}
	})
}

// transcripts are the programs that a text shows run, with what they say.
func transcripts(text string) map[string]string {
	said, command := map[string]string{}, ""
	for line := range strings.Lines(text) {
		line, ok := strings.CutPrefix(line, "    ")
		switch c, is := strings.CutPrefix(line, "$ "); {
		case !ok && strings.TrimSpace(line) != "":
			command = ""
		case ok && is:
			command = strings.TrimSpace(c)
			said[command] = ""
		case ok && command != "":
			said[command] += line
		}
	}
	return said
}

// TestTwice lists a driver under a type that is taken.
func TestTwice(t *testing.T) {
	blocks := files(t, readme(t))
	taken := strings.Replace(blocks["relay.go"], `"lab.power.Relay"`, `"jumpstarter_driver_power.driver.MockPower"`, 1)
	main := blocks["main.go"]
	l := newLab(t, map[string]string{"main.go": main, "relay.go": taken})
	l.build(t)
	const want = `Error: drivers of this program: type "jumpstarter_driver_power.driver.MockPower" is there twice, ` +
		"of github.com/jumplead/jumplead/drivers/power/fakepower and of main; who means to replace a driver leaves the other one out\n"
	for _, command := range []string{"version", "run", "check", "j"} {
		if r := l.run(t, environment(), "./jumplead", command); r.status != 1 || r.stderr != want {
			t.Errorf("jumplead %s = %d, %q; want 1, %q", command, r.status, r.stderr, want)
		}
	}
	// On purpose:
	main = strings.Replace(main, "append(all.Specs(), ", "append(without(all.Specs(), Relay.Type), ", 1)
	l.write(t, "main.go", main+`
func without(specs []driver.Spec, typ string) []driver.Spec {
	return slices.DeleteFunc(specs, func(s driver.Spec) bool { return s.Type == typ })
}
`)
	l.write(t, "main.go", strings.Replace(mustRead(t, l, "main.go"), `"os"
`, `"os"
	"slices"

	"github.com/jumplead/jumplead/drivers/driver"
`, 1))
	l.build(t)
	r := l.run(t, environment(), "./jumplead", "drivers", "MockPower")
	if r.status != 0 || !strings.Contains(r.stdout, "behind a relay") {
		t.Errorf("jumplead drivers MockPower = %d, %s%s; want the lab's own", r.status, r.stdout, r.stderr)
	}
}

func mustRead(t *testing.T, l lab, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(l.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestTools builds the second example and lets clients call execute.
func TestTools(t *testing.T) {
	l := newLab(t, read(t, "tools"))
	l.build(t)
	r := l.run(t, environment(), "./jumplead", "check", "--json", "bench.yaml")
	var said struct {
		Files []struct {
			OK    bool
			Nodes []struct{ Client string }
		}
	}
	if err := json.Unmarshal([]byte(r.stdout), &said); err != nil || !said.Files[0].OK || said.Files[0].Nodes[0].Client != "lab_client.Tools" {
		t.Errorf("check = %d, %s%s; want a node of a class of the lab's own", r.status, r.stdout, r.stderr)
	}
	l.write(t, "bad.yaml", strings.Replace(mustRead(t, l, "bench.yaml"), `"[1-4]"`, `"[1-4"`, 1))
	r = l.run(t, environment(), "./jumplead", "check", "bad.yaml")
	if want := "bad.yaml:12:31: error: tools: commands.cycle-port.args[0].pattern: error parsing regexp"; r.status != 1 || !strings.Contains(r.stdout, want) {
		t.Errorf("check = %d, %s%s; want %q", r.status, r.stdout, r.stderr, want)
	}

	l.write(t, "more.yaml", mustRead(t, l, "bench.yaml")+"        fail: {argv: [/bin/sh, -c, echo oops >&2; exit 3]}\n"+
		"        spin: {argv: [/bin/sh, -c, 'while :; do :; done']}\nx-jumplead: {nodes: {tools: {limits: {cpu_time: 1}}}}\n")
	e := l.export(t, "more.yaml")
	t.Run("go client", func(t *testing.T) {
		got, err := e.find(t, "tools").Call(t.Context(), "execute", "greet", "DUT")
		if m, _ := got.(map[string]any); err != nil || m["stdout"] != "hello DUT\n" || m["code"] != 0.0 {
			t.Errorf("execute(greet, DUT) = %v, %v; want a greeting", got, err)
		}
		_, err = e.find(t, "tools").Call(t.Context(), "execute", "greet", "$(reboot)")
		if driver.Classify(err) != driver.Invalid {
			t.Errorf("execute(greet, $(reboot)) = %v; want it refused", err)
		}
		_, err = e.find(t, "tools").Call(t.Context(), "execute", "spin")
		if want := "spin: the cpu_time limit of 1s was reached"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("execute(spin) = %v; want %q", err, want)
		}
	})
	t.Run("j", func(t *testing.T) {
		if r := l.run(t, e.env(), "./jumplead", "j", "tools", "greet", "DUT"); r.status != 0 || r.stdout != "hello DUT\n" {
			t.Errorf("j tools greet DUT = %d, %s%s; want a greeting", r.status, r.stdout, r.stderr)
		}
		if r := l.run(t, e.env(), "./jumplead", "j", "tools", "cycle-port", "5"); r.status != 1 || !strings.Contains(r.stderr, "does not match [1-4]") {
			t.Errorf("j tools cycle-port 5 = %d, %s%s; want it refused", r.status, r.stdout, r.stderr)
		}
	})
	t.Run("stock client", func(t *testing.T) {
		stock := pyenv.Need(t)
		const script = `
from jumpstarter.utils.env import env
with env() as client:
    t = client.tools
    print(type(t).__module__, t.execute("greet", "DUT")["stdout"].strip())
    print(t.call("execute", "greet", "DUT")["code"], [c["name"] for c in t.call("list")])
    try:
        t.execute("greet", "-x")
    except Exception as e:
        print(type(e).__name__, e)
`
		r := l.run(t, e.env("PYTHONPATH="+l.dir), stock.Bin("python"), "-c", script)
		for _, want := range []string{"lab_client hello DUT\n", "0.0 ['cycle-port', 'fail', 'greet', 'spin']\n", `name: "-x" begins with a dash`} {
			if r.status != 0 || !strings.Contains(r.stdout, want) {
				t.Errorf("stock client = %d, %s%s; want %q", r.status, r.stdout, r.stderr, want)
			}
		}
		for command, want := range map[string]result{"greet DUT": {0, "hello DUT\n", ""}, "fail": {3, "", "oops\n"}} {
			r := l.run(t, e.env("PYTHONPATH="+l.dir), append([]string{stock.Bin("j"), "tools"}, strings.Fields(command)...)...)
			if r != want {
				t.Errorf("stock j tools %s = %d, %s%s; want %v", command, r.status, r.stdout, r.stderr, want)
			}
		}
	})
}

// TestRig has a driver of a contract of its own do all that drivers can.
func TestRig(t *testing.T) {
	l := newLab(t, read(t, "testdata/rig"))
	l.build(t)
	env := environment("JUMPLEAD_PYTHON=/nowhere")
	r := l.run(t, env, "./jumplead", "drivers", "lab.rig.Rig")
	if want := "children  supply\n"; r.status != 0 || !strings.Contains(r.stdout, want) || !strings.Contains(r.stdout, "load(image)") {
		t.Errorf("drivers lab.rig.Rig = %d, %s%s; want its child and its methods", r.status, r.stdout, r.stderr)
	}
	l.write(t, "bad.yaml", strings.Replace(mustRead(t, l, "bench.yaml"), "supply:", "suply:", 1))
	r = l.run(t, env, "./jumplead", "check", "bad.yaml")
	if want := `rig: child "supply" is missing`; r.status != 1 || !strings.Contains(r.stdout, want) {
		t.Errorf("check = %d, %s%s; want %q", r.status, r.stdout, r.stderr, want)
	}

	e := l.export(t, "bench.yaml")
	n := e.find(t, "rig")
	if n.Labels["lab.example.com/port"] != "/dev/rig" || n.Description != "the lab's rig" || len(n.Children) != 1 {
		t.Errorf("report = %+v; want the label, the description and the child", n)
	}
	const state = "supplied with 5 V"
	if got, err := driver.Invoke[string](t.Context(), n, "state"); err != nil || got != state {
		t.Errorf("state() = %q, %v; want %q", got, err, state)
	}
	var counted []int
	for i, err := range driver.Iterate[int](t.Context(), n, "count") {
		if err != nil {
			t.Fatal(err)
		}
		counted = append(counted, i)
	}
	if !slices.Equal(counted, []int{1, 2, 3}) {
		t.Errorf("count() = %v; want 1, 2, 3", counted)
	}
	image := strings.Repeat("image", 100_000)
	if err := driver.Upload(t.Context(), n, strings.NewReader(image), func(ctx context.Context, h driver.Handle) error {
		return driver.Run(ctx, n, "load", h)
	}); err != nil {
		t.Errorf("Upload() = %v; want nil", err)
	}
	var back strings.Builder
	if err := driver.Download(t.Context(), n, &back, func(ctx context.Context, h driver.Handle) error {
		return driver.Run(ctx, n, "save", h)
	}); err != nil || back.String() != image {
		t.Errorf("Download() = %v, %d bytes; want the image's %d", err, back.Len(), len(image))
	}
	s, err := n.Stream(t.Context(), "connect")
	if err != nil {
		t.Fatal(err)
	}
	if got := drivertest.Exchange(t, s, "hello"); got != "hello" {
		t.Errorf("connect() = %q; want it back", got)
	}
	s.Close()
	drivertest.Until(t, "the log has what the driver says", func() bool { return strings.Contains(e.log.String(), "somebody looks") })
	if r := l.run(t, e.env(), "./jumplead", "j", "--json", "rig", "state"); r.status != 0 || r.stdout != `"`+state+"\"\n" {
		t.Errorf("j rig state = %d, %s%s; want %q", r.status, r.stdout, r.stderr, state)
	}
	t.Run("stock client", func(t *testing.T) {
		stock := pyenv.Need(t)
		const script = `
from jumpstarter.utils.env import env
with env() as client:
    r = client.rig
    print(r.call("state"), [int(i) for i in r.streamingcall("count", 2)], type(r.children["supply"]).__name__)
    with r.stream() as s:
        s.send(b"hello")
        print(s.receive())
`
		r := l.run(t, e.env(), stock.Bin("python"), "-c", script)
		if want := state + " [1, 2] PowerClient\nb'hello'\n"; r.status != 0 || r.stdout != want {
			t.Errorf("stock client = %d, %s%s; want %q", r.status, r.stdout, r.stderr, want)
		}
	})
	e.stop()
	if !strings.Contains(e.log.String(), "the rig is let go") {
		t.Errorf("the driver was not closed:\n%s", e.log)
	}
}
