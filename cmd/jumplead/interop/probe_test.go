package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestHostedProbe reads what check --probe says of nodes that Python runs: their
// drivers are imported, and nothing of theirs is touched.
func TestHostedProbe(t *testing.T) {
	needPython(t)
	f, err := jumplead()
	if err != nil {
		t.Fatal(err)
	}
	const head = "apiVersion: jumpstarter.dev/v1alpha1\nkind: ExporterConfig\nmetadata: {namespace: lab, name: hosted}\nexport:\n"
	for _, c := range []struct {
		nodes  string
		status int
		want   []string
	}{
		{"  native: {type: jumpstarter_driver_power.driver.MockPower}\n  gadget: {type: lab_gadget.Gadget}\n", 0,
			[]string{"good: 2 nodes; hardware: 1 ok", "ok         gadget: Python imports its driver, which alone knows what it needs"}},
		{"  gadget: {type: lab_gadget.Gadget}\n  x: {type: lab_exit.X}\n", 1,
			[]string{"not good: 2 nodes, 1 warning; hardware: 1 ok, 1 wrong", "wrong      x: lab_exit.X cannot be imported by", "this module ends whoever imports it"}},
		{"  x: {type: jumpstarter_driver_nowhere.driver.X}\n", 1,
			[]string{"1 error; hardware: not looked for", "pip install jumpstarter-driver-nowhere"}},
	} {
		path := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, []byte(head+c.nodes), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(f.program, "check", "--probe", path)
		cmd.Env = hostedEnvironment(t)
		out, _ := cmd.CombinedOutput() // how it ended is checked
		if code := cmd.ProcessState.ExitCode(); code != c.status {
			t.Errorf("exit status = %d; want %d:\n%s", code, c.status, out)
		}
		for _, want := range c.want {
			if !strings.Contains(string(out), want) {
				t.Errorf("check --probe says\n%s\nwant %q in it", out, want)
			}
		}
	}
}
