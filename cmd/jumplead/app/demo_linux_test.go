package app_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/cmd/jumplead/app"
	"github.com/jumplead/jumplead/cmd/virtualdut/dut"
	"github.com/jumplead/jumplead/drivers/all"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/power"
	"github.com/jumplead/jumplead/drivers/storage"
	"github.com/jumplead/jumplead/exporter/client"
	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/hwtest"
	"github.com/jumplead/jumplead/hw/serial"
	"github.com/jumplead/jumplead/hw/serial/pty"
)

func TestDemoUsage(t *testing.T) {
	hwtest.Need(t, hwtest.PTY)
	dir := t.TempDir()
	d, err := dut.Start(dut.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, test := range []struct {
		args   string
		status int
		want   string // in what the program says
	}{
		{"demo --help", 0, "Usage: jumplead demo"},
		{"demo extra", 2, "unexpected extra argument (extra)"},
		{"demo --listen x", 2, `"x" is not [HOST:]PORT`},
		{"demo --listen 1234", 2, "--listen 1234: other machines can reach that"},
		{"demo --listen example.com:1234", 2, "--listen example.com:1234: other machines can reach that"},
		{"demo --dut " + dir, 2, "no request is given"},
		{"demo --dut " + dir + " fly", 1, `fly: unknown request "fly": want on, off`},
		{"demo --dut " + dir + "/none read", 1, "is a virtual DUT running in " + dir + "/none?"},
		{"demo --dut " + dir + " unplug uart", 0, "rail off (off, 0.000 V, 0.000 A), card dut, console unplugged\n"},
	} {
		got := jumplead(t.Context(), nil, strings.Fields(test.args)...)
		if said := got.stdout + got.stderr; got.status != test.status || !strings.Contains(said, test.want) {
			t.Errorf("jumplead %s = %d, %q; want %d, %q", test.args, got.status, said, test.status, test.want)
		}
	}
}

// TestDemo serves a demo and ends it.
func TestDemo(t *testing.T) {
	hwtest.Need(t, hwtest.PTY)
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	taken := jumplead(t.Context(), nil, "demo", "--listen", addr)
	if taken.status != 1 || !strings.Contains(taken.stderr, "address already in use") || taken.stdout != "" {
		t.Errorf("demo on a port that is taken = %+v; want status 1, and nothing to try", taken)
	}
	ln.Close()

	t.Setenv(asProgram, "1")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr buffer
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	status := make(chan int, 1)
	go func() {
		status <- app.Main(ctx, app.Proc{
			Args: []string{"jumplead", "demo", "--listen", addr, "--passphrase", "secret", "--boot-time", "0"}, Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr,
			Executable: self,
		}, all.Specs()...)
	}()
	drivertest.Until(t, "the demo is served", func() bool { return strings.Contains(stdout.String(), "Ctrl-C ends the demo") })
	for _, want := range []string{"shell --tls-grpc " + addr + " --tls-grpc-insecure --passphrase ...\n", "j power on"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("demo says %q; want %q in it", stdout.String(), want)
		}
	}
	c, err := client.Dial(ctx, addr, client.Options{Passphrase: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	find := func(path string) driver.Offerer {
		n, err := c.Find(path)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if err := (storage.MuxFlasher{Mux: storage.NewMuxClient(find("dut.storage"))}).Flash(ctx, strings.NewReader("my image"), ""); err != nil {
		t.Errorf("Flash() = %v; want nil", err)
	}
	if err := power.NewClient(find("dut.power")).On(ctx); err != nil {
		t.Errorf("On() = %v; want nil", err)
	}
	var page string
	drivertest.Until(t, "the web page is up", func() bool {
		s, err := find("tcp").Stream(ctx, "connect")
		if err != nil {
			return false
		}
		defer s.Close()
		fmt.Fprintf(s, "GET / HTTP/1.0\r\n\r\n")
		b, err := io.ReadAll(s)
		page = string(b)
		return err == nil
	})
	if want := `booted: image "my image", 8 bytes`; !strings.Contains(page, want) {
		t.Errorf("the web page is %q; want %q in it", page, want)
	}
	cancel()
	if got := <-status; got != 0 {
		t.Errorf("demo = %d, %q; want 0", got, stderr.String())
	}
	if left, _ := filepath.Glob(tmp + "/*"); len(left) > 0 {
		t.Errorf("%v are left; want nothing", left)
	}
	if _, err := os.Stat(tmp); err != nil {
		t.Error(err)
	}
}

// TestDemoKilled kills a demo, which then cannot tidy up: the next one does.
func TestDemoKilled(t *testing.T) {
	hwtest.Need(t, hwtest.PTY)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	demo := func() *exec.Cmd {
		t.Helper()
		var said buffer
		cmd := exec.Command(self, "demo", "--listen", port(t))
		cmd.Args[0], cmd.Stdout, cmd.Stderr = "jumplead", &said, &said
		cmd.Env = []string{asProgram + "=1", "TMPDIR=" + tmp, "PATH=" + os.Getenv("PATH"), "GORACE=atexit_sleep_ms=0"}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill() })
		drivertest.Until(t, "the demo is served", func() bool { return strings.Contains(said.String(), "Ctrl-C ends the demo") })
		return cmd
	}
	folders := func() int {
		left, err := filepath.Glob(tmp + "/jumplead-demo-*")
		if err != nil {
			t.Fatal(err)
		}
		return len(left)
	}
	killed := demo()
	killed.Process.Kill()
	killed.Wait()
	if n := folders(); n != 1 {
		t.Fatalf("a demo that was killed has left %d folders; want 1, or this tests nothing", n)
	}
	live := demo()
	if n := folders(); n != 1 {
		t.Errorf("there are %d folders with the next demo; want its own", n)
	}
	other := demo()
	if n := folders(); n != 2 {
		t.Errorf("there are %d folders of two demos; want 2", n)
	}
	for _, cmd := range []*exec.Cmd{other, live} {
		cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Errorf("a demo that is interrupted = %v; want status 0", err)
		}
	}
	if left, _ := filepath.Glob(tmp + "/*"); len(left) > 0 {
		t.Errorf("%v are left; want nothing", left)
	}
}

// TestTour takes the tour, on a terminal as a user would.
func TestTour(t *testing.T) {
	hwtest.Need(t, hwtest.PTY)
	drivertest.NoLeaks(t)
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	t.Setenv(asProgram, "1")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	screen, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer screen.Close()
	var shown, stderr buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		io.Copy(&shown, screen)
	}()
	proc := app.Proc{
		Args: []string{"jumplead", "demo", "--tour"}, Env: os.Environ(), Stdin: strings.NewReader(""), Stdout: tty, Stderr: &stderr,
		Host: hw.Host{Serial: serial.Bus{}}, Commands: all.Commands(), Executable: self,
	}
	status := app.Main(t.Context(), proc, all.Specs()...)
	tty.Close()
	<-read
	if status != 0 || stderr.String() != "" {
		t.Fatalf("demo --tour = %d, %s; want 0 and no complaints; it shows\n%s", status, stderr.String(), shown.String())
	}
	text := shown.String()
	for _, want := range []string{
		"beforeLease] The bench is brought into a known state",
		"console | vboot: starting, factory firmware 1.0\n",
		"flash 100% [####################] 67.1 MB/67.1 MB ",
		`console | vboot: card: image "an image for the tour", 67108864 bytes, sha256 `,
		"\n$ curl http://127.0.0.1:", "\nphase: up\nbooted: image ",
		"console | Error: ", "is the device plugged in?", "console plugged",
		"console | image\n  console | image \"an image for the tour\"",
		"afterLease] The DUT is switched off",
	} {
		_, after, ok := strings.Cut(text, want)
		if !ok {
			t.Fatalf("the tour does not show %q, or not in this place; it shows\n%s", want, shown.String())
		}
		text = after
	}
	if left, _ := filepath.Glob(tmp + "/*"); len(left) > 0 {
		t.Errorf("%v are left; want nothing", left)
	}
}

// TestTourFails takes the tour where there is nobody to show it.
func TestTourFails(t *testing.T) {
	hwtest.Need(t, hwtest.PTY)
	drivertest.NoLeaks(t)
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	got := jumplead(t.Context(), nil, "demo", "--tour") // which has no commands of drivers
	if got.status != 1 || !strings.Contains(got.stderr, "Error: j ") || !strings.Contains(got.stderr, "The log of the exporter:") {
		t.Errorf("demo --tour without commands = %d, %s; want 1, what failed and the log", got.status, got.stderr)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := jumplead(ctx, nil, "demo", "--tour"); got.status == 0 && strings.Contains(got.stdout, "That was all") {
		t.Errorf("demo --tour that is interrupted = %+v; want no success", got)
	}
	if left, _ := filepath.Glob(tmp + "/*"); len(left) > 0 {
		t.Errorf("%v are left; want nothing", left)
	}
}
