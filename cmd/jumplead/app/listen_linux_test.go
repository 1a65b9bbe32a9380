package app_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/exporter/client"
)

// The socket of an exporter that was killed goes to one of those that are started
// in its place. The others say who has it.
func TestListenKilled(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	config, dir := file(t, "bench.yaml", small), t.TempDir()
	socket := filepath.Join(dir, "socket")
	type running struct {
		*exec.Cmd
		said  buffer
		ended chan struct{}
	}
	start := func() *running {
		r := &running{Cmd: exec.Command(self, "run", "--exporter-config", config, "--listen", "unix:"+socket), ended: make(chan struct{})}
		r.Args[0], r.Stderr = "jumplead", &r.said
		r.Env = []string{asProgram + "=1", "PATH=" + os.Getenv("PATH"), "GORACE=atexit_sleep_ms=0"}
		if err := r.Start(); err != nil {
			t.Fatal(err)
		}
		go func() {
			defer close(r.ended)
			_ = r.Wait()
		}()
		t.Cleanup(func() {
			_ = r.Process.Kill()
			<-r.ended
		})
		return r
	}
	serves := func(r *running) bool { return strings.Contains(r.said.String(), "serving") }
	ended := func(r *running) bool {
		select {
		case <-r.ended:
			return true
		default:
			return false
		}
	}

	killed := start()
	drivertest.Until(t, "an exporter", func() bool { return serves(killed) })
	_ = killed.Process.Kill()
	<-killed.ended
	if _, err := os.Lstat(socket); err != nil {
		t.Fatalf("Lstat() of the socket of an exporter that was killed = %v; want it left, or this tests nothing", err)
	}
	var all []*running
	for range 4 {
		all = append(all, start())
	}
	drivertest.Until(t, "all have decided", func() bool {
		for _, r := range all {
			if !serves(r) && !ended(r) {
				return false
			}
		}
		return true
	})
	var one *running
	for _, r := range all {
		if serves(r) && one != nil {
			t.Fatalf("two exporters serve one socket: %s and %s", one.said.String(), r.said.String())
		}
		if serves(r) {
			one = r
		}
	}
	if one == nil {
		t.Fatalf("nobody serves: %s", all[0].said.String())
	}
	for _, r := range all {
		if want := fmt.Sprintf("process %d (", one.Process.Pid); r != one && (r.ProcessState.ExitCode() != 1 || !strings.Contains(r.said.String(), want)) {
			t.Errorf("another exporter = %d, %q; want 1 and %q", r.ProcessState.ExitCode(), r.said.String(), want)
		}
	}
	c, err := client.Dial(t.Context(), "unix:"+socket, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	_ = one.Process.Signal(os.Interrupt)
	<-one.ended
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("there is left %v, %v; want nothing", left, err)
	}
}
