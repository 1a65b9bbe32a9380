package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/jumplead/jumplead/hw/serial/pty"
	"golang.org/x/sys/unix"
)

// Process is a program that runs, or has run.
type Process struct {
	cmd    *exec.Cmd
	tag    string
	bounds *bounds // nil: it has no limits
	began  Time
	settle func() // lets the program be waited for

	exited, settled, waited chan struct{}
}

// Start starts a program as the leader of a session of its own, with the tag,
// NAME=VALUE, in its environment. It ends with this process, should that be
// killed; its children do not.
func Start(cmd *exec.Cmd, tag string) (*Process, error) { return start(cmd, tag, nil) }

func start(cmd *exec.Cmd, tag string, b *bounds) (*Process, error) {
	p := &Process{cmd: cmd, tag: tag, bounds: b, exited: make(chan struct{}), settled: make(chan struct{}), waited: make(chan struct{})}
	p.settle = sync.OnceFunc(func() { close(p.settled) })
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, tag)
	if cmd.SysProcAttr == nil { // there may be a user to run as
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Pdeathsig = true, syscall.SIGKILL
	started := make(chan error, 1)
	go p.hold(started)
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// hold starts the program and waits for its end.
func (p *Process) hold(started chan<- error) {
	runtime.LockOSThread() // the program ends with the thread that started it, not with the process
	family.Lock()
	family.starting++
	family.Unlock()
	err := p.bounds.start(p.cmd)
	family.Lock()
	family.starting--
	if err == nil {
		family.started[p.cmd.Process.Pid] = true
	}
	family.Unlock()
	if err != nil {
		runtime.UnlockOSThread()
		started <- err
		return
	}
	self, _ := look(p.cmd.Process.Pid)
	p.began = self.began
	started <- nil
	for unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	runtime.UnlockOSThread()
	p.bounds.ended()
	close(p.exited)
	<-p.settled
	_ = p.cmd.Wait() // its status is read later
	p.bounds.leave()
	family.Lock()
	delete(family.started, p.cmd.Process.Pid)
	family.Unlock()
	close(p.waited)
}

// Exited is closed when the program has ended. Until [Process.Settle] its number
// stays its own, and that of its session.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Began is when the program was started.
func (p *Process) Began() Time { return p.began }

// Mark tells the program's processes from all others, until Settle.
func (p *Process) Mark() Mark {
	return Mark{Session: p.cmd.Process.Pid, Tag: p.tag, groups: p.bounds.groups()}
}

// Settle says that the mark is not needed any more, and waits for the program,
// unless it is in the kernel's hands. It must be called once the program has
// ended or been killed, and may be called again.
func (p *Process) Settle() {
	p.settle()
	t := time.NewTimer(KillGrace)
	defer t.Stop()
	select {
	case <-p.waited:
	case <-t.C:
	}
}

// Waited is closed when the program has ended after Settle.
func (p *Process) Waited() <-chan struct{} { return p.waited }

// Code is the program's exit status after Waited, or the negative number of the
// signal that ended it, as Python has it.
func (p *Process) Code() int {
	select {
	case <-p.waited:
	default: // it was killed, and the kernel has not let go of it yet
		return -int(syscall.SIGKILL)
	}
	if s := p.cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signaled() {
		return -int(s.Signal())
	}
	return p.cmd.ProcessState.ExitCode()
}

// Terminal gives a program that is not started yet a terminal for its standard
// streams, raw and not the controlling one, and returns its far end. When nobody
// has the terminal any more, a Read there fails with EIO, once all was read. The
// slave is to be closed when the program was started.
func Terminal(cmd *exec.Cmd) (master, slave *os.File, err error) {
	master, slave, err = pty.Open()
	if err != nil {
		return nil, nil, err
	}
	// Programs do not expect that writing would block, and lose what they say.
	conn, err := slave.SyscallConn()
	if err == nil {
		var failed error
		err = conn.Control(func(fd uintptr) { failed = unix.SetNonblock(int(fd), false) })
		err = errors.Join(err, failed)
	}
	if err != nil {
		master.Close()
		slave.Close()
		return nil, nil, fmt.Errorf("open a pseudo-terminal: %w", err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	return master, slave, nil
}
