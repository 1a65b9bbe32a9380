//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/hw/process"
)

// Allowed is a set of commands that the config allows.
var Allowed = driver.Define(driver.Spec{
	Type:     "lab.tools.Allowed",
	Contract: Contract,
	Doc:      "commands of the harness that its config allows",
	Limited:  true, // the config may limit what its programs take of the machine
}, func(_ context.Context, env *driver.Env, c config) (driver.Driver, error) {
	t := &tools{config: c, log: env.Log, limits: env.Limits, closing: make(chan struct{})}
	return driver.Driver{Exports: Exports(t), Impl: t}, nil
})

type config struct {
	Commands map[string]command `yaml:"commands" doc:"what callers may run, by the names that they call it by"`
	Timeout  time.Duration      `yaml:"timeout" default:"60" min:"0.001" doc:"seconds that a command may take"`
	Output   int                `yaml:"output" default:"65536" min:"0" doc:"bytes that a caller gets of standard output, and of standard error"`
}

type command struct {
	Argv        []string       `yaml:"argv" doc:"the program's absolute path, and its arguments, in which {NAME} stands for a caller's"`
	Args        []argument     `yaml:"args,omitempty" doc:"what callers give, in this order"`
	Timeout     *time.Duration `yaml:"timeout" min:"0.001" doc:"seconds that this command may take"`
	Description string         `yaml:"description,omitempty" doc:"what the command does"`
}

type argument struct {
	Name    string `yaml:"name" doc:"a word"`
	Pattern string `yaml:"pattern" default:"[A-Za-z0-9][A-Za-z0-9._:@%+=,-]*" doc:"what the whole of it must match: a regular expression in RE2's syntax"`
	Dash    bool   `yaml:"dash" default:"false" doc:"it may begin with a dash, as options do"`

	pattern *regexp.Regexp
}

// Validate implements [driver.Validator]: check says what is wrong with a command,
// and where, before anybody calls it.
func (c *command) Validate() error {
	if len(c.Argv) == 0 || !filepath.IsAbs(c.Argv[0]) {
		return driver.BadKey("argv", "wants a program by its absolute path, got %q", slices.Concat(c.Argv, []string{""})[0])
	}
	line := strings.Join(c.Argv[1:], " ")
	for i, a := range c.Args {
		switch {
		case slices.ContainsFunc(c.Args[:i], func(b argument) bool { return a.Name == b.Name }):
			return driver.BadKey("args", "two are called %s", a.Name)
		case strings.Contains(c.Argv[0], a.place()):
			return driver.BadKey("argv", "callers do not choose the program: %s stands in it", a.place())
		case !strings.Contains(line, a.place()):
			return driver.BadKey("argv", "it has no place for %s", a.place())
		}
	}
	return nil
}

var word = regexp.MustCompile(`^\w+$`)

// Validate implements [driver.Validator].
func (a *argument) Validate() (err error) {
	if !word.MatchString(a.Name) {
		return driver.BadKey("name", "%q is no word", a.Name)
	}
	if a.pattern, err = regexp.Compile(a.Pattern); err != nil {
		return driver.BadKey("pattern", "%v", err)
	}
	a.pattern.Longest() // see matches
	return nil
}

// place is what stands for the argument in a command line.
func (a *argument) place() string { return "{" + a.Name + "}" }

// maxArgument is the most bytes that an argument may have: a path has no more.
const maxArgument = 4096

// check finds out whether a caller's argument is allowed.
func (a *argument) check(value string) error {
	switch {
	case value == "":
		return driver.BadArg(a.Name, "is empty")
	case len(value) > maxArgument:
		return driver.BadArg(a.Name, "has %d bytes; at most %d are allowed", len(value), maxArgument)
	case strings.ContainsRune(value, 0):
		return driver.BadArg(a.Name, "holds a NUL byte")
	case value[0] == '-' && !a.Dash:
		return driver.BadArg(a.Name, "%q begins with a dash", value)
	case !a.matches(value):
		return driver.BadArg(a.Name, "%q does not match %s", value, a.Pattern)
	}
	return nil
}

// matches reports whether all of a value matches the pattern. The pattern is not
// put between anchors for that, as its text could get around them.
func (a *argument) matches(value string) bool {
	at := a.pattern.FindStringIndex(value)
	return at != nil && at[0] == 0 && at[1] == len(value)
}

// words is the command line for a caller's arguments.
func (c *command) words(args []string) ([]string, error) {
	if len(args) != len(c.Args) {
		return nil, driver.BadArg("args", "wants %d%s, got %d", len(c.Args), c.names(), len(args))
	}
	var fill []string
	for i := range c.Args {
		if err := c.Args[i].check(args[i]); err != nil {
			return nil, err
		}
		fill = append(fill, c.Args[i].place(), args[i])
	}
	words, r := slices.Clone(c.Argv), strings.NewReplacer(fill...) // which leaves alone what it has filled in
	for i := range words[1:] {
		words[1+i] = r.Replace(words[1+i])
	}
	return words, nil
}

// names lists the arguments for people.
func (c *command) names() string {
	if len(c.Args) == 0 {
		return ""
	}
	var names []string
	for _, a := range c.Args {
		names = append(names, a.Name)
	}
	return " (" + strings.Join(names, ", ") + ")"
}

// tools is the driver.
type tools struct {
	config
	log    *slog.Logger
	limits *driver.Limits // of each command; nil is none

	closing chan struct{}
	mu      sync.Mutex // guards the next two
	over    bool
	running sync.WaitGroup
}

var errOver = fmt.Errorf("the session is over: %w", driver.ErrUnavailable)

// List implements [Interface].
func (t *tools) List(context.Context) ([]Info, error) {
	var list []Info
	for _, name := range slices.Sorted(maps.Keys(t.Commands)) {
		info := Info{Name: name, Description: t.Commands[name].Description}
		for _, a := range t.Commands[name].Args {
			info.Args = append(info.Args, a.Name)
		}
		list = append(list, info)
	}
	return list, nil
}

// Execute implements [Interface].
func (t *tools) Execute(ctx context.Context, name string, args ...string) (Result, error) {
	c, ok := t.Commands[name]
	if !ok {
		names := slices.Sorted(maps.Keys(t.Commands))
		return Result{}, driver.BadArg("command", "%q is none of %s%s", name, strings.Join(names, ", "), driver.Hint(name, names))
	}
	words, err := c.words(args)
	if err != nil {
		return Result{}, err
	}
	timeout := t.Timeout
	if c.Timeout != nil {
		timeout = *c.Timeout
	}
	t.log.Info("running", "command", name, "args", args)
	r, err := t.run(ctx, words, timeout)
	if err != nil {
		t.log.Warn("did not end by itself", "command", name, "error", err)
		return Result{}, fmt.Errorf("%s: %w", name, err)
	}
	t.log.Info("ended", "command", name, "code", r.Code)
	return r, nil
}

// run runs a command line until it ends, or has to.
func (t *tools) run(ctx context.Context, words []string, timeout time.Duration) (Result, error) {
	t.mu.Lock()
	if t.over {
		t.mu.Unlock()
		return Result{}, errOver
	}
	t.running.Add(1)
	t.mu.Unlock()
	defer t.running.Done()

	stdout, stderr := &limited{left: t.Output}, &limited{left: t.Output}
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.WaitDelay = process.KillGrace // for output that somebody out of our reach holds open
	p, err := process.StartLimited(cmd, process.TagName()+"=1", t.limits)
	if err != nil {
		return Result{}, err
	}
	m := p.Mark()
	cause := process.Keeper{Timeout: timeout, Grace: process.TermGrace, Exited: p.Exited(), Taken: p.Exited(),
		Closing: t.closing, Hit: m.Hit, Strike: m.Strike}.Keep(ctx)
	// Nothing that it has started goes on behind the caller's back.
	process.Await(process.KillGrace, nil, func() bool { return m.Hit(syscall.SIGKILL) == 0 })
	p.Settle()
	switch {
	case errors.Is(cause, process.ErrTimeout):
		return Result{}, fmt.Errorf("ended after %v: %w", timeout, context.DeadlineExceeded)
	case errors.Is(cause, process.ErrClosing):
		return Result{}, errOver
	case cause != nil:
		return Result{}, cause
	}
	if struck := p.Struck(); struck != "" {
		return Result{}, errors.New(struck)
	}
	r := Result{Code: p.Code(), Truncated: stdout.more() || stderr.more()}
	r.Stdout, r.Stderr = stdout.String(), stderr.String()
	return r, nil
}

// Close ends the commands that run.
func (t *tools) Close() error {
	t.mu.Lock()
	if !t.over {
		t.over = true
		close(t.closing)
	}
	t.mu.Unlock()
	t.running.Wait()
	return nil
}

// limited keeps the beginning of what is written, and takes the rest so that the
// writer goes on.
type limited struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	left int // -1: something was dropped
}

func (l *limited) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(len(p), max(l.left, 0))
	l.buf.Write(p[:n])
	if l.left -= n; n < len(p) {
		l.left = -1
	}
	return len(p), nil
}

func (l *limited) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *limited) more() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.left < 0
}
