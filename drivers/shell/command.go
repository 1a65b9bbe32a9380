package shell

import (
	"context"
	"fmt"
	"strings"

	"github.com/jumplead/jumplead/drivers/cli"
	"github.com/spf13/cobra"
)

// Command makes the commands of a set of scripts, one for each.
//
// The Python client takes no notice of a script's exit status, and neither does
// a command unless it is told to (--exit-status).
func Command(n *cli.Node) *cobra.Command {
	s := NewClient(n.Caller)
	g := n.Group("Shell command executor")
	n.Session.Lazily(g, func(ctx context.Context) ([]*cobra.Command, error) {
		methods, err := s.Methods(ctx)
		if err != nil {
			return nil, err
		}
		var commands []*cobra.Command
		for _, m := range methods {
			commands = append(commands, method(n, s, m))
		}
		return commands, nil
	})
	return g
}

func method(n *cli.Node, s Interface, name string) *cobra.Command {
	var vars []string
	var status bool
	c := &cobra.Command{Use: "_ [ARGS]...", Long: n.Methods[name], DisableFlagParsing: true}
	cli.Name(c, name)
	if c.Long == "" {
		c.Long = fmt.Sprintf("Execute the %s shell method", name)
	}
	c.Flags().StringArrayVarP(&vars, "env", "e", nil, "Environment variable as KEY=VALUE; may be given several times")
	c.Flags().BoolVar(&status, "exit-status", false, "Exit with the method's exit status; without this it is 0")
	c.RunE = func(c *cobra.Command, args []string) error {
		args, err := cli.Own(c, args, false)
		if err != nil {
			return err
		}
		env := map[string]string{}
		for _, v := range vars {
			key, value, ok := strings.Cut(v, "=")
			if !ok {
				return cli.Usage(c, "Invalid value: Invalid --env value '%s'. Use KEY=VALUE.", v)
			}
			env[key] = value
		}
		code, err := run(c, n.Session, s, name, env, args)
		if err == nil && status && code != 0 {
			err = cli.Exit(exitStatus(code))
		}
		return err
	}
	return c
}

// run runs a method and shows its output; in JSON, piece by piece.
func run(c *cobra.Command, s *cli.Session, i Interface, name string, env map[string]string, args []string) (int, error) {
	if !s.JSON {
		return Run(c.Context(), i, c.OutOrStdout(), c.ErrOrStderr(), name, env, args...)
	}
	type piece struct {
		Stdout string `json:"stdout,omitempty"`
		Stderr string `json:"stderr,omitempty"`
		Code   *int   `json:"exit_status,omitempty"`
	}
	code := -1
	for o, err := range i.Call(c.Context(), name, env, args...) {
		if err == nil {
			err = s.Print(c, piece(o), "")
		}
		if err != nil {
			return -1, err
		}
		if o.Code != nil {
			code = *o.Code
		}
	}
	return code, nil
}

// exitStatus is a script's status as a process can have it: the death by a
// signal, a negative number, is what a shell makes of it.
func exitStatus(code int) int {
	if code < 0 {
		return 128 - code
	}
	return code & 0xff
}
