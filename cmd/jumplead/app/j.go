package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/jumplead/jumplead/drivers/cli"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/client"
	"github.com/jumplead/jumplead/exporter/rpc"
	"github.com/spf13/cobra"
)

// exitStatus ends the program with a status when all has been said.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// exitInterrupted is the status of a client's command that was interrupted, as
// upstream has it.
const exitInterrupted = 2

// Variables by which a shell tells the programs in it how to reach the exporter.
const (
	envHost       = "JUMPSTARTER_HOST"
	envInsecure   = "JMP_GRPC_INSECURE"
	envPassphrase = "JMP_GRPC_PASSPHRASE"
	// envRoots is where gRPC's C core looks for the certificates it trusts.
	envRoots = "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"
)

// isJ reports whether the program was called as j.
func (p *program) isJ() bool {
	return len(p.Args) > 0 && strings.TrimSuffix(filepath.Base(p.Args[0]), ".exe") == "j"
}

// j is the command line of the harness that a shell is connected to. What can be
// said is found out from its tree: a connection, one report, and then what the
// command itself needs.
func j(ctx context.Context, p *program, args []string) error {
	if p.Signals {
		var stop func()
		ctx, stop = p.interruptible(ctx)
		defer stop()
	}
	err := p.runJ(ctx, args)
	if ctx.Err() != nil && err != nil {
		return exitStatus(exitInterrupted)
	}
	return p.tell(err)
}

// tell says what an error means and makes an exit status of it.
func (p *program) tell(err error) error {
	if status := cli.Tell(p.Stderr, err); status != exitOK {
		return exitStatus(status)
	}
	return nil
}

// interruptible makes a context that ends with the first of the signals by which
// users stop a command.
func (p *program) interruptible(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	got, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(got, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		defer close(done)
		select {
		case s := <-got:
			if s == syscall.SIGINT {
				fmt.Fprintln(p.Stderr, "SIGINT pressed, terminating")
			} else {
				fmt.Fprintln(p.Stderr, "SIGTERM received, terminating")
			}
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(got)
		cancel()
		<-done
	}
}

func (p *program) runJ(ctx context.Context, args []string) error {
	s := &cli.Session{Getenv: p.getenv}
	if len(args) == 2 && args[0] == "completion" && slices.Contains(shells, args[1]) {
		// Needs no exporter: it is what people put into their shell's profile.
		return completion(p.commandsOf(&cli.Node{Session: s}), args[1], p)
	}
	host := p.getenv(envHost)
	if host == "" {
		if len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) {
			return nil // there is nothing to complete
		}
		return fmt.Errorf("the j command must be used inside a jumplead shell or a jmp shell: %s not set", envHost)
	}
	insecure := p.getenv(envInsecure) == "1" || p.getenv("JUMPSTARTER_GRPC_INSECURE") == "1"
	c, err := p.dial(ctx, host, insecure, p.getenv(envPassphrase))
	if err != nil {
		return err
	}
	defer c.Close()
	return cli.Execute(ctx, p.commandsOf(p.nodes(c.Root, s)), s, args)
}

// commandsOf makes the commands of a tree.
func (p *program) commandsOf(root *cli.Node) *cobra.Command {
	root.Name = "j"
	if root.Class == "" { // there is no tree
		root.Class = "j"
	}
	c := p.Commands.Commands(root)
	c.SetIn(p.Stdin)
	c.SetOut(p.Stdout)
	c.SetErr(p.Stderr)
	level := "INFO"
	s := root.Session
	s.Log = slog.New(p.log.handler(p.Stderr, true, false))
	c.PersistentFlags().Var(logLevel{&level, func(name string) {
		if p.log.setLevel(name) == nil {
			s.Log = slog.New(p.log.handler(p.Stderr, true, false))
		}
	}}, "log-level", "Set the log level")
	if !slices.ContainsFunc(c.Commands(), func(c *cobra.Command) bool { return c.Name() == "completion" }) {
		c.AddCommand(&cobra.Command{
			Use: "completion SHELL", Long: "Print what makes a shell complete these commands: " + strings.Join(shells, ", ") + "\n\nbash needs its package bash-completion for it.",
			ValidArgs: shells,
			RunE: func(sub *cobra.Command, args []string) error {
				return cli.Usage(sub, "Invalid value for 'SHELL': '%s' is not one of '%s'.", args[0], strings.Join(shells, "', '"))
			},
		})
	}
	return c
}

// logLevel is the value of the option --log-level.
type logLevel struct {
	value *string
	set   func(string)
}

func (l logLevel) String() string { return "" }
func (l logLevel) choice() cli.Choice {
	return cli.Choice{Value: l.value, Words: []string{"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}}
}
func (l logLevel) Type() string          { return l.choice().Type() }
func (l logLevel) Completions() []string { return l.choice().Completions() }

func (l logLevel) Set(name string) error {
	err := l.choice().Set(name)
	if err == nil {
		l.set(name)
	}
	return err
}

// shells are those for which there is completion.
var shells = []string{"bash", "zsh", "fish", "powershell"}

func completion(root *cobra.Command, shell string, p *program) error {
	switch shell {
	case "bash":
		return root.GenBashCompletionV2(p.Stdout, true)
	case "zsh":
		return root.GenZshCompletion(p.Stdout)
	case "fish":
		return root.GenFishCompletion(p.Stdout, true)
	}
	return root.GenPowerShellCompletionWithDesc(p.Stdout)
}

// nodes is a client's tree as the commands need it.
func (p *program) nodes(n *client.Node, s *cli.Session) *cli.Node {
	node := &cli.Node{
		Caller: caller{n}, Name: n.Name, Class: n.Class, Description: n.Description, Methods: n.Methods, Session: s,
	}
	for _, child := range n.Children {
		node.Children = append(node.Children, p.nodes(child, s))
	}
	return node
}

// caller tells which call it was that failed, in upstream's words.
type caller struct{ *client.Node }

var _ driver.PackedOfferer = caller{}

func (c caller) Call(ctx context.Context, method string, args ...any) (any, error) {
	v, err := c.Node.Call(ctx, method, args...)
	var remote *driver.RemoteError
	if errors.As(err, &remote) && remote.Class != driver.NotReady {
		err = fmt.Errorf("DriverCall '%s' failed with gRPC %s: %w", method, statusName(rpc.Code(remote.Class).String()), err)
	}
	return v, err
}

// statusName spells a gRPC status as everybody but Go does: INVALID_ARGUMENT.
func statusName(camel string) string {
	var b strings.Builder
	for i, r := range camel {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.ToUpper(b.String())
}

// dial reaches an exporter as a client. The host is HOST:PORT or else the path
// of a Unix socket, on which there is no TLS.
func (p *program) dial(ctx context.Context, host string, insecure bool, passphrase string) (*client.Client, error) {
	opt := client.Options{Passphrase: passphrase, FailFast: true}
	switch {
	case !isTCP(host):
		host = "unix:" + host
	case !insecure:
		opt.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		if file := p.getenv(envRoots); file != "" {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", envRoots, err)
			}
			opt.TLS.RootCAs = x509.NewCertPool()
			if !opt.TLS.RootCAs.AppendCertsFromPEM(text) {
				return nil, fmt.Errorf("%s: %s holds no certificate", envRoots, file)
			}
		}
	}
	c, err := client.Dial(ctx, host, opt)
	if err != nil && driver.Classify(err) == driver.Unavailable {
		err = fmt.Errorf("Exporter did not respond to initial connection: %w%s", err, hintTLS(err, insecure)) //nolint:staticcheck // upstream's words
	}
	return c, err
}

// hintTLS tells what to do about two sides that do not agree on TLS. gRPC hands
// out no more of their errors than the text.
func hintTLS(err error, insecure bool) string {
	text := err.Error()
	switch {
	case insecure && strings.Contains(text, "reading server preface: "):
		return "; if it serves with TLS, leave out --tls-grpc-insecure (" + envInsecure + ")"
	case strings.Contains(text, "does not look like a TLS handshake"):
		return "; it serves without TLS: --tls-grpc-insecure (" + envInsecure + "=1) connects so"
	case strings.Contains(text, "certificate signed by unknown authority"):
		return "; a file of certificates to trust can be named by " + envRoots
	}
	return ""
}

func isTCP(host string) bool {
	i := strings.LastIndexByte(host, ':')
	if i < 0 {
		return false
	}
	port, err := strconv.Atoi(host[i+1:])
	return err == nil && port >= 1 && port <= 65535
}
