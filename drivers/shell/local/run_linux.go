package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/shell"
	"github.com/jumplead/jumplead/hw/process"
	"golang.org/x/sys/unix"
)

const (
	chunk  = 64 << 10        // bytes that are read at once: what a pipe holds
	linger = 1 * time.Second // for the output of processes that outlive their script
)

var (
	errDeaf = errors.New("the caller stopped listening")
	errOver = fmt.Errorf("the session is over: %w", driver.ErrUnavailable)
)

// run is one script that runs, or has run.
//
// Three goroutines belong to it: the keeper, which ends the processes when it is
// time; and a reader for each pipe, which holds one chunk until it is taken.
type run struct {
	cmd   *exec.Cmd
	pipes [2]*os.File       // the ends of standard output and standard error that are read
	out   chan shell.Output // pieces, as they come
	open  atomic.Int32      // pipes that may yield more
	shut  chan struct{}     // closed when none does
	left  atomic.Bool       // a pipe is held open by others than the script

	proc  *process.Process
	taken chan struct{} // closed when all output was taken
	ended chan struct{} // closed when the keeper is through
	cause error         // why the keeper ended the script; nil when it did not
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

	r := &run{cmd: cmd, out: make(chan shell.Output), shut: make(chan struct{}),
		taken: make(chan struct{}), ended: make(chan struct{})}
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
		m := r.proc.Mark()
		r.cause = process.Keeper{Timeout: timeout, Grace: process.TermGrace, Exited: r.proc.Exited(), Taken: r.taken,
			Closing: s.closing, Hit: m.Hit, Strike: m.Strike}.Keep(ctx)
		r.proc.Settle()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all.Inherit(m)
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
	if err == nil {
		r.cmd.Stdout, r.cmd.Stderr = ends[0], ends[1]
		r.proc, err = process.StartLimited(r.cmd, tag, s.limits)
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

// status is the shell's exit status, or why it was ended.
func (r *run) status() (int, error) {
	switch r.cause {
	case nil:
		return r.proc.Code(), nil
	case process.ErrClosing:
		return 0, errOver
	}
	return 0, r.cause
}

// follow passes output on until the shell has ended and the pipes with it, or a
// little later when others hold them open.
func (r *run) follow(ctx context.Context, closing <-chan struct{}, yield func(shell.Output) bool) error {
	late := time.NewTimer(0)
	late.Stop()
	defer late.Stop()
	for shut, exited := r.shut, r.proc.Exited(); shut != nil || exited != nil; {
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
