package remote

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	keep "github.com/jumplead/jumplead/hw/process"
)

const (
	killGrace = 1 * time.Second        // for processes to be gone once they were told to
	linger    = 200 * time.Millisecond // for output of processes that have ended
	maxTail   = 8                      // lines that are kept to tell why a program ended
)

// spawn says how a program is started.
type spawn struct {
	Log  func(slog.Level, string) // gets the lines that it prints; it may be nil
	User string                   // whom it runs as; "" is ourselves
	Env  []string                 // nil is ours
	Says *os.File                 // its descriptor 3, or nil; closed here once it runs

	Limits *driver.Limits // nil: none

	// Lifeline says that the program ends by itself when its standard input does.
	Lifeline bool
}

// process is a program that runs with all that it has started, or has run.
type process struct {
	spawn
	name   string
	p      *keep.Process
	mark   keep.Mark
	stdin  *os.File
	tail   tail
	ending sync.Once
	exited chan struct{} // closed when it has ended, and with it all that it had started
}

// start starts a program as the leader of a session of its own.
func start(argv []string, s spawn) (_ *process, err error) {
	p := &process{spawn: s, name: filepath.Base(argv[0]), exited: make(chan struct{})}
	cmd := exec.Command(argv[0], argv[1:]...)
	if cmd.Err != nil {
		return nil, cmd.Err
	}
	cmd.Env = s.Env
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	if s.User != "" {
		if err := as(cmd, s.User); err != nil {
			return nil, err
		}
	}
	var theirs, ours []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
		if err != nil {
			for _, f := range ours {
				f.Close()
			}
		}
	}()
	if s.Says != nil {
		theirs = append(theirs, s.Says)
		cmd.ExtraFiles = []*os.File{s.Says}
	}
	for i := range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		if i == 0 {
			r, w = w, r
		}
		ours, theirs = append(ours, r), append(theirs, w)
		switch i {
		case 0:
			cmd.Stdin = w
		case 1:
			cmd.Stdout = w
		case 2:
			cmd.Stderr = w
		}
	}
	if p.p, err = keep.StartLimited(cmd, keep.TagName()+"=1", s.Limits); err != nil {
		return nil, err
	}
	p.mark, p.stdin = p.p.Mark(), ours[0]
	var reading sync.WaitGroup
	for i, level := range []slog.Level{slog.LevelInfo, slog.LevelWarn} {
		out := ours[i+1]
		reading.Go(func() {
			defer out.Close()
			p.read(out, level)
		})
	}
	go func() {
		defer close(p.exited)
		<-p.p.Exited()
		m := p.p.Mark()
		keep.Await(killGrace, nil, func() bool { return m.Hit(syscall.SIGKILL) == 0 })
		for _, f := range ours[1:] { // for what cannot be killed
			_ = f.SetReadDeadline(time.Now().Add(linger))
		}
		reading.Wait()
		p.p.Settle()
		p.stdin.Close()
	}()
	return p, nil
}

// as makes a program run as another user, with all groups that the user has.
func as(cmd *exec.Cmd, name string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return err
	}
	if int(uid) == os.Geteuid() {
		return nil
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("user %s: only root can start programs as another user", name)
	}
	ids, err := u.GroupIds()
	if err != nil {
		return fmt.Errorf("user %s: %w", name, err)
	}
	groups := make([]uint32, 0, len(ids))
	for _, id := range append(ids, u.Gid) {
		g, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return fmt.Errorf("user %s: group %q: %w", name, id, err)
		}
		groups = append(groups, uint32(g))
	}
	cred := &syscall.Credential{Uid: uint32(uid), Gid: groups[len(groups)-1], Groups: groups}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	cmd.Env = append(cmd.Env, "HOME="+u.HomeDir, "USER="+name, "LOGNAME="+name)
	cmd.Dir = "/"
	return nil
}

// give lets a user have a folder of ours.
func give(dir, name string) error {
	if name == "" {
		return nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	uid, uerr := strconv.Atoi(u.Uid)
	gid, gerr := strconv.Atoi(u.Gid)
	if err := errors.Join(uerr, gerr); err != nil {
		return err
	}
	if uid == os.Geteuid() {
		return nil
	}
	return os.Lchown(dir, uid, gid)
}

// read logs what a program prints.
func (p *process) read(out io.Reader, level slog.Level) {
	lines := keep.Lines{Cut: true, Emit: func(line string) {
		p.tail.add(line, level == slog.LevelWarn)
		if p.Log != nil {
			p.Log(level, line)
		}
	}}
	_, _ = io.Copy(&lines, out)
	lines.Flush()
}

// end ends the program and all that it has started, and returns when they are
// gone, or cannot be killed.
func (p *process) end(grace time.Duration) {
	p.ending.Do(func() {
		if p.wait(0) {
			return
		}
		p.stdin.Close()
		m := p.mark
		if !p.Lifeline {
			m.Hit(syscall.SIGTERM)
		}
		if p.wait(grace) {
			return
		}
		m.Hit(syscall.SIGTERM)
		if p.wait(killGrace / 2) {
			return
		}
		keep.Await(killGrace, p.exited, func() bool { return m.Hit(syscall.SIGKILL) == 0 })
	})
	p.wait(2 * killGrace)
}

// kill ends the program without any grace.
func (p *process) kill() {
	if m := p.mark; !p.wait(0) {
		m.Hit(syscall.SIGKILL)
	}
}

func (p *process) wait(d time.Duration) bool {
	select {
	case <-p.exited:
		return true
	default:
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.exited:
		return true
	case <-t.C:
		return false
	}
}

// why tells how the program ended.
func (p *process) why() error {
	select {
	case <-p.exited:
	default:
		return fmt.Errorf("%s does not end", p.name)
	}
	var text string
	switch code := p.p.Code(); {
	case code < 0:
		text = fmt.Sprintf("%s was killed by signal %d (%s)", p.name, -code, syscall.Signal(-code))
	default:
		text = fmt.Sprintf("%s ended with status %d", p.name, code)
	}
	last := p.tail.String()
	if struck := p.p.Struck(); struck != "" {
		text += ": " + struck
	} else if s := keep.Starved(p.Limits, last); s != "" {
		text += ": " + s
	}
	if last != "" {
		text += ": " + last
	}
	return errors.New(text)
}

// tail keeps the last lines that a program has printed; those that it printed as
// errors count more. When Python crashes, it says so and then where, from the
// inside out: of that, the first lines tell most.
type tail struct {
	mu      sync.Mutex
	lines   [2][]string
	crashed bool
}

// crash is how Python begins to tell that it crashes.
const crash = "Fatal Python error: "

func (t *tail) add(line string, bad bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := 0
	if bad {
		i = 1
	}
	if len(line) > 300 {
		line = strings.ToValidUTF8(line[:300], "") + "..."
	}
	if bad && !t.crashed && strings.HasPrefix(line, crash) {
		t.crashed, t.lines[i] = true, nil
	}
	if bad && t.crashed && len(t.lines[i]) == maxTail {
		return
	}
	t.lines[i] = append(t.lines[i], line)
	if n := len(t.lines[i]); n > maxTail {
		t.lines[i] = t.lines[i][n-maxTail:]
	}
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, lines := range [][]string{t.lines[1], t.lines[0]} {
		if len(lines) > 0 {
			return strings.Join(lines, " | ")
		}
	}
	return ""
}
