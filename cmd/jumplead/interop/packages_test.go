package interop

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/jumplead/jumplead/cmd/jumplead/interop/pyenv"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/client"
)

// A driverPackage is a row of testdata/packages/packages.yaml, which says what the
// fields are.
type driverPackage struct {
	Package, Absent, How, Needs string
	Export                      map[string]map[string]any
	Calls                       []string
	Refuses                     map[string]map[string]any
}

// packages is how the driver packages of the release are tested.
type packages struct {
	env  *pyenv.Env
	rows []driverPackage
	vars map[string]any // what stands for what in the table
	dir  string         // for what drivers write
	path string         // the PATH of the exporters
}

// openPackages starts what drivers talk to, and reads the table.
func openPackages(t *testing.T) *packages {
	t.Helper()
	p := &packages{env: needDrivers(t)}
	top, err := os.MkdirTemp(scratch, "packages-")
	if err != nil {
		t.Fatal(err)
	}
	bin, err := filepath.Abs("testdata/packages/bin")
	if err != nil {
		t.Fatal(err)
	}
	// Programs that drivers find are the stand-ins and these, whatever else the
	// machine has: some drivers would set up a network with it.
	tools := filepath.Join(top, "tools")
	if err := os.Mkdir(tools, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bash", "cat", "wc"} {
		program, err := exec.LookPath(name)
		if err == nil {
			err = os.Symlink(program, filepath.Join(tools, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	p.path, p.dir = bin+":"+tools+":"+filepath.Dir(p.env.Bin("python")), filepath.Join(top, "dir")

	peers := p.python("peers", top)
	in, err := peers.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := peers.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	said := new(buffer)
	peers.Stderr = said
	if err := peers.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = peers.Wait()
	})
	lines := bufio.NewReader(out)
	line, err := lines.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &p.vars)
	}
	if err != nil {
		t.Fatalf("what drivers talk to: %v:\n%s", err, said.tail())
	}
	p.vars["bin"], p.vars["dir"] = bin, p.dir

	text, err := os.ReadFile("testdata/packages/packages.yaml")
	if err != nil {
		t.Fatal(err)
	}
	filled := regexp.MustCompile(`\$\w+`).ReplaceAllStringFunc(string(text), func(name string) string {
		if v, ok := p.vars[name[1:]]; ok {
			return fmt.Sprint(v)
		}
		return name
	})
	if err := yaml.Unmarshal([]byte(filled), &p.rows); err != nil {
		t.Fatal(err)
	}
	return p
}

// python is a call of testdata/packages/packages.py.
func (p *packages) python(args ...string) *exec.Cmd {
	cmd := exec.Command(p.env.Bin("python"), append([]string{"testdata/packages/packages.py"}, args...)...)
	cmd.Env = environment("PYTHONWARNINGS=ignore")
	return cmd
}

// ask calls packages.py and decodes what it answers.
func (p *packages) ask(t *testing.T, in, out any, args ...string) {
	t.Helper()
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	cmd := p.python(args...)
	cmd.Env = append(cmd.Env, "PATH="+p.path)
	var said bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(text), &said
	answer, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(answer[bytes.LastIndexByte(bytes.TrimSpace(answer), '\n')+1:], out)
	}
	if err != nil {
		t.Fatalf("packages.py %v = %v:\n%s%s", args, err, answer, said.Bytes())
	}
}

// types lists the types of a node and those below it.
func typesOf(node map[string]any) (types []string) {
	if typ, ok := node["type"].(string); ok {
		types = append(types, typ)
	}
	children, _ := node["children"].(map[string]any)
	for _, c := range children {
		if c, ok := c.(map[string]any); ok {
			types = append(types, typesOf(c)...)
		}
	}
	return types
}

// nodes are those of all packages.
func (p *packages) nodes(refused bool) map[string]map[string]any {
	all := map[string]map[string]any{}
	for _, row := range p.rows {
		from := row.Export
		if refused {
			from = row.Refuses
		}
		for name, node := range from {
			node = maps.Clone(node)
			delete(node, "error")
			all[name] = node
		}
	}
	return all
}

// A packagesRun is what one exporter makes of the packages.
type packagesRun struct {
	tree  map[string]string // what is reported of each node, by path
	calls []string          // what each expression gives, in the order of the table
	fails map[string]error  // of the nodes that are refused
}

// run starts an exporter with nodes, and evaluates the expressions.
func (p *packages) run(t *testing.T, program, extra string, nodes map[string]map[string]any, refused []string) packagesRun {
	t.Helper()
	if err := os.RemoveAll(p.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(p.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	export, err := yaml.Marshal(map[string]any{"export": nodes})
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(filepath.Dir(p.dir), "packages.yaml")
	text := "apiVersion: jumpstarter.dev/v1alpha1\nkind: ExporterConfig\nmetadata: {namespace: lab, name: packages}\n" + extra + string(export)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	address := port(t)
	cmd := exec.Command(program, "run", "--exporter-config", config, "--tls-grpc-listener", address, "--tls-grpc-insecure")
	cmd.Env = environment("PATH="+p.path, "CORELLIUM_API_HOST=127.0.0.1:1", "CORELLIUM_API_TOKEN=token", "PYTHONWARNINGS=ignore")
	began := time.Now()
	proc, err := start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer proc.kill()
	if err := proc.ready(t.Context(), way{target: address}); err != nil {
		t.Fatal(err)
	}
	t.Logf("ready after %v", time.Since(began).Round(time.Millisecond))
	c, err := client.Dial(t.Context(), address, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := packagesRun{tree: map[string]string{}, fails: map[string]error{}}
	first := map[string]string{} // where each uuid comes first
	var walk func(n *client.Node)
	walk = func(n *client.Node) {
		if first[n.UUID] == "" {
			first[n.UUID] = n.Path
		}
		labels := maps.Clone(n.Labels)
		delete(labels, driver.LabelName)
		delete(labels, driver.LabelClient)
		r.tree[n.Path] = fmt.Sprintf("%s, labels %v, description %q, methods %v, the same as %s", n.Class, labels, n.Description, n.Methods, first[n.UUID])
		for _, c := range n.Children {
			walk(c)
		}
	}
	for _, n := range c.Root.Children {
		walk(n)
	}
	for _, name := range refused {
		n, err := c.Find(name)
		if err == nil {
			_, err = n.Call(t.Context(), "on")
		}
		r.fails[name] = err
	}

	var all []string
	for _, row := range p.rows {
		all = append(all, row.Calls...)
	}
	asks, err := json.Marshal(map[string]any{"calls": all, "http": p.vars["http"]})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	calls := p.python("calls", address, filepath.Dir(p.dir))
	bound := exec.CommandContext(ctx, calls.Path, calls.Args[1:]...)
	var said bytes.Buffer
	bound.Env, bound.Stdin, bound.Stderr = calls.Env, bytes.NewReader(asks), &said
	out, err := bound.Output()
	for line := range bytes.Lines(out) {
		var one struct {
			Call, Said string
			Took       float64
		}
		if json.Unmarshal(line, &one) == nil && one.Call != "" {
			r.calls = append(r.calls, one.Said)
			if one.Took > 3 {
				t.Logf("%s took %.1f s", one.Call, one.Took)
			}
		}
	}
	if err != nil || len(r.calls) != len(all) {
		t.Fatalf("packages.py calls = %v, with %d of %d answers:\n%s\nThe exporter said:\n%s", err, len(r.calls), len(all), said.Bytes(), proc.stderr.tail())
	}
	if err := proc.stop(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	return r
}

const packagesGolden = "testdata/packages/calls.golden"

// TestPackages hosts every driver of every package of the release. What the stock
// exporter makes, reports and answers, the hosted drivers do; what it cannot make
// here, they cannot, for the same reason.
func TestPackages(t *testing.T) {
	p := openPackages(t)

	t.Run("table", func(t *testing.T) {
		var there struct {
			Found  map[string][]string
			Failed map[string]string
		}
		p.ask(t, nil, &there, "classes")
		for module, why := range there.Failed {
			t.Errorf("%s cannot be imported: %s", module, why)
		}
		listed, rows := map[string]bool{}, map[string]bool{}
		for _, row := range p.rows {
			module := "jumpstarter_driver_" + strings.ReplaceAll(row.Package, "-", "_")
			rows[module] = true
			if _, ok := there.Found[module]; ok == (row.Absent != "") {
				t.Errorf("%s is installed: %t; want %t", row.Package, ok, row.Absent == "")
			}
			if row.Absent == "" && len(row.Calls) == 0 && row.Needs == "" && row.How == "" {
				t.Errorf("%s is not called, and nothing says why", row.Package)
			}
			for _, nodes := range []map[string]map[string]any{row.Export, row.Refuses} {
				for _, node := range nodes {
					for _, typ := range typesOf(node) {
						listed[typ] = true
					}
				}
			}
		}
		count := 0
		for module, types := range there.Found {
			if !rows[module] {
				t.Errorf("the package %s is installed, and not in the table", module)
			}
			for _, typ := range types {
				count++
				if !listed[typ] {
					t.Errorf("the driver %s is not in the table", typ)
				}
			}
		}
		t.Logf("%d drivers in %d packages", count, len(there.Found))
	})

	refusals := map[string]string{}
	p.ask(t, p.nodes(true), &refusals, "build")
	for _, row := range p.rows {
		for name, node := range row.Refuses {
			if want := fmt.Sprint(node["error"]); !regexp.MustCompile(want).MatchString(refusals[name]) || refusals[name] == "" {
				t.Errorf("the stock package says of %s: %q; want %q", name, refusals[name], want)
			}
		}
	}
	f, err := jumplead()
	if err != nil {
		t.Fatal(err)
	}
	jmp := filepath.Join(scratch, "jmp")
	if err := os.WriteFile(jmp, []byte("#!/bin/sh\nexec "+p.env.Bin("python")+" -m jumpstarter_cli \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}

	nodes := p.nodes(false)
	want := p.run(t, jmp, "", nodes, nil)
	maps.Copy(nodes, p.nodes(true))
	got := p.run(t, f.program, "x-jumplead: {hosted: true, python: "+p.env.Bin("python")+"}\n", nodes, slices.Sorted(maps.Keys(refusals)))

	t.Run("reports", func(t *testing.T) {
		for path, report := range want.tree {
			if got.tree[path] != report {
				t.Errorf("report of %s, hosted = %s; want %s", path, got.tree[path], report)
			}
			delete(got.tree, path)
		}
		for path := range got.tree {
			if _, ok := refusals[path]; !ok {
				t.Errorf("report of %s = %s; want none", path, got.tree[path])
			}
		}
		t.Logf("%d nodes are reported alike", len(want.tree))
	})

	t.Run("refusals", func(t *testing.T) {
		for name, why := range refusals {
			err := got.fails[name]
			if driver.Classify(err) != driver.Unavailable || !strings.HasSuffix(err.Error(), name+": "+why) {
				t.Errorf("Call() on %s = %v; want unavailable, %s", name, err, why)
			}
		}
		t.Logf("%d nodes are refused alike", len(refusals))
	})

	t.Run("calls", func(t *testing.T) {
		var golden strings.Builder
		golden.WriteString("# What the expressions of packages.yaml give, hosted as with the stock exporter.\n# Written by go test -run TestPackages -update ./cmd/jumplead/interop\n")
		i := 0
		for _, row := range p.rows {
			if row.Absent == "" {
				fmt.Fprintf(&golden, "\n%s\n", row.Package)
			}
			for _, call := range row.Calls {
				got, want := got.calls[i], want.calls[i]
				i++
				if got != want {
					t.Errorf("%s, hosted = %s; want %s", call, got, want)
				}
				fmt.Fprintf(&golden, "  %s\n    %s\n", p.steady(call), p.steady(want))
			}
		}
		if *update {
			if err := os.WriteFile(packagesGolden, []byte(golden.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(packagesGolden)
		if err != nil {
			t.Fatal(err)
		}
		have := slices.Collect(strings.Lines(golden.String()))
		for i, line := range slices.Collect(strings.Lines(string(text))) {
			if i >= len(have) || have[i] != line {
				t.Fatalf("%s:%d: %swant what was given, %s", packagesGolden, i+1, line, strings.Join(have[min(i, len(have)):min(i+1, len(have))], ""))
			}
		}
		t.Logf("%d calls give the same", len(want.calls))
	})
}

// steady replaces what is different each time.
func (p *packages) steady(text string) string {
	for _, name := range slices.Backward(slices.SortedFunc(maps.Keys(p.vars), func(a, b string) int {
		return len(fmt.Sprint(p.vars[a])) - len(fmt.Sprint(p.vars[b]))
	})) {
		text = strings.ReplaceAll(text, fmt.Sprint(p.vars[name]), "$"+name)
	}
	return text
}
