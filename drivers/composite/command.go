package composite

import (
	"github.com/jumplead/jumplead/drivers/cli"
	"github.com/spf13/cobra"
)

// Command makes the command of a group, below which are those of its children.
func Command(t cli.Table) func(*cli.Node) *cobra.Command {
	return func(n *cli.Node) *cobra.Command { return t.Group(n, "Generic composite device") }
}
