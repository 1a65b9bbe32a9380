package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
)

func TestHosting(t *testing.T) {
	const head = "apiVersion: jumpstarter.dev/v1alpha1\nkind: ExporterConfig\nmetadata: {namespace: lab, name: bench}\n" +
		"export: {dut: {children: {power: {type: P}, camera: {type: C, children: {lens: {type: L}}}}}}\n"
	for _, c := range []struct {
		name, text string
		want       map[string]driver.Hosting
		problems   []string
	}{
		{"none", "", map[string]driver.Hosting{"dut": {}, "dut.camera.lens": {}}, nil},
		{"other extensions are not read", "x-other: {python: 5}\n", map[string]driver.Hosting{"dut": {}}, nil},
		{"for all, and for some", "x-jumplead:\n  python: /a\n  user: u\n  hosted: [dut.power]\n  nodes:\n    dut.camera: {python: /b, hosted: yes}\n",
			map[string]driver.Hosting{
				"dut":             {Python: "/a", User: "u"},
				"dut.power":       {Python: "/a", User: "u", Wanted: true},
				"dut.camera":      {Python: "/b", User: "u", Wanted: true},
				"dut.camera.lens": {Python: "/b", User: "u"},
			}, nil},
		{"all", "x-jumplead: {hosted: true}\n", map[string]driver.Hosting{"dut": {Wanted: true}, "dut.power": {}}, nil},
		{"mistakes", "x-jumplead:\n  pyton: /a\n  user: 5\n  hosted: [dut.powr]\n  nodes: {dut.camera: {phyton: x}, nowhere: {}}\n", nil, []string{
			`f:6:3: x-jumplead: unknown key "pyton"; did you mean "python"?`,
			`f:7:9: x-jumplead.user: wants text`,
			`f:8:12: x-jumplead.hosted: no instance is at "dut.powr"; did you mean "dut.power"?`,
			`f:9:24: x-jumplead.nodes.dut.camera: unknown key "phyton"; did you mean "python"?`,
			`f:9:36: x-jumplead.nodes: no instance is at "nowhere"`,
		}},
		{"no list", "x-jumplead: {hosted: dut.power}\n", nil, []string{`f:5:22: x-jumplead.hosted: wants a list of paths`}},
		{"no mapping", "x-jumplead: 5\n", nil, []string{`f:5:13: x-jumplead: wants a mapping`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, problems := Parse("f", []byte(head+c.text), func(string) string { return "" })
			if len(problems) != len(c.problems) {
				t.Fatalf("Parse() found %v; want %d problems", problems, len(c.problems))
			}
			for i, want := range c.problems {
				if got := fmt.Sprint(problems[i]); !strings.HasPrefix(got, want) {
					t.Errorf("problem %d = %q; want %q", i, got, want)
				}
			}
			got := map[string]driver.Hosting{}
			each(cfg.Export.Children, "", func(path string, d *driver.Decl) { got[path] = d.Hosting })
			for path, want := range c.want {
				if got[path] != want {
					t.Errorf("hosting of %s = %+v; want %+v", path, got[path], want)
				}
			}
		})
	}
}
