package process

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/jumplead/jumplead/hw"
	"golang.org/x/sys/unix"
)

// ownGroup is what the group is called in which this process itself is, where
// there are others beside it.
const ownGroup = "exporter"

// domain is the folder of the control groups that this process may make, and what
// can be limited there.
type domain struct {
	dir         string
	controllers []string
	err         error // why there is none
}

// groups is the domain. It is a fact of the process, which is looked for once.
var groups = sync.OnceValue(func() domain {
	mount, path, err := ownPlace()
	if err != nil {
		return domain{err: err}
	}
	if filepath.Base(path) == ownGroup {
		path = filepath.Dir(path)
	}
	return survey(mount, path)
})

// survey looks at a folder of control groups.
func survey(mount, path string) domain {
	dir := filepath.Join(mount, path)
	if !delegated(dir, path == "/") {
		return domain{err: errors.New("the exporter's control group is not its own: run it as a service with Delegate=yes")}
	}
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return domain{err: err}
	}
	for _, name := range []string{"cgroup.procs", "cgroup.subtree_control"} {
		if err := unix.Access(filepath.Join(dir, name), unix.W_OK); err != nil {
			return domain{err: &fs.PathError{Op: "write", Path: filepath.Join(dir, name), Err: err}}
		}
	}
	return domain{dir: dir, controllers: strings.Fields(string(text))}
}

// ownPlace is where control groups are mounted, and the path below that of this
// process's own.
func ownPlace() (mount, path string, err error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", "", err
	}
	at := ""
	for line := range strings.Lines(string(text)) {
		if p, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			at = p
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", "", err
	}
	for s := bufio.NewScanner(bytes.NewReader(mounts)); s.Scan(); {
		// "ID PARENT MAJOR:MINOR ROOT PLACE OPTIONS ... - KIND SOURCE OPTIONS"
		left, right, _ := strings.Cut(s.Text(), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if len(l) < 5 || len(r) < 1 || r[0] != "cgroup2" || at == "" {
			continue
		}
		if rel, err := filepath.Rel(l[3], at); err == nil && !strings.HasPrefix(rel, "..") {
			return l[4], filepath.Join("/", rel), nil
		}
	}
	return "", "", errors.New("no control groups (cgroup2) are mounted here")
}

// delegated reports whether the groups below a folder are this process's to make.
// Root may write everywhere, but what systemd has not given away is its own. Where
// there is no systemd, as in a container, the top is nobody's.
func delegated(dir string, top bool) bool {
	if os.Geteuid() != 0 {
		return true // if it may write there
	}
	if _, err := os.Stat("/run/systemd/system"); top && err != nil {
		return true
	}
	buf := make([]byte, 8)
	for _, name := range []string{"trusted.delegate", "user.delegate"} {
		if n, err := unix.Getxattr(dir, name, buf); err == nil && n > 0 && buf[0] == '1' {
			return true
		}
	}
	return false
}

// has reports whether something can be limited.
func (d domain) has(controller string) bool { return slices.Contains(d.controllers, controller) }

// why tells why something cannot be limited.
func (d domain) why(controller string) error {
	if d.err != nil {
		return d.err
	}
	return fmt.Errorf("the exporter's control group %s lacks the controller %q", d.dir, controller)
}

// group is the control group of one program and all that it starts.
type group struct{ dir string }

// founding is held while the domain is prepared, and numbers its groups.
var founding struct {
	sync.Mutex
	last int
}

// found makes a group with limits.
func (d domain) found(l hw.Limits) (_ *group, err error) {
	type setting struct{ file, value string }
	var want []string
	var settings []setting
	if l.Memory > 0 && d.has("memory") {
		want = append(want, "+memory")
		settings = append(settings, setting{"memory.max", strconv.FormatUint(uint64(l.Memory), 10)},
			setting{"memory.swap.max", "0"}, setting{"memory.oom.group", "1"})
	}
	if l.Processes > 0 && d.has("pids") {
		want = append(want, "+pids")
		settings = append(settings, setting{"pids.max", strconv.Itoa(l.Processes)})
	}
	if l.CPU > 0 && d.has("cpu") {
		want = append(want, "+cpu")
		const period = 100_000 // µs
		settings = append(settings, setting{"cpu.max", fmt.Sprintf("%d %d", int(l.CPU)*period/100, period)})
	}
	if want == nil {
		return nil, nil
	}
	founding.Lock()
	defer founding.Unlock()
	if err := d.enable(want); err != nil {
		return nil, err
	}
	if founding.last == 0 {
		d.sweep()
	}
	var g *group
	for g == nil || errors.Is(err, fs.ErrExist) { // of an earlier process with this one's number
		founding.last++
		g = &group{filepath.Join(d.dir, fmt.Sprintf("run-%d-%d", os.Getpid(), founding.last))}
		err = os.Mkdir(g.dir, 0o755)
	}
	if err != nil {
		return nil, err
	}
	for _, s := range settings {
		err := os.WriteFile(filepath.Join(g.dir, s.file), []byte(s.value), 0)
		if errors.Is(err, fs.ErrNotExist) && s.file != "memory.max" && strings.HasPrefix(s.file, "memory.") {
			continue // a kernel without swap, or an old one
		}
		if err != nil {
			g.remove()
			return nil, err
		}
	}
	return g, nil
}

// sweep removes the empty groups that processes have left which were killed.
func (d domain) sweep() {
	left, _ := filepath.Glob(filepath.Join(d.dir, "run-*-*"))
	for _, dir := range left {
		var pid, number int
		_, err := fmt.Sscanf(filepath.Base(dir), "run-%d-%d", &pid, &number)
		if err == nil && (pid == os.Getpid() || errors.Is(unix.Kill(pid, 0), unix.ESRCH)) {
			(&group{dir}).remove()
		}
	}
}

// enable lets the groups of the domain be limited. A group that has others below
// it has no processes of its own, so that this one and what it has started may have
// to move.
func (d domain) enable(controllers []string) error {
	control := filepath.Join(d.dir, "cgroup.subtree_control")
	on := func() error { return os.WriteFile(control, []byte(strings.Join(controllers, " ")), 0) }
	err := on()
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	own := filepath.Join(d.dir, ownGroup)
	if err := os.Mkdir(own, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for range 10 { // they may start others meanwhile
		for _, pid := range pids(d.dir) {
			err := os.WriteFile(filepath.Join(own, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
			if err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
		if err = on(); !errors.Is(err, unix.EBUSY) {
			break
		}
	}
	return err
}

// pids lists the processes in a group.
func pids(dir string) (list []int) {
	text, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	for line := range strings.FieldsSeq(string(text)) {
		if pid, err := strconv.Atoi(line); err == nil {
			list = append(list, pid)
		}
	}
	return list
}

// kill ends all processes in the group, be they forking.
func (g *group) kill() {
	_ = os.WriteFile(filepath.Join(g.dir, "cgroup.kill"), []byte("1"), 0) // kernels before 5.14 have none
}

// remove removes the group, and reports whether it is gone: there must be nobody
// in it.
func (g *group) remove() bool {
	err := unix.Rmdir(g.dir)
	return err == nil || errors.Is(err, fs.ErrNotExist)
}

// event is how often something has happened in the group.
func (g *group) event(file, name string) int {
	text, _ := os.ReadFile(filepath.Join(g.dir, file))
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == name {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	return 0
}
