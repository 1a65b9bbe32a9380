package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/shell"
	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/process"
)

// closeLimit is how long Close waits for processes that were killed: the
// exporter's end has a fifth of a second for everything.
const closeLimit = 100 * time.Millisecond

// scripts is the backend.
type scripts struct {
	Config
	log     *slog.Logger
	name    string         // of the variable that marks the scripts' processes
	limits  *driver.Limits // nil: none
	scratch string         // the scripts' own folder, where most others are out of their reach; "" is none

	closing chan struct{}
	running sync.WaitGroup // goroutines of the calls, but for the callers' own

	mu    sync.Mutex
	over  bool
	calls int // so far
	pipes map[*os.File]bool
	all   process.Mark // of what scripts have left
}

var _ shell.Interface = (*scripts)(nil)

func open(_ context.Context, env *driver.Env, c Config) (driver.Driver, error) {
	name := process.TagName()
	s := &scripts{Config: c, log: env.Log, name: name, all: process.Mark{Tag: name + "="},
		closing: make(chan struct{}), pipes: map[*os.File]bool{}}
	if env.Limits != nil {
		if err := s.limit(*env.Limits); err != nil {
			return driver.Driver{}, err
		}
	}
	return shell.Driver(s), nil
}

// limit gives the scripts limits.
func (s *scripts) limit(l driver.Limits) error {
	how, err := process.Keeps(l, "")
	if err != nil {
		return hw.Mark(driver.ErrUnavailable, fmt.Errorf("limits: %w", err))
	}
	s.log.Info("scripts have limits", "limits", how)
	s.limits = &l
	if !l.Files() {
		return nil
	}
	var read []string
	if s.Cwd != "" {
		dir, err := filepath.Abs(s.Cwd)
		if err != nil {
			return err
		}
		read = []string{dir}
	}
	if s.scratch, err = os.MkdirTemp("", "jumplead-scripts-"); err != nil {
		return err
	}
	s.limits = l.With(read, []string{s.scratch})
	return nil
}

func (s *scripts) Methods(context.Context) ([]string, error) { return slices.Clone(s.names), nil }

func (s *scripts) Call(ctx context.Context, method string, env map[string]string, args ...string) iter.Seq2[shell.Output, error] {
	return func(yield func(shell.Output, error) bool) {
		cmd, err := s.command(method, env, args)
		if err != nil {
			yield(shell.Output{}, err)
			return
		}
		timeout := s.Timeout
		if t := s.Config.Methods[method].Timeout; t != nil {
			timeout = *t
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		s.log.Info("calling", "method", method, "args", args)
		r, err := s.start(ctx, cmd, timeout)
		if err != nil {
			yield(shell.Output{}, fmt.Errorf("%s: %w", method, err))
			return
		}
		defer func() { // also when the caller stops listening, or panics
			cancel()
			<-r.ended
		}()
		starved := ""
		err = r.follow(ctx, s.closing, func(o shell.Output) bool {
			if starved == "" && o.Stderr != "" {
				starved = process.Starved(s.limits, o.Stderr)
			}
			return yield(o, nil)
		})
		if err == nil {
			close(r.taken)
		} else {
			cancel()
		}
		<-r.ended
		code := 0
		if err == nil {
			code, err = r.status()
		}
		last := shell.Output{Code: &code}
		struck := r.proc.Struck()
		if struck == "" && code != 0 {
			struck = starved
		}
		if struck != "" {
			s.log.Error(struck, "method", method)
			last.Stderr = fmt.Sprintf("\n%s: %s\n", method, struck)
		}
		switch {
		case err == errDeaf:
			return
		case err == process.ErrTimeout:
			s.log.Error("time is over", "method", method, "timeout", timeout.String())
			code = shell.TimeoutCode
			last.Stderr += fmt.Sprintf("\nTimeout expired while running %s: timed out after %s seconds\n",
				method, strconv.FormatFloat(timeout.Seconds(), 'f', -1, 64))
		case err != nil:
			yield(shell.Output{}, fmt.Errorf("%s: %w", method, err))
			return
		case code != 0:
			s.log.Info("returned", "method", method, "code", code)
		}
		if r.left.Load() {
			s.log.Warn("processes in the background keep the output open; what they write from now on is dropped", "method", method)
		}
		yield(last, nil)
	}
}

// blocked are the variables with which a caller could make the scripts run
// something else.
var blocked = []string{"PATH", "PYTHONPATH", "BASH_ENV", "KUBECONFIG", "HOME"}

// command checks a call in the order in which upstream does.
func (s *scripts) command(method string, env map[string]string, args []string) (*exec.Cmd, error) {
	m, ok := s.Config.Methods[method]
	if !ok {
		return nil, driver.BadArg("method", "%q not found in available methods: %s%s",
			method, strings.Join(s.names, ", "), driver.Hint(method, s.names))
	}
	argv := slices.Concat(s.Shell, []string{m.Command, method}, args)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = os.Environ()
	if s.scratch != "" {
		cmd.Env = append(cmd.Env, "TMPDIR="+s.scratch)
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		switch {
		case !identifier(name):
			return nil, driver.BadArg("env", "invalid environment variable name: %q", name)
		case slices.Contains(blocked, name) || strings.HasPrefix(name, "LD_") || strings.HasPrefix(name, "BASH_FUNC_"):
			return nil, driver.BadArg("env", "environment variable %q is blocked for security reasons", name)
		case strings.ContainsRune(env[name], 0):
			return nil, driver.BadArg("env", "the value of %s holds a NUL byte", name)
		}
		cmd.Env = append(cmd.Env, name+"="+env[name])
	}
	for i, a := range args {
		if strings.ContainsRune(a, 0) {
			return nil, driver.BadArg("args", "argument %d holds a NUL byte", i+1)
		}
	}
	if s.Cwd != "" {
		if info, err := os.Stat(s.Cwd); err != nil || !info.IsDir() {
			return nil, driver.BadArg("", "working directory does not exist: %s", s.Cwd)
		}
		cmd.Dir = s.Cwd
	}
	if errors.Is(cmd.Err, exec.ErrNotFound) { // of the system's, as it is to Python
		return nil, fmt.Errorf("%s: %w", method, &fs.PathError{Op: "exec", Path: argv[0], Err: syscall.ENOENT})
	}
	return cmd, nil
}

// identifier reports whether Python would take a word for a name.
func identifier(s string) bool {
	for i, c := range s {
		start := c == '_' || unicode.In(c, unicode.L, unicode.Nl, unicode.Other_ID_Start)
		if !start && (i == 0 || !unicode.In(c, unicode.Mn, unicode.Mc, unicode.Nd, unicode.Pc, unicode.Other_ID_Continue)) {
			return false
		}
	}
	return s != ""
}

// Close ends all processes that the scripts have left. Those of calls in
// progress end with them.
func (s *scripts) Close() error {
	s.mu.Lock()
	calls := s.calls
	if !s.over {
		s.over = true
		close(s.closing)
	}
	for f := range s.pipes {
		f.Close()
	}
	s.mu.Unlock()
	if s.scratch != "" {
		defer os.RemoveAll(s.scratch)
	}
	if calls == 0 {
		return nil
	}
	end := time.Now().Add(closeLimit)
	kill := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.all.Hit(syscall.SIGKILL)
	}
	kill()
	ended := make(chan struct{})
	go func() {
		s.running.Wait()
		close(ended)
	}()
	select { // then nothing can be started any more
	case <-ended:
	case <-time.After(closeLimit):
	}
	left := 0
	if !process.Await(time.Until(end), nil, func() bool { left = kill(); return left == 0 }) {
		return fmt.Errorf("%d processes of scripts have not ended %v after they were killed", left, closeLimit)
	}
	return nil
}
