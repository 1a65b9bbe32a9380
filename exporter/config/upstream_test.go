package config

import (
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
)

// What the Python exporter makes of instances with mistakes in their own keys;
// compared with release 0.9.0 (ExporterConfigV1Alpha1.model_validate).
func TestParseUpstream(t *testing.T) {
	const empty, group, ref = "makes an empty group of it", "makes a group of its children, without a driver", "takes the ref instead"
	for instance, want := range map[string]string{
		"{type: 5}":                                 empty,
		"{type: a.B, config: []}":                   empty,
		"{type: a.B, config: }":                     empty,
		"{type: a.B, description: 5}":               empty,
		"{type: a.B, methods_description: {on: 5}}": empty,
		"{type: a.B, config: {5: x}}":               empty,
		"{tpye: a.B}":                               empty,
		"{ref: 5}":                                  empty,
		"{type: 5, ref: x}":                         ref,
		"{type: a.B, config: , children: {x: {type: a.C}}}":       group,
		"{type: a.B, description: 5, children: {x: {type: a.C}}}": group,
		"{type: a.B, children: []}":                               "", // refused there, too
		"{type: ''}":                                              "",
		"{ref: ''}":                                               "",
		"5":                                                       "",
	} {
		_, problems := Parse("f", []byte(minimal+"export: {n: "+instance+"}\n"), none)
		err := problems.Err()
		if err == nil {
			t.Errorf("Parse(%s) found no error", instance)
		}
		for _, p := range problems {
			if !p.Warning && (p.Upstream != want || p.Node != "n") {
				t.Errorf("Parse(%s) found %+v; want upstream %q, node n", instance, p, want)
			}
		}
	}
}

// A config that is none is told once, and not also as keys that are missing.
func TestParseBrokenConfig(t *testing.T) {
	for _, instance := range []string{"{type: lab.Boat, config: []}", "{type: lab.Boat, config: }", "{type: lab.Boat, config: speed}"} {
		c, problems := Parse("f", []byte(minimal+"export: {n: "+instance+"}\n"), none)
		if len(problems) != 1 {
			t.Errorf("Parse(%s) found %v; want one problem", instance, problems)
		}
		if _, more := driver.Plan(c.Export, driver.Options{Specs: specs}); len(more) != 0 {
			t.Errorf("Plan(%s) found %v; want nothing more", instance, more)
		}
	}
}
