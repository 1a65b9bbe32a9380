package config

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/hook"
)

var update = flag.Bool("update", false, "write what was found into the want sections of testdata")

func none(string) string { return "" }

// environ is a getenv for some variables.
func environ(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

// TestCorpus holds each file of the corpus against what its want section says:
// the problems, and, if there are no errors, what the file means.
//
// A good file is one that the Python exporter's ExporterConfigV1Alpha1 loads,
// too, and understands likewise; a broken one is refused there, or turned into
// something that nobody can have meant.
func TestCorpus(t *testing.T) {
	count := map[string]int{}
	for _, kind := range []string{"good", "broken"} {
		paths, err := filepath.Glob("testdata/" + kind + "/*.txtar")
		if err != nil {
			t.Fatal(err)
		}
		count[kind] = len(paths)
		for _, path := range paths {
			t.Run(kind+"/"+strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
				a := readArchive(t, path)
				env := map[string]string{}
				for line := range strings.Lines(a.files["env"]) {
					name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
					env[name] = value
				}
				c, problems := Parse("config.yaml", []byte(a.files["config.yaml"]), environ(env))
				if good := problems.Err() == nil; good != (kind == "good") {
					t.Errorf("Parse() = %v; want it %s", problems, kind)
				}
				got := render(c, problems)
				if got == a.files["want"] {
					return
				}
				if !*update {
					t.Errorf("Parse() =\n%s\nwant\n%s", got, a.files["want"])
					return
				}
				a.set("want", got)
				if err := os.WriteFile(path, a.bytes(), 0o666); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
	if count["good"] < 20 || count["broken"] < 30 {
		t.Errorf("the corpus has %d good files and %d broken ones; want at least 20 and 30", count["good"], count["broken"])
	}
}

func render(c *Config, problems driver.Problems) string {
	var b strings.Builder
	for _, p := range problems {
		fmt.Fprintln(&b, p)
	}
	if problems.Err() != nil {
		return b.String()
	}
	fmt.Fprintf(&b, "exporter %q in %q\n", c.Name, c.Namespace)
	show := func(name string, value, usual any) {
		if value != usual {
			fmt.Fprintf(&b, "%s %#v\n", name, value)
		}
	}
	show("motd", c.MOTD, "")
	show("endpoint", c.Endpoint, "")
	show("token", c.Token, "")
	show("tls", fmt.Sprintf("%+v", c.TLS), "{CA: Insecure:false}")
	show("failureDetection", fmt.Sprintf("%+v", c.FailureDetection), "{MaxRapidFailures:5 RapidFailureWindow:60}")
	show("exitOnLeaseEnd", c.ExitOnLeaseEnd, false)
	for _, h := range []*hook.Hook{c.Hooks.BeforeLease, c.Hooks.AfterLease} {
		if h != nil {
			fmt.Fprintf(&b, "hook %q exec %q, %v, %s\n", h.Script, h.Exec, h.Timeout, h.OnFailure)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(c.GRPCOptions)) {
		fmt.Fprintf(&b, "grpcOptions.%s %#v\n", k, c.GRPCOptions[k])
	}
	renderDecl(&b, &c.Export, "")
	return b.String()
}

func renderDecl(b *strings.Builder, d *driver.Decl, indent string) {
	at := func(p driver.Pos) string { return fmt.Sprintf("%d:%d", p.Line, p.Column) }
	name := d.Name
	if indent == "" {
		name = "export"
	}
	fmt.Fprintf(b, "%s%q %s", indent, name, at(d.Pos))
	if d.Type != "" {
		fmt.Fprintf(b, " type %s %s", d.Type, at(d.TypePos))
	}
	if d.Ref != "" {
		fmt.Fprintf(b, " ref %s %s", d.Ref, at(d.RefPos))
	}
	if d.Description != "" {
		fmt.Fprintf(b, " description %q", d.Description)
	}
	for _, k := range slices.Sorted(maps.Keys(d.Methods)) {
		fmt.Fprintf(b, " method %s %q", k, d.Methods[k])
	}
	if d.Config != nil {
		x, err := driver.Plain(d.Config)
		fmt.Fprintf(b, " config %v", x)
		if err != nil {
			fmt.Fprintf(b, " %v", err)
		}
	}
	b.WriteByte('\n')
	for i := range d.Children {
		renderDecl(b, &d.Children[i], indent+"  ")
	}
}

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

func (a *archive) bytes() []byte {
	var b bytes.Buffer
	b.WriteString(a.comment)
	for _, name := range a.names {
		fmt.Fprintf(&b, "-- %s --\n%s", name, a.files[name])
	}
	return b.Bytes()
}
