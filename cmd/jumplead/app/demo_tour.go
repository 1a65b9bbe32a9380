package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jumplead/jumplead/drivers/cli"
	"github.com/jumplead/jumplead/exporter"
)

// tour serves a demo on a socket of its own, and shows what a client can do with
// it. What did not go as it should is its error.
func (p *program) tour(ctx context.Context, r runFlags, dir string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, tourLimit, fmt.Errorf("the tour takes longer than %v", tourLimit))
	defer cancel()
	g := &guide{p: p, out: &lines{w: p.Stdout}, dir: dir, socket: filepath.Join(dir, "jumplead.sock"), log: newTranscript()}

	serving, stop := context.WithCancel(ctx)
	defer stop()
	up, served := make(chan struct{}), make(chan error, 1)
	exporting := p.clone()
	exporting.Stderr, exporting.Signals, exporting.log.format = g.log, false, "text"
	r.passphrase, r.ready = "", func(net.Addr) { close(up) }
	g.say("A virtual device under test is put on the bench, and an exporter is started.\nBefore anybody can use it, a hook brings the bench into a known state.")
	go func() {
		served <- exporting.export(serving, r, exporter.Address{Network: "unix", Address: g.socket})
	}()
	var err error
	select {
	case err = <-served:
		return err
	case <-up:
		var hooks func()
		if hooks, err = g.ready(ctx); err == nil {
			defer hooks()
			err = g.show(ctx)
		}
	}
	if err == nil {
		g.say("That was all. The exporter ends, and the hook behind the lease tidies up.")
	}
	stop()
	if err = errors.Join(err, <-served); errors.Is(err, context.Canceled) {
		return errors.New("the tour was interrupted")
	}
	if err != nil {
		fmt.Fprintf(p.Stderr, "\nThe log of the exporter:\n%s\n", g.log)
	}
	return err
}

// clone is a program for a command within this one.
func (p *program) clone() *program {
	proc, c := *p.Proc, *p
	c.Proc = &proc
	return &c
}

// tourLimit is many times what a tour takes.
const tourLimit = 2 * time.Minute

// guide leads a tour.
type guide struct {
	p           *program
	out         *lines
	dir, socket string
	log         *transcript // of the exporter
}

// ready waits until the harness can be used. What its hooks say is shown until the
// exporter has ended, when the function that is returned must be called.
func (g *guide) ready(ctx context.Context) (end func(), err error) {
	c, err := g.p.dial(ctx, g.socket, false, "")
	if err != nil {
		return nil, err
	}
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		p := g.p.clone()
		p.Stderr = g.out.prefixed("")
		p.follow(ctx, c, false)
	}()
	return func() {
		<-shown
		c.Close()
	}, c.WaitReady(ctx)
}

func (g *guide) show(ctx context.Context) error {
	image, id, err := g.image()
	if err != nil {
		return err
	}
	g.say("The tree of the harness is a tree of commands.")
	if err := g.j(ctx, "Commands:", "--help"); err != nil {
		return err
	}

	g.say("The console is listened to, and the power switched on. There is nothing on the\nSD card, and the DUT boots its factory firmware.")
	console, err := g.console(ctx)
	defer func() { console.stop() }()
	if err != nil {
		return err
	}
	if err := g.j(ctx, "", "power", "on"); err != nil {
		return err
	}
	if err := console.await(ctx, "factory firmware", "dut# "); err != nil {
		return err
	}
	if err := g.j(ctx, "voltage=", "power", "read"); err != nil {
		return err
	}

	g.say("An image is flashed: the card goes to the host, is written, and goes back to the\nDUT, which runs it when it boots.")
	if err := g.j(ctx, "", "power", "off"); err != nil {
		return err
	}
	if err := g.j(ctx, "", "storage", "flash", image); err != nil {
		return err
	}
	if err := g.j(ctx, "", "power", "on"); err != nil {
		return err
	}
	if err := console.await(ctx, id, "dut# "); err != nil {
		return err
	}

	g.say("The DUT's web page is in its own network. A tunnel leads there.")
	if err := g.tunnel(ctx, id); err != nil {
		return err
	}

	g.say("Somebody pulls the console's cable. Who listens is told, and so is who comes now.")
	if err := g.j(ctx, "console unplugged", "bench", "unplug"); err != nil {
		return err
	}
	if err := console.await(ctx, "Error: "); err != nil {
		return err
	}
	console.stop()
	if err := g.fails(ctx, "is the device plugged in?", "serial", "pipe", "--no-input"); err != nil {
		return err
	}
	g.say("All else works on. When the cable is back, so is the console.")
	if err := g.j(ctx, "voltage=", "power", "read"); err != nil {
		return err
	}
	if err := g.j(ctx, "console plugged", "bench", "plug"); err != nil {
		return err
	}
	if console, err = g.console(ctx); err != nil {
		return err
	}
	if _, err := io.WriteString(console.input, "image\r"); err != nil {
		return err
	}
	return console.await(ctx, id, "dut# ")
}

// console listens to the console, and returns once it does.
func (g *guide) console(ctx context.Context) (*running, error) {
	c := g.start(ctx, "console", "serial", "pipe", "--input")
	return c, g.log.await(ctx, c.ended, "serial: connected")
}

// image makes something to flash, and tells what a DUT says of it.
func (g *guide) image() (path, sum string, err error) {
	const size = 64 << 20
	path = filepath.Join(g.dir, "tour.img")
	if err := os.WriteFile(path, []byte("an image for the tour\n"), 0o600); err != nil {
		return "", "", err
	}
	return path, fmt.Sprintf("%q, %d bytes", "an image for the tour", size), os.Truncate(path, size)
}

// tunnel fetches the DUT's page through a port that leads to it, which has to
// contain a text.
func (g *guide) tunnel(ctx context.Context, want string) error {
	t := g.start(ctx, "tunnel", "tcp", "forward-tcp", "--address", "127.0.0.1", "0")
	defer t.stop()
	if err := t.await(ctx, "\n"); err != nil {
		return err
	}
	url := "http://" + strings.TrimSpace(t.said.String()) + "/"
	g.out.prompt("curl " + url)
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return err
	}
	req.Close = true
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	g.out.prefixed("").Write(page)
	if !bytes.Contains(page, []byte(want)) {
		return fmt.Errorf("the page of the DUT does not contain %q", want)
	}
	return nil
}

func (g *guide) say(text string) { g.out.say(text) }

// j runs a command of j, which has to succeed and to say something.
func (g *guide) j(ctx context.Context, want string, args ...string) error {
	return g.run(ctx, exitOK, want, args)
}

// fails runs a command of j that has to fail.
func (g *guide) fails(ctx context.Context, want string, args ...string) error {
	return g.run(ctx, exitError, want, args)
}

func (g *guide) run(ctx context.Context, status int, want string, args []string) error {
	c := g.start(ctx, "", args...)
	c.input.Close()
	<-c.ended
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case c.status != status:
		return fmt.Errorf("%s ends with status %d, and not %d", c.line, c.status, status)
	case !strings.Contains(c.said.String(), want):
		return fmt.Errorf("%s does not say %q", c.line, want)
	}
	return nil
}

// running is a command of j that runs.
type running struct {
	line   string // as it is typed
	said   *transcript
	input  *io.PipeWriter
	stop   func() // and wait
	ended  chan struct{}
	status int // once it has ended
}

// start runs a command of j in the background. Its output is shown behind a name.
func (g *guide) start(ctx context.Context, name string, args ...string) *running {
	line := strings.Join(append([]string{"j"}, args...), " ")
	if name != "" {
		line += " &"
	}
	g.out.prompt(line)
	ctx, cancel := context.WithCancel(ctx)
	in, input := io.Pipe()
	c := &running{line: line, said: newTranscript(), input: input, ended: make(chan struct{})}
	c.stop = func() {
		cancel()
		input.Close()
		<-c.ended
	}
	out := io.MultiWriter(g.out.prefixed(name), c.said)
	proc := *g.p.Proc
	proc.Args, proc.Stdin, proc.Stdout, proc.Stderr = append([]string{"j"}, args...), in, out, out
	if tty, ok := cli.Terminal(g.p.Stdout); ok && slices.Contains(args, "flash") {
		proc.Stderr = tty // so that there is a bar
	}
	proc.Signals, proc.Terminal, proc.Journal = false, false, false
	proc.Env = append(slices.Clone(proc.Env), envHost+"="+g.socket, "JMP_DRIVERS_ALLOW=UNSAFE")
	go func() {
		defer close(c.ended)
		defer cancel()
		defer in.Close()
		c.status = Main(ctx, proc, g.p.specs...)
	}()
	return c
}

// await waits until the command has said all of these, one after another, since
// the last time.
func (c *running) await(ctx context.Context, texts ...string) error {
	if err := c.said.await(ctx, c.ended, texts...); err != nil {
		return fmt.Errorf("%s: %w", c.line, err)
	}
	return nil
}

// transcript is what was written, and can be waited for.
type transcript struct {
	mu   sync.Mutex
	text strings.Builder
	seen int           // what was awaited already
	news chan struct{} // something was written
}

func newTranscript() *transcript { return &transcript{news: make(chan struct{}, 1)} }

func (t *transcript) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case t.news <- struct{}{}:
	default:
	}
	return t.text.Write(p)
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

// await waits until all of these texts have been written, one after another and
// since the last time, unless it ends before.
func (t *transcript) await(ctx context.Context, end <-chan struct{}, texts ...string) error {
	for ended := false; ; {
		t.mu.Lock()
		for len(texts) > 0 {
			_, after, ok := strings.Cut(t.text.String()[t.seen:], texts[0])
			if !ok {
				break
			}
			t.seen, texts = t.text.Len()-len(after), texts[1:]
		}
		t.mu.Unlock()
		switch {
		case len(texts) == 0:
			return nil
		case ended:
			return fmt.Errorf("ended without %q", texts[0])
		}
		select {
		case <-t.news:
		case <-end:
			ended = true
		case <-ctx.Done():
			return fmt.Errorf("waiting for %q: %w", texts[0], context.Cause(ctx))
		}
	}
}

// lines shows what several writers say, line by line.
type lines struct {
	mu   sync.Mutex
	w    io.Writer
	open *prefixed // whose line has begun
}

// prefixed is a writer whose lines begin with its name.
type prefixed struct {
	*lines
	name string
}

func (l *lines) prefixed(name string) *prefixed { return &prefixed{l, name} }

func (p *prefixed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for line := range strings.Lines(strings.ReplaceAll(string(b), "\r", "")) {
		if p.open != p {
			p.finish()
			if p.name != "" {
				fmt.Fprintf(p.w, "%9s | ", p.name)
			}
		}
		io.WriteString(p.w, line)
		p.open = p
		if strings.HasSuffix(line, "\n") {
			p.open = nil
		}
	}
	return len(b), nil
}

// finish ends a line that has begun.
func (l *lines) finish() {
	if l.open != nil {
		io.WriteString(l.w, "\n")
		l.open = nil
	}
}

func (l *lines) say(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.finish()
	fmt.Fprintf(l.w, "\n# %s\n", strings.ReplaceAll(text, "\n", "\n# "))
}

func (l *lines) prompt(command string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.finish()
	fmt.Fprintf(l.w, "$ %s\n", command)
}
