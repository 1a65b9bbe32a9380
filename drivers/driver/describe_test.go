package driver_test

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"gopkg.in/yaml.v3"
)

// menu is a config that describes methods, and whose order matters.
type menu struct {
	Dishes map[string]string `yaml:"dishes,omitempty"`

	order []string
}

func (m *menu) DescribeMethods() map[string]string { return m.Dishes }

func (m *menu) ReadNode(n *yaml.Node) {
	pairs, _ := driver.Pairs(n, "")
	for _, p := range pairs {
		m.order = append(m.order, p.Name)
		dishes, _ := driver.Pairs(p.Value, "")
		for _, d := range dishes {
			m.order = append(m.order, d.Name)
		}
	}
}

func TestConfigDescribesMethods(t *testing.T) {
	spec := driver.Define(driver.Spec{Type: "test.Menu"}, func(context.Context, *driver.Env, menu) (driver.Driver, error) {
		return driver.Driver{}, nil
	})
	for _, test := range []struct {
		config string
		decl   map[string]string
		want   map[string]string
		order  []string
	}{
		{"", nil, map[string]string{}, nil},
		{"", map[string]string{"soup": "hot"}, map[string]string{"soup": "hot"}, nil},
		{"{log_level: INFO, dishes: {soup: cold, Bread_1: ''}}", map[string]string{"soup": "hot", "wine": "red"},
			map[string]string{"soup": "cold", "Bread_1": "", "wine": "red"}, []string{"dishes", "soup", "Bread_1"}},
		{"dishes: {b: 1, a: 2}", nil, map[string]string{"b": "1", "a": "2"}, []string{"dishes", "b", "a"}},
	} {
		before := maps.Clone(test.decl)
		tree, problems := driver.Plan(driver.Decl{Type: spec.Type, Methods: test.decl,
			Config: drivertest.YAML(t, test.config)}, driver.Options{Specs: []driver.Spec{spec}})
		if err := problems.Err(); err != nil {
			t.Fatalf("Plan(%s) = %v; want no error", test.config, err)
		}
		if got := tree.Reports()[0].Methods; !maps.Equal(got, test.want) {
			t.Errorf("Plan(%s): described methods = %q; want %q", test.config, got, test.want)
		}
		if got := tree.Root.Config.(*menu).order; !slices.Equal(got, test.order) {
			t.Errorf("Plan(%s): keys read = %q; want %q", test.config, got, test.order)
		}
		if !maps.Equal(test.decl, before) {
			t.Errorf("Plan(%s) changed its declaration to %q; want %q", test.config, test.decl, before)
		}
	}
	_, problems := driver.Plan(driver.Decl{Type: spec.Type, Config: drivertest.YAML(t, "dishes: 5")},
		driver.Options{Specs: []driver.Spec{spec}})
	if problems.Err() == nil {
		t.Error("Plan(dishes: 5) = nil; want an error")
	}
}
