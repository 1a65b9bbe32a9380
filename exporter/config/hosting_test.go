package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/hook"
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

func TestLimits(t *testing.T) {
	const head = "apiVersion: jumpstarter.dev/v1alpha1\nkind: ExporterConfig\nmetadata: {namespace: lab, name: bench}\n" +
		"export: {dut: {children: {shell: {type: S}, camera: {type: C, children: {lens: {type: L}}}}}}\n"
	for _, c := range []struct {
		name, text string
		want       map[string]string // limits by path, "" is none; and where they were said
		problems   []string
	}{
		{"none", "x-jumplead: {user: u}\n", map[string]string{"": "", "dut.shell": ""}, nil},
		{"for all", "x-jumplead:\n  limits: {memory: 200M, cpu: 50%, cpu_time: 30, processes: 64, open_files: 256, file_size: 1G, no_new_privileges: on, read: [/srv/images/], write: []}\n",
			map[string]string{
				"":          "memory 200M, cpu 50%, cpu_time 30s, processes 64, open_files 256, file_size 1G, no_new_privileges true, read [/srv/images], write [] at f:6:11",
				"dut.shell": "memory 200M, cpu 50%, cpu_time 30s, processes 64, open_files 256, file_size 1G, no_new_privileges true, read [/srv/images], write [] at f:6:11",
			}, nil},
		{"for some, on top of those above", "x-jumplead:\n  limits: {memory: 1G, open_files: 99}\n  nodes:\n    dut: {limits: {processes: 7}}\n    dut.shell: {limits: {memory: 100M, read: [/a]}}\n    dut.camera: {limits: null}\n",
			map[string]string{
				"":                "memory 1G, open_files 99 at f:6:11",
				"dut":             "memory 1G, processes 7, open_files 99 at f:8:19",
				"dut.shell":       "memory 100M, processes 7, open_files 99, read [/a] at f:9:25",
				"dut.camera":      "",
				"dut.camera.lens": "",
			}, nil},
		{"mistakes", "x-jumplead:\n  limits:\n    memry: 1G\n    memory: 1M\n    cpu: 0.5\n    cpu_time: 30s\n    processes: 0\n    open_files: 3\n    file_size: big\n    read: [images]\n    write: /tmp\n", nil, []string{
			`f:7:5: x-jumplead.limits: unknown key "memry"; did you mean "memory"?`,
			`f:8:13: x-jumplead.limits: memory: 1M is out of range: at least 16M`,
			`f:9:10: x-jumplead.limits: cpu: "0.5" is no share: write a percentage of one processor, such as 50%`,
			`f:10:15: x-jumplead.limits: cpu_time: wants a number of seconds, got "30s"`,
			`f:11:16: x-jumplead.limits: processes: 0 is out of range: at least 1`,
			`f:12:17: x-jumplead.limits: open_files: 3 is out of range: at least 16`,
			`f:13:16: x-jumplead.limits: file_size: "big" is no size: write a number with K, M, G or T, such as 200M`,
			`f:14:12: x-jumplead.limits: read[0]: "images" is no absolute path`,
			`f:15:12: x-jumplead.limits: write: wants a list, got "/tmp"`,
		}},
		{"hooks without hooks", "x-jumplead: {hooks: {limits: {open_files: 99}}}\n", nil, []string{`f:5:30: warning: x-jumplead.hooks.limits: there are no hooks`}},
		{"no mapping", "x-jumplead: {nodes: {dut.shell: {limits: 5}}}\n", nil, []string{`f:5:42: x-jumplead.nodes.dut.shell.limits: wants a mapping, got 5`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, problems := Parse("f", []byte(head+c.text), func(string) string { return "" })
			if len(problems) != len(c.problems) {
				t.Fatalf("Parse() found %v; want %d problems", problems, len(c.problems))
			}
			for i, want := range c.problems {
				if got := fmt.Sprint(problems[i]); got != want {
					t.Errorf("problem %d = %q; want %q", i, got, want)
				}
			}
			got := map[string]string{}
			note := func(path string, d *driver.Decl) {
				if got[path] = ""; d.Limits != nil {
					got[path] = fmt.Sprintf("%v at %v", d.Limits, d.LimitsPos)
				}
			}
			note("", &cfg.Export)
			each(cfg.Export.Children, "", note)
			for path, want := range c.want {
				if got[path] != want {
					t.Errorf("limits of %q = %q; want %q", path, got[path], want)
				}
			}
		})
	}
}

func TestHookLimits(t *testing.T) {
	const text = "apiVersion: jumpstarter.dev/v1alpha1\nkind: ExporterConfig\nmetadata: {namespace: lab, name: bench}\n" +
		"x-jumplead: {limits: {memory: 1G}, hooks: {limits: {cpu_time: 5}}}\nhooks: {beforeLease: {script: j power on}, afterLease: {script: j power off}}\n"
	c, problems := Parse("f", []byte(text), func(string) string { return "" })
	if len(problems) > 0 {
		t.Fatalf("Parse() = %v; want no problems", problems)
	}
	for _, h := range []*hook.Hook{c.Hooks.BeforeLease, c.Hooks.AfterLease} {
		if h.Limits == nil || h.Limits.String() != "cpu_time 5s" {
			t.Errorf("limits of a hook = %v; want cpu_time 5s", h.Limits)
		}
	}
	if got := c.HookLimitsPos.String(); got != "f:4:52" {
		t.Errorf("they stand at %s; want f:4:52", got)
	}
}
