//go:build unix

package app_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jumplead/jumplead/cmd/jumplead/app"
	"github.com/jumplead/jumplead/drivers/all"
	"github.com/jumplead/jumplead/exporter/client"
)

// USR1 has the config read anew, and the service manager is told what came of it.
func TestReload(t *testing.T) {
	notify := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	expect := func(want string) {
		t.Helper()
		b := make([]byte, 4096)
		n, err := c.Read(b)
		if err != nil {
			t.Fatal("waiting for a notification:", err)
		}
		if got := string(b[:n]); got != want {
			t.Errorf("notification = %q; want %q", got, want)
		}
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stdout, stderr buffer
	config, socket := file(t, "bench.yaml", small), filepath.Join(t.TempDir(), "socket")
	done := make(chan int, 1)
	go func() {
		done <- app.Main(ctx, app.Proc{
			Args: []string{"jumplead", "run", "--exporter-config", config, "--listen", "unix:" + socket},
			Env:  []string{"NOTIFY_SOCKET=" + notify}, Stdout: &stdout, Stderr: &stderr, Signals: true,
		}, all.Specs()...)
	}()
	serving := "READY=1\nSTATUS=serving bench on " + socket
	expect(serving)

	reload := func(text string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		expect("RELOADING=1\nSTATUS=reading the config anew")
	}
	says := func(want string) {
		t.Helper()
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("log = %s\nwant it to say: %s", stderr.String(), want)
		}
	}
	other := strings.ReplaceAll(small, "power:", "supply:")

	reload(small + "  oops: {type: jumpstarter_driver_power.driver.MockPowr}\n")
	expect(serving + "; the config has mistakes, and was not reloaded")
	says(`did you mean \"jumpstarter_driver_power.driver.MockPower\"`)
	reload("export: [")
	expect(serving + "; the config has mistakes, and was not reloaded")

	cl, err := dial(t, socket, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	n, err := cl.Find("power")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Call(t.Context(), "on"); err != nil {
		t.Errorf("on() after refused reloads = %v; want nil", err)
	}

	reload(strings.ReplaceAll(other, "name: bench", "name: couch"))
	expect(serving)
	says(`"added":"supply","changed":"","removed":"power"`)
	says("the exporter keeps its name until it is started again")
	if _, err := n.Call(t.Context(), "on"); err == nil || !strings.Contains(err.Error(), "read the report again") {
		t.Errorf("on() of a node that is gone = %v; want what to do", err)
	}
	if err := cl.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err = cl.Find("supply"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Call(t.Context(), "on"); err != nil {
		t.Errorf("on() of a node that is new = %v; want nil", err)
	}

	cancel()
	expect("STOPPING=1\nSTATUS=stopping")
	if got := <-done; got != 0 {
		t.Errorf("run = %d, %s; want 0", got, stderr.String())
	}
}
