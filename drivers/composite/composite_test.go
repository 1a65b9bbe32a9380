package composite_test

import (
	"errors"
	"testing"

	"github.com/jumplead/jumplead/drivers/composite"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
)

func TestSpecs(t *testing.T) {
	drivertest.Spec(t, composite.Composite, "")
	drivertest.Bench{}.Lifecycle(t, "", composite.Composite)
	if got := composite.Composite.Role; got != driver.Group {
		t.Errorf("Composite.Role = %d; want Group", got)
	}
	if got := composite.Proxy.Role; got != driver.Ref {
		t.Errorf("Proxy.Role = %d; want Ref", got)
	}
}

// A node without a type is a composite, and one with the type of a proxy, or
// with only a ref, shows what it stands for.
func TestTree(t *testing.T) {
	root := driver.Decl{Children: []driver.Decl{
		{Name: "dut", Children: []driver.Decl{{Name: "inner", Type: composite.Composite.Type}}},
		{Name: "one", Type: composite.Proxy.Type, Config: drivertest.YAML(t, "{ref: dut.inner}")},
		{Name: "two", Ref: "dut"},
	}}
	tree, problems := driver.Plan(root, driver.Options{Specs: []driver.Spec{composite.Composite, composite.Proxy}})
	if err := problems.Err(); err != nil {
		t.Fatalf("Plan() = %v; want no error", err)
	}
	reports := tree.Reports()
	want := []string{"", "dut", "inner", "one", "two", "inner"}
	if len(reports) != len(want) {
		t.Fatalf("Reports() = %+v; want %d", reports, len(want))
	}
	for i, r := range reports {
		if got := r.Labels[driver.LabelName]; got != want[i] {
			t.Errorf("Reports()[%d] is called %q; want %q", i, got, want[i])
		}
		if got := r.Labels[driver.LabelClient]; got != "jumpstarter_driver_composite.client.CompositeClient" {
			t.Errorf("Reports()[%d] has client %q; want upstream's", i, got)
		}
	}
	if reports[3].UUID != reports[2].UUID || reports[4].UUID != reports[1].UUID || reports[5].Parent != reports[1].UUID {
		t.Errorf("Reports() = %+v; want the proxies to have their targets' identities", reports)
	}
	if err := tree.Open(t.Context()); err != nil {
		t.Errorf("Open() = %v; want nil", err)
	}
	for _, n := range tree.Nodes() {
		if _, err := n.Caller().Call(t.Context(), "on"); !errors.Is(err, driver.ErrNoMethod) {
			t.Errorf("%s: Call(on) = %v; want ErrNoMethod", n.Path, err)
		}
	}
	if err := tree.Close(); err != nil {
		t.Errorf("Close() = %v; want nil", err)
	}
}

// Upstream ignores what a composite does not know, so that such files run.
func TestUnknownKeys(t *testing.T) {
	_, problems := drivertest.Bench{}.Plan(t, "{log_level: DEBUG, speed: 3}", composite.Composite)
	if len(problems) != 1 || !problems[0].Warning {
		t.Errorf("Plan() says %v; want one warning", problems)
	}
	_, problems = drivertest.Bench{}.Plan(t, "", composite.Proxy)
	if problems.Err() == nil {
		t.Error("Plan(proxy without a ref) = no error; want one")
	}
}
