// Vm runs tests in a small virtual machine, whose kernel has the drivers that
// the machine at hand lacks, or should not lend to tests: simulated GPIO chips,
// CAN buses, USB devices that a test plays.
//
//	go test -exec vm ./hw/serial                    each test binary in a guest of its own
//	vm -suite ./...                                 all that ask for what the guest has, in one
//	vm -forward 19090:19090 .build/bin/jumplead ... a program that the host reaches
//
// The guest sees the host's files at their own paths, read-only; what it writes
// vanishes. The program runs in the same folder, with the same environment and
// arguments, as root. It needs no rights on the host.
//
// The kernel is fetched from Debian once and kept in the user's cache folder.
// KERNEL=IMAGE MODULES=/lib/modules/VERSION in the environment name another.
package main

import (
	"context"
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jumplead/jumplead/cmd/vm/guest"
	"github.com/jumplead/jumplead/cmd/vm/kernel"
	"github.com/jumplead/jumplead/hw/hwtest"
)

// base is what the guest itself is made of.
var base = []kernel.Module{{Name: "9pnet_virtio"}, {Name: "9p"}, {Name: "overlay"}, {Name: "configfs"}, {Name: "virtio_net"}}

// gives is what the guest gives to tests: capabilities, and the modules that
// they are made of. A capability is promised when its modules were loaded.
var gives = []struct {
	hwtest.Capability
	modules    []kernel.Module
	everywhere bool // nearly every machine has it
}{
	{hwtest.PTY, nil, true},
	{hwtest.CGroup, nil, false},
	{hwtest.Landlock, nil, false},
	{hwtest.UART, nil, false},
	{hwtest.GPIOSim, []kernel.Module{{Name: "gpio_sim"}}, false},
	{hwtest.VCAN, []kernel.Module{{Name: "vcan"}, {Name: "vxcan"}, {Name: "can_raw"}, {Name: "can_bcm"}, {Name: "can_isotp"}, {Name: "can_gw"}}, false},
	{hwtest.USB, []kernel.Module{{Name: "vhci_hcd"}, {Name: "cdc_acm"}, {Name: "i2c_tiny_usb"}, {Name: "i2c_dev"}, {Name: "gs_usb"}}, false},
	// The addresses that the power meters INA219, INA226 and INA260 share.
	{hwtest.I2CStub, []kernel.Module{{Name: "i2c_dev"}, {Name: "i2c_stub", Params: "chip_addr=0x40,0x41,0x44,0x45"}}, false},
	{hwtest.VSock, []kernel.Module{{Name: "vsock_loopback"}}, false},
}

// uart is the port that QEMU makes with nothing at its far end.
const uart = "/dev/ttyS1"

func main() {
	if os.Getpid() == 1 {
		guest.Main()
	}
	status, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
		status = max(status, 1)
	}
	os.Exit(status)
}

// setup is what flags and environment say.
type setup struct {
	accel   string
	memory  string
	forward string
	fetch   bool
	console bool
	cache   string
	image   string
	modules string

	init string  // the guest's first program; "" is this one
	test options // what tests change
}

// newSetup is what the environment says.
func newSetup() (*setup, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	s := &setup{image: os.Getenv("KERNEL"), modules: os.Getenv("MODULES"), cache: filepath.Join(dir, "jumplead", "vm")}
	if (s.image == "") != (s.modules == "") {
		return nil, errors.New("KERNEL and MODULES go together: a kernel's image, and the folder of its modules")
	}
	return s, nil
}

func run(args []string) (int, error) {
	s, err := newSetup()
	if err != nil {
		return 2, err
	}
	var t tests
	flags := flag.NewFlagSet("vm", flag.ExitOnError)
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: vm [FLAGS] PROGRAM [ARG...]\n       vm -suite [FLAGS] [PACKAGE...]")
		flags.PrintDefaults()
	}
	suite := flags.Bool("suite", false, "run the tests of all packages that ask for something which the guest has")
	flags.StringVar(&s.accel, "accel", "auto", "kvm, tcg (which emulates the processor), or auto: kvm if it works")
	flags.StringVar(&s.memory, "m", "2G", "memory of the guest")
	flags.StringVar(&s.forward, "forward", "", "HOSTPORT:GUESTPORT,...: ports of the guest that 127.0.0.1 shall have")
	flags.BoolVar(&s.fetch, "fetch", false, "look for a newer kernel")
	flags.BoolVar(&s.console, "console", false, "show the guest's console")
	flags.BoolVar(&t.race, "race", false, "with -suite: find data races")
	flags.BoolVar(&t.verbose, "v", false, "with -suite: tell of every test")
	flags.StringVar(&t.run, "run", "", "with -suite: only tests that match")
	flags.IntVar(&t.count, "count", 1, "with -suite: run each test so many times")
	flags.DurationVar(&t.timeout, "timeout", 10*time.Minute, "with -suite: what a package may take")
	flags.Parse(args)
	if !*suite && flags.NArg() == 0 {
		flags.Usage()
		return 2, nil
	}

	if *suite {
		ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
		defer cancel()
		return t.suite(ctx, s, flags.Args())
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	path, err := exec.LookPath(flags.Arg(0))
	if err != nil {
		return 127, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return 127, err
	}
	wd, err := os.Getwd()
	if err != nil {
		return 1, err
	}
	booting, booted := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	m, promised, err := s.boot(booting)
	booted()
	if err != nil {
		return 1, err
	}
	defer m.close()
	status, err := m.run(context.Background(), guest.Job{
		Path: path, Args: flags.Args(), Dir: wd, Env: environment(promised), Keep: profiles(flags.Args()),
	}, streams{os.Stdin, os.Stdout, os.Stderr, signals}, limit(flags.Args()))
	if dead := new(deadError); errors.As(err, &dead) && dead.hung {
		s.disappointed()
	}
	return status, err
}

// environment is that of the host, and what the guest has beyond it.
func environment(promised []string) []string {
	if p := os.Getenv(hwtest.Promises); p != "" {
		promised = append(promised, p)
	}
	return append(os.Environ(), hwtest.Promises+"="+strings.Join(promised, ","), "JUMPLEAD_UART="+uart)
}

// profiles finds the files that the flags of a test binary make it write.
func profiles(args []string) (files []string) {
	for _, a := range args {
		name, value, _ := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if strings.HasPrefix(name, "test.") && (strings.HasSuffix(name, "profile") || name == "test.trace") {
			files = append(files, value)
		}
	}
	return files
}

// limit is what the flags of a test binary say that it may take, and a minute
// for it to say so itself. 0 is no limit.
func limit(args []string) time.Duration {
	for _, a := range args {
		if v, ok := strings.CutPrefix(strings.TrimLeft(a, "-"), "test.timeout="); ok {
			if d, err := time.ParseDuration(v); err == nil && d > 0 {
				return d + time.Minute
			}
		}
	}
	return 0
}

// boot boots a guest, and says what it promises.
func (s *setup) boot(ctx context.Context) (*machine, []string, error) {
	k, err := s.kernel(ctx)
	if err != nil {
		return nil, nil, err
	}
	initrd, missing, err := s.initramfs(k)
	if err != nil {
		return nil, nil, err
	}
	defer initrd.Close()
	o := s.test
	o.Image, o.Initrd, o.Memory = k.Image, initrd, s.memory
	if s.forward != "" {
		o.Forward = strings.Split(s.forward, ",")
	}
	if s.console {
		o.Console = os.Stderr
	}
	m, err := s.accelerated(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	for _, f := range m.greets.Failed {
		fmt.Fprintln(os.Stderr, "vm: the guest lacks", f)
		name, _, _ := strings.Cut(f, ":")
		missing = append(missing, name)
	}
	var promised []string
	for _, g := range gives {
		lacks := slices.ContainsFunc(g.modules, func(m kernel.Module) bool { return slices.Contains(missing, m.Name) })
		// The kernel that is fetched has everything. If one day it has not, tests must not be skipped for that.
		if !lacks || s.image == "" {
			promised = append(promised, string(g.Capability))
		}
	}
	return m, promised, nil
}

// accelerated boots with KVM where that works, and remembers where it does not.
func (s *setup) accelerated(ctx context.Context, o options) (*machine, error) {
	if o.Accel = s.accel; o.Accel == "kvm" {
		return boot(ctx, o)
	}
	if s.accel == "auto" && s.kvmMayWork() {
		o.Accel = "kvm"
		if m, err := boot(ctx, o); err == nil || ctx.Err() != nil {
			return m, err
		}
		s.disappointed()
		fmt.Fprintln(os.Stderr, "vm: KVM does not work here; the processor is emulated")
	}
	o.Accel = "tcg"
	m, err := boot(ctx, o)
	if dead := new(deadError); errors.As(err, &dead) && ctx.Err() == nil {
		// QEMU's emulation now and then makes a kernel stumble that is none the worse for it. Only the boot is tried again,
		// never a test.
		fmt.Fprintf(os.Stderr, "vm: THE BOOT FAILED, and is tried once more: %v\n", err)
		m, err = boot(ctx, o)
	}
	return m, err
}

// kvmMayWork reports whether there is a KVM that has not failed since this
// machine was started.
func (s *setup) kvmMayWork() bool {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	f.Close()
	failed, err := os.ReadFile(s.kvmFailed())
	return err != nil || string(failed) != bootID()
}

func (s *setup) kvmFailed() string { return filepath.Join(s.cache, "kvm-failed") }

// disappointed notes that a guest was lost: perhaps it was KVM's fault, and a
// slower guest is better than another one that is lost.
func (s *setup) disappointed() {
	if s.accel == "auto" {
		os.WriteFile(s.kvmFailed(), []byte(bootID()), 0o666)
	}
}

func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(b)
}

// kernel finds the kernel to boot, and fetches it if there is none.
func (s *setup) kernel(ctx context.Context) (*kernel.Kernel, error) {
	if s.image != "" {
		return kernel.Open(s.image, s.modules)
	}
	if err := os.MkdirAll(s.cache, 0o755); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(s.cache, "lock"), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, err
	}
	defer lock.Close() // and unlocks it
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	current := filepath.Join(s.cache, "current")
	if _, err := os.Stat(current); err != nil || s.fetch {
		s.fetch = false // once
		dir, err := kernel.Fetcher{Mirror: os.Getenv("DEBIAN_MIRROR"), Log: os.Stderr}.Fetch(ctx, s.cache)
		if err != nil {
			return nil, err
		}
		os.Remove(current)
		if err := os.Symlink(filepath.Base(dir), current); err != nil {
			return nil, err
		}
	}
	dir, err := filepath.EvalSymlinks(current)
	if err != nil {
		return nil, err
	}
	return kernel.Opened(dir)
}

// initramfs makes the guest's first file system: this program, the modules, and
// their order. It returns a file without a name, which nobody has to remove, and what is not to be had.
func (s *setup) initramfs(k *kernel.Kernel) (f *os.File, missing []string, err error) {
	init, err := static(s.init)
	if err != nil {
		return nil, nil, err
	}
	wanted := slices.Clone(base)
	for _, g := range gives {
		wanted = append(wanted, g.modules...)
	}
	load, missing, err := k.Load(wanted)
	if err != nil {
		return nil, nil, err
	}
	a := &archive{}
	a.addConsole()
	a.add("init", modeFile, init)
	a.add(strings.TrimPrefix(guest.Modules, "/"), modeDir, nil)
	var order strings.Builder
	for _, m := range load {
		a.add(strings.TrimPrefix(guest.Modules, "/")+"/"+m.Name+".ko", modeFile, m.Code)
		fmt.Fprintln(&order, m.Name, m.Params)
	}
	a.add(strings.TrimPrefix(guest.Order, "/"), modeFile, []byte(order.String()))
	if f, err = os.CreateTemp("", "vm-initramfs-*"); err != nil {
		return nil, nil, err
	}
	_, err = f.Write(a.close())
	if err = errors.Join(err, os.Remove(f.Name())); err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, missing, nil
}

// static reads the guest's first program, which is alone there: that at path, or this one.
func static(path string) ([]byte, error) {
	if path == "" {
		var err error
		if path, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return nil, fmt.Errorf("%s needs libraries, and the guest has none: build it with CGO_ENABLED=0", path)
	}
	return os.ReadFile(path)
}
