package app

import (
	"fmt"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/hw/process"
)

// unkept finds the limits that this machine cannot keep. What has them would not be
// started here.
func unkept(tree *driver.Tree) (problems driver.Problems) {
	if tree == nil {
		return nil
	}
	for _, n := range tree.Nodes() {
		l, user := n.Limits()
		if l == nil {
			continue
		}
		if _, err := process.Keeps(*l, user); err != nil {
			problems = append(problems, driver.Problem{Pos: n.LimitsPos(), Node: n.Path, Text: fmt.Sprintf("%s: limits: %v", n.Path, err)})
		}
	}
	return problems
}
