package local

import (
	"bytes"
	"errors"
	"os"
	"strconv"
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

// hit sends a signal to all processes that bear the mark, and returns how many
// there are. Signal 0 only counts. What is being forked may need another hit.
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
		if err != nil || !m.on(name) {
			continue
		}
		p, err := os.FindProcess(pid)
		if err != nil {
			continue
		}
		// Looked at again now that there is a handle: whoever gets the number
		// next is not hit.
		if m.on(name) && !errors.Is(p.Signal(sig), os.ErrProcessDone) {
			n++
		}
		_ = p.Release()
	}
	return n
}

// on reports whether a living process bears the mark.
func (m mark) on(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return false
	}
	// "PID (NAME) STATE PPID PGRP SESSION ..."; a name may hold anything
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 4 || bytes.ContainsAny(fields[0], "ZXx") { // dead, and perhaps not waited for
		return false
	}
	switch session, err := strconv.Atoi(string(fields[3])); {
	case err != nil || session == 0: // the kernel's own
		return false
	case session == m.session:
		return true
	}
	env, err := os.ReadFile("/proc/" + pid + "/environ") // as it was when the program started
	if err != nil {
		return false
	}
	for v := range bytes.SplitSeq(env, []byte{0}) {
		if m.tag[len(m.tag)-1] == '=' && bytes.HasPrefix(v, []byte(m.tag)) || string(v) == m.tag {
			return true
		}
	}
	return false
}
