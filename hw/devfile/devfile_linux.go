package devfile

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Usable reports whether this process may read and write a file. It asks the kernel, which knows of access control lists and
// capabilities, too.
func Usable(path string) error {
	err := unix.Faccessat(unix.AT_FDCWD, path, unix.R_OK|unix.W_OK, unix.AT_EACCESS)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	return nil
}

// remedy is what would let this user use a file.
func remedy(path, rule string) string {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return general
	}
	if os.Geteuid() == 0 {
		return "root may, but not as this program is run: of a service, look at DeviceAllow= and PrivateDevices="
	}
	const groupMay = 0o060
	group, me := groupName(st.Gid), "USER"
	var groups []string
	if u, err := user.LookupId(strconv.Itoa(os.Geteuid())); err == nil {
		me = u.Username
		groups, _ = u.GroupIds() // without them the advice is only less exact
	}
	switch {
	case st.Mode&groupMay != groupMay || st.Gid == 0:
		return fmt.Sprintf("it is %s:%s's, mode %04o: a udev rule gives it to a group that the user is in: %s, GROUP=\"...\", MODE=\"0660\"",
			userName(st.Uid), group, st.Mode&0o7777, rule)
	case slices.Contains(groups, strconv.FormatUint(uint64(st.Gid), 10)):
		return fmt.Sprintf("the user %s is in the group %s only since this program's login: log in again, or start the service again", me, group)
	}
	return fmt.Sprintf("the user %s needs the group %s: sudo usermod -a -G %s %s, and then log in again", me, group, group, me)
}

func groupName(id uint32) string {
	s := strconv.FormatUint(uint64(id), 10)
	if g, err := user.LookupGroupId(s); err == nil {
		return g.Name
	}
	return s
}

func userName(id uint32) string {
	s := strconv.FormatUint(uint64(id), 10)
	if u, err := user.LookupId(s); err == nil {
		return u.Username
	}
	return s
}

// Holders finds the processes that have a device open or locked, as far as this user is told, in the order of their numbers.
func Holders(ctx context.Context, path string) []Holder {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return nil
	}
	pids := map[int]bool{}
	for _, pid := range lockers(st) {
		pids[pid] = true
	}
	entries, _ := os.ReadDir("/proc") // without it nobody is known to have anything open
	for _, e := range entries {
		if ctx.Err() != nil {
			break
		}
		if pid, err := strconv.Atoi(e.Name()); err == nil && hasOpen(pid, st) {
			pids[pid] = true
		}
	}
	var holders []Holder
	for pid := range pids {
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)) // it may have ended
		holders = append(holders, Holder{pid, strings.TrimSpace(string(name))})
	}
	slices.SortFunc(holders, func(a, b Holder) int { return a.PID - b.PID })
	return holders
}

// hasOpen reports whether a process has the device open, if that may be seen.
func hasOpen(pid int, device unix.Stat_t) bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, _ := os.ReadDir(dir) // those of other users are none of ours
	for _, e := range entries {
		link := filepath.Join(dir, e.Name())
		// What is no device need not be asked, and might not answer: a file on a network.
		if to, err := os.Readlink(link); err != nil || !strings.HasPrefix(to, "/dev/") {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(link, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == device.Rdev {
			return true
		}
	}
	return false
}

// lockers finds who has a lock on a file in /proc/locks, whose lines are as
//
//	1: FLOCK  ADVISORY  WRITE 812 00:06:95 0 EOF
//
// with the file system and the inode in the sixth field.
func lockers(file unix.Stat_t) (pids []int) {
	f, err := os.Open("/proc/locks")
	if err != nil {
		return nil
	}
	defer f.Close()
	want := fmt.Sprintf("%02x:%02x:%d", unix.Major(uint64(file.Dev)), unix.Minor(uint64(file.Dev)), file.Ino)
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 6 || fields[1] == "->" || fields[5] != want { // an arrow is one who waits
			continue
		}
		if pid, err := strconv.Atoi(fields[4]); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}
