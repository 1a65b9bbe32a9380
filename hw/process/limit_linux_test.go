package process

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/hwtest"
	"golang.org/x/sys/unix"
)

// needLandlock skips the test where the kernel has none.
func needLandlock(t testing.TB) {
	t.Helper()
	hwtest.NeedFunc(t, hwtest.Landlock, func() error {
		_, err := landlockVersion()
		return err
	})
}

// needGroups skips the test where this process may not make control groups.
func needGroups(t testing.TB) {
	t.Helper()
	hwtest.NeedFunc(t, hwtest.CGroup, func() error {
		d := groups()
		for _, c := range []string{"memory", "cpu", "pids"} {
			if !d.has(c) {
				return d.why(c)
			}
		}
		return nil
	})
}

// ran is what became of a program.
type ran struct {
	out, err string
	code     int
	struck   string
}

// limited runs a program to its end.
func limited(t *testing.T, l hw.Limits, cmd *exec.Cmd) (r ran, err error) {
	t.Helper()
	var out [2]*os.File
	var text [2]bytes.Buffer
	var reading sync.WaitGroup
	defer func() {
		for _, to := range out {
			to.Close()
		}
		reading.Wait()
		r.out, r.err = text[0].String(), text[1].String()
	}()
	for i := range out {
		from, to, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		out[i] = to
		reading.Go(func() {
			defer from.Close()
			_, _ = io.Copy(&text[i], from)
		})
	}
	cmd.Stdout, cmd.Stderr = out[0], out[1]
	p, err := StartLimited(cmd, TagName()+"=1", &l)
	if err != nil {
		return r, err
	}
	select {
	case <-p.Exited():
	case <-time.After(time.Minute):
		t.Errorf("%v has not ended after a minute", cmd.Args)
	}
	m := p.Mark()
	until(t, "all have ended", func() bool { return m.Hit(syscall.SIGKILL) == 0 })
	p.Settle()
	until(t, "the group is gone", func() bool {
		return !slices.ContainsFunc(m.groups, func(g *group) bool { return !g.remove() })
	})
	return ran{code: p.Code(), struck: p.Struck()}, nil
}

func bash(script string, args ...string) *exec.Cmd {
	return exec.Command("bash", append([]string{"-c", script, "bash"}, args...)...)
}

// nobody is a user without rights, or this one if it is not root.
func nobody(cmd *exec.Cmd) *exec.Cmd {
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	cmd.Dir = "/"
	return cmd
}

// A program with limits is the program that it would be without: its arguments, its
// environment, its folder, its files and its number.
func TestLimitedIsTheProgram(t *testing.T) {
	dir := t.TempDir()
	extra, err := os.Create(filepath.Join(dir, "extra"))
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	program := func() *exec.Cmd {
		cmd := bash(`env -0 | grep -zv JUMPLEAD_RUN_ | sort -z; printf '%s|' "$0" "$@"; pwd; ls /proc/self/fd
trap; ulimit -c -s; cut -d ' ' -f 5 /proc/$$/stat | grep -c "^$$\$"; grep Sig[PBIC] /proc/self/status; echo three >&3; exec cat /proc/$$/comm`, "a b", "", "ü\n\"")
		cmd.Env = []string{"A=1", "PATH=" + os.Getenv("PATH"), "BASH_FUNC_x%%=() { :\n}", "odd name=2"}
		cmd.Dir, cmd.ExtraFiles = dir, []*os.File{extra}
		return cmd
	}
	want, err := limited(t, hw.Limits{}, program())
	if err != nil || want.code != 0 || want.out == "" {
		t.Fatalf("without limits = %+v, %v; want output", want, err)
	}
	cmd := program()
	got, err := limited(t, hw.Limits{CPUTime: time.Hour}, cmd)
	if err != nil || got != want {
		t.Errorf("with limits = %+v, %v; want %+v", got, err, want)
	}
	if text, err := os.ReadFile(extra.Name()); string(text) != "three\nthree\n" || err != nil {
		t.Errorf("its fourth file holds %q, %v; want what it wrote", text, err)
	}
	if cmd.Path == "/proc/self/exe" || cmd.Args[0] != "bash" || len(cmd.ExtraFiles) != 1 {
		t.Errorf("cmd = %v, %v afterwards; want it as it was", cmd.Path, cmd.Args)
	}
}

// What cannot be started says so as it would without limits.
func TestLimitedFails(t *testing.T) {
	dir := t.TempDir()
	l := hw.Limits{OpenFiles: 64}
	for path, want := range map[string]error{"/no/such": fs.ErrNotExist, dir: fs.ErrPermission} {
		_, err := limited(t, l, exec.Command(path))
		var where *fs.PathError
		if !errors.Is(err, want) || !errors.As(err, &where) || where.Path != path {
			t.Errorf("StartLimited(%s) = %v; want an error of kind %v that names it", path, err, want)
		}
	}
	if _, err := limited(t, l, exec.Command("no-such-program")); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("StartLimited(no-such-program) = %v; want %v", err, exec.ErrNotFound)
	}
	cmd := bash("pwd")
	cmd.Dir = "/no/such"
	if _, err := limited(t, l, cmd); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("StartLimited() in no folder = %v; want %v", err, fs.ErrNotExist)
	}
}

// Limits that every machine keeps bind a program and what it starts, wherever that
// goes.
func TestEachProcess(t *testing.T) {
	l := hw.Limits{CPUTime: 7 * time.Second, OpenFiles: 33, FileSize: 1 << 20}
	const show = `echo $(ulimit -Ht) $(ulimit -t) $(ulimit -Hn) $(ulimit -n) $(ulimit -f)`
	r, err := limited(t, l, bash(show+`; setsid --wait setsid --wait bash -c '`+show+`' &
wait`))
	if want := "8 7 33 33 1024\n8 7 33 33 1024\n"; err != nil || r.out != want {
		t.Errorf("limits of a program and a daemon of it = %q, %v; want %q", r.out, err, want)
	}
}

func TestStruck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	for _, c := range []struct {
		name   string
		limits hw.Limits
		script string
		code   int
		want   string
	}{
		{"computes", hw.Limits{CPUTime: time.Second}, `while :; do :; done`, -int(unix.SIGXCPU), "the cpu_time limit of 1s was reached"},
		{"lets compute", hw.Limits{CPUTime: time.Second}, `bash -c 'while :; do :; done'; exit $?`, 128 + int(unix.SIGXCPU), "the cpu_time limit of 1s was reached"},
		{"is deaf", hw.Limits{CPUTime: time.Second}, `trap '' XCPU; while :; do :; done`, -int(unix.SIGKILL), "the cpu_time limit of 1s was reached"},
		{"writes", hw.Limits{FileSize: 64 << 10}, `exec head -c 1M /dev/zero > "$1"`, -int(unix.SIGXFSZ), "the file_size limit of 64K was reached"},
		{"opens", hw.Limits{OpenFiles: 16}, `for i in {3..20}; do eval "exec $i</dev/null" || exit 9; done`, 9, ""},
		{"is killed by others", hw.Limits{CPUTime: time.Minute}, `kill -9 $$`, -int(unix.SIGKILL), ""},
		{"fails", hw.Limits{CPUTime: time.Minute}, `exit 3`, 3, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := limited(t, c.limits, bash(c.script, file))
			if err != nil || r.code != c.code || r.struck != c.want {
				t.Errorf("Code() = %d, Struck() = %q, %v; want %d, %q", r.code, r.struck, err, c.code, c.want)
			}
		})
	}
	if info, err := os.Stat(file); err != nil || info.Size() != 64<<10 {
		t.Errorf("the file that was written = %v, %v; want it as long as it may be", info, err)
	}
}

// hog takes 1 GB, a piece at a time.
const hog = `
import sys
try:
    hoard = []
    for i in range(100):
        hoard.append(bytearray(10 << 20))
except MemoryError:
    print("refused after", len(hoard) * 10)
    sys.exit(5)
print("has it all")
`

// Memory is refused, or costs the life of who takes too much.
func TestMemory(t *testing.T) {
	python, err := exec.LookPath("python3")
	hwtest.NeedFunc(t, hwtest.Python, func() error { return err })
	l := hw.Limits{Memory: 100 << 20}
	r, err := limited(t, l, exec.Command(python, "-c", hog))
	if err != nil {
		t.Fatal(err)
	}
	if groups().has("memory") {
		if r.code != -int(unix.SIGKILL) || r.struck != "the memory limit of 100M was reached" {
			t.Errorf("it ends with %d, %q; want it killed, and why", r.code, r.struck)
		}
		return
	}
	if r.code != 5 || !strings.HasPrefix(r.out, "refused after ") {
		t.Errorf("it ends with %d, %q, %q; want it refused", r.code, r.out, r.err)
	}
}

// Whoever multiplies without end is bounded, and goes when it is told to.
func TestForkBomb(t *testing.T) {
	l := hw.Limits{Processes: 40}
	// With all that already runs as the user.
	cmd := nobody(exec.Command("sh", "-c", `bomb() { bomb | bomb & }; bomb; exec sleep 1000`))
	cmd.Stderr = nil
	p, err := StartLimited(cmd, TagName()+"=1", &l)
	if err != nil {
		t.Fatal(err)
	}
	m := p.Mark()
	t.Cleanup(func() {
		m.Hit(syscall.SIGKILL)
		p.Settle()
	})
	most := 0
	for range 50 {
		most = max(most, m.Hit(0))
	}
	if most > l.Processes {
		t.Errorf("there are %d processes; want at most %d", most, l.Processes)
	}
	until(t, "all have ended", func() bool { return m.Hit(syscall.SIGKILL) == 0 })
	<-p.Exited()
	p.Settle()
}

// The rights to files follow the processes, whatever they become.
func TestFiles(t *testing.T) {
	needLandlock(t)
	dir := t.TempDir()
	for name, text := range map[string]string{"read/file": "one", "write/file": "two", "other/file": "secret", "single": "three"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	path := func(name string) hw.Path { return hw.Path(filepath.Join(dir, name)) }
	l := hw.Limits{Read: []hw.Path{path("read"), path("single")}, Write: []hw.Path{path("write")}}
	for _, c := range []struct {
		script string
		ok     bool
	}{
		{`cat read/file single /etc/passwd /proc/self/stat /sys/kernel/uevent_seqnum`, true},
		{`cat write/file && echo 2 > write/file && mkdir write/d && mv write/file write/d/g && ln -s g write/d/l && rm write/d/l && mkfifo write/d/f`, true},
		{`echo lost > /dev/null; head -c 1 /dev/zero /dev/urandom`, true},
		{`ls /etc /usr read`, true},
		{`cat other/file`, false},
		{`cat read/../other/file`, false},
		{`ln -s ../other/file write/link && cat write/link`, false},
		{`ln other/file write/hard`, false},
		{`echo > read/file`, false},
		{`echo > other/file`, false},
		{`rm other/file`, false},
		{`truncate -s 0 other/file`, false},
		{`mv other/file write/stolen`, false},
		{`ls other`, false},
		{`touch new`, false},
		{`cp /bin/true write/tool && write/tool`, true},
		{`setsid --wait bash -c '(cat other/file)'`, false},
		{`env -i bash -c 'cat other/file'`, false},
		{`ls -l /proc/` + strconv.Itoa(os.Getpid()) + `/cwd`, false},
		{`mknod write/null c 1 3`, false},
		{`grep -q '^NoNewPrivs:.1' /proc/self/status`, true},
	} {
		cmd := bash(c.script)
		cmd.Dir = dir
		r, err := limited(t, l, cmd)
		if err != nil || (r.code == 0) != c.ok {
			t.Errorf("%s = %d, %q, %v; want it to succeed: %t", c.script, r.code, r.err, err, c.ok)
		}
		if !c.ok && !strings.Contains(r.err, "ermission denied") && !strings.Contains(r.err, "not permitted") &&
			!strings.Contains(r.err, "cross-device") {
			t.Errorf("%s says %q; want it to say why", c.script, r.err)
		}
	}
	if text, err := os.ReadFile(filepath.Join(dir, "other/file")); string(text) != "secret" || err != nil {
		t.Errorf("what was out of reach is %q, %v; want it as it was", text, err)
	}
	// Nor do they see what other processes of their user know.
	other := nobody(exec.Command("sleep", "1000"))
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	environ := "/proc/" + strconv.Itoa(other.Process.Pid) + "/environ"
	for ok, l := range map[bool]hw.Limits{true: {OpenFiles: 64}, false: {Read: []hw.Path{}}} {
		if r, err := limited(t, l, nobody(exec.Command("cat", environ))); err != nil || (r.code == 0) != ok {
			t.Errorf("%v: reading %s = %d, %q, %v; want it to succeed: %t", &l, environ, r.code, r.err, err, ok)
		}
	}
	// Signals do not leave, either.
	if v, _ := landlockVersion(); v >= 6 {
		other, pids := begin(t, `echo $$; exec sleep 1000`, TagName()+"=1")
		r, err := limited(t, l, bash("kill -9 "+strconv.Itoa(pids[0])))
		if err != nil || r.code == 0 || !alive(pids[0]) {
			t.Errorf("killing others = %d, %q, %v; want it refused", r.code, r.err, err)
		}
		m := other.Mark()
		until(t, "it has ended", func() bool { return m.Hit(syscall.SIGKILL) == 0 })
	}
	l.Write = append(l.Write, path("nowhere"))
	var at *fs.PathError
	if _, err := limited(t, l, bash("true")); !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &at) || at.Path != string(path("nowhere")) {
		t.Errorf("StartLimited() with a path that is not there = %v; want an error that names it", err)
	}
	l = hw.Limits{Read: []hw.Path{}}
	if _, err := limited(t, l, exec.Command(filepath.Join(dir, "write/tool"))); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("StartLimited() of a program out of its reach = %v; want %v", err, fs.ErrPermission)
	}
}

// A process that was killed leaves groups. They go with the next one, unless somebody
// is in them, and are in nobody's way.
func TestGroupsLeft(t *testing.T) {
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	d := domain{dir: t.TempDir(), controllers: []string{"memory"}}
	var names []string
	for _, pid := range []int{ended.ProcessState.Pid(), os.Getpid(), os.Getppid()} {
		for _, n := range []int{1, 2} {
			names = append(names, fmt.Sprintf("run-%d-%d", pid, n))
		}
	}
	names = append(names, "run-x-1", ownGroup)
	for _, name := range names {
		if err := os.Mkdir(filepath.Join(d.dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	lived := filepath.Join(d.dir, names[2], "somebody")
	if err := os.WriteFile(lived, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	founding.Lock()
	last := founding.last
	founding.last = 0
	founding.Unlock()
	defer func() {
		founding.Lock()
		founding.last = max(last, founding.last)
		founding.Unlock()
	}()
	g, err := d.found(hw.Limits{Memory: 16 << 20})
	if err != nil || filepath.Base(g.dir) != names[3] {
		t.Fatalf("found() beside those that are left = %+v, %v; want %s", g, err, names[3])
	}
	var got []string
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			got = append(got, e.Name())
		}
	}
	if want := slices.Sorted(slices.Values(names[2:])); !slices.Equal(got, want) {
		t.Errorf("groups = %v; want %v", got, want)
	}
}

// A program that may write somewhere puts links there, which the next one with the
// same limits meets.
func TestLinkedFiles(t *testing.T) {
	needLandlock(t)
	for _, c := range []struct {
		does        string // within work, where inner is
		read, write []string
		ok          bool   // the next program is started
		fails       string // why not
	}{
		{`true`, []string{"work/inner"}, []string{"work"}, true, ""},
		{`true`, nil, []string{"work", "work/inner"}, true, ""},
		{`rm -r inner && mkdir new && ln -s new inner`, []string{"work/inner"}, []string{"work"}, true, ""},
		{`rm -r inner && ln -s ../other inner`, []string{"work/inner"}, []string{"work"}, false, "it leads out of"},
		{`rm -r inner && ln -s ../other inner`, nil, []string{"work", "work/inner"}, false, "it leads out of"},
		{`rm -r inner && ln -s ../other inner`, nil, []string{"work/inner", "work"}, false, "it leads out of"},
		{`rm -r inner && ln -s / inner`, []string{"work/inner"}, []string{"work"}, false, "it leads out of"},
		{`rm -r inner && ln -s ../../../../../../../.. inner`, nil, []string{"work", "work/inner"}, false, "it leads out of"},
		{`rm -r inner && ln -s ../other inner`, []string{"alias/inner"}, []string{"work"}, false, "it leads out of"},
		{`rm -r inner && ln -s ../other inner`, []string{"work/inner"}, []string{"alias"}, false, "it leads out of"},
		{`rm -r inner && ln -s .. inner`, []string{"work/inner/other"}, []string{"work"}, false, "it leads out of"},
		{`rm -r inner && ln -s /proc/self/root inner`, []string{"work/inner"}, []string{"work"}, false, "it leads out of"},
		{`rm -r inner && ln -s inner inner`, []string{"work/inner"}, []string{"work"}, false, "it leads out of"},
		{`rm -r inner`, []string{"work/inner"}, []string{"work"}, false, "no such file"},
		{`true`, []string{"work/inner"}, []string{"alias", "link"}, true, ""}, // links of the harness's own
	} {
		dir := t.TempDir()
		if _, err := limited(t, hw.Limits{OpenFiles: 64}, bash(`cd "$1" && mkdir -p work/inner/other other && echo secret > other/file && ln -s work alias && ln -s other link`, dir)); err != nil {
			t.Fatal(err)
		}
		paths := func(names []string) (list []hw.Path) {
			for _, name := range names {
				list = append(list, hw.Path(filepath.Join(dir, name)))
			}
			return list
		}
		l := hw.Limits{Read: paths(c.read), Write: paths(c.write)}
		work := func(script string) (ran, error) {
			cmd := bash(script)
			cmd.Dir = filepath.Join(dir, "work")
			return limited(t, l, cmd)
		}
		if r, err := work(c.does); err != nil || r.code != 0 {
			t.Fatalf("%s = %d, %q, %v; want it done", c.does, r.code, r.err, err)
		}
		r, err := work("cat ../other/file")
		reads := slices.Contains(c.write, "link")
		switch {
		case c.ok && (err != nil || (r.code == 0) != reads):
			t.Errorf("%s: reading what is out of reach with %v = %q, %v; want it to succeed: %t", c.does, &l, r.out, err, reads)
		case !c.ok && (err == nil || !strings.Contains(err.Error(), c.fails)):
			t.Errorf("%s: the next program with %v = %+v, %v; want it not started: %s", c.does, &l, r, err, c.fails)
		}
	}
}

// Tokens are in Jumpstarter's configs.
func TestSystemFiles(t *testing.T) {
	list := systemFiles()
	if !slices.Contains(list, "/usr") || !slices.Contains(list, "/etc/passwd") {
		t.Errorf("systemFiles() = %v; want what programs need", list)
	}
	for _, path := range list {
		if path == "/" || path == "/etc" || strings.HasPrefix(path, "/etc/jumpstarter") {
			t.Errorf("systemFiles() has %s; want tokens out of reach", path)
		}
	}
}

func TestRights(t *testing.T) {
	for version, without := range map[int]uint64{
		1: unix.LANDLOCK_ACCESS_FS_REFER | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV,
		2: unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV,
		3: unix.LANDLOCK_ACCESS_FS_IOCTL_DEV, 4: unix.LANDLOCK_ACCESS_FS_IOCTL_DEV, 5: 0, 9: 0,
	} {
		if got, want := rightsOf(version), uint64(handled)&^without; got != want {
			t.Errorf("rightsOf(%d) = %#x; want %#x", version, got, want)
		}
	}
	if handled != 0xffff {
		t.Errorf("handled = %#x; want all rights that there are", handled)
	}
}

// A program that gives its user more rights does so no more.
func TestNoNewPrivileges(t *testing.T) {
	const status = `grep NoNewPrivs /proc/self/status | tr -dc 01`
	for want, l := range map[string]hw.Limits{"0": {OpenFiles: 64}, "1": {NoNewPrivileges: true}} {
		if r, err := limited(t, l, bash(status)); err != nil || r.out != want {
			t.Errorf("NoNewPrivs with %v = %q, %v; want %s", &l, r.out, err, want)
		}
	}
	if os.Geteuid() != 0 {
		return // cannot make what follows
	}
	dir := t.TempDir()
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	id := filepath.Join(dir, "id")
	real, err := exec.LookPath("id")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(real)
	if err == nil {
		err = os.WriteFile(id, text, 0o755)
	}
	if err == nil {
		err = os.Chmod(id, 0o755|fs.ModeSetuid)
	}
	if err != nil {
		t.Fatal(err)
	}
	for want, l := range map[string]hw.Limits{"0\n": {OpenFiles: 64}, "65534\n": {NoNewPrivileges: true}} {
		if r, err := limited(t, l, nobody(exec.Command(id, "-u"))); err != nil || r.out != want {
			t.Errorf("%v: the user that a set-user-ID program runs as = %q, %q, %v; want %q", &l, r.out, r.err, err, want)
		}
	}
}

// TestWays looks at how machines keep limits that have control groups, or not.
func TestWays(t *testing.T) {
	all := domain{dir: "/g", controllers: []string{"cpu", "memory", "pids"}}
	none := domain{err: errors.New("no groups")}
	some := domain{dir: "/g", controllers: []string{"memory"}}
	l := hw.Limits{Memory: 64 << 20, CPU: 50, Processes: 9}
	for _, c := range []struct {
		domain domain
		limits hw.Limits
		uid    int
		want   string // of what is said
		errs   []string
		rlims  []int

		abi        int
		noLandlock error
	}{
		{all, l, 0, "memory 64M for all its processes together, by a control group; cpu 50% by a control group; processes 9 by a control group", nil, nil, 0, nil},
		{none, l, 1000, "memory 64M for each process", []string{"cpu 50% cannot be kept: no groups"}, []int{unix.RLIMIT_DATA, unix.RLIMIT_NPROC}, 0, nil},
		{none, l, 0, "memory 64M for each process", []string{"cpu 50% cannot be kept", "processes 9 cannot be kept: root may start any number; no groups"}, []int{unix.RLIMIT_DATA}, 0, nil},
		{some, l, 1000, "memory 64M for all its processes together", []string{`cpu 50% cannot be kept: the exporter's control group /g lacks the controller "cpu"`}, []int{unix.RLIMIT_NPROC}, 0, nil},
		{none, hw.Limits{CPUTime: 1500 * time.Millisecond, OpenFiles: 20, FileSize: 1}, 0, "cpu_time 2 s for each process; open_files 20 for each process; file_size 1", nil,
			[]int{unix.RLIMIT_CPU, unix.RLIMIT_NOFILE, unix.RLIMIT_FSIZE}, 0, nil},
		{none, hw.Limits{NoNewPrivileges: true}, 0, "no_new_privileges", nil, nil, 0, nil},
		{none, hw.Limits{Read: []hw.Path{}}, 0, "files by Landlock (version 3)", nil, nil, 3, nil},
		{none, hw.Limits{Write: []hw.Path{}}, 0, "files by Landlock (version 2), which does not keep files from being cut off", nil, nil, 2, nil},
		{none, hw.Limits{Read: []hw.Path{}}, 0, "", []string{"read and write cannot be kept: this kernel was built without Landlock"}, nil, 0, noLandlock(unix.ENOSYS)},
		{none, hw.Limits{Read: []hw.Path{}}, 0, "", []string{"Landlock is switched off in this kernel"}, nil, 0, noLandlock(unix.EOPNOTSUPP)},
		{none, hw.Limits{Read: []hw.Path{}}, 0, "", []string{"this process may not use Landlock"}, nil, 0, noLandlock(unix.EPERM)},
	} {
		w := way{domain: c.domain, abi: c.abi, noLandlock: c.noLandlock}
		err := w.plan(c.limits, c.uid)
		if got := strings.Join(w.said, "; "); !strings.HasPrefix(got, c.want) {
			t.Errorf("plan(%v, %d) says %q; want %q", &c.limits, c.uid, got, c.want)
		}
		if (err == nil) != (c.errs == nil) {
			t.Errorf("plan(%v, %d) = %v; want %v", &c.limits, c.uid, err, c.errs)
		}
		for _, want := range c.errs {
			if !strings.Contains(fmt.Sprint(err), want) {
				t.Errorf("plan(%v, %d) = %v; want %q in it", &c.limits, c.uid, err, want)
			}
		}
		var rlims []int
		for _, r := range w.Rlimits {
			rlims = append(rlims, r.Resource)
		}
		if !slices.Equal(rlims, c.rlims) {
			t.Errorf("plan(%v, %d) sets %v; want %v", &c.limits, c.uid, rlims, c.rlims)
		}
	}
	if _, err := Keeps(hw.Limits{}, "no-such-user"); err == nil {
		t.Error("Keeps() for a user that is not there = nil; want an error")
	}
}

// A limit that cannot be kept is no limit: the program is not started.
func TestUnkept(t *testing.T) {
	l := hw.Limits{CPU: 50}
	_, unkept := Keeps(l, "")
	r, err := limited(t, l, bash("echo runs"))
	if (unkept == nil) != (err == nil) || (r.out == "runs\n") != (err == nil) {
		t.Errorf("StartLimited() = %q, %v; want %v", r.out, err, unkept)
	}
}

// A group has all of a program's processes, whatever they do to hide, and goes with
// them.
func TestGroup(t *testing.T) {
	needGroups(t)
	l := hw.Limits{Memory: 64 << 20, CPU: 25, Processes: 30}
	out, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := bash(`(setsid env -i setsid bash -c 'sleep 1000; true' &); echo $$; exec sleep 1000`)
	cmd.Stdout = to
	p, err := StartLimited(cmd, TagName()+"=1", &l)
	to.Close()
	if err != nil {
		t.Fatal(err)
	}
	m := p.Mark()
	g := m.groups[0]
	t.Cleanup(func() {
		m.Hit(syscall.SIGKILL)
		p.Settle()
	})
	for file, want := range map[string]string{"memory.max": "67108864", "cpu.max": "25000 100000", "pids.max": "30"} {
		if text, err := os.ReadFile(filepath.Join(g.dir, file)); strings.TrimSpace(string(text)) != want {
			t.Errorf("%s = %q, %v; want %q", file, text, err, want)
		}
	}
	until(t, "all are there", func() bool { return m.Hit(0) == 3 })
	until(t, "all have ended", func() bool { return m.Hit(syscall.SIGKILL) == 0 })
	<-p.Exited()
	p.Settle()
	until(t, "the group is gone", g.remove)
}

// serviceTest says that the test program is a service whose control group was given to it.
const serviceTest = "JUMPLEAD_TEST_SERVICE"

func TestMain(m *testing.M) {
	if os.Getenv(serviceTest) != "" {
		if err := service(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// service starts two programs with limits, and tells which groups they and it are in.
func service() error {
	for range 2 {
		cmd := exec.Command("grep", "^0:", "/proc/self/cgroup")
		cmd.Stdout = os.Stdout
		p, err := StartLimited(cmd, TagName()+"=1", &hw.Limits{Memory: 32 << 20, Processes: 5, CPU: 90})
		if err != nil {
			return err
		}
		<-p.Exited()
		p.Settle()
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	fmt.Print(string(text))
	return err
}

// A service makes groups in the one that it was given, as systemd gives it: with a
// mark for root's, and with the files for others. In what was not given it makes none.
func TestDelegated(t *testing.T) {
	needGroups(t)
	d := groups()
	mount, _, err := ownPlace()
	if err == nil {
		err = d.enable([]string{"+memory", "+pids", "+cpu"})
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		mark   bool
		uid    uint32
		within string // its group's folder that it is started in
		fails  string
	}{
		{"root's", true, 0, "", ""},
		{"a user's", false, 65534, "", ""},
		{"in a group below", true, 0, ownGroup, ""},
		{"nobody gave it to root", false, 0, "", "the exporter's control group is not its own"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if os.Geteuid() != 0 {
				c.uid = uint32(os.Geteuid())
			}
			name := fmt.Sprintf("service-%d", os.Getpid())
			dir := filepath.Join(d.dir, name)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				until(t, "its groups are gone", func() bool {
					return (&group{filepath.Join(dir, ownGroup)}).remove() && (&group{dir}).remove()
				})
			})
			if c.mark {
				if err := unix.Setxattr(dir, "trusted.delegate", []byte("1"), 0); err != nil {
					t.Fatal(err)
				}
			}
			for _, file := range []string{"", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"} {
				if err := os.Chown(filepath.Join(dir, file), int(c.uid), int(c.uid)); err != nil {
					t.Fatal(err)
				}
			}
			at := filepath.Join(dir, c.within)
			if err := os.MkdirAll(at, 0o755); err != nil {
				t.Fatal(err)
			}
			fd, err := unix.Open(at, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			cmd := exec.Command("/proc/self/exe")
			cmd.Env, cmd.Dir = append(os.Environ(), serviceTest+"=1"), "/"
			cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd, Credential: &syscall.Credential{Uid: c.uid, Gid: c.uid}}
			out, err := cmd.CombinedOutput()
			if c.fails != "" {
				if err == nil || !strings.Contains(string(out), c.fails) {
					t.Errorf("the service = %v, %s; want %q", err, out, c.fails)
				}
				return
			}
			pid, path := cmd.Process.Pid, strings.TrimPrefix(dir, mount)
			want := fmt.Sprintf("0::%s/run-%d-1\n0::%s/run-%d-2\n0::%s/exporter\n", path, pid, path, pid, path)
			if err != nil || string(out) != want {
				t.Errorf("the service = %v, %s; want %s", err, out, want)
			}
		})
	}
}

// Who has inherited a program's group removes it with the last process.
func TestGroupInherited(t *testing.T) {
	needGroups(t)
	name := TagName()
	p, err := StartLimited(bash(`setsid env -i sleep 1000 >/dev/null 2>&1 & exit 0`), name+"=1", &hw.Limits{Processes: 30})
	if err != nil {
		t.Fatal(err)
	}
	all, m := Mark{Tag: name + "="}, p.Mark()
	<-p.Exited()
	p.Settle()
	all.Inherit(m)
	if n := all.Hit(0); n != 1 || len(all.groups) != 1 {
		t.Errorf("Hit() of what was inherited = %d in %d groups; want 1, 1", n, len(all.groups))
	}
	until(t, "all have ended", func() bool { return all.Hit(syscall.SIGKILL) == 0 })
	until(t, "the group is gone", func() bool { return all.Hit(0) == 0 && len(all.groups) == 0 })
}

func TestGroupLimits(t *testing.T) {
	needGroups(t)
	for _, c := range []struct {
		name   string
		limits hw.Limits
		script string
		killed bool
		want   string
	}{
		// Each alone would be fine.
		{"memory of many", hw.Limits{Memory: 64 << 20}, `for i in 1 2 3 4; do head -c 30M /dev/zero | tail -c 30M | sleep 1000 & done; wait`, true, "the memory limit of 64M was reached"},
		{"memory of a child", hw.Limits{Memory: 64 << 20}, `bash -c 'head -c 200M /dev/zero | tail -c 200M > /dev/null'; exit 0`, true, "the memory limit of 64M was reached"},
		{"processes", hw.Limits{Processes: 5}, `sh -c 'for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done' || exit 4`, false, "the processes limit of 5 was reached"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := limited(t, c.limits, bash(c.script))
			if err != nil || (r.code == -int(unix.SIGKILL)) != c.killed || r.struck != c.want {
				t.Errorf("Code() = %d, Struck() = %q, %q, %v; want %q", r.code, r.struck, r.err, err, c.want)
			}
		})
	}
	// A share of a processor makes it slow, and does not end it.
	start := time.Now()
	r, err := limited(t, hw.Limits{CPU: 20, CPUTime: time.Second}, bash(`while :; do :; done`))
	if took := time.Since(start); err != nil || r.code != -int(unix.SIGXCPU) || took < 4*time.Second {
		t.Errorf("a second of computing with 20%% of a processor takes %v, %d, %v; want five seconds", took, r.code, err)
	}
}

// BenchmarkStart is the time from a program's start to its end.
func BenchmarkStart(b *testing.B) {
	for _, c := range []struct {
		name   string
		limits *hw.Limits
	}{
		{"no limits", nil},
		{"open files", &hw.Limits{OpenFiles: 64}},
		{"files", &hw.Limits{Read: []hw.Path{}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			if c.limits != nil && c.limits.Files() {
				needLandlock(b)
			}
			for b.Loop() {
				p, err := StartLimited(exec.Command("/bin/true"), TagName()+"=1", c.limits)
				if err != nil {
					b.Fatal(err)
				}
				<-p.Exited()
				p.Settle()
			}
		})
	}
}

// Where files are out of reach, nobody leaves a group by writing into another's.
func TestGroupKept(t *testing.T) {
	needGroups(t)
	needLandlock(t)
	l := hw.Limits{Memory: 64 << 20, Processes: 30, Read: []hw.Path{}}
	script := `for g in $(find /sys/fs/cgroup -name cgroup.procs); do echo $$ > $g && echo left to $g; done 2>/dev/null; cat /proc/self/cgroup`
	r, err := limited(t, l, bash(script))
	if err != nil || strings.Contains(r.out, "left to") || !strings.Contains(r.out, "/run-"+strconv.Itoa(os.Getpid())+"-") {
		t.Errorf("leaving its group = %q, %v; want it to stay", r.out, err)
	}
	r, err = limited(t, l, bash(`d=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup); for f in memory.max pids.max cgroup.freeze; do echo 1 > $d/$f && echo changed $f; done 2>/dev/null; cat $d/memory.max`))
	if err != nil || r.out != "67108864\n" {
		t.Errorf("changing its limits = %q, %v; want them as they were", r.out, err)
	}
}
