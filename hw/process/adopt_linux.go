package process

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// family is what this process has children of. It mirrors a table of the kernel's
// that belongs to the process as a whole: whoever waits for a child takes its exit
// status from everybody else.
var family = struct {
	sync.Mutex
	started  map[int]bool // leaders that [Start] began and that were not waited for
	starting int          // programs that may be in the kernel's table, but not in ours
	adopters int
}{started: map[int]bool{}}

// stray reports whether the process is our child without our doing, and, if that
// leads a program, whether no other program runs that may have left it.
func (p entry) stray(leader int) bool {
	family.Lock()
	defer family.Unlock()
	for other := range family.started {
		if leader != 0 && other != leader {
			return false
		}
	}
	return p.strayLocked()
}

// strayLocked counts on it that what others than [Start] have begun is in our own
// session, which nobody else can join.
func (p entry) strayLocked() bool {
	own, err := unix.Getsid(0)
	return err == nil && p.parent == os.Getpid() && p.session != own && !family.started[p.pid] &&
		(family.starting == 0 || p.pid != p.session)
}

// Adopt makes this process the parent of all processes below it whose own parent
// has ended, and waits for those that end. Programs that lead a session of their
// own have to be started with [Start] from then on: others would be taken for
// strays. Programs in our own session should leave no orphans: whether they were
// left or started cannot be told, so that nobody would wait for them. The function
// that it returns ends this.
func Adopt() (release func(), err error) {
	family.Lock()
	defer family.Unlock()
	if family.adopters == 0 {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return nil, fmt.Errorf("adopt orphans: %w", err)
		}
	}
	family.adopters++
	died, stop, done := make(chan os.Signal, 1), make(chan struct{}), make(chan struct{})
	signal.Notify(died, syscall.SIGCHLD)
	go func() {
		defer close(done)
		for {
			select {
			case <-died:
				reap()
			case <-stop:
				return
			}
		}
	}()
	return sync.OnceFunc(func() {
		signal.Stop(died)
		close(stop)
		<-done
		reap()
		family.Lock()
		defer family.Unlock()
		if family.adopters--; family.adopters == 0 {
			_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
		}
	}), nil
}

// reap waits for the strays that have ended. One that is in doubt, as a program
// is being started, waits for the next time, which that program's end is.
func reap() {
	for _, p := range table() {
		if p.parent != os.Getpid() || !p.dead() {
			continue
		}
		family.Lock()
		if now, ok := look(p.pid); ok && now.began == p.began && now.strayLocked() {
			_, _ = unix.Wait4(p.pid, nil, unix.WNOHANG, nil)
		}
		family.Unlock()
	}
}
