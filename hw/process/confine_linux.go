package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// confinedName is the name under which this program starts itself, to become
// another program that has limits.
const confinedName = "jumplead: limits"

// confinement is what a program takes upon itself before it becomes another. The
// kernel lets nobody else do this to it, or only once it runs.
type confinement struct {
	Report          int // the descriptor on which it tells why it failed
	Rlimits         []rlimit
	NoNewPrivileges bool
	Files           bool // only those below Read and Write
	Read, Write     []string
}

type rlimit struct {
	Resource   int
	Soft, Hard uint64
}

// init turns this process into the program that it was started for, if that is
// so. It is done here, and not in main, so that it works in whatever program this
// package is part of, be it a test, and before the other packages take their time
// to get ready.
func init() {
	if len(os.Args) < 4 || os.Args[0] != confinedName {
		return
	}
	var c confinement
	err := json.Unmarshal([]byte(os.Args[1]), &c)
	if err == nil {
		err = c.become(os.Args[2], os.Args[3:])
	}
	failed := os.NewFile(uintptr(c.Report), "report")
	_, _ = failed.WriteString(report(err))
	os.Exit(126)
}

// become makes this process another program. It returns only if it cannot.
func (c *confinement) become(path string, argv []string) error {
	runtime.LockOSThread() // rights are those of a thread
	unix.CloseOnExec(c.Report)
	if c.NoNewPrivileges || c.Files {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return &fs.PathError{Op: "limits", Path: "no_new_privileges", Err: err}
		}
	}
	if c.Files {
		if err := c.landlock(); err != nil {
			return err
		}
	}
	env := os.Environ()
	for _, l := range c.Rlimits { // the last, as this program is bound by them, too
		var now syscall.Rlimit
		err := syscall.Getrlimit(l.Resource, &now)
		if err == nil { // where there is less already, that is enough of a limit
			hard := min(l.Hard, now.Max)
			err = syscall.Setrlimit(l.Resource, &syscall.Rlimit{Cur: min(l.Soft, hard), Max: hard})
		}
		if err != nil {
			return &fs.PathError{Op: "limits", Path: "resource " + strconv.Itoa(l.Resource), Err: err}
		}
	}
	return &fs.PathError{Op: "exec", Path: path, Err: syscall.Exec(path, argv, env)}
}

// report is an error in a form that [failure] reads.
func report(err error) string {
	var p *fs.PathError
	var n syscall.Errno
	switch {
	case errors.As(err, &n) && errors.As(err, &p):
		return fmt.Sprintf("%d\x00%s\x00%s", n, p.Op, p.Path)
	case errors.As(err, &p):
		err = fmt.Errorf("%s: %w", p.Path, p.Err)
	}
	return fmt.Sprintf("0\x00limits\x00%v", err)
}

// failure is the error of a report.
func failure(text string) error {
	f := strings.SplitN(text, "\x00", 3)
	n, err := strconv.Atoi(f[0])
	if err != nil || len(f) < 3 || n == 0 {
		return fmt.Errorf("limits: %s", f[len(f)-1])
	}
	return &fs.PathError{Op: f[1], Path: f[2], Err: syscall.Errno(n)}
}

// The rights to files of Landlock, https://docs.kernel.org/userspace-api/landlock.html.
const (
	mayRead  = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	mayWrite = mayRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_SYM |
		unix.LANDLOCK_ACCESS_FS_REFER | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	// What is neither of a folder can be had for a file.
	ofFiles = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	// Device files are for nobody to make.
	handled = mayWrite | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK
)

// rightsOf are the rights that a version of Landlock knows.
func rightsOf(version int) uint64 {
	rights := uint64(handled)
	for _, later := range []struct {
		since int
		right uint64
	}{
		{2, unix.LANDLOCK_ACCESS_FS_REFER}, {3, unix.LANDLOCK_ACCESS_FS_TRUNCATE}, {5, unix.LANDLOCK_ACCESS_FS_IOCTL_DEV},
	} {
		if version < later.since {
			rights &^= later.right
		}
	}
	return rights
}

// landlockVersion is that of the kernel, or why it has none.
func landlockVersion() (int, error) {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	return int(v), noLandlock(errno)
}

// noLandlock is why a kernel that answers so has no Landlock, or nil.
func noLandlock(errno unix.Errno) error {
	switch errno {
	case 0:
		return nil
	case unix.ENOSYS:
		return errors.New("this kernel was built without Landlock, or is older than 5.13")
	case unix.EOPNOTSUPP:
		return errors.New("Landlock is switched off in this kernel: add landlock to lsm= of its command line")
	case unix.EPERM:
		return errors.New("this process may not use Landlock: let it call landlock_create_ruleset (SystemCallFilter= of its service)")
	}
	return fmt.Errorf("this kernel's Landlock: %w", errno)
}

// landlock puts all files out of the thread's reach but those that it is to have.
func (c *confinement) landlock() error {
	version, err := landlockVersion()
	if err != nil {
		return fmt.Errorf("read and write cannot be kept: %w", err)
	}
	rights := rightsOf(version)
	attr := unix.LandlockRulesetAttr{Access_fs: rights}
	size := unsafe.Sizeof(attr.Access_fs) // all that the first version knows
	if version >= 6 {
		// Nor does it send signals to others.
		attr.Scoped, size = unix.LANDLOCK_SCOPE_SIGNAL, unsafe.Sizeof(attr)
	}
	rules, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return &fs.PathError{Op: "limits", Path: "Landlock", Err: errno}
	}
	defer unix.Close(int(rules))
	open := openable(c.Write)
	for _, list := range []struct {
		paths  []string
		open   func(string) (int, error)
		rights uint64
		must   bool
	}{
		{systemFiles(), openPath, mayRead, false}, {systemDevices, openPath, mayWrite, false},
		{c.Read, open, mayRead, true}, {c.Write, open, mayWrite, true},
	} {
		for _, path := range list.paths {
			err := allow(int(rules), path, list.open, list.rights&rights)
			if err != nil && (list.must || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission)) {
				return &fs.PathError{Op: "limits", Path: path, Err: err}
			}
		}
	}
	// A program that may list a folder need not see what is in its files.
	if err := allow(int(rules), "/etc", openPath, unix.LANDLOCK_ACCESS_FS_READ_DIR); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &fs.PathError{Op: "limits", Path: "/etc", Err: err}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, rules, 0, 0); errno != 0 {
		return &fs.PathError{Op: "limits", Path: "Landlock", Err: errno}
	}
	return nil
}

// allow gives rights to a file, or to a folder and all below it.
func allow(rules int, path string, open func(string) (int, error), rights uint64) error {
	fd, err := open(path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= ofFiles
	}
	attr := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(rules), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&attr)), 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

func openPath(path string) (int, error) { return unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0) }

// errLedOut is why a path is not put within reach.
var errLedOut = errors.New("it leads out of the folders that may be written, by a symbolic link in them: name the place that is meant")

// openable opens paths that are to be within reach, beside others that may be
// written. In the latter, an earlier run may have put a symbolic link into the place
// of a folder, so that this one would get what the link leads to: links there are
// followed only to where everything may be written anyway.
func openable(written []string) func(path string) (int, error) {
	var all, good []string // where written leads; where it leads whatever is done there
	in := func(list []string, path string) bool {
		return slices.ContainsFunc(list, func(dir string) bool {
			return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
		})
	}
	linked := func(folders []string) bool {
		return slices.ContainsFunc(folders, func(f string) bool { return in(all, f) })
	}
	for _, path := range written {
		if real, _, err := follow(path); err == nil {
			all = append(all, real)
		}
	}
	for _, path := range written {
		if real, folders, err := follow(path); err == nil && !linked(folders) {
			good = append(good, real)
		}
	}
	return func(path string) (int, error) {
		real, folders, err := follow(path)
		switch linked := linked(folders); {
		case linked && (err != nil || !in(good, real)):
			return -1, errLedOut
		case linked || err == nil && in(all, filepath.Dir(real)): // nor does one that is put there this moment
			return unix.Openat2(unix.AT_FDCWD, real, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
		}
		return openPath(path)
	}
}

// maxLinks is how many symbolic links the kernel follows in a path.
const maxLinks = 40

// follow finds the place that a path leads to, and the folders of the symbolic links
// on the way there.
func follow(path string) (real string, folders []string, err error) {
	real = "/"
	for rest := strings.Split(path, "/"); len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			real = filepath.Dir(real)
		}
		if name == "" || name == "." || name == ".." {
			continue
		}
		next := filepath.Join(real, name)
		switch to, err := os.Readlink(next); {
		case errors.Is(err, unix.EINVAL): // it is no link
			real = next
		case err != nil:
			return "", folders, err
		case len(folders) == maxLinks:
			return "", folders, unix.ELOOP
		default:
			folders = append(folders, real)
			if filepath.IsAbs(to) {
				real = "/"
			}
			rest = append(strings.Split(to, "/"), rest...)
		}
	}
	return real, folders, nil
}

// systemDevices are those that every program may use.
var systemDevices = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"}

// systemFiles are what programs need to run at all. Of /etc it is all but
// Jumpstarter's configs, in which there are tokens. Of other processes, /proc shows
// a confined program no more than what ps does.
func systemFiles() []string {
	paths := []string{"/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/opt", "/proc", "/sys"}
	entries, _ := os.ReadDir("/etc")
	for _, e := range entries {
		if e.Name() != "jumpstarter" {
			paths = append(paths, "/etc/"+e.Name())
		}
	}
	// What finds names for addresses is kept up to date by putting a new file into
	// the place of the old one.
	if real, err := filepath.EvalSymlinks("/etc/resolv.conf"); err == nil && !slices.Contains([]string{"/etc", "/"}, filepath.Dir(real)) {
		paths = append(paths, filepath.Dir(real))
	}
	return paths
}
