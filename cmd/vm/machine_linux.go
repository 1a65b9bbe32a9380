package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jumplead/jumplead/cmd/vm/guest"
)

const (
	qemu = "qemu-system-x86_64"
	// bootTime is how long a guest may take to its greeting. An emulated one takes
	// some seconds, and more on a machine that is busy.
	bootTime = 3 * time.Minute
	// A guest of KVM that has not booted by now never will: nested virtualization
	// that does not work shows as a guest that hangs.
	kvmBootTime = 10 * time.Second
	// silence is how long a guest that lives may be silent: its beats are a second apart.
	silence = time.Minute
)

// options say how to boot.
type options struct {
	Accel   string // "kvm" or "tcg"
	Image   string // the kernel
	Initrd  *os.File
	Memory  string   // as QEMU takes it
	Forward []string // HOSTPORT:GUESTPORT
	Console io.Writer

	// For tests: bootTime and silence, if they are not 0, and more for the
	// kernel's command line.
	Patience, Silence time.Duration
	Append            string
}

// machine is a guest that runs.
type machine struct {
	conn    *guest.Conn
	greets  guest.Greeting
	cmd     *exec.Cmd
	console *tail
	silence time.Duration
	wire    *os.File
	frames  chan frame
	ended   chan struct{} // closed when QEMU has ended
}

type frame struct {
	kind guest.Kind
	data []byte
}

// boot starts a guest and waits until it is ready for jobs.
func boot(ctx context.Context, o options) (*machine, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	syscall.SetNonblock(pair[0], true) // for Go's poller, so that Close ends a Read
	ours, theirs := os.NewFile(uintptr(pair[0]), "guest"), os.NewFile(uintptr(pair[1]), "host")
	const theirFD, initrdFD = 3, 4 // as ExtraFiles has them
	// QEMU 7.2 that emulates several processors at once lets one run code that another has just patched: once in some
	// dozens of boots Linux, which patches itself, dies of it ("Oops: int3"). One is also faster on a busy machine.
	processors, patience := "1", bootTime
	if o.Accel == "kvm" {
		processors, patience = "2", kvmBootTime
	}
	patience = cmp.Or(o.Patience, patience)
	args := []string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-M", "pc", "-cpu", "max", "-smp", processors, "-m", o.Memory, "-accel", o.Accel,
		"-kernel", o.Image, "-initrd", fmt.Sprint("/dev/fd/", initrdFD),
		// On a busy host a kernel may well take the processor's own clock for one that is several times slower or faster.
		"-append", "console=ttyS0 quiet panic=-1 clocksource=hpet no_timer_check random.trust_cpu=on " + o.Append,
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-serial", "null", // a port for tests to play with: ttyS1
		"-device", "virtio-serial-pci",
		"-chardev", fmt.Sprintf("socket,id=wire,fd=%d", theirFD),
		"-device", "virtserialport,chardev=wire,name=" + guest.Port,
		"-virtfs", "local,path=/,mount_tag=" + guest.Share + ",security_model=none,readonly=on,multidevs=remap",
	}
	if len(o.Forward) > 0 {
		net := "user,id=net"
		for _, f := range o.Forward {
			host, inside, ok := strings.Cut(f, ":")
			if !ok {
				ours.Close()
				theirs.Close()
				return nil, fmt.Errorf("forward %q: want HOSTPORT:GUESTPORT", f)
			}
			net += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%s-:%s", host, inside)
		}
		args = append(args, "-netdev", net, "-device", "virtio-net-pci,netdev=net,romfile=")
	}
	m := &machine{conn: guest.NewConn(ours), console: &tail{to: o.Console, panicked: make(chan struct{})}, silence: cmp.Or(o.Silence, silence), wire: ours, frames: make(chan frame), ended: make(chan struct{})}
	m.cmd = exec.Command(qemu, args...)
	m.cmd.Stdout, m.cmd.Stderr = m.console, m.console
	m.cmd.ExtraFiles = []*os.File{theirs, o.Initrd}
	// Ctrl-C is for us to pass on. A guest that hangs must not outlive us, however we end.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // to the kernel, the thread that starts a process is its parent
		defer runtime.UnlockOSThread()
		err := m.cmd.Start()
		started <- err
		if err == nil {
			m.cmd.Wait()
			close(m.ended)
		}
	}()
	err = <-started
	theirs.Close() // only QEMU has it now, so that its end is an end here
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("boot: %w", err)
	}
	go func() { // a kernel that panics is to reboot, which ends QEMU, but may hang over that
		select {
		case <-m.console.panicked:
			select {
			case <-time.After(2 * time.Second): // for the rest of what it says
				m.cmd.Process.Kill()
			case <-m.ended:
			}
		case <-m.ended:
		}
	}()
	go m.receive()

	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case f, ok := <-m.frames:
		if !ok {
			err = m.died("it ended before it was ready")
		} else if err = json.Unmarshal(f.data, &m.greets); err == nil && m.greets.Error != "" {
			err = fmt.Errorf("the guest cannot run anything: %s", m.greets.Error)
		}
	case <-late.C:
		err = m.died(fmt.Sprintf("it was not ready after %v", patience))
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// receive passes frames on until the guest's end is gone.
func (m *machine) receive() {
	defer close(m.frames)
	for {
		k, b, err := m.conn.Receive()
		if err != nil {
			return
		}
		select {
		case m.frames <- frame{k, b}:
		case <-m.ended:
			return
		}
	}
}

// close ends the guest. Nothing of it is worth keeping.
func (m *machine) close() {
	m.cmd.Process.Kill()
	<-m.ended
	m.wire.Close()
}

// deadError says that a guest was lost, not merely a job in it.
type deadError struct {
	why, console string
	hung         bool // the guest itself hung, for all that is known
}

func (e *deadError) Error() string {
	return fmt.Sprintf("the virtual machine is dead: %s; its console:\n%s", e.why, e.console)
}

// died is the error of a guest that is lost. It kills what is left.
func (m *machine) died(why string) error {
	m.close()
	return &deadError{why: why, console: m.console.String()}
}

// streams are what a job reads and writes.
type streams struct {
	In       io.Reader // nil is empty
	Out, Err io.Writer
	Signals  <-chan os.Signal
}

// run runs a job. It returns its exit status. An error of type *deadError means
// that the machine is gone. Limit is how long the job may take, if it is not 0.
func (m *machine) run(ctx context.Context, job guest.Job, s streams, limit time.Duration) (status int, err error) {
	if err := m.conn.SendJSON(guest.Run, job); err != nil {
		return 0, m.died(err.Error())
	}
	stdin := input{m.conn, make(chan struct{}, 1), make(chan struct{})}
	defer close(stdin.over)
	stdin.room <- struct{}{}
	go func() { // ends with its reader or, when that is a terminal, with the program
		if s.In != nil {
			io.Copy(stdin, s.In)
		}
		stdin.Write(nil)
	}()
	var over <-chan time.Time
	if limit > 0 {
		over = time.After(limit)
	}
	quiet := time.NewTimer(m.silence)
	defer quiet.Stop()
	for {
		select {
		case f, ok := <-m.frames:
			if !ok {
				return 0, m.died("it ended while a program ran in it")
			}
			switch f.kind {
			case guest.Stdout:
				_, err = s.Out.Write(f.data)
			case guest.Stderr:
				_, err = s.Err.Write(f.data)
			case guest.File:
				var w guest.Written
				if err = json.Unmarshal(f.data, &w); err == nil {
					err = os.WriteFile(w.Path, w.Data, 0o666)
				}
			case guest.Exit:
				var x guest.Exited
				err := json.Unmarshal(f.data, &x)
				if err == nil && x.Error != "" {
					err = errors.New(x.Error)
				}
				return x.Status, err
			case guest.Taken:
				select {
				case stdin.room <- struct{}{}:
				default: // it is of the job before
				}
			}
			if err != nil {
				return 0, m.died(err.Error())
			}
			quiet.Reset(m.silence) // only now: who reads what is written may have taken its time
		case sig := <-s.Signals:
			m.conn.Send(guest.Signal, []byte{byte(sig.(syscall.Signal))})
		case <-over:
			return 0, m.died(fmt.Sprintf("killed, because a program that may take %v did not end", limit))
		case <-quiet.C:
			m.close()
			return 0, &deadError{fmt.Sprintf("killed, because nothing was heard of it for %v", m.silence), m.console.String(), true}
		case <-ctx.Done():
			return 0, m.died(ctx.Err().Error())
		}
	}
}

// input is the standard input of a job. What the job has not taken waits here and
// not on the wire, where signals would wait behind it.
type input struct {
	conn *guest.Conn
	room chan struct{} // has a token when something may be sent
	over chan struct{} // closed when the job has ended
}

func (i input) Write(b []byte) (int, error) {
	select {
	case <-i.room:
		return len(b), i.conn.Send(guest.Stdin, b)
	case <-i.over:
		return 0, os.ErrClosed
	}
}

// tail keeps the end of what is written to it.
type tail struct {
	to io.Writer // gets everything, if it is not nil

	panicked chan struct{} // closed when the kernel has said that it panics

	mu    sync.Mutex
	end   []byte
	dying bool
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.to != nil {
		t.to.Write(b)
	}
	const most = 16 << 10
	t.end = append(t.end, b...)
	t.end = t.end[max(0, len(t.end)-most):]
	if !t.dying && bytes.Contains(t.end, []byte("Kernel panic - not syncing")) {
		t.dying = true
		close(t.panicked)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.end) == 0 {
		return "(nothing)"
	}
	return string(bytes.TrimRight(t.end, "\r\n"))
}

// archive is an initramfs: a cpio archive in the "newc" format, which the kernel
// unpacks into its first root (Documentation/driver-api/early-userspace/buffer-format.rst).
type archive struct{ bytes.Buffer }

// add adds a file, or with the mode of one a folder.
func (a *archive) add(name string, mode uint32, data []byte) {
	fmt.Fprintf(a, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
	a.pad()
	a.Write(data)
	a.pad()
}

func (a *archive) pad() { a.Write(make([]byte, -a.Len()&3)) }

// close ends the archive.
func (a *archive) close() []byte {
	a.add("TRAILER!!!", 0, nil)
	return a.Bytes()
}

const (
	modeDir  = syscall.S_IFDIR | 0o755
	modeFile = syscall.S_IFREG | 0o755
	modeChar = syscall.S_IFCHR | 0o600
)

// addConsole adds /dev/console, which process 1 has as its standard output.
func (a *archive) addConsole() {
	a.add("dev", modeDir, nil)
	head := a.Len()
	a.add("dev/console", modeChar, nil)
	// The numbers of the device, 5 and 1, are the 10th and 11th field.
	b := a.Bytes()[head:]
	copy(b[6+9*8:], fmt.Appendf(nil, "%08x%08x", 5, 1))
}
