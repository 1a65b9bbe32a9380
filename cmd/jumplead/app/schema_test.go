package app_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/cmd/jumplead/app"
	"github.com/jumplead/jumplead/drivers/all"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"
)

// schema compiles what drivers --schema prints.
func schema(t *testing.T, specs ...driver.Spec) *jsonschema.Schema {
	t.Helper()
	var stdout, stderr buffer
	if status := app.Main(t.Context(), app.Proc{Args: []string{"jumplead", "drivers", "--schema"}, Stdout: &stdout, Stderr: &stderr},
		append(all.Specs(), specs...)...); status != 0 {
		t.Fatalf("drivers --schema = %d, %s", status, stderr.String())
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(stdout.String()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json") // which holds it against the schema of schemas
	if err != nil {
		t.Fatalf("Compile() = %v; want a schema", err)
	}
	return s
}

// value turns a node into what an editor validates: scalars by YAML 1.2, to
// which on is text, or by YAML 1.1, to which it is true. Merge keys are merged by
// either.
//
// The budget bounds how many values there are: aliases make many of few.
func value(n *yaml.Node, old bool, budget *int) any {
	n = driver.Resolve(n)
	if *budget--; *budget < 0 || n == nil {
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		m := map[string]any{}
		pairs, _ := driver.Pairs(n, "")
		for _, p := range pairs {
			m[p.Name] = value(p.Value, old, budget)
		}
		return m
	case yaml.SequenceNode:
		list := []any{}
		for _, c := range n.Content {
			list = append(list, value(c, old, budget))
		}
		return list
	}
	if old {
		if x, err := driver.Plain(n); err == nil {
			return x
		}
		return n.Value
	}
	var x any
	if err := n.Decode(&x); err != nil {
		return n.Value
	}
	switch x.(type) {
	case nil, bool, string, int, int64, uint64, float64:
		return x
	}
	return n.Value // a date is text to JSON
}

// valid says whether a text is valid in both readings.
func valid(t *testing.T, s *jsonschema.Schema, text string) (ok, parsed bool) {
	t.Helper()
	for strings.HasPrefix(text, "%") { // the parser knows no version of YAML but 1.1
		_, text, _ = strings.Cut(text, "\n")
	}
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(text), &n); err != nil || driver.Resolve(&n) == nil {
		return false, false
	}
	ok = true
	for _, old := range []bool{false, true} {
		budget := 10_000
		raw, err := json.Marshal(value(&n, old, &budget))
		if err != nil || budget < 0 {
			return false, false // JSON cannot hold it: .inf, or a circle
		}
		x, err := jsonschema.UnmarshalJSON(strings.NewReader(string(raw)))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(x); err != nil {
			ok = false
			t.Logf("YAML 1.1 %t: %v", old, err)
		}
	}
	return ok, true
}

// beyond is why a schema cannot tell a mistake of the corpus, or "".
func beyond(name string) string {
	for why, names := range map[string]string{
		"it is about two places":         "limits-native ref-cycle ref-dangling ref-many ref-parent ref-relative ref-self ref-through-ref ssh-two-keys uuid-twice",
		"the driver's own code finds it": "opendal serial-url shell-empty unix-path websocket-url",
		"it is YAML's":                   "anchor-merge-circle documents documents-broken documents-empty key-list merge tag version someip-example",
		"the environment may have it":    "no-name no-namespace",
	} {
		if slices.Contains(strings.Fields(names), name) {
			return why
		}
	}
	return ""
}

// stricter is what the schema refuses and check takes: text to YAML 1.1, but to
// editors 1e3 is a number.
const stricter = "yaml-1.1-text"

// TestSchema: what check takes is valid; what check refuses is not, unless it is
// beyond a schema.
func TestSchema(t *testing.T) {
	lab := []driver.Spec{inLab("lab.X"), inLab("lab.First"), inLab("lab.Second"), inLab("lab.Other"), inLab("my_lab.driver.Mux")}
	s := schema(t, lab...)
	var paths []string
	for dir, least := range map[string]int{"testdata/check/broken": 60, "testdata/check/odd": 8, "testdata/check/good": 15, "testdata/check/upstream": 100,
		"../../../exporter/config/testdata/broken": 50, "../../../exporter/config/testdata/good": 20} {
		paths = append(paths, corpus(t, dir, least)...)
	}
	slices.Sort(paths)
	good, broken, silent := 0, 0, 0
	for _, path := range paths {
		t.Run(base(path), func(t *testing.T) {
			a := readArchive(t, path)
			text, there := a.files["config.yaml"]
			if !there || a.files["args"] != "" {
				return // about the command, not the file
			}
			status, said := check(t, a, lab...)
			ok, parsed := valid(t, s, text)
			why := beyond(base(path))
			switch {
			case status == 0:
				good++
				if ok == (base(path) == stricter) {
					t.Error("the schema refuses it; want it valid, as check takes it")
				}
			case !parsed:
			case why != "":
				silent++
				if !ok {
					t.Errorf("the schema refuses it; want it out of the list of what it cannot tell (%s)", why)
				}
			default:
				broken++
				if ok {
					t.Errorf("the schema takes it; want it refused, as check does:\n%s", said)
				}
			}
		})
	}
	t.Logf("%d good files are valid, %d broken ones are not, %d broken ones are beyond a schema", good, broken, silent)
	if good < 60 || broken < 80 {
		t.Errorf("%d good and %d broken files were compared; want at least 60 and 80", good, broken)
	}
}
