package ssh

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/jumplead/jumplead/drivers/cli"
	"github.com/jumplead/jumplead/drivers/network"
	"github.com/spf13/cobra"
)

// Command makes the command of a login: ssh, with the arguments of the user's
// own ssh program. What stands in front of the host among them, options, stays
// there; the rest is the command on the DUT.
func Command(n *cli.Node) *cobra.Command {
	var direct bool
	c := n.Single(&cobra.Command{Use: "ssh [ARGS]...", Long: "Run SSH command with arguments", DisableFlagParsing: true})
	c.Flags().BoolVar(&direct, "direct", false, "Connect to the service's own address instead of through the exporter")
	c.RunE = func(c *cobra.Command, args []string) error {
		args, err := cli.Own(c, args, true)
		if err != nil {
			return err
		}
		service, err := n.Child(Service)
		if err != nil {
			return err
		}
		ctx, s := c.Context(), network.NewClient(service.Caller)
		login := func(ctx context.Context, host string, port int) error { return run(ctx, c, n, host, port, args) }
		if direct {
			host, port, err := network.HostPort(ctx, s)
			if err == nil {
				return login(ctx, host, port)
			}
			if !network.NoAddress(err) {
				return err
			}
			n.Session.Log.Error("direct connection failed, forwarding a port instead", "error", err)
		}
		return network.Tunnel(ctx, n.Session, s, login)
	}
	return c
}

func run(ctx context.Context, c *cobra.Command, n *cli.Node, host string, port int, args []string) error {
	login := NewClient(n.Caller)
	key, err := login.Identity(ctx)
	if err != nil {
		return err
	}
	user, err := login.Username(ctx)
	if err != nil {
		return err
	}
	command, err := login.Command(ctx)
	if err != nil {
		return err
	}
	argv, err := split(command)
	if err != nil {
		return err
	}
	file := ""
	if key != "" {
		f, err := os.CreateTemp("", "*_ssh_key") // for its owner only
		if err != nil {
			return err
		}
		defer os.Remove(f.Name())
		_, err = f.WriteString(key)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		file = f.Name()
	}
	return cli.Program(ctx, c, arguments(argv, file, user, host, port, args))
}

// arguments are those of the ssh program.
func arguments(argv []string, keyFile, user, host string, port int, args []string) []string {
	options, command := options(args)
	if keyFile != "" {
		argv = append(argv, "-i", keyFile)
	}
	if port != 22 {
		argv = append(argv, "-p", strconv.Itoa(port))
	}
	if l := slices.Index(options, "-l"); user != "" && (l < 0 || l == len(options)-1) {
		argv = append(argv, "-l", user)
	}
	argv = append(argv, options...)
	return append(append(argv, host), command...)
}

// Options of the ssh program, without and with a value.
const (
	flags  = "46AaCfGgKkMNnqsTtVvXxYy"
	valued = "BbcDEeFIiJLlmOoPpQRSWw"
)

// options parts the options at the beginning of ssh's arguments from the rest. Only
// what is an option for sure counts as one.
func options(args []string) (options, rest []string) {
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case len(a) == 2 && a[0] == '-' && strings.Contains(flags, a[1:]):
		case len(a) == 2 && a[0] == '-' && strings.Contains(valued, a[1:]):
			if i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") {
				options = append(options, a)
				i++
			}
		default:
			return options, args[i:]
		}
		options = append(options, args[i])
	}
	return options, nil
}

// split splits a command line into words as a shell does: quotes and backslashes
// keep what is in them together. Nothing is expanded.
func split(line string) (words []string, err error) {
	var word strings.Builder
	in, quote := false, byte(0)
	for i := 0; i < len(line); i++ {
		b := line[i]
		switch {
		case quote == '\'' && b != '\'', quote == '"' && b != '"' && b != '\\':
			word.WriteByte(b)
		case quote != 0 && b == quote:
			quote = 0
		case b == '\\':
			i++
			if i == len(line) {
				return nil, fmt.Errorf("ssh_command %q ends with a backslash", line)
			}
			if quote == '"' && line[i] != '"' && line[i] != '\\' {
				word.WriteByte('\\')
			}
			word.WriteByte(line[i])
			in = true
		case b == '\'' || b == '"':
			quote, in = b, true
		case strings.IndexByte(" \t\r\n", b) >= 0:
			if in {
				words = append(words, word.String())
				word.Reset()
				in = false
			}
		default:
			word.WriteByte(b)
			in = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("ssh_command %q lacks a closing %c", line, quote)
	}
	if in {
		words = append(words, word.String())
	}
	if len(words) == 0 {
		return nil, errors.New("ssh_command is empty: it must name a program")
	}
	return words, nil
}
