//go:build !ppc64 && !ppc64le

package main

import (
	"bufio"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jumplead/jumplead/hw/hwtest"
)

// asCommand makes the test's own program be virtualdut.
const asCommand = "VIRTUALDUT_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// command starts virtualdut in dir and waits until it is ready.
func command(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "--dir", dir, "--on")
	cmd.Env = append(os.Environ(), asCommand+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.HasPrefix(line, "ready {") {
		t.Fatalf("standard output has %q, %v; want a ready line", line, err)
	}
	return cmd
}

// TestSignals ends the command as users and service managers do, in a directory in which another one has been killed.
func TestSignals(t *testing.T) {
	hwtest.Need(t, hwtest.PTY)
	dir := t.TempDir()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL, syscall.SIGINT, syscall.SIGKILL, syscall.SIGHUP, syscall.SIGQUIT} {
		cmd := command(t, dir)
		conn, err := net.Dial("unix", filepath.Join(dir, "control.sock"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		err = cmd.Wait()
		var exit *exec.ExitError
		if sig == syscall.SIGKILL {
			if !errors.As(err, &exit) || exit.Success() {
				t.Errorf("after %v: Wait() = %v; want killed", sig, err)
			}
			continue
		}
		left, _ := os.ReadDir(dir)
		if err != nil || len(left) > 0 {
			t.Errorf("after %v: Wait() = %v, the directory has %v; want nil and nothing", sig, err, left)
		}
	}
}
