package driver

import (
	"strings"
	"testing"
)

// Thirty lines of refs to pairs of refs would be a report of a thousand million
// nodes.
func TestPlanRefBomb(t *testing.T) {
	plan := func(levels int) (*Tree, Problems) {
		root := Decl{Pos: Pos{"f", 1, 1}, Children: []Decl{{Name: "g0"}}}
		for i := 1; i < levels; i++ {
			before := root.Children[i-1].Name
			root.Children = append(root.Children, Decl{Name: before[:1] + strings.Repeat("1", i),
				Children: []Decl{{Name: "a", Ref: before}, {Name: "b", Ref: before}}})
		}
		return Plan(root, Options{Specs: []Spec{{Type: "group", Role: Group}}})
	}
	tree, problems := plan(12)
	if tree == nil {
		t.Fatalf("Plan(12 levels) found %v; want a tree", problems)
	}
	if n := len(tree.Reports()); n != 1<<13-13 {
		t.Errorf("Reports() of 12 levels = %d; want %d", n, 1<<13-13)
	}
	if _, problems := plan(30); problems.Err() == nil || !strings.Contains(problems.Err().Error(), "more than 10000 nodes") {
		t.Errorf("Plan(30 levels) found %v; want too many nodes", problems)
	}
}
