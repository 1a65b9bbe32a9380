package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jumplead/jumplead/hw"
	"golang.org/x/sys/unix"
)

// cpuGrace is how long a process may go on after SIGXCPU has told it that its time
// is over, in seconds: as little as can be.
const cpuGrace = 1

// way is how this machine keeps limits.
type way struct {
	domain
	confinement
	abi        int   // Landlock's version
	noLandlock error // why there is none
	said       []string
}

// plan finds a way to keep limits for a program of a user. The error says which of
// them cannot be kept.
func plan(l hw.Limits, uid int) (w way, err error) {
	w.domain = groups()
	if l.Files() {
		w.abi, w.noLandlock = landlockVersion()
	}
	return w, w.plan(l, uid)
}

func (w *way) plan(l hw.Limits, uid int) error {
	var errs []error
	say := func(format string, args ...any) { w.said = append(w.said, fmt.Sprintf(format, args...)) }
	limit := func(resource int, soft, hard uint64) { w.Rlimits = append(w.Rlimits, rlimit{resource, soft, hard}) }
	switch {
	case l.Memory == 0:
	case w.has("memory"):
		say("memory %v for all its processes together, by a control group", l.Memory)
	default:
		// Not the address space: it is what programs with threads reserve and never use.
		limit(unix.RLIMIT_DATA, uint64(l.Memory), uint64(l.Memory))
		say("memory %v for each process, without what it shares (no control group: %v)", l.Memory, w.why("memory"))
	}
	switch {
	case l.CPU == 0:
	case w.has("cpu"):
		say("cpu %v by a control group", l.CPU)
	default:
		errs = append(errs, fmt.Errorf("cpu %v cannot be kept: %w", l.CPU, w.why("cpu")))
	}
	switch {
	case l.Processes == 0:
	case w.has("pids"):
		say("processes %d by a control group", l.Processes)
	case uid == 0:
		errs = append(errs, fmt.Errorf("processes %d cannot be kept: root may start any number; %w", l.Processes, w.why("pids")))
	default:
		limit(unix.RLIMIT_NPROC, uint64(l.Processes), uint64(l.Processes))
		say("processes %d for all that the user runs (no control group: %v)", l.Processes, w.why("pids"))
	}
	if s := uint64(l.CPUTime.Round(time.Second) / time.Second); l.CPUTime > 0 {
		s = max(s, 1)
		limit(unix.RLIMIT_CPU, s, s+cpuGrace)
		say("cpu_time %d s for each process", s)
	}
	if l.OpenFiles > 0 {
		limit(unix.RLIMIT_NOFILE, uint64(l.OpenFiles), uint64(l.OpenFiles))
		say("open_files %d for each process", l.OpenFiles)
	}
	if l.FileSize > 0 {
		limit(unix.RLIMIT_FSIZE, uint64(l.FileSize), uint64(l.FileSize))
		say("file_size %v", l.FileSize)
	}
	if w.NoNewPrivileges = l.NoNewPrivileges; w.NoNewPrivileges {
		say("no_new_privileges")
	}
	if w.Files = l.Files(); w.Files {
		if w.noLandlock != nil {
			errs = append(errs, fmt.Errorf("read and write cannot be kept: %w", w.noLandlock))
		}
		text := fmt.Sprintf("files by Landlock (version %d)", w.abi)
		if rightsOf(w.abi)&unix.LANDLOCK_ACCESS_FS_TRUNCATE == 0 {
			text += ", which does not keep files from being cut off"
		}
		say("%s", text)
		w.Read, w.Write = texts(l.Read), texts(l.Write)
	}
	return errors.Join(errs...)
}

func texts(paths []hw.Path) (list []string) {
	for _, p := range paths {
		list = append(list, string(p))
	}
	return list
}

// Keeps tells how this machine keeps limits for a program that runs as a user, ""
// for this process's own. An error says which of them it cannot keep: a program is
// not started then.
func Keeps(l hw.Limits, name string) (how string, err error) {
	uid := os.Geteuid()
	if name != "" {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		if uid, err = strconv.Atoi(u.Uid); err != nil {
			return "", err
		}
	}
	w, err := plan(l, uid)
	return strings.Join(w.said, "; "), err
}

// StartLimited is [Start] for a program with limits. They bind all that it starts,
// too, whatever becomes of it.
func StartLimited(cmd *exec.Cmd, tag string, l *hw.Limits) (*Process, error) {
	if l == nil || l.String() == "" {
		return Start(cmd, tag)
	}
	uid := os.Geteuid()
	if cmd.SysProcAttr != nil && cmd.SysProcAttr.Credential != nil {
		uid = int(cmd.SysProcAttr.Credential.Uid)
	}
	w, err := plan(*l, uid)
	if err != nil {
		return nil, fmt.Errorf("limits: %w", err)
	}
	b := &bounds{limits: *l, confinement: w.confinement}
	if b.group, err = w.found(*l); err != nil {
		return nil, fmt.Errorf("limits: control group: %w", err)
	}
	p, err := start(cmd, tag, b)
	if err != nil && b.group != nil {
		b.group.remove()
	}
	return p, err
}

// bounds keep one program's limits. There may be none.
type bounds struct {
	confinement
	limits hw.Limits
	group  *group // nil where nothing is limited by one

	outOfMemory, outOfProcesses bool
}

// confines reports whether there is anything that the program has to do to itself.
func (c *confinement) confines() bool { return len(c.Rlimits) > 0 || c.NoNewPrivileges || c.Files }

// start starts a program within its bounds. When it returns, they are in force.
func (b *bounds) start(cmd *exec.Cmd) error {
	if b == nil {
		return cmd.Start()
	}
	if b.group != nil {
		fd, err := unix.Open(b.group.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, fd
	}
	if !b.confines() || cmd.Err != nil {
		return cmd.Start()
	}
	told, tell, err := os.Pipe()
	if err != nil {
		return err
	}
	defer told.Close()
	c := b.confinement
	c.Report = 3 + len(cmd.ExtraFiles)
	text, err := json.Marshal(c)
	if err == nil {
		path, args, files := cmd.Path, cmd.Args, cmd.ExtraFiles
		cmd.Args = append([]string{confinedName, string(text), path}, args...)
		cmd.Path, cmd.ExtraFiles = "/proc/self/exe", append(files[:len(files):len(files)], tell)
		err = cmd.Start()
		cmd.Path, cmd.Args, cmd.ExtraFiles = path, args, files // as the caller knows it
	}
	tell.Close()
	if err != nil {
		return err
	}
	if said, _ := io.ReadAll(told); len(said) > 0 {
		_ = cmd.Wait()
		return failure(string(said))
	}
	return nil
}

// ended notes what the group knows of the program's end.
func (b *bounds) ended() {
	if b == nil || b.group == nil {
		return
	}
	b.outOfMemory = b.group.event("memory.events", "oom_kill") > 0
	b.outOfProcesses = b.group.event("pids.events", "max") > 0
}

// leave removes the group, if nobody is in it. Otherwise whoever has inherited the
// mark does.
func (b *bounds) leave() {
	if b != nil && b.group != nil { // the kernel may take a moment to let go of those who have ended
		Await(KillGrace, nil, func() bool { return b.group.remove() || len(pids(b.group.dir)) > 0 })
	}
}

func (b *bounds) groups() []*group {
	if b == nil || b.group == nil {
		return nil
	}
	return []*group{b.group}
}

// Struck tells which limit a program has run into, as far as is known after
// Waited, or "". It may have gone on all the same.
func (p *Process) Struck() string {
	b := p.bounds
	select {
	case <-p.waited:
	default: // it was killed, and the kernel has not let go of it yet
		b = nil
	}
	if b == nil {
		return ""
	}
	code := p.Code()
	ended := func(sig syscall.Signal) bool { // by its own end, or that of what a shell ran
		return code == -int(sig) || code == 128+int(sig)
	}
	spent := func() bool {
		s := p.cmd.ProcessState
		return s != nil && s.SystemTime()+s.UserTime() >= b.limits.CPUTime
	}
	switch {
	case b.outOfMemory:
		return memoryReached(&b.limits)
	case b.limits.CPUTime > 0 && (ended(syscall.SIGXCPU) || ended(syscall.SIGKILL) && spent()):
		return fmt.Sprintf("the cpu_time limit of %v was reached", b.limits.CPUTime)
	case b.limits.FileSize > 0 && ended(syscall.SIGXFSZ):
		return fmt.Sprintf("the file_size limit of %v was reached", b.limits.FileSize)
	case b.outOfProcesses && code != 0:
		return fmt.Sprintf("the processes limit of %d was reached", b.limits.Processes)
	}
	return ""
}
