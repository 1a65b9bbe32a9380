package gpio

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jumplead/jumplead/drivers/cli"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/spf13/cobra"
)

// state is a line's value in the Python client's words.
func state(active bool) string {
	if active {
		return "active"
	}
	return "inactive"
}

func readCommand(n *cli.Node, p Pin, long string) *cobra.Command {
	return &cobra.Command{Use: "read", Long: long, RunE: func(c *cobra.Command, _ []string) error {
		active, err := p.ReadPin(c.Context())
		if err != nil {
			return err
		}
		return n.Session.Print(c, state(active), "%s", state(active))
	}}
}

// OutputCommand makes the commands of an output.
func OutputCommand(n *cli.Node) *cobra.Command {
	p := NewOutput(n.Caller)
	do := func(use, long string, f func(context.Context) error) *cobra.Command {
		return &cobra.Command{Use: use, Long: long, RunE: func(c *cobra.Command, _ []string) error { return f(c.Context()) }}
	}
	var wait int
	cycle := &cobra.Command{Use: "cycle", Long: "Power cycle", RunE: func(c *cobra.Command, _ []string) error {
		if !n.Session.JSON {
			fmt.Fprintf(c.OutOrStdout(), "Power cycling with %d seconds wait time...\n", wait)
		}
		if err := p.Off(c.Context()); err != nil {
			return err
		}
		t := time.NewTimer(time.Duration(wait) * time.Second)
		defer t.Stop()
		select {
		case <-t.C:
			return p.On(c.Context())
		case <-c.Context().Done():
			return c.Context().Err()
		}
	}}
	cycle.Flags().IntVarP(&wait, "wait", "w", 2, "Seconds to leave the line inactive")
	pulse := &cobra.Command{Use: "pulse MS", Long: "Turn gpio on for some milliseconds", RunE: func(c *cobra.Command, args []string) error {
		ms, err := number(c, "MS", args[0])
		if err != nil {
			return err
		}
		return driver.Run(c.Context(), n.Caller, "pulse", ms)
	}}
	return n.Group("GPIO power control commands.",
		do("on", "Turn gpio on.", p.On),
		do("off", "Turn gpio off.", p.Off),
		cycle,
		readCommand(n, p, "read pin."),
		pulse,
	)
}

// number reads an argument as the Python client does.
func number(c *cobra.Command, name, text string) (float64, error) {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, cli.Usage(c, "Invalid value for '%s': %q is not a valid float.", name, text)
	}
	return v, nil
}

// InputCommand makes the commands of an input.
func InputCommand(n *cli.Node) *cobra.Command {
	p := NewInput(n.Caller)
	wait := func(use, long, method string, args func(c *cobra.Command, args []string) ([]any, error)) *cobra.Command {
		var timeout string
		c := &cobra.Command{Use: use, Long: long}
		c.Flags().StringVarP(&timeout, "timeout", "t", "3600", "Timeout in seconds")
		c.RunE = func(c *cobra.Command, words []string) error {
			list, err := args(c, words)
			if err != nil {
				return err
			}
			t, err := number(c, "--timeout", timeout)
			if err != nil {
				return err
			}
			return driver.Run(c.Context(), n.Caller, method, append(list, t)...)
		}
		return c
	}
	none := func(*cobra.Command, []string) ([]any, error) { return nil, nil }
	edge := wait("wait-for-edge EDGE_TYPE", "Wait for edge", "wait_for_edge", func(c *cobra.Command, args []string) ([]any, error) {
		if !slices.Contains([]string{Rising, Falling}, args[0]) {
			return nil, cli.Usage(c, "Invalid value for '{rising|falling}': '%s' is not one of '%s', '%s'.", args[0], Rising, Falling)
		}
		return []any{args[0]}, nil
	})
	edge.ValidArgs = []string{Rising, Falling}
	count := 0
	edges := &cobra.Command{Use: "edges", Long: "Print the line's value, and then each edge", RunE: func(c *cobra.Command, _ []string) error {
		told := 0
		for e, err := range p.Edges(c.Context()) {
			if err != nil {
				return err
			}
			if e.Seqno == 0 {
				err = n.Session.Print(c, e, "%s", state(e.Active))
			} else {
				err = n.Session.Print(c, e, "%.9f  %s  number=%d lost=%d", e.Timestamp, map[bool]string{true: Rising, false: Falling}[e.Active], e.Seqno, e.Lost)
				told++
			}
			if err != nil || count > 0 && told == count {
				return err
			}
		}
		return nil
	}}
	edges.Flags().IntVarP(&count, "count", "n", 0, "Number of edges, 0 for no end")
	return n.Group("GPIO input commands.",
		readCommand(n, p, "Read input."),
		edge,
		wait("wait-for-active", "Wait for active", "wait_for_active", none),
		wait("wait-for-inactive", "Wait for inactive", "wait_for_inactive", none),
		edges,
	)
}
