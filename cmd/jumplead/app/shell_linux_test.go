package app_test

import (
	"bytes"
	"context"
	"io"
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

	"github.com/jumplead/jumplead/cmd/jumplead/app"
	"github.com/jumplead/jumplead/drivers/all"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/hw/serial/pty"
	"golang.org/x/sys/unix"
)

// shellIn runs jumplead shell with the test's own file as the program. Whatever
// it leaves behind would be in the folder that it returns.
func shellIn(ctx context.Context, t *testing.T, stdin io.Reader, args ...string) (result, string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	runtime, err := os.MkdirTemp("", "x-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(runtime) })
	var stdout, stderr buffer
	status := app.Main(ctx, app.Proc{
		Args:  append([]string{"jumplead", "shell"}, args...),
		Env:   []string{asProgram + "=1", "XDG_RUNTIME_DIR=" + runtime, "PATH=" + os.Getenv("PATH"), "SHELL=/bin/sh", "HOME=/nowhere"},
		Stdin: stdin, Stdout: &stdout, Stderr: &stderr, Commands: all.Commands(), Executable: self,
	}, all.Specs()...)
	if left, err := os.ReadDir(runtime); err != nil || len(left) > 0 {
		t.Errorf("jumplead shell %q leaves %v, %v; want nothing", args, left, err)
	}
	return result{status, stdout.String(), stderr.String()}, runtime
}

const welcoming = small + "motd: |\n  Welcome to the bench\n"

func TestShellUsage(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"", "specify one of: --exporter / --exporter-config, or --tls-grpc HOST:PORT"},
		{"--bad", "not defined: --bad"},
		{"--exporter a --exporter-config b", "only one of"},
		{"--exporter a --tls-grpc h:1", "exclude each other"},
		{"--exporter a --passphrase x", "require --tls-grpc"},
		{"--tls-grpc-insecure --exporter a", "require --tls-grpc"},
		{"--tls-grpc host", `"host" is not HOST:PORT`},
		{"--tls-grpc host:0", "is not HOST:PORT"},
	} {
		got, _ := shellIn(t.Context(), t, nil, strings.Fields(test.args)...)
		if got.status != 2 || !strings.Contains(got.stderr, test.want) {
			t.Errorf("jumplead shell %s = %d, %q; want 2, %q", test.args, got.status, got.stderr, test.want)
		}
	}
	if got, _ := shellIn(t.Context(), t, nil, "--help"); got.status != 0 || !strings.Contains(got.stdout, "--exporter-logs") {
		t.Errorf("jumplead shell --help = %d, %q; want 0 and the options", got.status, got.stdout)
	}
	if got, _ := shellIn(t.Context(), t, nil, "--exporter-config", "/nowhere/x.yaml", "true"); got.status != 1 || !strings.Contains(got.stderr, "/nowhere/x.yaml") {
		t.Errorf("jumplead shell without its config = %d, %q; want 1 and why", got.status, got.stderr)
	}
	addr := port(t)
	if got, _ := shellIn(t.Context(), t, nil, "--tls-grpc", addr, "--tls-grpc-insecure", "true"); got.status != 1 || !strings.Contains(got.stderr, "did not respond") {
		t.Errorf("jumplead shell without an exporter = %d, %q; want 1 and why", got.status, got.stderr)
	}
}

// The environment, the exit status and j are there in both modes.
func TestShell(t *testing.T) {
	config, addr := file(t, "bench.yaml", welcoming), port(t)
	log := start(t, nil, "--exporter-config", config, "--tls-grpc-listener", addr, "--tls-grpc-insecure", "--passphrase", "sesame")
	drivertest.Until(t, "an exporter", func() bool { return strings.Contains(log.String(), "serving") })
	modes := map[string][]string{
		"direct": {"--tls-grpc", addr, "--tls-grpc-insecure", "--passphrase", "sesame"},
		"local":  {"--exporter-config", config},
	}
	for mode, args := range modes {
		run := func(command ...string) result {
			t.Helper()
			got, _ := shellIn(t.Context(), t, strings.NewReader("echo said; exit 4\n"), slices.Concat(args, command)...)
			return got
		}
		if got := run("--", "j", "power", "read"); got.status != 0 || got.stdout != readings || got.stderr != "" {
			t.Errorf("%s: j power read = %d, %q, %q; want the readings", mode, got.status, got.stdout, got.stderr)
		}
		if got := run("j", "power", "bogus"); got.status != 1 || !strings.Contains(got.stderr, "No such command 'bogus'.") {
			t.Errorf("%s: j power bogus = %d, %q; want 1 and why", mode, got.status, got.stderr)
		}
		got := run("--", "sh", "-c", `echo $JUMPSTARTER_HOST,$JMP_DRIVERS_ALLOW,$JMP_GRPC_INSECURE,$JMP_GRPC_PASSPHRASE,$JMP_EXPORTER,$JMP_LEASE,$_JMP_SUPPRESS_DRIVER_WARNINGS; exit 7`)
		want := addr + ",UNSAFE,1,sesame,direct,direct,1\n"
		if mode == "local" {
			host, _, _ := strings.Cut(got.stdout, ",")
			want = host + ",UNSAFE,,,,,1\n"
			if filepath.Base(host) != "socket" || !strings.HasPrefix(filepath.Base(filepath.Dir(host)), "jumplead-shell-") {
				t.Errorf("local: JUMPSTARTER_HOST=%s; want a socket in a folder of its own", host)
			}
		}
		if got.status != 7 || got.stdout != want {
			t.Errorf("%s: the command = %d, %q, %q; want 7, %q", mode, got.status, got.stdout, got.stderr, want)
		}
		if got := run("--", "sh", "-c", "kill -TERM $$"); got.status != 128+15 {
			t.Errorf("%s: a command that a signal ends = %d; want %d", mode, got.status, 128+15)
		}
		if got := run("no-such-program"); got.status != 127 || !strings.Contains(got.stderr, "no-such-program") {
			t.Errorf("%s: a program that is not there = %d, %q; want 127 and its name", mode, got.status, got.stderr)
		}
		if got := run(config); got.status != 126 {
			t.Errorf("%s: a file that is no program = %d, %q; want 126", mode, got.status, got.stderr)
		}
		if got := run(); got.status != 4 || got.stdout != "Welcome to the bench\nsaid\n" {
			t.Errorf("%s: the shell = %d, %q, %q; want 4, the message of the day and what it said", mode, got.status, got.stdout, got.stderr)
		}
		if got := run("--exporter-logs", "--", "sh", "-c", "j power on; sleep 0.2"); got.status != 0 || !strings.Contains(got.stderr, "power on") {
			t.Errorf("%s: with --exporter-logs stderr = %q; want power on in it", mode, got.stderr)
		}
	}
	got, _ := shellIn(t.Context(), t, nil, "--tls-grpc", addr, "--tls-grpc-insecure", "--passphrase", "wrong", "true")
	if got.status != 1 || !strings.Contains(got.stderr, "invalid or missing passphrase") {
		t.Errorf("shell with a wrong passphrase = %d, %q; want 1 and why", got.status, got.stderr)
	}
}

// A shell that is told to end ends with its own status.
func TestShellEnds(t *testing.T) {
	config, up := file(t, "bench.yaml", small), filepath.Join(t.TempDir(), "up")
	for script, want := range map[string]int{
		"trap 'exit 3' TERM; : >$0; while :; do sleep 0.05; done": 3,
		": >$0; exec sleep 60": 128 + 15,
	} {
		os.Remove(up)
		ctx, cancel := context.WithCancel(t.Context())
		var waited sync.WaitGroup
		waited.Go(func() {
			drivertest.Until(t, "the script", func() bool { _, err := os.Stat(up); return err == nil })
			cancel()
		})
		began := time.Now()
		got, _ := shellIn(ctx, t, nil, "--exporter-config", config, "--", "sh", "-c", script, up)
		waited.Wait()
		if got.status != want {
			t.Errorf("%s, ended = %d, %q; want %d, its own status", script, got.status, got.stderr, want)
		}
		if d := time.Since(began); d > 4*time.Second {
			t.Errorf("it took %v; want less than the 5 s after which it is killed", d)
		}
	}
}

// A console passes on all that is typed, raw, and ends with three ctrl-Bs. The
// terminal is as before then.
func TestJConsole(t *testing.T) {
	b := newBench(t)
	for _, end := range []string{"ctrl-B", "interrupt"} {
		master, slave, err := pty.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer master.Close()
		defer slave.Close()
		before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		before.Lflag |= unix.ECHO | unix.ICANON | unix.ISIG
		before.Iflag |= unix.ICRNL
		if err := unix.IoctlSetTermios(int(slave.Fd()), unix.TCSETS, before); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan result, 1)
		go func() {
			var stderr bytes.Buffer
			status := app.Main(ctx, app.Proc{
				Args: []string{"j", "serial", "start-console"}, Env: b.env, Commands: all.Commands(), Stdin: slave, Stdout: slave, Stderr: &stderr,
			}, all.Specs()...)
			done <- result{status, "", stderr.String()}
		}()
		raw := func() bool {
			now, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
			return err == nil && now.Lflag&(unix.ECHO|unix.ICANON|unix.ISIG) == 0
		}
		drivertest.Until(t, "a raw terminal", raw)
		var seen buffer
		go io.Copy(&seen, master)
		master.Write([]byte("a\x02\x02b\x03\x04\r"))
		drivertest.Until(t, "what was typed, from the loop", func() bool { return strings.Contains(seen.String(), "a\x02\x02b\x03\x04\r") })
		want := 0
		if end == "ctrl-B" {
			master.Write([]byte("\x02\x02\x02"))
		} else {
			want = 2
			cancel()
		}
		got := <-done
		cancel()
		if got.status != want || got.stderr != "" {
			t.Errorf("console ended by %s = %d, %q; want %d", end, got.status, got.stderr, want)
		}
		after, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
		if err != nil || *after != *before {
			t.Errorf("terminal after %s = %+v, %v; want %+v", end, after, err, before)
		}
	}
}

// Signals to the program are the shell's, and its status is the program's.
func TestShellSignals(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	config := file(t, "bench.yaml", small)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT} {
		dir, err := os.MkdirTemp("", "x-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		up := filepath.Join(t.TempDir(), "up")
		cmd := exec.Command(self, "shell", "--exporter-config", config, "--", "sh", "-c", "trap 'j power off && exit 5' "+strconv.Itoa(int(sig))+"; : >$0; while :; do sleep 0.05; done", up)
		cmd.Args[0] = "jumplead"
		cmd.Env = []string{asProgram + "=1", "XDG_RUNTIME_DIR=" + dir, "PATH=" + os.Getenv("PATH"), "GORACE=atexit_sleep_ms=0"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal that sends signals to all
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		drivertest.Until(t, "the script", func() bool { _, err := os.Stat(up); return err == nil })
		cmd.Process.Signal(sig)
		cmd.Wait()
		if got := cmd.ProcessState.ExitCode(); got != 5 {
			t.Errorf("shell after %v = %d, %q; want 5, its own status", sig, got, &said)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("after %v there is left %v, %v; want nothing", sig, left, err)
		}
	}
}

// What a shell that was killed has left goes with the next one, but not as long as
// its programs run, which have their j there.
func TestShellKilled(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	config, tmp := file(t, "bench.yaml", small), t.TempDir()
	env := []string{asProgram + "=1", "XDG_RUNTIME_DIR=" + tmp, "TMPDIR=" + tmp, "PATH=" + os.Getenv("PATH"), "GORACE=atexit_sleep_ms=0"}
	again := func() int { // how many folders there are after another shell
		t.Helper()
		cmd := exec.Command(self, "shell", "--exporter-config", config, "--", "true")
		cmd.Args[0], cmd.Env = "jumplead", env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("shell = %v, %s; want nil", err, out)
		}
		left, err := os.ReadDir(tmp)
		if err != nil {
			t.Fatal(err)
		}
		return len(left)
	}
	up := filepath.Join(t.TempDir(), "up")
	cmd := exec.Command(self, "shell", "--exporter-config", config, "--", "sh", "-c", ": >$0; read x", up)
	cmd.Args[0], cmd.Env = "jumplead", env
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	drivertest.Until(t, "the script", func() bool { _, err := os.Stat(up); return err == nil })
	if n := again(); n != 1 {
		t.Errorf("beside a shell there are %d folders after another one; want its own", n)
	}
	cmd.Process.Kill()
	cmd.Process.Wait()
	if n := again(); n != 1 {
		t.Errorf("with a program of a shell that was killed there are %d folders after the next shell; want the program's", n)
	}
	stdin.Close()
	drivertest.Until(t, "the folder is gone", func() bool { return again() == 0 })
}
