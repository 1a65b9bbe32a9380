package hook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jumplead/jumplead/hw/process"
	"golang.org/x/sys/unix"
)

const (
	cancelGrace = 1 * time.Second        // for a hook to end when the exporter does, as upstream
	linger      = 1 * time.Second        // for output of processes that outlive their hook
	sweepLimit  = 256 << 10              // bytes of output that are taken after that
	closeGrace  = 50 * time.Millisecond  // for processes in the background to end
	killGrace   = 1 * time.Second        // to be gone once they were killed: each needs a turn on a processor for it
	endGrace    = 100 * time.Millisecond // for the output of a hook that is in a hurry
)

// Runner runs the hooks of one lease, one after another.
type Runner struct {
	Options
	name    string // of the variable that marks the scripts' processes
	release func() // of their orphans

	calls   int
	since   process.Time // when the first script began
	all     process.Mark // of what scripts have left
	reading sync.WaitGroup
	masters []*os.File
}

// New makes a runner. It must be closed.
func New(o Options) (*Runner, error) {
	release, err := process.Adopt()
	if err != nil {
		return nil, fmt.Errorf("run hooks: %w", err)
	}
	name := process.TagName()
	return &Runner{Options: o, name: name, release: release, all: process.Mark{Tag: name + "="}}, nil
}

// Run runs a hook, and returns what a beforeLease hook says to users. The error is
// a [Failure], or the context's for a script that was ended before its time.
// What went wrong is in the log already.
func (r *Runner) Run(ctx context.Context, kind Kind, h Hook) (motd string, err error) {
	if h.Blank() {
		return "", nil
	}
	log := r.Log.With("hook", string(kind))
	file := ""
	if kind == BeforeLease {
		f, err := os.CreateTemp(r.Dir, "motd-*")
		if err != nil {
			return "", r.fail(log, h, "Error executing hook: "+err.Error())
		}
		f.Close()
		file = f.Name()
		defer os.Remove(file)
	}
	cmd := command(h)
	cmd.Env = r.environ(file)
	code, struck, cause, err := r.run(ctx, log, cmd, h.Timeout, r.limits(h, cmd))
	switch {
	case err != nil:
		err = r.fail(log, h, "Error executing hook: "+err.Error())
	case cause == process.ErrTimeout:
		text := fmt.Sprintf("Hook timed out after %d seconds", h.Timeout/time.Second)
		log.Error(text)
		err = r.fail(log, h, text)
	case cause != nil:
		log.Warn("Hook was ended: the exporter stops")
		return "", context.Canceled
	case code != 0 && struck != "":
		err = r.fail(log, h, fmt.Sprintf("Hook failed with exit code %d: %s", code, struck))
	case code != 0:
		err = r.fail(log, h, fmt.Sprintf("Hook failed with exit code %d", code))
	}
	if file != "" && (err == nil || h.OnFailure == Warn) {
		var failed error
		if motd, failed = readMOTD(file); failed != nil {
			r.Log.Warn("what a hook says to users is ignored", "error", failed)
		}
	}
	return motd, err
}

// fail tells users, who see what hooks log, in upstream's words.
func (r *Runner) fail(log *slog.Logger, h Hook, text string) error {
	if h.OnFailure == Warn {
		log.Warn(text + " (on_failure=warn, continuing)")
	} else {
		log.Error(fmt.Sprintf("%s (on_failure=%s, raising exception)", text, h.OnFailure))
	}
	return &Failure{text, h.OnFailure}
}

// command is what a hook runs.
func command(h Hook) *exec.Cmd {
	interpreter, path := h.Exec, strings.TrimSpace(h.Script)
	info, err := os.Stat(path)
	isFile := err == nil && info.Mode().IsRegular() && !strings.Contains(path, "\n")
	if interpreter == "" {
		interpreter = "/bin/sh"
		if isFile && strings.EqualFold(filepath.Ext(path), ".py") {
			interpreter = "python3"
		}
	}
	if isFile {
		return exec.Command(interpreter, path)
	}
	return exec.Command(interpreter, "-c", h.Script)
}

// limits are a hook's, with what it needs of the lease within its reach.
func (r *Runner) limits(h Hook, cmd *exec.Cmd) *process.Limits {
	if h.Limits == nil || !h.Limits.Files() {
		return h.Limits
	}
	var read []string
	candidates := []string{filepath.Join(r.Bin, "j")}
	if len(cmd.Args) == 2 { // the file of the script
		candidates = append(candidates, cmd.Args[1])
	}
	for _, path := range candidates {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			if real, err = filepath.Abs(real); err == nil {
				read = append(read, real)
			}
		}
	}
	cmd.Env = append(cmd.Env, "TMPDIR="+r.Dir)
	return h.Limits.With(read, []string{r.Dir})
}

// environ is a script's environment. Of two values of one variable, the last one
// counts.
func (r *Runner) environ(motd string) []string {
	var env []string
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		switch {
		case name == "PS1" || name == motdFile:
			continue
		case name == "PATH" && r.Bin != "":
			kv = name + "=" + r.Bin + string(filepath.ListSeparator) + value
		}
		env = append(env, kv)
	}
	if _, ok := os.LookupEnv("PATH"); !ok && r.Bin != "" {
		env = append(env, "PATH="+r.Bin+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	}
	env = append(env, "JUMPSTARTER_HOST="+r.Socket, "JMP_DRIVERS_ALLOW=UNSAFE", "LEASE_NAME="+r.Lease, "CLIENT_NAME="+r.Client,
		"TERM=dumb", "DEBIAN_FRONTEND=noninteractive", "GIT_TERMINAL_PROMPT=0")
	if motd != "" {
		env = append(env, motdFile+"="+motd)
	}
	return env
}

// run runs a program to its end, or to that which its time, the context or Now
// sets it: then there is a cause. Struck says which limit it ran into, or "". An error
// says that it was not started.
func (r *Runner) run(ctx context.Context, log *slog.Logger, cmd *exec.Cmd, timeout time.Duration, l *process.Limits) (code int, struck string, cause, err error) {
	master, slave, err := process.Terminal(cmd)
	if err != nil {
		return 0, "", nil, err
	}
	r.calls++
	p, err := process.StartLimited(cmd, r.name+"="+strconv.Itoa(r.calls), l)
	slave.Close()
	if err != nil {
		master.Close()
		return 0, "", nil, err
	}
	log.Debug("hook runs", "command", cmd.Args[0], "pid", cmd.Process.Pid)
	if r.since == 0 {
		r.since = p.Began()
	}
	r.masters = append(r.masters, master)
	taken, hurry := make(chan struct{}), make(chan struct{})
	out := &process.Lines{Emit: func(s string) { log.Info(s) }}
	r.reading.Go(func() {
		select {
		case <-p.Exited():
			_ = master.SetReadDeadline(time.Now().Add(linger))
		case <-hurry:
		}
	})
	r.reading.Go(func() {
		read(out, master, p.Exited(), hurry)
		close(taken)
		_, _ = io.Copy(io.Discard, master) // whoever is left may go on writing
	})
	m := p.Mark()
	m.Strays = p.Began()
	cause = process.Keeper{Timeout: max(timeout, 0), Grace: cancelGrace, Exited: p.Exited(), Taken: taken, Closing: r.Now,
		Hit: m.Hit, Strike: m.Strike}.Keep(ctx)
	if cause == process.ErrClosing {
		process.Await(killGrace, nil, func() bool { return m.Hit(syscall.SIGKILL) == 0 })
	}
	if cause != nil {
		close(hurry)
		_ = master.SetReadDeadline(time.Now().Add(endGrace)) // for what cannot be killed
	}
	p.Settle()
	r.all.Inherit(m)
	<-taken
	return p.Code(), p.Struck(), cause, nil
}

// read passes on what a program writes to its terminal: all that is there until
// the program has ended and the terminal is closed, and if it is not, what comes
// until the deadline.
func read(out *process.Lines, master *os.File, exited, hurry <-chan struct{}) {
	defer out.Flush()
	if _, err := io.Copy(out, master); !errors.Is(err, os.ErrDeadlineExceeded) {
		select { // it has closed its streams, and may open others
		case <-exited:
		case <-hurry: // it may be in the kernel's hands for ever
		}
	}
	_ = master.SetReadDeadline(time.Time{})
	// The kernel is done with the output of a program that has ended when it says
	// that there is no more.
	buf := make([]byte, 4096)
	for n := 0; n < sweepLimit && readable(master); {
		got, err := master.Read(buf)
		if n += got; err != nil {
			return
		}
		_, _ = out.Write(buf[:got])
	}
}

func readable(f *os.File) (yes bool) {
	c, err := f.SyscallConn()
	if err != nil {
		return false
	}
	_ = c.Control(func(fd uintptr) {
		ask := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		_, err := unix.Poll(ask, 0)
		yes = err == nil && ask[0].Revents&unix.POLLIN != 0
	})
	return yes
}

// Close ends the lease: whatever the scripts have left in the background goes.
func (r *Runner) Close() error {
	defer r.release()
	left := 0
	r.all.Strays = r.since
	hit := func(sig syscall.Signal) func() bool {
		return func() bool { left = r.all.Hit(sig); return left == 0 }
	}
	if r.since != 0 && !hit(syscall.SIGTERM)() && !process.Await(closeGrace, r.Now, hit(0)) {
		process.Await(killGrace, nil, hit(syscall.SIGKILL))
	}
	for _, f := range r.masters {
		f.Close()
	}
	r.reading.Wait()
	if left > 0 {
		return fmt.Errorf("%d processes of hooks have not ended %v after they were killed", left, killGrace)
	}
	return nil
}
