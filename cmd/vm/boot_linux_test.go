package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jumplead/jumplead/cmd/jumplead/interop/pyenv"
	"github.com/jumplead/jumplead/cmd/vm/guest"
	"github.com/jumplead/jumplead/exporter/client"
	"github.com/jumplead/jumplead/hw/hwtest"
)

// needVM makes sure that machines can be made here. It builds the program, which is what they begin with, and returns its
// path. What is left of the machines is found in a folder of the test's own.
func needVM(t *testing.T) string {
	t.Helper()
	hwtest.NeedFunc(t, hwtest.VM, func() error {
		if _, err := exec.LookPath(qemu); err != nil {
			return err
		}
		_, err := usual(t, "").kernel(t.Context())
		return err
	})
	program := build(t, ".")
	left := t.TempDir()
	t.Setenv("TMPDIR", left)
	t.Cleanup(func() {
		if files, err := os.ReadDir(left); err != nil || len(files) > 0 {
			t.Errorf("the machines left %v, %v; want nothing", files, err)
		}
	})
	return program
}

func build(t *testing.T, pkg string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "program")
	c := exec.Command("go", "build", "-o", program, pkg)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := c.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v: %s", pkg, err, said)
	}
	return program
}

// usual is a setup as the program has it, with the emulated processor that is everywhere.
func usual(t *testing.T, program string) *setup {
	t.Helper()
	s, err := newSetup()
	if err != nil {
		t.Fatal(err)
	}
	s.accel, s.memory, s.init = "tcg", "1G", program
	return s
}

func shell(text string) guest.Job {
	return guest.Job{Path: "/bin/sh", Args: []string{"sh", "-c", text}, Dir: "/", Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "ANSWER=42"}}
}

// dead is the error of a machine that was lost.
func dead(t *testing.T, what string, err error) *deadError {
	t.Helper()
	d := new(deadError)
	if !errors.As(err, &d) {
		t.Fatalf("%s = %v; want a dead machine", what, err)
	}
	return d
}

// One machine runs one program after another, and tells of each what a shell would. Then its kernel panics.
func TestMachine(t *testing.T) {
	program := needVM(t)
	m, promised, err := usual(t, program).boot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	if len(promised) != len(gives) {
		t.Errorf("the machine promises %q; want all %d capabilities", promised, len(gives))
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("the host's"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		text     string
		status   int
		out, err string
	}{
		{"echo $ANSWER; pwd; id -u; echo odd >&2", 0, "42\n/\n0\n", "odd\n"},
		{"tr a-z A-Z; exit 3", 3, "SAID BY THE HOST", ""},
		{"kill -9 $$", 128 + 9, "", ""},
		{"cat " + file + "; echo the guest\\'s > " + file, 0, "the host's", ""},
		{"sleep 1000 & echo gone", 0, "gone\n", ""}, // nobody waits for what is left
		{"cat " + file, 0, "the guest's\n", ""},
	} {
		var out, said bytes.Buffer
		status, err := m.run(t.Context(), shell(c.text), streams{strings.NewReader("said by the host"), &out, &said, nil}, 0)
		if status != c.status || err != nil || out.String() != c.out || said.String() != c.err {
			t.Errorf("run(%q) = %d, %v with %q, %q; want %d with %q, %q", c.text, status, err, out.String(), said.String(), c.status, c.out, c.err)
		}
	}
	if got, _ := os.ReadFile(file); string(got) != "the host's" {
		t.Errorf("the guest made %q of a file of the host's; want it as it was", got)
	}
	// A signal does not wait for input that the program does not take.
	signals := make(chan os.Signal, 8)
	begun := began{func() { signals <- syscall.SIGTERM }}
	status, err := m.run(t.Context(), shell("head -c 1000000 >/dev/null; echo begun; exec sleep 1000"), streams{endless{}, begun, os.Stderr, signals}, time.Minute)
	if status != 128+15 || err != nil {
		t.Fatalf("run of what takes no input, with a signal = %d, %v; want %d", status, err, 128+15)
	}
	var out bytes.Buffer
	if status, err := m.run(t.Context(), shell("cat"), streams{strings.NewReader("its own"), &out, os.Stderr, nil}, time.Minute); status != 0 || err != nil || out.String() != "its own" {
		t.Errorf("run after that = %d, %v with %q; want 0 with its own input", status, err, out.String())
	}
	if _, err := m.run(t.Context(), guest.Job{Path: "/nothing"}, streams{}, 0); err == nil || errors.As(err, new(*deadError)) {
		t.Errorf("run(/nothing) = %v; want an error, and a machine that lives", err)
	}
	_, err = m.run(t.Context(), shell("echo c >/proc/sysrq-trigger; sleep 1000"), streams{Out: os.Stdout, Err: os.Stderr}, time.Minute)
	if d := dead(t, "run of what makes the kernel panic", err); !strings.Contains(d.console, "sysrq triggered crash") {
		t.Errorf("its console: %q; want the panic", d.console)
	}
}

// endless is input without an end.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// began calls a function when something is written.
type began struct{ f func() }

func (b began) Write(p []byte) (int, error) {
	b.f()
	return len(p), nil
}

// A program that takes the processor for itself, so that the guest hangs: it is killed, and its console shown.
func TestHang(t *testing.T) {
	s := usual(t, needVM(t))
	s.test.Silence = 5 * time.Second
	m, _, err := s.boot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	// Linux leaves a little of the processor to others, unless told otherwise.
	const hang = `echo '<2>this is the end' >/dev/kmsg
echo -1 >/proc/sys/kernel/sched_rt_runtime_us
for f in /sys/kernel/debug/sched/fair_server/cpu*/runtime; do echo 0 >$f; done
exec chrt --fifo 99 sh -c 'while :; do :; done'`
	start := time.Now()
	_, err = m.run(t.Context(), shell(hang), streams{Out: os.Stdout, Err: os.Stderr}, 2*time.Minute)
	if d := dead(t, "run of what hangs", err); !d.hung || !strings.Contains(d.Error(), "this is the end") {
		t.Errorf("run of what hangs = %v, hung: %t; want that nothing was heard, and the console", err, d.hung)
	}
	select {
	case <-m.ended:
	default:
		t.Error("QEMU runs on")
	}
	t.Logf("it was killed after %v", time.Since(start))
}

// A boot that fails is tried once more; one that hangs, too.
func TestBootFails(t *testing.T) {
	s := usual(t, needVM(t))
	var console bytes.Buffer
	s.test = options{Append: "rdinit=/nothing", Console: &console}
	_, _, err := s.boot(t.Context())
	if d := dead(t, "boot() without a first program", err); !strings.Contains(d.console, "Kernel panic") {
		t.Errorf("boot() without a first program = %v; want the panic", err)
	}
	if got := strings.Count(console.String(), "Kernel panic - not syncing"); got != 2 {
		t.Errorf("boot() without a first program panics %d times; want 2:\n%s", got, console.String())
	}
	s.test = options{Patience: 500 * time.Millisecond}
	_, _, err = s.boot(t.Context())
	if d := dead(t, "boot() that takes longer than it may", err); !strings.Contains(d.why, "not ready after 500ms") {
		t.Errorf("boot() that takes longer than it may = %v; want that it was not ready", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := s.boot(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("boot() of one who does not want it = %v; want %v", err, context.Canceled)
	}
}

// guestHarness drives a line of a chip in the guest, and shows what is on it.
const guestHarness = `apiVersion: jumpstarter.dev/v1alpha1
kind: ExporterConfig
metadata: {namespace: default, name: guest}
export:
  relay: {type: jumpstarter_driver_gpiod.driver.DigitalOutput, config: {device: forwarded, line: 1}}
  world: {type: jumpstarter_driver_shell.driver.Shell, config: {methods: {level: cat /sys/devices/platform/gpio-sim.*/gpiochip*/sim_gpio1/value}}}
`

const guestScript = `set -e
chip=/sys/kernel/config/gpio-sim/forwarded
mkdir $chip $chip/bank0
echo 4 >$chip/bank0/num_lines
echo forwarded >$chip/bank0/label
echo 1 >$chip/live
exec "$0" run --exporter-config "$1" --tls-grpc-listener 0.0.0.0:19090 --tls-grpc-insecure`

// The stock client on the host switches a line of the guest's.
func TestForward(t *testing.T) {
	var env *pyenv.Env
	hwtest.NeedFunc(t, hwtest.Python, func() (err error) {
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
		defer cancel()
		env, err = pyenv.Open(ctx)
		return err
	})
	vm := needVM(t)
	config := filepath.Join(t.TempDir(), "guest.yaml")
	if err := os.WriteFile(config, []byte(guestHarness), 0o644); err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	c := exec.Command(vm, "-accel", "tcg", "-forward", port+":19090", "/bin/sh", "-c", guestScript, build(t, "../jumplead"), config)
	said := &bytes.Buffer{}
	c.Stdout, c.Stderr = said, said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	stop := func() error {
		c.Process.Signal(syscall.SIGTERM) // is the exporter's
		select {
		case err := <-ended:
			return err
		case <-time.After(time.Minute):
			c.Process.Kill()
			return fmt.Errorf("still there: %w", <-ended)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	address := "127.0.0.1:" + port
	up, err := client.Dial(ctx, address, client.Options{})
	if err == nil {
		err = up.WaitReady(ctx)
		up.Close()
	}
	if err != nil {
		stop()
		t.Fatalf("%v; the machine said:\n%s", err, said)
	}
	for _, step := range []struct{ command, want string }{
		{"relay on", ""}, {"world level", "1\n"}, {"relay read", "active\n"}, {"relay off", ""}, {"world level", "0\n"}, {"relay read", "inactive\n"},
	} {
		j := exec.CommandContext(ctx, env.Bin("j"), strings.Fields(step.command)...)
		j.Env = pyenv.Environ(t.TempDir(), "JUMPSTARTER_HOST="+address, "JMP_GRPC_INSECURE=1", "JMP_DRIVERS_ALLOW=UNSAFE", "TERM=dumb")
		out, err := j.Output()
		if err != nil || string(out) != step.want {
			t.Errorf("j %s = %q, %v; want %q, nil", step.command, out, err, step.want)
		}
	}
	if err := stop(); err != nil {
		t.Errorf("the machine ended with %v; want the exporter's status 0:\n%s", err, said)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// A suite that is interrupted while it builds or runs tests ends soon and, as needVM checks, leaves nothing.
func TestSuiteInterrupted(t *testing.T) {
	vm := needVM(t)
	for _, test := range []struct {
		signal syscall.Signal
		when   string
	}{{syscall.SIGINT, "/vm-tests-*/*/b*"}, {syscall.SIGHUP, "booted"}} {
		c := exec.Command(vm, "-suite", "-accel", "tcg", "-count", "1000", "../../hw/gpio/cdev")
		said := make(chan string, 100)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		go func() {
			defer close(said)
			for lines := bufio.NewScanner(out); lines.Scan(); {
				said <- lines.Text()
			}
		}()
		began := func() bool {
			if strings.HasPrefix(test.when, "/") {
				found, err := filepath.Glob(os.Getenv("TMPDIR") + test.when)
				return err == nil && len(found) > 0
			}
			select {
			case line, ok := <-said:
				return !ok || strings.Contains(line, test.when)
			default:
				return false
			}
		}
		tick := time.NewTicker(10 * time.Millisecond)
		for late := time.Now().Add(3 * time.Minute); !began() && time.Now().Before(late); {
			<-tick.C
		}
		tick.Stop()
		c.Process.Signal(test.signal)
		kill := time.AfterFunc(time.Minute, func() { c.Process.Kill() })
		for range said { // until it has ended
		}
		if err := c.Wait(); c.ProcessState.ExitCode() != 1 {
			t.Errorf("a suite that gets %v when there is %q = %v; want status 1 within a minute", test.signal, test.when, err)
		}
		kill.Stop()
	}
}
