//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/jumplead/jumplead/drivers/cli"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/spf13/cobra"
)

// Contract is the lab's own, and so is the class that Python clients make for it:
// they need lab_client.py where they can import it. (A driver of a contract that
// Jumpstarter has names that one's class, and needs nothing.)
var Contract = driver.Contract{
	Name:   "tools",
	Client: "lab_client.Tools",
	Kind:   "tools",

	Exports: func() []driver.Export { return Exports((*Client)(nil)) },
}

// Interface is a set of commands.
type Interface interface {
	// List lists the commands, by name.
	List(context.Context) ([]Info, error)

	// Execute runs a command to its end. A command or an argument that is not
	// allowed is a [driver.ArgError], and nothing was run.
	Execute(ctx context.Context, command string, args ...string) (Result, error)
}

// Info is what there is to know of a command.
type Info struct {
	Name        string   `json:"name"`
	Args        []string `json:"args"` // their names
	Description string   `json:"description"`
}

// Result is what became of a command.
type Result struct {
	Code      int    `json:"code"` // exit status, or the negative number of the signal that ended it
	Stdout    string `json:"stdout"`
	Stderr    string `json:"stderr"`
	Truncated bool   `json:"truncated"` // it wrote more than that
}

// Exports is the contract on the wire.
func Exports(t Interface) []driver.Export {
	return []driver.Export{
		driver.Call("list", t.List).Help("List the commands"),
		driver.CallTail("execute", t.Execute).Args("command", "args").Help("Run a command"),
	}
}

// Client is a set of commands behind a [driver.Caller].
type Client struct{ c driver.Caller }

var _ Interface = (*Client)(nil)

// NewClient makes a client of a node.
func NewClient(c driver.Caller) *Client { return &Client{c} }

func (c *Client) List(ctx context.Context) ([]Info, error) {
	return driver.Invoke[[]Info](ctx, c.c, "list")
}

func (c *Client) Execute(ctx context.Context, command string, args ...string) (Result, error) {
	values := []any{command}
	for _, a := range args {
		values = append(values, a)
	}
	return driver.Invoke[Result](ctx, c.c, "execute", values...)
}

// Commands makes the commands of j for a node: one for each that it allows. The
// exit status is the command's.
func Commands(n *cli.Node) *cobra.Command {
	t, g := NewClient(n.Caller), n.Group("Commands of the harness")
	n.Session.Lazily(g, func(ctx context.Context) ([]*cobra.Command, error) {
		list, err := t.List(ctx)
		if err != nil {
			return nil, err
		}
		var commands []*cobra.Command
		for _, x := range list {
			c := &cobra.Command{Use: strings.ToUpper(strings.Join(append([]string{"_"}, x.Args...), " ")), Long: x.Description}
			cli.Name(c, x.Name)
			c.RunE = func(c *cobra.Command, args []string) error {
				r, err := t.Execute(c.Context(), x.Name, args...)
				if err != nil {
					return err
				}
				return r.show(c, n.Session)
			}
			commands = append(commands, c)
		}
		return commands, nil
	})
	return g
}

// show writes what a command has written, and makes its exit status ours.
func (r Result) show(c *cobra.Command, s *cli.Session) error {
	if s.JSON {
		if err := s.Print(c, r, ""); err != nil {
			return err
		}
	} else {
		_, _ = io.WriteString(c.OutOrStdout(), r.Stdout)
		_, _ = io.WriteString(c.ErrOrStderr(), r.Stderr)
		if r.Truncated {
			fmt.Fprintln(c.ErrOrStderr(), "(there was more)")
		}
	}
	switch {
	case r.Code < 0: // as a shell has it
		return cli.Exit(128 - r.Code)
	case r.Code > 0:
		return cli.Exit(r.Code)
	}
	return nil
}
