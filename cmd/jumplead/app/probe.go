package app

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
)

// probeLimit is what one node may take to be looked for. All are looked for at the
// same time.
const probeLimit = 10 * time.Second

// checkedHardware is what --probe found of a node.
type checkedHardware struct {
	Status driver.Condition `json:"status"` // ok, absent, busy, forbidden, wrong
	Text   string           `json:"text"`
}

// probe looks for what the nodes need.
func (f *checkedFile) probe(ctx context.Context, tree *driver.Tree) {
	f.Probed = true
	found := map[string]driver.Finding{}
	for _, x := range tree.Probe(ctx, probeLimit) {
		found[x.Node.Path] = x
	}
	for i := range f.Nodes {
		n := &f.Nodes[i]
		if x, ok := found[n.Path]; ok && n.Ref == "" {
			n.Hardware = &checkedHardware{x.Condition, x.Text}
		} else if n.Status == "hosted" || n.Status == "unchecked" {
			n.Hardware = f.hosted(n)
		}
		if h := n.Hardware; h != nil && h.Status != driver.Healthy {
			f.Missing++
			f.OK = false
		}
	}
}

// hosted is what was found of a node that Python runs: that its driver could be
// imported, or what is said of it. What hardware it needs, that alone knows.
func (f *checkedFile) hosted(n *checkedNode) *checkedHardware {
	if n.Status == "hosted" {
		return &checkedHardware{driver.Healthy, "Python imports its driver, which alone knows what it needs"}
	}
	for _, p := range f.Problems {
		if p.Node == n.Path {
			return &checkedHardware{driver.Wrong, strings.TrimPrefix(p.Message, n.Path+": ")}
		}
	}
	return &checkedHardware{driver.Wrong, "Python does not tell what it is"}
}

// hardware is the sum of what was found, as "3 ok, 1 absent".
func (f checkedFile) hardware() string {
	counts := map[driver.Condition]int{}
	for _, n := range f.Nodes {
		if n.Hardware != nil {
			counts[n.Hardware.Status]++
		}
	}
	var parts []string
	for _, c := range []driver.Condition{driver.Healthy, driver.Absent, driver.Busy, driver.Forbidden, driver.Wrong} {
		if counts[c] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[c], c))
		}
	}
	if len(parts) == 0 {
		return "none that can be looked for"
	}
	return strings.Join(parts, ", ")
}

// printHardware lists what was found.
func (f checkedFile) printHardware(w io.Writer) {
	if !slices.ContainsFunc(f.Nodes, func(n checkedNode) bool { return n.Hardware != nil }) {
		return
	}
	fmt.Fprintln(w, "hardware:")
	for _, n := range f.Nodes {
		if n.Hardware != nil {
			fmt.Fprintf(w, "  %-9s  %s: %s\n", n.Hardware.Status, printable(n.Path), printable(n.Hardware.Text))
		}
	}
}
