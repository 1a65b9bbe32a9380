package app_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jumplead/jumplead/cmd/jumplead/app"
	"github.com/jumplead/jumplead/drivers/all"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/exporter/client"
	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/process"
)

// A config whose limits this machine cannot keep is not run, and check says so:
// where the harness is another machine, it may be fine.
func TestUnkeptLimits(t *testing.T) {
	path := file(t, "bench.yaml", `apiVersion: jumpstarter.dev/v1alpha1
kind: ExporterConfig
metadata: {namespace: lab, name: bench}
export:
  shell:
    type: jumpstarter_driver_shell.driver.Shell
    config: {methods: {hello: echo hello}}
  power: {type: jumpstarter_driver_power.driver.MockPower}
x-jumplead:
  nodes:
    shell: {limits: {cpu: 50%}}
`)
	_, unkept := process.Keeps(hw.Limits{CPU: 50}, "")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	checked := jumplead(ctx, nil, "check", path)
	if unkept == nil {
		if checked.status != 0 || strings.Contains(checked.stdout, "warning") {
			t.Errorf("check = %d, %s; want no warning: the limit can be kept", checked.status, checked.stdout)
		}
		return
	}
	const want = ":11:21: %sshell: limits: cpu 50% cannot be kept: "
	if warning := path + strings.Replace(want, "%s", "warning: ", 1); checked.status != 0 || !strings.Contains(checked.stdout, warning) {
		t.Errorf("check = %d, %s; want %q", checked.status, checked.stdout, warning)
	}
	ran := jumplead(ctx, nil, "run", "--exporter-config", path, "--tls-grpc-listener", port(t), "--tls-grpc-insecure")
	if mistake := path + strings.Replace(want, "%s", "", 1); ran.status != 1 || !strings.Contains(ran.stderr, mistake) {
		t.Errorf("run = %d, %s; want 1 and %q", ran.status, ran.stderr, mistake)
	}
}

// Nor is it put in place of one that runs.
func TestReloadUnkeptLimits(t *testing.T) {
	const plain = `apiVersion: jumpstarter.dev/v1alpha1
kind: ExporterConfig
metadata: {namespace: lab, name: bench}
export:
  shell:
    type: jumpstarter_driver_shell.driver.Shell
    config: {methods: {hello: echo hello}}
`
	_, unkept := process.Keeps(hw.Limits{CPU: 50}, "")
	path, socket := file(t, "bench.yaml", plain), filepath.Join(t.TempDir(), "socket")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var stderr buffer
	done := make(chan int, 1)
	go func() {
		done <- app.Main(ctx, app.Proc{Args: []string{"jumplead", "run", "--exporter-config", path, "--listen", "unix:" + socket},
			Stdout: io.Discard, Stderr: &stderr, Signals: true}, all.Specs()...)
	}()
	drivertest.Until(t, "it serves", func() bool { return strings.Contains(stderr.String(), "serving") })
	if err := os.WriteFile(path, []byte(plain+"x-jumplead: {limits: {cpu: 50%}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	drivertest.Until(t, "it has reloaded", func() bool { return strings.Contains(stderr.String(), "reloaded") })
	refused := strings.Contains(stderr.String(), "the config was not reloaded") && strings.Contains(stderr.String(), "shell: limits: cpu 50% cannot be kept")
	if refused != (unkept != nil) {
		t.Errorf("log = %s\nwant it refused: %t, as %v", stderr.String(), unkept != nil, unkept)
	}
	c, err := dial(t, socket, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	n, err := c.Find("shell")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Call(ctx, "get_methods"); err != nil {
		t.Errorf("get_methods() afterwards = %v; want nil", err)
	}
	cancel()
	if got := <-done; got != 0 {
		t.Errorf("run = %d; want 0", got)
	}
}
