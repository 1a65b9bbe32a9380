package tmt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/jumplead/jumplead/drivers/cli"
	"github.com/jumplead/jumplead/drivers/network"
	"github.com/spf13/cobra"
)

// Command makes the command of a guest: tmt, with the arguments of the user's
// own tmt program, among which the provision step is made to lead to the DUT.
func Command(n *cli.Node) *cobra.Command {
	var forward, onExporter bool
	var user, password, program string
	c := n.Single(&cobra.Command{Use: "tmt [ARGS]...", Long: "Run TMT command with arguments", DisableFlagParsing: true})
	c.Flags().BoolVar(&forward, "forward-ssh", false, "Reach the DUT through the exporter though it has an address of its own")
	c.Flags().StringVar(&user, "tmt-username", "", "Who to log in as")
	c.Flags().StringVar(&password, "tmt-password", "", "That user's password")
	c.Flags().StringVar(&program, "tmt-cmd", "tmt", "The program to run")
	c.Flags().BoolVar(&onExporter, "tmt-on-exporter", false, "Run tmt on the exporter, which is not there yet")
	c.RunE = func(c *cobra.Command, args []string) error {
		args, err := cli.Own(c, args, true)
		if err != nil {
			return err
		}
		if onExporter {
			fmt.Fprintln(c.OutOrStdout(), "TMT will be run on the exporter")
			return errors.New("running tmt on the exporter is not implemented")
		}
		service, err := n.Child(Service)
		if err != nil {
			return err
		}
		ctx, guest, s := c.Context(), NewClient(n.Caller), network.NewClient(service.Caller)
		defaultUser, defaultPassword, err := guest.Login(ctx)
		if err != nil {
			return err
		}
		p := provision{user: user, password: password}
		if p.user == "" {
			p.user = defaultUser
		}
		if p.password == "" {
			p.password = defaultPassword
		}
		if p.reboot, err = guest.RebootCommand(ctx); err != nil {
			return err
		}
		run := func(ctx context.Context, host string, port int) error {
			p.host, p.port = host, port
			return cli.Program(ctx, c, append([]string{program}, p.arguments(args)...))
		}
		if !forward {
			host, port, err := network.HostPort(ctx, s)
			if err == nil {
				return run(ctx, host, port)
			}
			if !network.NoAddress(err) {
				return err
			}
			n.Session.Log.Warn("direct connection failed, forwarding a port instead", "error", err)
		}
		return network.Tunnel(ctx, n.Session, s, run)
	}
	return c
}

// provision is the step of tmt that finds the guest.
type provision struct {
	host           string
	port           int
	user, password string
	reboot         string // command
}

func (p provision) step() []string {
	step := []string{"provision", "-h", "connect", "-g", p.host, "-P", strconv.Itoa(p.port)}
	if p.user != "" {
		step = append(step, "-u", p.user)
	}
	if p.password != "" {
		step = append(step, "-p", p.password)
	}
	if p.reboot != "" {
		step = append(step, "--feeling-safe", "--hard-reboot", p.reboot)
	}
	return step
}

// commands are the words that end the arguments of a provision step.
var commands = []string{
	"discover", "provision", "prepare", "execute", "report", "finish", "cleanup",
	"login", "reboot", "plan", "plans", "test", "run",
}

// arguments puts the step in the place of the provision step that is among tmt's
// arguments, or behind those of a run without one. Others need no guest.
func (p provision) arguments(args []string) []string {
	at := slices.Index(args, "provision")
	if at < 0 {
		if slices.Contains(args, "run") {
			return slices.Concat(args, p.step())
		}
		return args
	}
	end := at + 1
	for end < len(args) && !slices.Contains(commands, args[end]) {
		end++
	}
	return slices.Concat(args[:at], p.step(), args[end:])
}
