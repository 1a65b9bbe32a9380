package app_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/cmd/jumplead/app"
	"github.com/jumplead/jumplead/drivers/all"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/hwtest"
	"github.com/jumplead/jumplead/hw/i2c/i2ctest"
	"github.com/jumplead/jumplead/hw/serial/serialtest"
)

// stuck is a driver whose hardware does not answer.
var stuck = driver.Define(driver.Spec{Type: "lab.Stuck", Contract: driver.Contract{Name: "lab", Client: "lab.Client"}},
	func(context.Context, *driver.Env, stuckConfig) (driver.Driver, error) { return driver.Driver{}, nil })

type stuckConfig struct{}

func (*stuckConfig) Probe(context.Context, *driver.Env) (string, error) { panic("no such register") }

// amiss is a model of a board on which something of everything is amiss.
func amiss(t *testing.T) hw.Host {
	host, board := hwtest.Host()
	host.Names = hw.Names{
		Board: "rpi4", Chips: map[string]string{"gpiochip900": "pinctrl-bcm2711"},
		Lines: map[string]hw.LineRef{"GPIO17": {Chip: "pinctrl-bcm2711", Offset: 17}},
		Pins:  map[int]string{1: "3V3", 11: "GPIO17"},
	}
	chip := board.GPIO.Add("gpiochip900", "pinctrl-bcm2711", 58, "ID_SDA", "ID_SCL", "SDA1", "SCL1")
	if _, err := chip.Request(4, hw.LineOptions{Consumer: "onewire@0"}); err != nil {
		t.Fatal(err)
	}
	board.GPIO.Add("gpiochip901", "private", 8)
	board.GPIO.Forbid("gpiochip901")
	board.Serial.Plug("/dev/ttyUSB0", &serialtest.UART{})
	board.Serial.Plug("/dev/ttyUSB1", &serialtest.UART{})
	if _, err := host.OpenSerial(t.Context(), "/dev/ttyUSB1", hw.SerialOptions{Baud: 9600}); err != nil {
		t.Fatal(err)
	}
	board.Serial.Plug("/dev/ttyS0", &serialtest.UART{})
	board.Serial.Forbid("/dev/ttyS0", true)
	board.Serial.Put("/dev/null")
	board.I2C.Add(1)
	board.I2C.Plug(1, 0x40, i2ctest.NewINA(226, 0.1))
	board.I2C.Plug(1, 0x41, i2ctest.NewINA(219, 0.1))
	return host
}

// probe runs check --probe on a config.
func probe(t *testing.T, host hw.Host, config string, args ...string) (int, string) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile("config.yaml", []byte(config), 0o666); err != nil {
		t.Fatal(err)
	}
	var out, stderr buffer
	status := app.Main(t.Context(), app.Proc{Args: append(append([]string{"jumplead", "check", "--probe"}, args...), "config.yaml"),
		Env: []string{"JUMPLEAD_PYTHON=/nowhere/python"}, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &stderr, Host: host},
		append(all.Specs(), stuck)...)
	if s := stderr.String(); s != "" {
		t.Errorf("check --probe says on stderr %q; want nothing", s)
	}
	return status, out.String()
}

// TestProbe holds what check --probe prints against the want sections of its
// corpus, and what it says to programs against that.
func TestProbe(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere/bus")
	for _, path := range corpus(t, "testdata/probe", 3) {
		t.Run(base(path), func(t *testing.T) {
			a := readArchive(t, path)
			status, got := probe(t, amiss(t), a.files["config.yaml"])
			if want := map[bool]int{true: 0, false: 1}[base(path) == "good"]; status != want {
				t.Errorf("check --probe = %d; want %d", status, want)
			}
			a.golden(t, "want", got)
			if *update {
				a.write(t, path)
			}
			_, text := probe(t, amiss(t), a.files["config.yaml"], "--json")
			var out struct {
				Files []struct {
					OK, Probed bool
					Missing    int
					Nodes      []struct {
						Path     string
						Hardware *struct{ Status, Text string }
					}
				}
			}
			if err := json.Unmarshal([]byte(text), &out); err != nil || len(out.Files) != 1 {
				t.Fatalf("--json prints %s (%v); want one file", text, err)
			}
			f, missing := out.Files[0], 0
			for _, n := range f.Nodes {
				if h := n.Hardware; h != nil {
					if !strings.Contains(got, h.Status) || !strings.Contains(got, n.Path+": "+h.Text+"\n") {
						t.Errorf("--json has %s %s: %s; want what is printed", h.Status, n.Path, h.Text)
					}
					if h.Status != "ok" {
						missing++
					}
				}
			}
			if f.OK != (status == 0) || f.Missing != missing {
				t.Errorf("--json has ok = %t, missing = %d; want %t, %d", f.OK, f.Missing, status == 0, missing)
			}
		})
	}
}

func TestProbeElsewhere(t *testing.T) {
	var out, stderr buffer
	status := app.Main(t.Context(), app.Proc{Args: []string{"jumplead", "check", "--probe", "--board", "rpi4", "x"}, Stdout: &out, Stderr: &stderr}, all.Specs()...)
	if status != 2 || !strings.Contains(stderr.String(), "--board speaks of another one") {
		t.Errorf("check --probe --board = %d, %s; want 2, and why", status, stderr.String())
	}
}

// What run says at the start of a session is what --probe says.
func TestProbeFolder(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for root, want := range map[string]string{
		dir:                           "ok         files: " + dir + "\n",
		filepath.Join(dir, "new/one"): "ok         files: " + filepath.Join(dir, "new/one") + ", which a session will make in " + dir + "\n",
		file:                          "wrong      files: open " + file + ": not a directory\n",
	} {
		_, got := probe(t, hw.Host{}, head+"  files:\n    type: jumpstarter_driver_opendal.driver.Opendal\n    config: {scheme: fs, kwargs: {root: "+root+"}}\n")
		if !strings.Contains(got, want) {
			t.Errorf("check --probe prints %s; want %s", got, want)
		}
	}
}

const head = `apiVersion: jumpstarter.dev/v1alpha1
kind: ExporterConfig
metadata: {namespace: default, name: bench}
endpoint: ""
token: ""
export:
`
