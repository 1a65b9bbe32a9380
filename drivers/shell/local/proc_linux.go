package local

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// mark tells a script's processes from all others.
type mark struct {
	session int    // that its shell leads; 0 when the shell has been waited for, and the number may be another's
	tag     string // NAME=VALUE, or NAME= for any value, in the environment
}

// strike sends a signal to the processes that are still in the group that the
// script began in, all at once: no fork can dodge it.
func (m mark) strike(sig syscall.Signal) {
	if m.session > 0 {
		_ = syscall.Kill(-m.session, sig)
	}
}

// hit sends a signal to all processes that bear the mark, once to each, and
// returns how many there are. Signal 0 only counts. What is being forked may need
// another hit.
func (m mark) hit(sig syscall.Signal) (n int) {
	m.strike(sig)
	dir, err := os.Open("/proc")
	if err != nil {
		return 0
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		ours, struck := m.on(name)
		if ours && !struck {
			ours = m.send(pid, sig)
		}
		if ours {
			n++
		}
	}
	return n
}

// send sends a signal to one process, if it is there and bears the mark.
func (m mark) send(pid int, sig syscall.Signal) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	defer p.Release()
	// Looked at again now that there is a handle: whoever gets the number next is
	// not hit.
	ours, _ := m.on(strconv.Itoa(pid))
	return ours && !errors.Is(p.Signal(sig), os.ErrProcessDone)
}

// on reports whether a living process bears the mark, and whether a strike
// reaches it.
func (m mark) on(pid string) (ours, struck bool) {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return false, false
	}
	// "PID (NAME) STATE PPID PGRP SESSION ..."; a name may hold anything
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 4 || strings.Contains("ZXx", fields[0]) { // dead, and perhaps not waited for
		return false, false
	}
	group, session := fields[2], fields[3]
	switch strconv.Itoa(m.session) {
	case "0": // no session is known
	case session:
		return true, group == session
	}
	if session == "0" { // the kernel's own
		return false, false
	}
	env, err := os.ReadFile("/proc/" + pid + "/environ") // as it was when the program started
	if err != nil {
		return false, false
	}
	for v := range strings.SplitSeq(string(env), "\x00") {
		if v == m.tag || strings.HasSuffix(m.tag, "=") && strings.HasPrefix(v, m.tag) {
			return true, false
		}
	}
	return false, false
}
