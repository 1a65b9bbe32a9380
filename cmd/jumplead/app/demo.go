package app

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jumplead/jumplead/cmd/virtualdut/dut"
	"github.com/jumplead/jumplead/exporter"
	"github.com/jumplead/jumplead/exporter/scratch"
)

// demoConfig is the harness around the virtual DUT.
//
//go:embed demo.yaml
var demoConfig string

const demoHelp = `Serve a virtual device under test, to try things out where there is no bench:
a supply, a console, an SD card in its mux and a web page. Ctrl-C ends it and
leaves nothing behind.

With --tour it shows itself what there is to try, and ends with status 0 when
all of it worked, else 1. With --dut it sends a REQUEST to the device of a demo,
as the demo's node bench does.`

type demoFlags struct {
	listen     string
	passphrase string
	insecure   bool
	tour       bool
	bootTime   time.Duration
	dut        string
}

func demo(ctx context.Context, p *program, args []string) error {
	var f demoFlags
	fs := p.flags("demo")
	fs.StringVar(&f.listen, "listen", "127.0.0.1:19090", "serve on `[HOST:]PORT`; the host is 0.0.0.0 when it is left out")
	fs.StringVar(&f.passphrase, "passphrase", "", "`TEXT` that every client must send")
	fs.BoolVar(&f.insecure, "insecure", false, "serve other machines without a passphrase: whoever reaches the port drives the demo")
	fs.BoolVar(&f.tour, "tour", false, "show everything, and end")
	fs.DurationVar(&f.bootTime, "boot-time", 3*time.Second, "how long the virtual DUT takes to boot; on the tour it takes a second")
	fs.StringVar(&f.dut, "dut", "", "send a request to the virtual DUT in `FOLDER`: unplug uart 5")
	if err := p.parse(fs, args, commandHelp(fs, "demo [OPTIONS] [--dut FOLDER REQUEST]", demoHelp)); err != nil {
		return err
	}
	switch {
	case f.dut != "" && fs.NArg() == 0:
		return usage("demo: --dut: no request is given")
	case f.dut != "":
		return p.askDUT(ctx, f.dut, strings.Join(fs.Args(), " "))
	case fs.NArg() > 0:
		return usage("demo: got unexpected extra argument (%s)", fs.Arg(0))
	}
	if f.tour {
		f.bootTime = dut.DefaultBootTime
	}
	at, err := f.check()
	if err != nil {
		return err
	}
	return p.demo(ctx, f, at)
}

func (p *program) askDUT(ctx context.Context, dir, request string) error {
	s, err := dut.Ask(ctx, dir, request)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.Stdout, "rail %s (%s, %.3f V, %.3f A), card %s, console %s\n", s.Rail, s.Phase, s.Voltage, s.Current, s.Card, s.UART)
	return nil
}

// check tells where to listen.
func (f demoFlags) check() (exporter.Address, error) {
	addr, err := parseListener(f.listen)
	if err != nil {
		return exporter.Address{}, usage("demo: --listen: %q is not [HOST:]PORT", f.listen)
	}
	host, _, _ := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	if local := host == "localhost" || ip != nil && ip.IsLoopback(); !local && f.passphrase == "" && !f.insecure {
		return exporter.Address{}, usage("demo: --listen %s: other machines can reach that, in plaintext and without a passphrase; give --passphrase TEXT, or insist with --insecure", f.listen)
	}
	return exporter.Address{Network: "tcp", Address: addr}, nil
}

// demo serves until it is interrupted.
func (p *program) demo(ctx context.Context, f demoFlags, at exporter.Address) (err error) {
	if p.Signals { // from here on there is something to tidy up
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
		defer stop()
	}
	folder, err := scratch.Make("jumplead-demo")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, folder.Remove()) }()
	dir := filepath.Join(folder.Path, "dut") // which the DUT locks for itself
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	quiet := p.log // the exporter tells the same from its side
	quiet.level = max(quiet.level, slog.LevelWarn)
	d, err := dut.Start(dut.Options{Dir: dir, BootTime: f.bootTime, Log: slog.New(quiet.handler(p.Stderr, p.Terminal, p.Journal))})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	path := filepath.Join(dir, "harness.yaml")
	if err := os.WriteFile(path, []byte(fillIn(dir, p.Executable, d.TCP())), 0o600); err != nil {
		return err
	}
	r := runFlags{configFile: configFile{path: path}, passphrase: f.passphrase, insecure: true}
	if f.tour {
		return p.tour(ctx, r, dir)
	}
	r.ready = func(addr net.Addr) { p.introduce(p.Stdout, addr, f.passphrase, path) }
	return p.export(ctx, r, at)
}

// fillIn makes the demo's config one of places of its own.
func fillIn(dir, exe, tcp string) string {
	_, port, _ := net.SplitHostPort(tcp)
	yaml := func(s string) string { // in double quotes
		b, _ := json.Marshal(s)
		return string(b[1 : len(b)-1])
	}
	shell := func(s string) string { return yaml("'" + strings.ReplaceAll(s, "'", `'\''`) + "'") }
	return strings.NewReplacer(
		"'.build/virtual'", shell(dir), "'.build/bin/jumplead'", shell(exe),
		".build/virtual", yaml(dir), "18080", port,
	).Replace(demoConfig)
}
