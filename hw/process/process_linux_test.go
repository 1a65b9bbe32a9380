package process

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	if !Await(30*time.Second, nil, cond) {
		t.Fatalf("%s: not within 30 s", what)
	}
}

// begin starts a script and reads the first line that it says, which are the
// numbers of its processes.
func begin(t *testing.T, script, tag string) (*Process, []int) {
	t.Helper()
	cmd := exec.Command("bash", "-c", script)
	out, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout = to
	p, err := Start(cmd, tag)
	to.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m := p.Mark()
		m.Hit(syscall.SIGKILL)
		p.Settle()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%s says %q, %v; want numbers", script, line, err)
	}
	var pids []int
	for _, s := range strings.Fields(line) {
		pid, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("%s says %q; want numbers", script, line)
		}
		pids = append(pids, pid)
	}
	return p, pids
}

func alive(pid int) bool {
	p, ok := look(pid)
	return ok && !p.dead()
}

// there tells whether the kernel knows a process, be it dead.
func there(pid int) bool {
	_, ok := look(pid)
	return ok
}

// A process is a program's by its session, its environment or its ancestors.
func TestMark(t *testing.T) {
	name := TagName()
	const deep = `setsid env -i bash -c 'sleep 1000 & echo $! $$; wait'`
	one, a := begin(t, `sleep 1000 & echo $! $$; wait`, name+"=1")
	two, b := begin(t, `setsid sleep 1000 & echo $! $$; wait`, name+"=2")
	three, c := begin(t, deep+` & wait`, name+"=3")
	marks := []Mark{one.Mark(), two.Mark(), three.Mark()}
	for i, want := range []int{2, 2, 3} {
		until(t, "all have their environment", func() bool { return marks[i].Hit(0) == want })
	}
	all, none := Mark{Tag: name + "="}, Mark{Tag: TagName() + "="}
	if n := all.Hit(0); n != 7 {
		t.Errorf("Hit() of all three = %d; want 7", n)
	}
	if n := none.Hit(0); n != 0 {
		t.Errorf("Hit() of nobody = %d; want 0", n)
	}
	until(t, "the third has ended", func() bool { return marks[2].Hit(syscall.SIGKILL) == 0 })
	for _, pid := range c {
		if alive(pid) {
			t.Errorf("%d of the third is alive", pid)
		}
	}
	for _, pid := range append(a, b...) {
		if !alive(pid) {
			t.Errorf("%d of the others is dead", pid)
		}
	}
	until(t, "the others have ended", func() bool { return all.Hit(syscall.SIGTERM) == 0 })
}

// What nobody is the parent of any more comes to us, and is waited for.
func TestAdopt(t *testing.T) {
	release, err := Adopt()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Adopt()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	again() // one is enough
	p, pids := begin(t, `(setsid env -i bash -c 'sleep 1000 & echo $! $$; wait' &); sleep 1000; true`, TagName()+"=1")
	parent, leader := pids[1], p.cmd.Process.Pid
	until(t, "it was adopted", func() bool { e, _ := look(parent); return e.parent == os.Getpid() })
	strays := func(from Time) int { // whom a mark finds that has not seen anybody
		m := p.Mark()
		m.Strays = from
		return m.Hit(0)
	}
	for from, want := range map[Time]int{0: 2, p.Began(): 4, p.Began() + 1<<40: 2} { // the shell and its sleep
		if n := strays(from); n != want {
			t.Errorf("Hit() with strays from %d = %d; want %d", from, n, want)
		}
	}
	other, _ := begin(t, `echo $$; sleep 1000`, TagName()+"=2")
	if n := strays(p.Began()); n != 2 {
		t.Errorf("Hit() while another program runs = %d; want 2: it may be that one's", n)
	}
	theirs := other.Mark()
	until(t, "the other one has ended", func() bool { return theirs.Hit(syscall.SIGKILL) == 0 })
	other.Settle()
	m := p.Mark()
	m.Strays = p.Began()
	until(t, "all have ended", func() bool { return m.Hit(syscall.SIGKILL) == 0 })
	until(t, "the strays were waited for", func() bool { return !there(pids[0]) && !there(parent) })
	<-p.Exited()
	if !there(leader) {
		t.Error("the program was waited for before Settle")
	}
	p.Settle()
	if there(leader) || p.Code() != -int(syscall.SIGKILL) {
		t.Errorf("Code() = %d; want %d, and the program waited for", p.Code(), -int(syscall.SIGKILL))
	}
	release()
	var on int32
	if err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&on)), 0, 0, 0); err != nil || on != 0 {
		t.Errorf("orphans come to us after all was released: %d, %v", on, err)
	}
}

// Programs have their status, whoever else ends.
func TestCodes(t *testing.T) {
	release, err := Adopt()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	for i := range 50 {
		p, _ := begin(t, `(setsid true &); echo $$; exit `+strconv.Itoa(i), TagName()+"=1")
		cmd := exec.Command("bash", "-c", "exit "+strconv.Itoa(i))
		err := cmd.Run()
		<-p.Exited()
		p.Settle()
		var exit *exec.ExitError
		if code := p.Code(); code != i || i > 0 && (!errors.As(err, &exit) || exit.ExitCode() != i) {
			t.Fatalf("Code() = %d, Run() = %v; want %d of both", code, err, i)
		}
	}
	if _, err := Start(exec.Command("/no/such"), TagName()+"=1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Start() = %v; want %v", err, os.ErrNotExist)
	}
}

// What a program has written is there when it has ended, and nothing blocks it
// but a reader that does not read.
func TestTerminal(t *testing.T) {
	const n = 300_000
	cmd := exec.Command("bash", "-c", "test -t 0 && test -t 1 && test -t 2 && head -c "+strconv.Itoa(n)+" /dev/zero")
	master, slave, err := Terminal(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	p, err := Start(cmd, TagName()+"=1")
	slave.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Settle()
	var got bytes.Buffer
	if _, err := io.Copy(&got, master); !errors.Is(err, syscall.EIO) || got.Len() != n {
		t.Errorf("read %d bytes, %v; want %d, %v", got.Len(), err, n, syscall.EIO)
	}
	<-p.Exited()
	p.Settle()
	if code := p.Code(); code != 0 {
		t.Errorf("Code() = %d; want 0", code)
	}
}
