package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Where things are in the initramfs.
const (
	Modules = "/modules"      // NAME.ko files
	Order   = "/modules.load" // lines of NAME and parameters, what others need first
	Share   = "host"          // the tag of the host's file system
)

// Main is process 1 of the guest. It does not return.
func Main() {
	conn, err := dial()
	if err != nil {
		fmt.Println("vm:", err) // on the console, which the host shows when a guest dies
		halt()
	}
	failed, err := prepare()
	g := Greeting{Failed: failed}
	if err != nil {
		g.Error = err.Error()
	}
	if conn.SendJSON(Hello, g) != nil || err != nil {
		halt()
	}
	fmt.Println("vm: ended:", serve(conn))
	halt()
}

// halt ends the machine: QEMU leaves when its guest reboots.
func halt() {
	unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	select {}
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", kind, target, err)
	}
	return nil
}

// dial opens the port to the host. The kernel announces its name a moment after
// the device is there.
func dial() (*Conn, error) {
	for _, fs := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		if err := mount(fs[0], fs[1], fs[0], 0, ""); err != nil {
			return nil, err
		}
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		names, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, name := range names {
			if b, _ := os.ReadFile(name); strings.TrimSpace(string(b)) != Port {
				continue
			}
			f, err := os.OpenFile("/dev/"+filepath.Base(filepath.Dir(name)), os.O_RDWR, 0)
			if err != nil {
				return nil, err
			}
			return NewConn(f), nil
		}
	}
	return nil, fmt.Errorf("the host offers no virtio port %q", Port)
}

// prepare makes the host's world around the process. Without a file system or a
// network nothing can run; without one of the modules much can.
func prepare() (failed []string, err error) {
	order, err := os.ReadFile(Order)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(order)) {
		name, params, _ := strings.Cut(strings.TrimSpace(line), " ")
		if err := load(filepath.Join(Modules, name+".ko"), params); err != nil {
			failed = append(failed, fmt.Sprintf("%s: %v", name, err))
		}
	}
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}{
		// The host does not change what a test reads while it runs, so the guest may
		// keep it: without that, every read is a round trip.
		{Share, "/host", "9p", unix.MS_RDONLY, "trans=virtio,version=9p2000.L,msize=512000,cache=loose"},
		{"tmpfs", "/memory", "tmpfs", 0, "size=75%"},
	} {
		if err := mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return failed, err
		}
	}
	for _, dir := range []string{"/memory/upper", "/memory/work"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return failed, err
		}
	}
	const root = "/root"
	if err := mount("overlay", root, "overlay", 0, "lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work"); err != nil {
		return failed, err
	}
	if err := enter(root); err != nil {
		return failed, fmt.Errorf("enter the new root: %w", err)
	}
	for _, m := range [][3]string{
		{"proc", "/proc", ""}, {"sysfs", "/sys", ""}, {"devtmpfs", "/dev", ""}, {"devpts", "/dev/pts", "mode=620,ptmxmode=666"},
		{"tmpfs", "/dev/shm", ""}, {"tmpfs", "/run", "mode=755"},
	} {
		if err := mount(m[0], m[1], m[0], 0, m[2]); err != nil {
			return failed, err
		}
	}
	// What udev makes on a machine that has it.
	for _, link := range [][2]string{{"/proc/self/fd", "/dev/fd"}, {"/proc/self/fd/0", "/dev/stdin"}, {"/proc/self/fd/1", "/dev/stdout"},
		{"/proc/self/fd/2", "/dev/stderr"}, {"/dev/pts/ptmx", "/dev/ptmx"}} {
		os.Remove(link[1])
		if err := os.Symlink(link[0], link[1]); err != nil {
			return failed, err
		}
	}
	for _, fs := range [][2]string{{"configfs", "/sys/kernel/config"}, {"debugfs", "/sys/kernel/debug"}, {"cgroup2", "/sys/fs/cgroup"}} {
		if err := mount(fs[0], fs[1], fs[0], 0, ""); err != nil {
			failed = append(failed, err.Error())
		}
	}
	if err := up("lo", netip.MustParsePrefix("127.0.0.1/8")); err != nil {
		return failed, err
	}
	if _, err := os.Stat("/sys/class/net/eth0"); err == nil { // the host wants to reach the guest
		// QEMU's user network gives its only guest this address.
		if err := up("eth0", netip.MustParsePrefix("10.0.2.15/24")); err != nil {
			return failed, err
		}
	}
	return failed, nil
}

// load puts a module into the kernel.
func load(path, params string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), params, 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// enter makes dir the root, as switch_root does. A mere chroot would leave the
// kernel's own helpers in the old one.
func enter(dir string) error {
	if err := os.Chdir(dir); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return os.Chdir("/")
}

// up gives a network interface its address and switches it on.
func up(name string, p netip.Prefix) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	set := func(req uint, value func(*unix.Ifreq) error) error {
		r, err := unix.NewIfreq(name)
		if err == nil {
			err = value(r)
		}
		if err == nil {
			err = unix.IoctlIfreq(fd, req, r)
		}
		if err != nil {
			return fmt.Errorf("set up %s: %w", name, err)
		}
		return nil
	}
	mask := ^uint32(0) << (32 - p.Bits())
	return errors.Join(
		set(unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(p.Addr().AsSlice()) }),
		set(unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error {
			return r.SetInet4Addr([]byte{byte(mask >> 24), byte(mask >> 16), byte(mask >> 8), byte(mask)})
		}),
		set(unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING); return nil }),
	)
}

// serve runs jobs until the host hangs up.
func serve(conn *Conn) error {
	go func() {
		for conn.Send(Beat, nil) == nil {
			time.Sleep(time.Second)
		}
	}()
	r := &reaper{ended: map[int]unix.WaitStatus{}}
	r.cond.L = &r.mu
	go r.run()

	var stdin chan []byte // of the job that runs
	var pid int
	for {
		k, b, err := conn.Receive()
		if err != nil {
			return err
		}
		switch k {
		case Run:
			var job Job
			if err := json.Unmarshal(b, &job); err != nil {
				return err
			}
			if stdin != nil {
				close(stdin)
				stdin = nil
			}
			var w *os.File
			if pid, w, err = start(conn, r, job); err != nil {
				conn.SendJSON(Exit, Exited{Status: 127, Error: err.Error()})
				continue
			}
			stdin = make(chan []byte, 2)
			go feed(conn, w, stdin)
		case Stdin:
			if stdin != nil {
				stdin <- b // there is room: the host waits for Taken
			}
		case Signal:
			if pid > 0 && len(b) == 1 {
				unix.Kill(pid, syscall.Signal(b[0]))
			}
		default:
			return fmt.Errorf("a frame of kind %q", k)
		}
	}
}

// feed gives a job its input, for which it may take its time: signals must not
// wait for that.
func feed(conn *Conn, w *os.File, in <-chan []byte) {
	defer w.Close()
	for b := range in {
		if len(b) == 0 {
			return
		}
		if _, err := w.Write(b); err != nil { // the job need not read it
			return
		}
		conn.Send(Taken, nil)
	}
}

// start starts a job and sees to it that its end is told.
func start(conn *Conn, r *reaper, job Job) (pid int, stdin *os.File, err error) {
	var ends []*os.File
	defer func() {
		for _, f := range ends {
			f.Close()
		}
	}()
	inR, inW, err := os.Pipe()
	if err != nil {
		return 0, nil, err
	}
	ends = append(ends, inR)
	attr := &os.ProcAttr{Dir: job.Dir, Env: job.Env, Files: []*os.File{inR, nil, nil}}
	var copying sync.WaitGroup
	for i, k := range []Kind{Stdout, Stderr} {
		rd, wr, err := os.Pipe()
		if err != nil {
			return 0, nil, err
		}
		ends = append(ends, wr)
		attr.Files[i+1] = wr
		copying.Go(func() { io.Copy(conn.Writer(k), rd); rd.Close() })
	}
	p, err := os.StartProcess(job.Path, job.Args, attr)
	if err != nil {
		inW.Close()
		return 0, nil, err
	}
	pid = p.Pid
	p.Release() // the reaper waits for it
	go func() {
		ws := r.wait(pid)
		unix.Kill(-1, unix.SIGKILL) // what it left behind must not meet the next one
		copying.Wait()
		for _, path := range job.Keep {
			if !filepath.IsAbs(path) {
				path = filepath.Join(job.Dir, path)
			}
			if b, err := os.ReadFile(path); err == nil {
				conn.SendJSON(File, Written{path, b})
			}
		}
		x := Exited{Status: ws.ExitStatus()}
		if ws.Signaled() {
			x.Status = 128 + int(ws.Signal())
		}
		conn.SendJSON(Exit, x)
	}()
	return pid, inW, nil
}

// reaper takes note of every process that ends: process 1 inherits all orphans.
type reaper struct {
	mu    sync.Mutex
	cond  sync.Cond
	ended map[int]unix.WaitStatus
}

func (r *reaper) run() {
	child := make(chan os.Signal, 1)
	signal.Notify(child, unix.SIGCHLD)
	for range child {
		for {
			var ws unix.WaitStatus
			pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if pid <= 0 {
				break
			}
			r.mu.Lock()
			r.ended[pid] = ws
			r.mu.Unlock()
			r.cond.Broadcast()
		}
	}
}

// wait waits for the end of a process that is a child of this one.
func (r *reaper) wait(pid int) unix.WaitStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if ws, ok := r.ended[pid]; ok {
			clear(r.ended) // no other process is waited for
			return ws
		}
		r.cond.Wait()
	}
}
