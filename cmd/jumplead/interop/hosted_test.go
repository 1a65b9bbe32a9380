package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/client"
)

// hostedConfig is a harness that is half native, half hosted.
const hostedConfig = `apiVersion: jumpstarter.dev/v1alpha1
kind: ExporterConfig
metadata: {namespace: lab, name: hosted}
export:
  dut:
    children:
      power: {type: jumpstarter_driver_power.driver.SyncMockPower}
      native: {type: jumpstarter_driver_power.driver.MockPower}
      gadget:
        type: lab_gadget.Gadget
        description: a driver of the lab's own
        config: {port: PORT, since: 2024-01-02, labels: {rack: b}}
        children:
          supply: {ref: dut.power}
      flasher: {type: jumpstarter_driver_opendal.driver.MockFlasher}
      serial: {type: jumpstarter_driver_pyserial.driver.PySerial, config: {url: "loop://"}}
      tcp: {type: jumpstarter_driver_network.driver.TcpNetwork, config: {host: 127.0.0.1, port: PORT}}
      late: {type: lab_slow.Gadget}
      ends: {type: lab_gadget.Exits}
  rail: {ref: dut.gadget.rail}
x-jumplead:
  hosted: [dut.flasher, dut.serial, dut.tcp]
`

// A hosting is a jumplead that hosts drivers.
type hosting struct {
	*process
	c       *client.Client
	address string
}

func hostedEnvironment(t *testing.T, more ...string) []string {
	t.Helper()
	drivers, err := filepath.Abs("testdata/hosted")
	if err != nil {
		t.Fatal(err)
	}
	return environment(append([]string{"PYTHONPATH=" + drivers, "JUMPLEAD_PYTHON=" + needPython(t).Bin("python")}, more...)...)
}

func host(t *testing.T, config string) *hosting {
	t.Helper()
	needPython(t)
	f, err := jumplead()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "hosted.yaml")
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	address := port(t)
	cmd := exec.Command(f.program, "--log-format", "text", "run", "--exporter-config", path, "--tls-grpc-listener", address, "--tls-grpc-insecure")
	cmd.Env = hostedEnvironment(t)
	p, err := start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	if err := p.ready(t.Context(), way{target: address}); err != nil {
		t.Fatal(err)
	}
	c, err := client.Dial(t.Context(), address, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &hosting{p, c, address}
}

func (h *hosting) find(t *testing.T, path string) *client.Node {
	t.Helper()
	n, err := h.c.Find(path)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (h *hosting) call(t *testing.T, path, method string, args ...any) any {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	v, err := h.find(t, path).Call(ctx, method, args...)
	if err != nil {
		t.Fatalf("%s: Call(%s) = %v; want nil\n%s", path, method, err, h.stderr.tail())
	}
	return v
}

// hosts lists the processes that drivers are hosted in.
func (h *hosting) hosts(t *testing.T) (pids []int) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", h.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		text, _ := os.ReadFile(task) // the thread may have ended
		for _, word := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(word)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// says waits until the log holds a text.
func (h *hosting) says(t *testing.T, text string) {
	t.Helper()
	until(t, fmt.Sprintf("the log has %q", text), func() bool { return strings.Contains(h.stderr.String(), text) })
}

// until polls a condition.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// echoPeer answers every connection with what it sends, and returns its port.
func echoPeer(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

// TestHosted runs stock drivers, and a lab's own, in Python beside native ones.
func TestHosted(t *testing.T) {
	h := host(t, strings.ReplaceAll(hostedConfig, "PORT", echoPeer(t)))
	// One of the drivers ends the process when it is made. The others come back.
	until(t, "the others are there", func() bool {
		for _, path := range []string{"dut.gadget", "dut.late"} {
			if _, err := h.find(t, path).Call(t.Context(), "state"); err != nil {
				return false
			}
		}
		return true
	})

	t.Run("tree", func(t *testing.T) {
		for path, class := range map[string]string{
			"dut.gadget": "lab_gadget_client.GadgetClient", "dut.gadget.rail": "jumpstarter_driver_power.client.PowerClient",
			"dut.gadget.supply": "jumpstarter_driver_power.client.PowerClient", "rail": "jumpstarter_driver_power.client.PowerClient",
			"dut.flasher": "jumpstarter_driver_opendal.client.FlasherClient", "dut.serial": "jumpstarter_driver_pyserial.client.PySerialClient",
			"dut.tcp": "jumpstarter_driver_network.client.NetworkClient", "dut.native": "jumpstarter_driver_power.client.PowerClient",
			"dut.late": "lab_gadget_client.GadgetClient", "dut.ends": "lab_gadget_client.GadgetClient",
		} {
			if n := h.find(t, path); n.Class != class {
				t.Errorf("%s: class = %s; want %s", path, n.Class, class)
			}
		}
		n := h.find(t, "dut.gadget")
		if n.Description != "a driver of the lab's own" || n.Labels["rack"] != "b" {
			t.Errorf("report = %+v; want the config's description and label", n)
		}
		if a, b := h.find(t, "rail"), h.find(t, "dut.gadget.rail"); a.UUID != b.UUID {
			t.Errorf("uuids of a ref and its target = %s, %s; want one", a.UUID, b.UUID)
		}
	})

	t.Run("calls", func(t *testing.T) {
		state := h.call(t, "dut.gadget", "state").(map[string]any)
		if state["since"] != "date" || state["resets"] != 1.0 {
			t.Errorf("state = %v; want one reset, and a date as Python reads it", state)
		}
		if got := h.call(t, "dut.gadget", "ask", "supply"); fmt.Sprint(got) != "[0 5]" {
			t.Errorf("readings of the supply, asked for by the gadget = %v; want [0 5]", got)
		}
		h.call(t, "rail", "on")
		var got []any
		for v, err := range h.find(t, "dut.gadget").Feed(t.Context(), "count", 3) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, v)
		}
		if fmt.Sprint(got) != "[0 1 2]" {
			t.Errorf("count = %v; want [0 1 2]", got)
		}
		for what, class := range map[string]driver.Class{"value": driver.Invalid, "timeout": driver.Timeout, "key": driver.Internal, "none": driver.Unsupported} {
			_, err := h.find(t, "dut.gadget").Call(t.Context(), "fail", what)
			if driver.Classify(err) != class || !strings.Contains(err.Error(), "it is "+what) {
				t.Errorf("fail(%s) = %v, %v; want %v", what, driver.Classify(err), err, class)
			}
		}
	})

	t.Run("streams", func(t *testing.T) {
		for _, path := range []string{"dut.gadget", "dut.tcp", "dut.serial"} {
			s, err := h.find(t, path).Stream(t.Context(), "connect")
			if err != nil {
				t.Fatalf("%s: Stream() = %v; want nil", path, err)
			}
			want := bytes.Repeat([]byte("0123456789"), 20_000)
			go func() { _, _ = s.Write(want) }()
			got := make([]byte, len(want))
			if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: what came back = %v; want what was sent", path, err)
			}
			s.Close()
		}
		if _, err := h.find(t, "dut.gadget").Stream(t.Context(), "nothing"); driver.Classify(err) != driver.NoMethod {
			t.Errorf("Stream(nothing) = %v; want no such method", err)
		}
	})

	t.Run("resources", func(t *testing.T) {
		n, data := h.find(t, "dut.gadget"), strings.Repeat("image", 300_000)
		var size any
		err := driver.Upload(t.Context(), n, strings.NewReader(data), func(ctx context.Context, handle driver.Handle) (err error) {
			size, err = n.Call(ctx, "size", handle)
			return err
		})
		if err != nil || size != float64(len(data)) {
			t.Errorf("Upload() = %v, %v bytes; want %d", err, size, len(data))
		}
		var back bytes.Buffer
		err = driver.Download(t.Context(), n, &back, func(ctx context.Context, handle driver.Handle) error {
			_, err := n.Call(ctx, "make", handle, 500)
			return err
		})
		if err != nil || back.Len() != 500_000 {
			t.Errorf("Download() = %v, %d bytes; want 500000", err, back.Len())
		}
	})

	t.Run("logs", func(t *testing.T) {
		h.call(t, "dut.gadget", "say", "héllo")
		h.says(t, "WARNING dut.gadget: héllo")
		h.says(t, "printed héllo")
		h.says(t, "complained héllo")
	})

	t.Run("slow import", func(t *testing.T) {
		if got := h.call(t, "dut.late", "state").(map[string]any)["resets"]; got != 1.0 {
			t.Errorf("resets = %v; want 1", got)
		}
	})

	t.Run("exits", func(t *testing.T) {
		_, err := h.find(t, "dut.ends").Call(t.Context(), "state")
		if driver.Classify(err) != driver.Unavailable || !strings.Contains(err.Error(), "ended with status 5: ") ||
			!strings.Contains(err.Error(), "no way") {
			t.Errorf("Call() = %v; want unavailable, and why", err)
		}
		until(t, "the others are back", func() bool {
			_, err := h.find(t, "dut.gadget").Call(t.Context(), "state")
			return err == nil
		})
	})

	t.Run("hangs", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		hung := make(chan error, 1)
		go func() { _, err := h.find(t, "dut.gadget").Call(ctx, "hang"); hung <- err }()
		for range 50 {
			began := time.Now()
			h.call(t, "dut.native", "on")
			if d := time.Since(began); d > time.Second {
				t.Errorf("a native call beside one that hangs took %v", d)
			}
		}
		h.call(t, "rail", "on")
		cancel()
		if err := <-hung; !errors.Is(err, context.Canceled) {
			t.Errorf("the call that hangs = %v; want canceled", err)
		}
	})

	t.Run("client gone", func(t *testing.T) {
		for range 5 {
			s, err := h.find(t, "dut.tcp").Stream(t.Context(), "connect")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = s.Write(make([]byte, 100_000))
			s.Close()
		}
		h.call(t, "dut.gadget", "state")
	})

	pids := h.hosts(t)
	if len(pids) != 1 {
		t.Errorf("processes of jumplead = %v; want one for all hosted drivers", pids)
	}
	if err := h.stop(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if !strings.Contains(h.stderr.String(), "gadget closed") {
		t.Errorf("the hosted driver was not closed:\n%s", h.stderr.tail())
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("process %d of hosted drivers outlives jumplead", pid)
		}
	}
}

// coldStart is how long it takes until drivers can be asked for in a fresh process.
func coldStart(t *testing.T, config string) time.Duration {
	t.Helper()
	f, err := jumplead()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(f.program, "check", "-")
	cmd.Env = hostedEnvironment(t)
	cmd.Stdin = strings.NewReader(config)
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("check = %v:\n%s", err, out)
	}
	return time.Since(began)
}

// TestHostedKilled kills the process of hosted drivers.
func TestHostedKilled(t *testing.T) {
	config := strings.ReplaceAll(hostedConfig, "PORT", echoPeer(t))
	for _, line := range []string{"late: {type: lab_slow.Gadget}", "ends: {type: lab_gadget.Exits}"} {
		config = strings.Replace(config, "      "+line+"\n", "", 1)
	}
	h := host(t, config)
	// How long Python takes to start, and to import and make the drivers that
	// come first, is what a fresh process of the same does.
	cold := coldStart(t, config)
	least := time.Hour
	for range 3 {
		pid := int(h.call(t, "dut.gadget", "state").(map[string]any)["pid"].(float64))
		left := int(h.call(t, "dut.gadget", "spawn").(float64))
		id := h.find(t, "dut.gadget.rail").UUID
		killed := time.Now()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		until(t, "the node says why it is gone", func() bool {
			_, err := h.find(t, "dut.gadget").Call(t.Context(), "state")
			return driver.Classify(err) == driver.Unavailable && strings.Contains(err.Error(), "was killed by signal 9")
		})
		h.call(t, "dut.native", "on")
		until(t, "it is back", func() bool {
			_, err := h.find(t, "dut.gadget").Call(t.Context(), "state")
			return err == nil
		})
		least = min(least, time.Since(killed))
		if err := h.c.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := h.find(t, "dut.gadget.rail").UUID; got != id {
			t.Errorf("uuid after a restart = %s; want %s", got, id)
		}
		until(t, "what the dead process had started is gone", func() bool {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", left))
			return err != nil || strings.Contains(string(text), ") Z")
		})
	}
	// The least of three: the machine may be busy with other tests.
	t.Logf("the least absence was %v, a cold start takes %v", least, cold)
	if limit := cold*3/2 + 500*time.Millisecond; least > limit {
		t.Errorf("the least absence was %v; want at most %v", least, limit)
	}
}

// TestHostedCheck reads what check says of hosted nodes.
func TestHostedCheck(t *testing.T) {
	needPython(t)
	f, err := jumplead()
	if err != nil {
		t.Fatal(err)
	}
	const head = "apiVersion: jumpstarter.dev/v1alpha1\nkind: ExporterConfig\nmetadata: {namespace: lab, name: hosted}\nexport:\n"
	for _, c := range []struct {
		name, nodes string
		env         []string
		status      int
		want        []string
	}{
		{"good", "  native: {type: jumpstarter_driver_power.driver.MockPower}\n  gadget: {type: lab_gadget.Gadget}\n", nil, 0,
			[]string{"good: 2 nodes", "ok      native  power", "hosted  gadget  hosted"}},
		{"package", "  x: {type: jumpstarter_driver_nowhere.driver.X}\n", nil, 1,
			[]string{`:5:13: error: x: no driver of type "jumpstarter_driver_nowhere.driver.X"`, "pip install jumpstarter-driver-nowhere", "refused  x"}},
		{"typo", "  x: {type: jumpstarter_driver_power.driver.MokPower}\n", nil, 1, []string{`did you mean "jumpstarter_driver_power.driver.MockPower"?`}},
		{"exits at import", "  x: {type: lab_exit.X}\n", nil, 0, []string{"warning: x: lab_exit.X cannot be imported by", "this module ends whoever imports it", "unchecked  x"}},
		{"ends Python", "  x: {type: lab_gone.X}\n", nil, 0, []string{"warning: x: lab_gone.X cannot be hosted: python ended with status 9"}},
		{"key", "  x: {type: lab_gadget.Gadget, config: {prt: 5}}\n", nil, 0, []string{`:5:41: warning: x: the driver knows no key "prt"; did you mean "port"?`}},
		{"no python", "  x: {type: lab_gadget.Gadget}\n", []string{"JUMPLEAD_PYTHON=/nowhere"}, 0, []string{"hosted: not checked here: JUMPLEAD_PYTHON, /nowhere, is not there", "unchecked  x"}},
		{"no jumpstarter", "  x: {type: lab_gadget.Gadget}\n", []string{"JUMPLEAD_PYTHON=/usr/bin/env"}, 0, []string{"hosted: not checked here: "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "c.yaml")
			if err := os.WriteFile(path, []byte(head+c.nodes), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(f.program, "check", path)
			cmd.Env = hostedEnvironment(t, c.env...)
			out, _ := cmd.CombinedOutput()
			if code := cmd.ProcessState.ExitCode(); code != c.status {
				t.Errorf("exit status = %d; want %d:\n%s", code, c.status, out)
			}
			for _, want := range c.want {
				if !strings.Contains(string(out), want) {
					t.Errorf("check says\n%s\nwant %q in it", out, want)
				}
			}
		})
	}
}

// TestHostedEvery asks Python for every driver of every package: each can be hosted.
func TestHostedEvery(t *testing.T) {
	p := &packages{env: needDrivers(t), path: os.Getenv("PATH")}
	f, err := jumplead()
	if err != nil {
		t.Fatal(err)
	}
	var there struct{ Found map[string][]string }
	p.ask(t, nil, &there, "classes")
	var types []string
	for _, list := range there.Found {
		for _, typ := range list {
			if !strings.HasSuffix(typ, ".Proxy") { // is a ref by another name
				types = append(types, typ)
			}
		}
	}
	slices.Sort(types)
	if len(types) < 70 {
		t.Fatalf("only these drivers are installed: %v", types)
	}
	var config strings.Builder
	config.WriteString("apiVersion: jumpstarter.dev/v1alpha1\nkind: ExporterConfig\nmetadata: {namespace: lab, name: all}\n")
	fmt.Fprintf(&config, "x-jumplead: {hosted: true, python: %s}\nexport:\n", p.env.Bin("python"))
	for i, typ := range types {
		fmt.Fprintf(&config, "  n%d: {type: %s}\n", i, typ)
	}
	cmd := exec.Command(f.program, "check", "--json", "-")
	cmd.Env, cmd.Stdin = hostedEnvironment(t), strings.NewReader(config.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("check = %v:\n%s", err, out)
	}
	var said struct {
		Files []struct {
			Nodes []struct{ Type, Client, Status string }
		}
	}
	if err := json.Unmarshal(out, &said); err != nil || len(said.Files) != 1 || len(said.Files[0].Nodes) != len(types) {
		t.Fatalf("check = %v:\n%s\nwant %d nodes", err, out, len(types))
	}
	for _, n := range said.Files[0].Nodes {
		if n.Status != "hosted" || !strings.HasPrefix(n.Client, "jumpstarter_driver_") && !strings.HasPrefix(n.Client, "jumpstarter.") {
			t.Errorf("%s: %s, client class %q; want it hosted, with its class", n.Type, n.Status, n.Client)
		}
	}
	t.Logf("%d drivers can be hosted", len(types))
}
