package app

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter"
	"github.com/jumplead/jumplead/exporter/client"
	"github.com/jumplead/jumplead/exporter/config"
)

// runFlags are the flags of run. Names and meaning are those of upstream's
// jmp run, so that a unit file needs only another program name; listen is ours.
type runFlags struct {
	configFile
	listener       string
	insecure       bool
	cert, key      string
	passphrase     string
	passphraseFile string
	exitOnLeaseEnd bool
	listen         string
	ready          func(net.Addr) // is told when and where clients are served; may be nil
}

func run(ctx context.Context, p *program, args []string) error {
	var f runFlags
	fs := p.flags("run")
	f.declare(fs)
	fs.StringVar(&f.listener, "tls-grpc-listener", "", "serve clients directly on `[HOST:]PORT`; the host is 0.0.0.0 when it is left out")
	fs.BoolVar(&f.insecure, "tls-grpc-insecure", false, "with --tls-grpc-listener: no TLS; whoever reaches the port drives the harness")
	fs.StringVar(&f.cert, "tls-cert", "", "server certificate, a PEM `FILE`")
	fs.StringVar(&f.key, "tls-key", "", "server key, a PEM `FILE`")
	fs.StringVar(&f.passphrase, "passphrase", "", "`TEXT` that every client must send")
	fs.StringVar(&f.passphraseFile, "passphrase-file", "", "the passphrase is the first line of `FILE`, where the list of processes does not show it")
	fs.BoolVar(&f.exitOnLeaseEnd, "exit-on-lease-end", false, "end after the lease; without a controller there is none to end")
	fs.StringVar(&f.listen, "listen", "", "serve clients on this machine on `unix:PATH`")
	if err := p.parse(fs, args, commandHelp(fs, "run [OPTIONS]", "Run an exporter.")); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return usage("run: got unexpected extra argument (%s)", fs.Arg(0))
	}
	at, err := f.check()
	if err != nil {
		return err
	}
	if f.passphraseFile != "" {
		if f.passphrase, err = readPassphrase(f.passphraseFile); err != nil {
			return err
		}
	}
	return p.export(ctx, f, at)
}

func printFlags(w io.Writer, fs *flag.FlagSet) {
	fs.VisitAll(func(f *flag.Flag) {
		name, text := flag.UnquoteUsage(f)
		if name != "" {
			name = " " + name
		}
		fmt.Fprintf(w, "  --%s%s\n        %s\n", f.Name, name, text)
	})
}

// check finds combinations of flags that make no sense, and where to listen.
func (f runFlags) check() (at exporter.Address, err error) {
	switch {
	case !f.given():
		return at, usage("run: one of --exporter, --exporter-config should be specified")
	case f.ambiguous():
		return at, usage("run: only one of --exporter, --exporter-config should be specified")
	case f.passphrase != "" && f.passphraseFile != "":
		return at, usage("run: --passphrase and --passphrase-file exclude each other")
	case f.listener == "" && (f.insecure || f.cert != "" || f.key != "" || f.passphrase+f.passphraseFile != "" && f.listen == ""):
		return at, usage("run: --tls-grpc-insecure, --tls-cert, --tls-key, and --passphrase require --tls-grpc-listener")
	case f.listener != "" && f.listen != "":
		return at, usage("run: --listen and --tls-grpc-listener exclude each other")
	case f.listener != "" && f.insecure && (f.cert != "" || f.key != ""):
		return at, usage("run: --tls-grpc-insecure cannot be combined with --tls-cert / --tls-key")
	case f.listener != "" && !f.insecure && (f.cert == "" || f.key == ""):
		return at, usage("run: --tls-grpc-listener requires either --tls-grpc-insecure or --tls-cert and --tls-key")
	case f.listen != "":
		path, ok := strings.CutPrefix(f.listen, "unix:")
		if !ok || path == "" {
			return at, usage("run: --listen: %q is not unix:PATH; for a TCP port use --tls-grpc-listener", f.listen)
		}
		return exporter.Address{Network: "unix", Address: path}, nil
	case f.listener != "":
		addr, err := parseListener(f.listener)
		return exporter.Address{Network: "tcp", Address: addr}, err
	}
	return at, nil
}

// parseListener reads [HOST:]PORT. IPv6 hosts may stand in brackets or bare.
func parseListener(s string) (string, error) {
	host, port := "0.0.0.0", s
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		if h := strings.Trim(strings.TrimSpace(s[:i]), "[]"); h != "" {
			host = h
		}
		port = s[i+1:]
	}
	n, err := strconv.Atoi(strings.TrimSpace(port))
	if err != nil {
		return "", usage("run: --tls-grpc-listener: port must be an integer, got %q", port)
	}
	if n < 1 || n > 65535 {
		return "", usage("run: --tls-grpc-listener: port must be between 1 and 65535, got %d", n)
	}
	return net.JoinHostPort(host, strconv.Itoa(n)), nil
}

// readPassphrase reads the first line of a file, which must not be empty: an
// exporter that was to be protected is not served unprotected.
func readPassphrase(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", usage("run: --passphrase-file: %v", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" {
		return "", usage("run: --passphrase-file: the first line of %s is empty", path)
	}
	return line, nil
}

func (p *program) export(ctx context.Context, f runFlags, at exporter.Address) error {
	var now <-chan struct{}
	var asked <-chan os.Signal // for a reload
	if p.Signals {
		var stop func()
		ctx, now, stop = signals(ctx)
		defer stop()
		asked, stop = catchReload()
		defer stop()
	}
	handler := p.log.handler(p.Stderr, p.Terminal, p.Journal)
	log := slog.New(handler)
	manager := p.supervise(log)

	o := exporter.Options{Listen: at, Passphrase: f.passphrase, Log: handler, Now: now, J: p.Executable}
	if f.cert != "" { // before the config: a wrong path is a mistake in the call
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return usage("run: --tls-cert, --tls-key: %v", err)
		}
		o.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	cfg, problems, err := p.load(f.configFile)
	if err != nil {
		return err
	}
	if cfg != nil { // what is wrong with the drivers is told together with the rest
		o.Namespace, o.Name, o.MOTD, o.Export = cfg.Namespace, cfg.Name, cfg.MOTD, cfg.Export
		o.Hooks = cfg.Hooks
		hosts := p.hosts(log)
		defer hosts.Close()
		o.Driver = driver.Options{Specs: p.specs, Host: p.Host, Mounts: hosts.Mounts}
		tree, more := o.Plan()
		problems = append(append(problems, more...), unkept(tree, cfg)...)
		problems.Sort()
	}
	if err := problems.Err(); err != nil {
		return fmt.Errorf("failed to load config:\n%w", err)
	}
	if at.Network == "" {
		return fmt.Errorf("%s: leasing through a controller (endpoint) is not served yet: give --tls-grpc-listener or --listen to serve clients directly", cfg.Path)
	}
	for _, w := range problems {
		log.Warn(strings.Replace(w.String(), ": warning: ", ": ", 1))
	}
	logLimits(log, cfg)
	if o.TLS == nil && o.Passphrase != "" && at.Network == "tcp" {
		log.Warn("without TLS the passphrase travels in plaintext")
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	reloads := make(chan exporter.Reload)
	o.Reload = reloads
	o.Ready = func(addr net.Addr) {
		if f.ready != nil {
			f.ready(addr)
		}
		log.Info("serving", "exporter", cfg.Name, "address", addr.String(), "tls", o.TLS != nil, "passphrase", o.Passphrase != "")
		manager.notify("READY=1", status("serving %s on %s", cfg.Name, addr))
		r := &reloader{p: p, f: f, manager: manager, log: log, options: o, cfg: cfg, at: addr.String()}
		watching.Go(func() { r.serve(ctx, asked, reloads) })
		watching.Go(func() {
			manager.watch(ctx, func(ctx context.Context) error { return answers(ctx, addr, o) })
		})
		watching.Go(func() {
			<-ctx.Done()
			manager.notify("STOPPING=1", status("stopping"))
		})
	}
	return exporter.Run(ctx, o)
}

// signals makes a context that the first signal ends, and a channel that is closed
// by the second: whoever sends another one does not want to wait for hooks.
func signals(ctx context.Context) (_ context.Context, now <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	got, hurry, done := make(chan os.Signal, 2), make(chan struct{}), make(chan struct{})
	signal.Notify(got, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	go func() {
		for _, then := range []func(){cancel, func() { close(hurry) }} {
			select {
			case <-got:
				then()
			case <-done:
				return
			}
		}
	}()
	return ctx, hurry, func() {
		signal.Stop(got)
		close(done)
		cancel()
	}
}

// configFile is where an exporter's config is.
type configFile struct{ alias, path string }

// declare declares the flags that say so.
func (s *configFile) declare(fs *flag.FlagSet) {
	fs.StringVar(&s.alias, "exporter", "", "run the exporter of the config called `ALIAS`")
	fs.StringVar(&s.path, "exporter-config", "", "run the exporter of the config in `PATH`")
}

func (s configFile) given() bool     { return s.alias != "" || s.path != "" }
func (s configFile) ambiguous() bool { return s.alias != "" && s.path != "" }

func (p *program) load(s configFile) (*config.Config, driver.Problems, error) {
	path := s.path
	if s.alias != "" {
		var err error
		if path, err = config.Find(s.alias, p.getenv); err != nil {
			return nil, nil, err
		}
	}
	cfg, problems, err := config.Load(path, p.getenv)
	if err != nil {
		return nil, nil, fmt.Errorf("failed to load config:\n%w", err)
	}
	return cfg, problems, nil
}

// answers asks the exporter what any client asks first, over a connection of its
// own: whether it accepts, and serves its tree and its status.
func answers(ctx context.Context, at net.Addr, o exporter.Options) error {
	target := at.String()
	if a, ok := at.(*net.TCPAddr); ok && a.IP.IsUnspecified() {
		target = net.JoinHostPort("localhost", strconv.Itoa(a.Port))
	} else if at.Network() == "unix" {
		target = "unix:" + target
	}
	opt := client.Options{Passphrase: o.Passphrase}
	if o.TLS != nil {
		// The port is ours for as long as we run, and the certificate may be
		// for any name.
		opt.TLS = &tls.Config{InsecureSkipVerify: true}
	}
	c, err := client.Dial(ctx, target, opt)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Status(ctx)
	return err
}
