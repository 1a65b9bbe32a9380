package drivertest

import (
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// patience is how long a condition that ought to come true is waited for. It is
// long, as only failing tests wait it out and loaded machines are slow.
const patience = 10 * time.Second

// Until polls a condition until it holds, and fails the test when it does not in
// time. What says what is waited for: "the port is open".
func Until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	if !poll(patience, cond) {
		t.Fatalf("after %v: %s = false; want true", patience, what)
	}
}

func poll(limit time.Duration, cond func() bool) bool {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			return cond()
		}
	}
	return true
}

// NoLeaks fails the test when, at its end, there are goroutines or open files
// that there were not when NoLeaks was called. Call it first: what is registered
// with t.Cleanup afterwards has been cleaned up when the check runs. Goroutines
// and files belong to the process, so that a test which calls it cannot run in
// parallel with others. Where the system does not list a process's files (there
// is no /proc/self/fd), only goroutines are checked.
func NoLeaks(t testing.TB) {
	t.Helper()
	noLeaks(t, patience)
}

func noLeaks(t testing.TB, limit time.Duration) {
	t.Helper()
	routines, files := goroutines(), openFiles()
	t.Cleanup(func() {
		var left []string
		if poll(limit, func() bool {
			left = append(extra(goroutines(), routines), extra(openFiles(), files)...)
			return len(left) == 0
		}) {
			return
		}
		t.Errorf("%d goroutines and files are left; want none:\n%s", len(left), strings.Join(left, "\n"))
	})
}

// extra lists, in order, what is in now and not in before.
func extra(now, before map[string]string) []string {
	var list []string
	for _, id := range slices.Sorted(maps.Keys(now)) {
		if _, old := before[id]; !old {
			list = append(list, now[id])
		}
	}
	return list
}

// goroutines are the stacks of all goroutines by their ids, but for those which
// the runtime and the testing package keep.
func goroutines() map[string]string {
	buf := make([]byte, 64<<10)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	all := map[string]string{}
	for stack := range strings.SplitSeq(string(buf), "\n\n") {
		id, _, _ := strings.Cut(stack, " [") // "goroutine 7 [chan receive]:"
		if strings.Contains(stack, "created by testing.") || strings.Contains(stack, "created by os/signal.") ||
			strings.Contains(stack, "\ntesting.(*M).") {
			continue
		}
		all[id] = stack
	}
	return all
}

// openFiles are the files that the process has open, by number and target, but
// for the pollers that the runtime opens once and keeps.
func openFiles() map[string]string {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	all := map[string]string{}
	for _, e := range entries {
		target, err := os.Readlink(dir + "/" + e.Name())
		if err != nil { // the listing's own
			continue
		}
		if target == "anon_inode:[eventpoll]" || target == "anon_inode:[eventfd]" {
			continue
		}
		text := fmt.Sprintf("file %s: %s", e.Name(), target)
		all[text] = text
	}
	return all
}
