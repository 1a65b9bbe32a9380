package app_test

import (
	"context"
	"strings"
	"testing"
	"time"

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
