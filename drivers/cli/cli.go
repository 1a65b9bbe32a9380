// Package cli is what the commands of all contracts share: how a tree of
// drivers becomes a tree of commands, and the manners of the Python client's
// command line, so that scripts which call that work with this one.
//
// A contract's commands are made by one function of its package, and a [Table]
// says for which client class each is:
//
//	var table = cli.Table{power.Contract.Client: power.Command}
//
//	func Command(n *cli.Node) *cobra.Command {
//		p := NewClient(n)
//		return n.Group("Generic power",
//			&cobra.Command{Use: "on", Long: "Power on", RunE: func(c *cobra.Command, _ []string) error {
//				return p.On(c.Context())
//			}},
//		)
//	}
//
// # Manners
//
// The Python client's command line is made with Click, ours with cobra, which
// speaks otherwise. What a script can see is Click's: the words of usage errors,
// that a group without a command shows its help, that short options are never
// guessed. One thing is the Python client's own: all that goes wrong, usage
// errors included, is exit status 1.
//
// The words of a command's Use after its name are its arguments, and are checked:
// PATH must be given, [PATH] may be, [ARGS]... takes the rest.
//
// Results go to standard output, one JSON value a line when the user wants that
// ([Session.JSON]). What is said besides, progress for one, goes to standard
// error.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// Node is a node of the tree as its command needs it.
type Node struct {
	driver.Caller // an [driver.Offerer] where data is moved

	Name        string // below its parent
	Class       string // of the Python client
	Description string
	Methods     map[string]string // descriptions of commands, by name
	Children    []*Node
	Session     *Session
}

// Child finds a child by name.
func (n *Node) Child(name string) (*Node, error) {
	for _, c := range n.Children {
		if c.Name == name {
			return c, nil
		}
	}
	return nil, fmt.Errorf("driver %q has no child %q", n.Name, name)
}

// Session is what the commands of one run share.
type Session struct {
	Getenv func(string) string
	Log    *slog.Logger // for what happens beside the command, at standard error
	JSON   bool         // results are to be JSON lines

	lazy map[*cobra.Command]func(context.Context) ([]*cobra.Command, error)
}

// Lazily leaves the commands of a group to be found out when they are needed:
// when one of them is called, or the group's help or completion is asked for.
func (s *Session) Lazily(group *cobra.Command, find func(context.Context) ([]*cobra.Command, error)) {
	if s.lazy == nil {
		s.lazy = map[*cobra.Command]func(context.Context) ([]*cobra.Command, error){}
	}
	s.lazy[group] = find
}

// Print writes a result: a line of text, or the value that stands behind it.
func (s *Session) Print(c *cobra.Command, value any, format string, args ...any) error {
	if !s.JSON {
		_, err := fmt.Fprintf(c.OutOrStdout(), format+"\n", args...)
		return err
	}
	text, err := json.Marshal(value)
	if err == nil {
		_, err = fmt.Fprintf(c.OutOrStdout(), "%s\n", text)
	}
	return err
}

// PrintJSON writes a result that is JSON in any case, in lines for people unless
// the user wants one line.
func (s *Session) PrintJSON(c *cobra.Command, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return s.Print(c, value, "%s", text)
}

// Terminal is the file behind a stream if it is a terminal.
func Terminal(stream any) (*os.File, bool) {
	f, ok := stream.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// Group is the command of a node that has commands. Its help is the node's
// description, if it has one; the commands' help is what the node says of them.
func (n *Node) Group(help string, commands ...*cobra.Command) *cobra.Command {
	if n.Description != "" {
		help = n.Description
	}
	g := &cobra.Command{Long: help, RunE: noCommand, Annotations: map[string]string{groupKey: n.Class}}
	Name(g, n.Name)
	n.Add(g, commands...)
	return g
}

// Add adds commands to the node's group.
func (n *Node) Add(group *cobra.Command, commands ...*cobra.Command) {
	for _, c := range commands {
		if help, ok := n.Methods[c.Name()]; ok {
			c.Long = help
		}
		group.AddCommand(c)
	}
}

// Single is the command of a node that is a command itself.
func (n *Node) Single(c *cobra.Command) *cobra.Command {
	if n.Description != "" {
		c.Long = n.Description
	}
	Name(c, n.Name)
	return c
}

// Name gives a command a name that may hold spaces: to cobra a name ends at the
// first. The words behind the old one in Use stay.
func Name(c *cobra.Command, name string) {
	_, args, _ := strings.Cut(c.Use, " ")
	c.Use = strings.TrimSpace(strings.ReplaceAll(name, " ", noBreak) + " " + args)
	if strings.Contains(name, " ") {
		c.Aliases = append(c.Aliases, name)
	}
}

const noBreak = "\u00a0"

// Table knows the commands of client classes.
type Table map[string]func(*Node) *cobra.Command

// Commands makes the commands of a tree, whose root is called as the program is.
func (t Table) Commands(root *Node) *cobra.Command {
	c := t.command(root)
	c.SilenceErrors, c.SilenceUsage = true, true
	c.CompletionOptions.DisableDefaultCmd = true
	help := &cobra.Command{Use: "help [COMMAND]...", Long: "Show the help of a command", Hidden: true, RunE: func(_ *cobra.Command, words []string) error {
		sub, _, err := c.Find(words)
		if err != nil {
			return err
		}
		return sub.Help()
	}}
	if _, err := root.Child("help"); err == nil {
		help.Use = "__help" // cobra insists on one; this is the node's name
	}
	c.SetHelpCommand(help)
	c.SetFlagErrorFunc(flagError)
	c.SetHelpFunc(func(c *cobra.Command, _ []string) { writeHelp(c.OutOrStdout(), c) })
	c.PersistentFlags().BoolVar(&root.Session.JSON, "json", false, "Write results as JSON, one value a line")
	return c
}

func (t Table) command(n *Node) *cobra.Command {
	make, ok := t[n.Class]
	if !ok {
		return n.unknown()
	}
	return make(n)
}

// Group is a Node's Group with a command for each of its children.
func (t Table) Group(n *Node, help string) *cobra.Command {
	g := n.Group(help)
	for _, child := range n.Children {
		g.AddCommand(t.command(child)) // not Add: its help is its own
	}
	return g
}

// unknown stands for a node whose class has no commands here.
func (n *Node) unknown() *cobra.Command {
	c := &cobra.Command{
		Use:                "_ [ARGS]...",
		Long:               fmt.Sprintf("(no commands for the client class %s)", n.Class),
		DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return fmt.Errorf("driver %q: no commands are known for its client class %q", n.Name, n.Class)
		},
	}
	Name(c, n.Name)
	return c
}

// Execute runs the commands of a tree with the arguments of a command line.
func Execute(ctx context.Context, root *cobra.Command, s *Session, args []string) error {
	args, err := leading(root, args)
	if err != nil {
		return err
	}
	words := args
	if len(args) > 1 && (args[0] == cobra.ShellCompRequestCmd || args[0] == cobra.ShellCompNoDescRequestCmd) {
		words = args[1 : len(args)-1] // the last is not complete
	}
	finish(root)
	for {
		c, _, err := root.Find(words)
		find := s.lazy[c]
		if err != nil || find == nil {
			break
		}
		delete(s.lazy, c)
		commands, err := find(ctx)
		if err != nil {
			return err
		}
		c.AddCommand(commands...)
		finish(c)
	}
	root.SetArgs(withoutDashes(root, args))
	return root.ExecuteContext(ctx)
}

// withoutDashes leaves out a "--" between a group and its command, where cobra
// would take the command for an argument of the group.
func withoutDashes(c *cobra.Command, args []string) []string {
	for i := 0; i < len(args) && isGroup(c); i++ {
		if args[i] == "--" {
			return slices.Concat(args[:i], args[i+1:])
		}
		sub := slices.IndexFunc(c.Commands(), func(sub *cobra.Command) bool { return sub.Name() == args[i] || sub.HasAlias(args[i]) })
		if sub < 0 {
			break
		}
		c = c.Commands()[sub]
	}
	return args
}

// leading applies the root's options where they stand first. Further behind they
// may be those of another program, which a command passes on.
func leading(root *cobra.Command, args []string) ([]string, error) {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	fs.AddFlagSet(root.PersistentFlags())
	fs.SetInterspersed(false)
	fs.Usage = func() {}
	err := fs.Parse(args)
	var unknown *pflag.NotExistError
	switch {
	case err == nil:
		return fs.Args(), nil
	case errors.Is(err, pflag.ErrHelp) || errors.As(err, &unknown):
		return args, nil // which cobra knows, or says that it does not
	}
	return nil, flagError(root, err)
}
