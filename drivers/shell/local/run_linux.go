package local

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jumplead/jumplead/drivers/shell"
	"golang.org/x/sys/unix"
)

const (
	chunk  = 64 << 10        // bytes that are read at once: what a pipe holds
	linger = 1 * time.Second // for the output of processes that outlive their script
)

// errDeaf says that the caller has heard enough.
var errDeaf = errors.New("the caller stopped listening")

// run is one script that runs, or has run.
//
// Four goroutines belong to it: the keeper, which ends the processes when it is
// time; one that starts the shell and waits for it; and a reader for each pipe,
// which holds one chunk until it is taken.
type run struct {
	cmd   *exec.Cmd
	pipes [2]*os.File       // the ends of standard output and standard error that are read
	out   chan shell.Output // pieces, as they come
	open  atomic.Int32      // pipes that may yield more
	shut  chan struct{}     // closed when none does
	left  atomic.Bool       // a pipe is held open by others than the script

	exited chan struct{} // closed when the shell has ended, but was not waited for: its number stays its own
	taken  chan struct{} // closed when all output was taken
	settle chan struct{} // closed when the shell may be waited for
	waited chan struct{} // closed when it was
	ended  chan struct{} // closed when the keeper is through
	cause  error         // why the keeper ended the script; nil when it did not
}

// start starts a script. The context is that of the call: the script's processes
// end when it is done.
func (s *scripts) start(ctx context.Context, cmd *exec.Cmd, timeout time.Duration) (*run, error) {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return nil, errOver
	}
	s.calls++
	tag := s.name + "=" + strconv.Itoa(s.calls)
	s.running.Add(1)
	defer s.running.Done()
	s.mu.Unlock()

	r := &run{cmd: cmd, out: make(chan shell.Output), shut: make(chan struct{}), exited: make(chan struct{}),
		taken: make(chan struct{}), settle: make(chan struct{}), waited: make(chan struct{}), ended: make(chan struct{})}
	if err := s.launch(r, tag); err != nil {
		return nil, err
	}
	r.open.Store(int32(len(r.pipes)))
	for i, f := range r.pipes {
		s.running.Go(func() {
			r.read(ctx, i)
			s.drop(f)
		})
	}
	s.running.Go(func() {
		defer close(r.ended)
		m := mark{cmd.Process.Pid, tag}
		r.cause = keeper{timeout, r.exited, r.taken, s.closing, m.hit, m.strike}.keep(ctx)
		close(r.settle)
		select {
		case <-r.waited:
		case <-time.After(killGrace): // it is in the kernel's hands
		}
	})
	return r, nil
}

// launch starts the shell, with pipes to read from.
func (s *scripts) launch(r *run, tag string) (err error) {
	var ends [2]*os.File
	for i := range ends {
		var e error
		r.pipes[i], ends[i], e = os.Pipe()
		err = errors.Join(err, e)
	}
	started := make(chan error, 1)
	if err == nil {
		r.cmd.Env = append(r.cmd.Env, tag)
		r.cmd.Stdout, r.cmd.Stderr = ends[0], ends[1]
		r.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
		s.running.Go(func() { r.hold(started) })
		err = <-started
	}
	for i := range ends {
		ends[i].Close()
		if err != nil {
			r.pipes[i].Close()
			continue
		}
		s.mu.Lock()
		s.pipes[r.pipes[i]] = true
		s.mu.Unlock()
	}
	return err
}

// drop closes a pipe.
func (s *scripts) drop(f *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pipes, f)
	f.Close()
}

// hold starts the shell and waits for its end.
func (r *run) hold(started chan<- error) {
	runtime.LockOSThread() // the shell ends with the thread that started it, not with the process
	err := r.cmd.Start()
	started <- err
	if err != nil {
		runtime.UnlockOSThread()
		return
	}
	for unix.Waitid(unix.P_PID, r.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	runtime.UnlockOSThread()
	close(r.exited)
	<-r.settle
	_ = r.cmd.Wait() // its status is read later
	close(r.waited)
}

// status is the shell's exit status, or why it was ended.
func (r *run) status() (int, error) {
	if r.cause != nil {
		return 0, r.cause
	}
	if s := r.cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signaled() {
		return -int(s.Signal()), nil // as Python's
	}
	return r.cmd.ProcessState.ExitCode(), nil
}

// follow passes output on until the shell has ended and the pipes with it, or a
// little later when others hold them open.
func (r *run) follow(ctx context.Context, closing <-chan struct{}, yield func(shell.Output) bool) error {
	late := time.NewTimer(0)
	late.Stop()
	defer late.Stop()
	for shut, exited := r.shut, r.exited; shut != nil || exited != nil; {
		select {
		case o := <-r.out:
			if !yield(o) {
				return errDeaf
			}
		case <-shut:
			shut = nil
		case <-exited:
			exited = nil
			late.Reset(linger)
		case <-late.C:
			for _, f := range r.pipes {
				_ = f.SetReadDeadline(time.Unix(1, 0)) // of a pipe that is closed: nothing is left there
			}
		case <-ctx.Done():
			return ctx.Err()
		case <-closing:
			return errOver
		}
	}
	// From then on, readers may have dropped something.
	select {
	case <-closing:
		return errOver
	default:
		return ctx.Err()
	}
}

// read passes on what a pipe yields, until its end, or until it was asked with a
// deadline to take only what is in the pipe. After that, and when nobody listens
// any more, output is dropped.
func (r *run) read(ctx context.Context, i int) {
	f, buf := r.pipes[i], make([]byte, chunk)
	kept, left := 0, -1
	for end := false; !end; {
		n, err := f.Read(buf[kept:])
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			_ = f.SetReadDeadline(time.Time{})
			if n, open := state(f); open {
				left = n
				r.left.Store(true)
			}
		case err != nil:
			left = 0
		case left >= 0:
			left = max(0, left-n)
		}
		end = left == 0
		p := buf[:kept+n]
		cut := len(p)
		if !end {
			cut = whole(p)
		}
		if cut > 0 {
			var o shell.Output
			*[]*string{&o.Stdout, &o.Stderr}[i] = text(p[:cut])
			select {
			case r.out <- o:
			case <-ctx.Done():
			}
		}
		kept = copy(buf, p[cut:])
	}
	if r.open.Add(-1) == 0 {
		close(r.shut)
	}
	_, _ = io.Copy(io.Discard, f)
}

// state tells how many bytes are in a pipe, and whether somebody may write more.
func state(f *os.File) (held int, open bool) {
	c, err := f.SyscallConn()
	if err != nil {
		return 0, false
	}
	_ = c.Control(func(fd uintptr) {
		ask := []unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(ask, 0)
		open = err == nil && ask[0].Revents&unix.POLLHUP == 0
		held, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ)
	})
	return held, open
}
