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

// hit sends a signal to all processes that bear the mark, and returns how many
// there are. Signal 0 only counts.
func (m mark) hit(sig syscall.Signal) (n int) {
	if m.session > 0 {
		// The one blow that no fork can dodge. The rest may take another round.
		_ = syscall.Kill(-m.session, sig)
	}
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
		p, err := os.FindProcess(pid) // a handle: what was looked at is what is hit, whoever gets the number next
		if err != nil {
			continue
		}
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
	if session, err := strconv.Atoi(string(fields[3])); err == nil && session == m.session && session > 0 {
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
