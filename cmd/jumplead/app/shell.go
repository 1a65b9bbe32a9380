package app

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jumplead/jumplead/drivers/cli"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter"
	"github.com/jumplead/jumplead/exporter/client"
	"github.com/jumplead/jumplead/exporter/scratch"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
)

// shellFlags are the flags of shell, by upstream's names.
type shellFlags struct {
	configFile
	address    string
	insecure   bool
	passphrase string
	logs       bool
}

func shell(ctx context.Context, p *program, args []string) error {
	var f shellFlags
	fs := p.flags("shell")
	f.declare(fs)
	fs.StringVar(&f.address, "tls-grpc", "", "connect to the exporter at `HOST:PORT`")
	fs.BoolVar(&f.insecure, "tls-grpc-insecure", false, "with --tls-grpc: no TLS")
	fs.StringVar(&f.passphrase, "passphrase", "", "with --tls-grpc: the `TEXT` that the exporter asks for")
	fs.BoolVar(&f.logs, "exporter-logs", false, "show the exporter's log")
	if err := p.parse(fs, args, shellHelp(fs)); err != nil {
		return err
	}
	levelIsSet := false
	fs.Visit(func(f *flag.Flag) { levelIsSet = levelIsSet || f.Name == "log-level" })
	if !f.logs && !levelIsSet {
		p.log.level = slog.LevelWarn // of an exporter in here
	}
	switch {
	case f.address == "" && !f.given():
		return usage("shell: specify one of: --exporter / --exporter-config, or --tls-grpc HOST:PORT")
	case f.ambiguous():
		return usage("shell: only one of --exporter, --exporter-config should be specified")
	case f.address != "" && f.given():
		return usage("shell: --tls-grpc and --exporter / --exporter-config exclude each other")
	case f.address == "" && (f.insecure || f.passphrase != ""):
		return usage("shell: --tls-grpc-insecure and --passphrase require --tls-grpc")
	case f.address != "" && !isTCP(f.address):
		return usage("shell: --tls-grpc: %q is not HOST:PORT", f.address)
	}
	return p.tell(p.runShell(ctx, f, fs.Args()))
}

func shellHelp(fs *flag.FlagSet) func(io.Writer) {
	return func(w io.Writer) {
		fmt.Fprint(w, `Usage: jumplead shell [OPTIONS] [--] [COMMAND]...

Run a shell, or COMMAND, in which j, jmp's tools and the Python clients reach an
exporter: one that serves on HOST:PORT, or one that runs here as long as the
shell does. The exit status is the shell's.

Options:
`)
		printFlags(w, fs)
	}
}

// runShell is one shell, from reaching the exporter to leaving nothing behind.
func (p *program) runShell(ctx context.Context, f shellFlags, argv []string) error {
	dir, err := scratch.Make("jumplead-shell", p.getenv("XDG_RUNTIME_DIR"))
	if err != nil {
		return err
	}
	defer dir.Remove()
	dir.Inherit() // j is in it, which the shell's programs need also when this one is killed
	s := shellEnv{dir: dir.Path, env: map[string]string{
		"JMP_DRIVERS_ALLOW":             "UNSAFE",
		"_JMP_SUPPRESS_DRIVER_WARNINGS": "1",
	}}
	var end func()
	if f.address != "" {
		end, err = p.direct(ctx, f, &s, len(argv) == 0)
	} else {
		end, err = p.local(ctx, f, &s, len(argv) == 0)
	}
	if err != nil {
		return err
	}
	defer end()
	if err := p.linkJ(&s); err != nil {
		return err
	}
	return p.spawn(ctx, s, argv)
}

// shellEnv is what a shell is run with.
type shellEnv struct {
	dir     string // its own, for the time that it runs
	context string // in the prompt
	env     map[string]string
}

// direct reaches an exporter, shows its hooks' log or all of it, and waits until
// it is ready. The programs in the shell connect to it themselves.
func (p *program) direct(ctx context.Context, f shellFlags, s *shellEnv, interactive bool) (end func(), err error) {
	if p.Signals {
		var stop func()
		ctx, stop = p.interruptible(ctx)
		defer stop()
	}
	c, err := p.dial(ctx, f.address, f.insecure, f.passphrase)
	if err != nil {
		return nil, err
	}
	following, stop := context.WithCancel(context.WithoutCancel(ctx))
	var logs sync.WaitGroup
	logs.Go(func() { p.follow(following, c, f.logs) })
	end = func() {
		if f.logs { // what the last command has caused may be on its way
			time.Sleep(logsLinger)
		}
		stop()
		logs.Wait()
		c.Close()
	}
	waiting, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	if err := c.WaitReady(waiting); err != nil {
		end()
		if ctx.Err() != nil {
			return nil, cli.Exit(exitInterrupted)
		}
		return nil, err
	}
	if st, err := c.Status(waiting); err == nil {
		if text, ok := strings.CutPrefix(st.GetMessage(), "[HOOK_WARNING] "); ok {
			fmt.Fprintf(p.Stderr, "Warning: %s\n", text)
		}
	}
	if interactive && c.MOTD != "" {
		fmt.Fprintln(p.Stdout, strings.TrimSuffix(c.MOTD, "\n"))
	}
	s.context = "direct"
	s.env[envHost] = f.address
	s.env["JMP_EXPORTER"], s.env["JMP_LEASE"] = "direct", "direct" // upstream's names for what has none
	if f.insecure {
		s.env[envInsecure] = "1"
	}
	if f.passphrase != "" {
		s.env[envPassphrase] = f.passphrase
	}
	return end, nil
}

// readyLimit is how long an exporter may take to become ready: its hook before
// the lease runs meanwhile.
const readyLimit = 5 * time.Minute

// logsLinger is for how long the log is shown after the shell has ended.
const logsLinger = 50 * time.Millisecond

// follow shows an exporter's log at standard error: that of its hooks, or all.
func (p *program) follow(ctx context.Context, c *client.Client, all bool) {
	names := map[pb.LogSource]string{
		pb.LogSource_LOG_SOURCE_DRIVER:            "exporter:driver",
		pb.LogSource_LOG_SOURCE_BEFORE_LEASE_HOOK: "exporter:beforeLease",
		pb.LogSource_LOG_SOURCE_AFTER_LEASE_HOOK:  "exporter:afterLease",
	}
	for r, err := range c.Logs(ctx) {
		if err != nil {
			return // the shell goes on without it
		}
		hook := r.GetSource() == pb.LogSource_LOG_SOURCE_BEFORE_LEASE_HOOK || r.GetSource() == pb.LogSource_LOG_SOURCE_AFTER_LEASE_HOOK
		if !hook && !all {
			continue
		}
		name := names[r.GetSource()]
		if name == "" {
			name = "exporter:system"
		}
		fmt.Fprintf(p.Stderr, "%s %-7s [%s] %s\n", time.Now().Format(time.TimeOnly), r.GetSeverity(), name, r.GetMessage())
	}
}

// local runs an exporter on a socket of the shell's own.
func (p *program) local(ctx context.Context, f shellFlags, s *shellEnv, interactive bool) (end func(), err error) {
	handler := p.log.handler(p.Stderr, true, false) // for people
	cfg, problems, err := p.load(f.configFile)
	if err != nil {
		return nil, err
	}
	hosts := p.hosts(slog.New(handler))
	defer func() {
		if err != nil {
			hosts.Close()
		}
	}()
	o := exporter.Options{
		Namespace: cfg.Namespace, Name: cfg.Name, MOTD: cfg.MOTD, Export: cfg.Export,
		Driver: driver.Options{Specs: p.specs, Host: p.Host, Mounts: hosts.Mounts},
		Log:    handler,
		Listen: exporter.Address{Network: "unix", Address: filepath.Join(s.dir, "socket")},
	}
	tree, more := o.Plan()
	problems = append(append(problems, more...), unkept(tree, cfg)...)
	problems.Sort()
	if err := problems.Err(); err != nil {
		return nil, fmt.Errorf("failed to load config:\n%w", err)
	}
	for _, w := range problems {
		slog.New(handler).Warn(strings.Replace(w.String(), ": warning: ", ": ", 1))
	}
	ready, ended := make(chan struct{}), make(chan error, 1)
	o.Ready = func(net.Addr) { close(ready) }
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	go func() { ended <- exporter.Run(running, o) }()
	end = func() {
		stop()
		if err := <-ended; err != nil {
			slog.New(handler).Error("the exporter failed", "error", err)
		}
		hosts.Close()
	}
	interrupted := ctx
	if p.Signals {
		var off func()
		interrupted, off = p.interruptible(ctx)
		defer off()
	}
	select {
	case <-ready:
	case err := <-ended:
		stop()
		return nil, err
	case <-interrupted.Done():
		end()
		return nil, cli.Exit(exitInterrupted)
	}
	if interactive && cfg.MOTD != "" {
		fmt.Fprintln(p.Stdout, strings.TrimSuffix(cfg.MOTD, "\n"))
	}
	s.context = "local"
	s.env[envHost] = o.Listen.Address
	return end, nil
}

// linkJ puts this program in front of the shell's PATH under the name j.
func (p *program) linkJ(s *shellEnv) error {
	if p.Executable == "" {
		return nil
	}
	bin := filepath.Join(s.dir, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		return err
	}
	var err error
	if runtime.GOOS == "windows" { // where making a link takes a privilege
		err = os.WriteFile(filepath.Join(bin, "j.cmd"), []byte("@\""+p.Executable+"\" j %*\r\n"), 0o700)
	} else {
		err = os.Symlink(p.Executable, filepath.Join(bin, "j"))
	}
	if err != nil {
		return err
	}
	s.env["PATH"] = bin
	if path := p.getenv("PATH"); path != "" {
		s.env["PATH"] += string(os.PathListSeparator) + path
	}
	return nil
}

// spawn runs the shell or a command, and hands on what signals there are.
func (p *program) spawn(ctx context.Context, s shellEnv, argv []string) error {
	if len(argv) == 0 {
		argv = p.prompt(s)
	}
	env := p.Env
	for k, v := range s.env {
		env = append(env[:len(env):len(env)], k+"="+v)
	}
	path := p.getenv("PATH")
	if own, ok := s.env["PATH"]; ok {
		path = own
	}
	program, err := lookPath(argv[0], path)
	if err != nil {
		return cli.Status(err)
	}
	cmd := &exec.Cmd{Path: program, Args: argv, Env: env, Stdin: p.Stdin, Stdout: p.Stdout, Stderr: p.Stderr}
	cmd.WaitDelay = time.Second // for a standard input that is no file, and does not end
	got := make(chan os.Signal, 8)
	if p.Signals {
		signal.Notify(got, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
		defer signal.Stop(got)
	}
	if err := cmd.Start(); err != nil {
		return cli.Status(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	done, kill := ctx.Done(), (<-chan time.Time)(nil)
	for {
		select {
		case err := <-ended:
			if errors.Is(err, exec.ErrWaitDelay) {
				err = nil // it ended in order
			}
			return cli.Status(err)
		case sig := <-got:
			if (sig == syscall.SIGINT || sig == syscall.SIGQUIT) && foreground() {
				continue // it was typed, and the shell got it as well
			}
			cmd.Process.Signal(sig)
		case <-done:
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil { // unknown to this system
				cmd.Process.Kill()
			}
			done, kill = nil, time.After(killDelay)
		case <-kill:
			cmd.Process.Kill()
		}
	}
}

// killDelay is how long a shell may take to end when it is told to.
const killDelay = 5 * time.Second

// lookPath finds a program as the shell would, by its PATH and not by ours.
func lookPath(name, path string) (string, error) {
	if filepath.Base(name) != name {
		return exec.LookPath(name)
	}
	var denied error
	for _, dir := range filepath.SplitList(path) {
		if dir == "" {
			dir = "."
		}
		program, err := exec.LookPath(filepath.Join(dir, name))
		switch {
		case err == nil || errors.Is(err, exec.ErrDot):
			return program, nil
		case errors.Is(err, os.ErrPermission):
			denied = err
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", &exec.Error{Name: name, Err: exec.ErrNotFound}
}

// prompt is the user's shell with a prompt that names the exporter. Its profiles
// are left out, as they would set a prompt of their own.
func (p *program) prompt(s shellEnv) []string {
	shell := p.getenv("SHELL")
	if shell == "" {
		shell = "bash"
		if runtime.GOOS == "windows" {
			shell = p.getenv("ComSpec")
		}
	}
	switch name := filepath.Base(shell); {
	case strings.HasSuffix(name, "bash"):
		s.env["PS1"] = `\[\e[90m\]\W \[\e[93m\]⚡\[\e[97m\]` + s.context + ` \[\e[93m\]➤\[\e[0m\] `
		return []string{shell, "--norc", "--noprofile"}
	case name == "zsh":
		s.env["PS1"] = "%F{8}%1~ %F{yellow}⚡%F{white}" + s.context + " %F{yellow}➤%f "
		if home := p.getenv("HOME"); p.getenv("HISTFILE") == "" && home != "" {
			s.env["HISTFILE"] = filepath.Join(home, ".zsh_history")
		}
		return []string{shell, "--no-rcs", "-o", "inc_append_history", "-o", "share_history"}
	case name == "fish":
		return []string{shell, "--init-command", "function fish_prompt; set_color grey; basename $PWD | tr -d '\\n'; set_color yellow; " +
			"echo -n '⚡'; set_color white; echo -n '" + s.context + "'; set_color yellow; echo -n '➤ '; set_color normal; end"}
	}
	return []string{shell}
}
