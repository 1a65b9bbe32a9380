package process

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// tagPrefix is what the names of all variables begin with that mark processes.
const tagPrefix = "JUMPLEAD_RUN_"

// TagName makes a name for a variable that marks processes, which nobody else has.
func TagName() string { return tagPrefix + rand.Text() }

// Mark tells a program's processes from all others. It knows those again that it
// has seen, also when what made them the program's is gone. It is for one goroutine.
type Mark struct {
	Session int    // that the program leads; 0 when it has been waited for, and the number may be another's
	Tag     string // NAME=VALUE, or NAME= for any value, in the environment; for NAME see [TagName]

	// Strays says from when on strays are the program's: those that began no
	// earlier, bear no other program's tag, and cannot be of another one that runs,
	// where there is a Session. 0 is never.
	Strays Time

	seen   map[int]Time
	groups []*group // of programs with limits; forgotten when they are gone
}

// Time is when a process began, in the kernel's ticks since the machine did.
type Time uint64

// Strike sends a signal to the processes that are still in the group that the
// program began in, all at once: no fork can dodge it.
func (m *Mark) Strike(sig syscall.Signal) {
	if m.Session > 0 {
		_ = syscall.Kill(-m.Session, sig)
	}
}

// Hit sends a signal to all processes that bear the mark, once to each, and
// returns how many there are. Signal 0 only counts. What is being forked may need
// another hit.
func (m *Mark) Hit(sig syscall.Signal) (n int) {
	mine := m.find() // before they lose their ancestors
	m.Strike(sig)
	if sig == syscall.SIGKILL {
		for _, g := range m.groups {
			g.kill()
		}
	}
	for _, p := range mine {
		if p.session == m.Session && p.group == p.session || p.send(sig) {
			n++
		}
	}
	return n
}

// Inherit makes m know what a program that ended and was waited for has left in its
// session, by that program's own mark: soon nothing else may tell that it was one of
// its processes.
func (m *Mark) Inherit(of Mark) {
	m.groups = append(m.groups, slices.DeleteFunc(slices.Clone(of.groups), (*group).remove)...)
	if !inhabited(of.Session) { // as mostly; while there is a session, its number is its own
		return
	}
	m.find() // forgets those that are gone
	for _, p := range of.find() {
		m.seen[p.pid] = p.began
	}
}

// find lists the living processes that bear the mark.
func (m *Mark) find() (mine []entry) {
	all, seen := table(), map[int]Time{}
	grouped := map[int]bool{}
	m.groups = slices.DeleteFunc(m.groups, func(g *group) bool {
		for _, pid := range pids(g.dir) {
			grouped[pid] = true
		}
		return m.Session == 0 && g.remove()
	})
	take := func(p entry) {
		seen[p.pid] = p.began
		mine = append(mine, p)
	}
	for _, p := range all {
		if began, ok := m.seen[p.pid]; !p.dead() && (ok && began == p.began || grouped[p.pid] || m.on(p)) {
			take(p)
		}
	}
	// Ancestors may stand anywhere in the table, as numbers are used again.
	for n := -1; n != len(mine); {
		n = len(mine)
		for _, p := range all {
			if _, ok := seen[p.pid]; ok || p.dead() {
				continue
			}
			if _, ok := seen[p.parent]; ok {
				take(p)
			}
		}
	}
	m.seen = seen
	return mine
}

// on reports whether a process bears the mark itself.
func (m *Mark) on(p entry) bool {
	if p.session == m.Session && m.Session != 0 {
		return true
	}
	if p.session == 0 { // the kernel's own
		return false
	}
	tagged := false
	env, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/environ") // as it was when the program started
	if err == nil {
		for v := range strings.SplitSeq(string(env), "\x00") {
			if v == m.Tag || strings.HasSuffix(m.Tag, "=") && strings.HasPrefix(v, m.Tag) {
				return true
			}
			tagged = tagged || strings.HasPrefix(v, tagPrefix)
		}
	}
	return m.Strays != 0 && p.began >= m.Strays && !tagged && p.stray(m.Session)
}

// entry is one line of the kernel's table of processes.
type entry struct {
	pid, parent, group, session int
	state                       byte
	began                       Time
}

// dead is a process that has ended, and perhaps was not waited for.
func (p entry) dead() bool { return strings.IndexByte("ZXx", p.state) >= 0 }

// send sends a signal to the process, if it is there.
func (p entry) send(sig syscall.Signal) bool {
	h, err := os.FindProcess(p.pid)
	if err != nil {
		return false
	}
	defer h.Release()
	// Looked at again now that there is a handle: whoever gets the number next is
	// not hit.
	now, ok := look(p.pid)
	return ok && now.began == p.began && !now.dead() && !errors.Is(h.Signal(sig), os.ErrProcessDone)
}

// table lists the processes.
func table() (all []entry) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			if p, ok := look(pid); ok {
				all = append(all, p)
			}
		}
	}
	return all
}

// inhabited reports whether a session has processes, be they dead. A shell with job
// control gives each job a group of its own, so that the first one's says too little.
// Asking for the session of every process takes much less than reading the table.
func inhabited(session int) bool {
	dir, err := os.Open("/proc")
	if err != nil {
		return true
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	return slices.ContainsFunc(names, func(name string) bool {
		pid, err := strconv.Atoi(name)
		if err != nil {
			return false
		}
		its, err := unix.Getsid(pid)
		return err == nil && its == session
	})
}

// look reads what the kernel tells of a process.
func look(pid int) (entry, bool) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return entry{}, false
	}
	// "PID (NAME) STATE PPID PGRP SESSION ..."; a name may hold anything
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(f) < 20 {
		return entry{}, false
	}
	p := entry{pid: pid, state: f[0][0]}
	p.parent, _ = strconv.Atoi(f[1])
	p.group, _ = strconv.Atoi(f[2])
	p.session, _ = strconv.Atoi(f[3])
	began, _ := strconv.ParseUint(f[19], 10, 64)
	p.began = Time(began)
	return p, true
}
