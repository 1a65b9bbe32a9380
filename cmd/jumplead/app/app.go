// Package app is the jumplead program as a library: a test runs it in process,
// and a module of a lab's own builds a jumplead with its own drivers:
//
//	func main() {
//		proc := app.OS()
//		proc.Commands = all.Commands()
//		proc.Commands[tools.Contract.Client] = tools.Command
//		os.Exit(app.Main(context.Background(), proc, append(all.Specs(), remote.Exporter, tools.Spec)...))
//	}
//
// # Drivers of a lab's own
//
// What is in the list of specs is built in: run opens it, check knows its config
// keys and what it claims, drivers and its schema describe it, version names it.
// Proc.Commands adds what j and a shell can do with it; a driver of one of
// jumplead's contracts, whose client class it reports, needs nothing there.
//
// Two drivers of one type are an error at start: a config's types mean the same
// everywhere. Who wants another driver for a type takes jumplead's out of the list:
//
//	specs := slices.DeleteFunc(all.Specs(), func(s driver.Spec) bool { return s.Type == mine.Spec.Type })
//
// Who wants a smaller program lists only what the harness needs. A type that only
// Python has runs natively once the list has it.
//
// How a driver is written is the subject of
// [github.com/jumplead/jumplead/drivers/driver]; whole programs with drivers of
// their own are in the folder example.
//
// # Exit status
//
// 0 after TERM, INT, QUIT and HUP; 1 when a config cannot be loaded, the exporter
// fails, or check finds mistakes; 2 when the program was called wrongly. A shell's
// is that of what it ran, and 127 if there is no such program. That of j is the
// Python client's: 1 for all that goes wrong, and 2 when it was interrupted.
package app

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/jumplead/jumplead/drivers/cli"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/hw"
)

// Proc is what a process has, in the shape of exec.Cmd.
type Proc struct {
	Args   []string // Args[0] is the program's name
	Env    []string // nil: none
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer

	// Signals makes TERM, INT, QUIT and HUP of the process end a command that
	// runs. Without it the context alone does.
	Signals bool
	// Terminal says that Stderr is a terminal: logs are for people then.
	Terminal bool
	Journal  bool    // Stderr is systemd's journal
	Host     hw.Host // what the board has

	Commands cli.Table // of the drivers' clients, for j

	Executable string // path of the program's file, which hooks call as j; "" is none

	// Unsetenv takes a variable out of what programs inherit that are started,
	// which Env is only a copy of; nil when that is nobody's business.
	Unsetenv func(key string) error
}

// Exit statuses.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// usageError is a mistake in how the program was called.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usage(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// command is one of the program's commands.
type command struct {
	name string
	args string // as the help shows them
	help string
	run  func(ctx context.Context, p *program, args []string) error
}

func commands() []command {
	return []command{
		{"run", "", "Run an exporter.", run},
		{"check", "", "Tell what is wrong with configs.", check},
		{"drivers", "", "Tell what there is to configure and to call.", drivers},
		{"demo", "", "Serve a virtual device under test, to try things out.", demo},
		{"j", "", "Drive the harness that a shell is connected to.", j},
		{"shell", "", "Run a shell that is connected to an exporter.", shell},
		{"version", "", "Print the version, and what is built in.", version},
	}
}

// program is one run of jumplead.
type program struct {
	*Proc
	specs   []driver.Spec
	log     logOptions
	command string // that runs
}

func (p *program) getenv(key string) string {
	for _, kv := range slices.Backward(p.Env) {
		if k, v, ok := strings.Cut(kv, "="); ok && k == key {
			return v
		}
	}
	return ""
}

// unsetenv takes variables out of the environment.
func (p *program) unsetenv(keys ...string) {
	p.Env = slices.DeleteFunc(slices.Clone(p.Env), func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		return slices.Contains(keys, k)
	})
	if p.Unsetenv == nil {
		return
	}
	for _, k := range keys {
		_ = p.Unsetenv(k) // fails for impossible names only
	}
}

// Main runs the program with these drivers and returns its exit status. It ends
// when the context does, if not before.
func Main(ctx context.Context, proc Proc, specs ...driver.Spec) int {
	p := &program{Proc: &proc, specs: specs}
	err := p.main(ctx)
	var wrong *usageError
	var status exitStatus
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.As(err, &status):
		return int(status)
	case errors.As(err, &wrong):
		fmt.Fprintf(p.Stderr, "Error: %v\nTry '%s --help'.\n", err, strings.TrimSpace("jumplead "+p.command))
		return exitUsage
	case errors.Is(err, errChecked):
		return exitError
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(p.Stderr, "Error: %s\n", strings.TrimSuffix(line, "\n"))
	}
	return exitError
}

func (p *program) main(ctx context.Context) error {
	if err := checkSpecs(p.specs); err != nil {
		return err
	}
	if p.isJ() {
		return j(ctx, p, p.Args[1:])
	}
	fs := p.flags("jumplead")
	printVersion := fs.Bool("version", false, "")
	if err := p.parse(fs, p.Args[1:], p.help); err != nil {
		return err
	}
	args := fs.Args()
	switch {
	case *printVersion:
		args = []string{"version"}
	case len(args) == 0:
		p.help(p.Stderr)
		return usage("no command is given")
	case args[0] == "help" && len(args) == 1:
		p.help(p.Stdout)
		return nil
	case args[0] == "help":
		args = []string{args[1], "--help"}
	}
	name := args[0]
	for _, c := range commands() {
		if c.name == name {
			p.command = name
			return c.run(ctx, p, args[1:])
		}
	}
	var names []string
	for _, c := range commands() {
		names = append(names, c.name)
	}
	text := fmt.Sprintf("no such command %q", name)
	if near := driver.Nearest(name, names); near != "" {
		text += fmt.Sprintf("; did you mean %q?", near)
	}
	return usage("%s", text)
}

func (p *program) help(w io.Writer) {
	fmt.Fprint(w, "Usage: jumplead [--log-level LEVEL] [--log-format FORMAT] COMMAND ...\n\nThe exporter of a test harness.\n\nCommands:\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-10s %s\n", c.name, c.help)
	}
	fmt.Fprint(w, "\nEach command tells more with --help.\n")
}

// flags makes a flag set with the flags that every command takes.
func (p *program) flags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Func("log-level", "least `LEVEL` to log: DEBUG, INFO, WARNING, ERROR, CRITICAL", p.log.setLevel)
	fs.Func("log-format", "`FORMAT` of the log: auto (json unless stderr is a terminal), json, text", p.log.setFormat)
	return fs
}

// parse parses flags; a request for help is answered and returned as
// flag.ErrHelp.
func (p *program) parse(fs *flag.FlagSet, args []string, help func(io.Writer)) error {
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		help(p.Stdout)
		return err
	}
	if err != nil {
		return usage("%s: %v", fs.Name(), dashes(err))
	}
	return nil
}

// dashes spells flags in messages as people type them.
func dashes(err error) string {
	s := err.Error()
	for _, before := range []string{"not defined: ", "an argument: ", "for flag ", "boolean flag "} {
		s = strings.ReplaceAll(s, before+"-", before+"--")
	}
	return s
}

// OS is the process that this program runs as.
func OS() Proc {
	fi, err := os.Stderr.Stat()
	self, _ := os.Executable()
	return Proc{
		Args: os.Args, Env: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Signals:  true,
		Terminal: err == nil && fi.Mode()&os.ModeCharDevice != 0,
		Journal:  journal(os.Stderr),
		Host:     thisBoard(),

		Executable: self, Unsetenv: os.Unsetenv,
	}
}
