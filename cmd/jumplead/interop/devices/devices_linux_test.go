package devices_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"

	"github.com/jumplead/jumplead/cmd/jumplead/app"
	"github.com/jumplead/jumplead/cmd/jumplead/interop/pyenv"
	"github.com/jumplead/jumplead/drivers/all"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/exporter/client"
	"github.com/jumplead/jumplead/hw/gpio/cdev"
	"github.com/jumplead/jumplead/hw/gpio/gpiotest"
	"github.com/jumplead/jumplead/hw/hwtest"
	"github.com/jumplead/jumplead/hw/i2c/i2ctest"
	"github.com/jumplead/jumplead/hw/usbtest"
)

// patience bounds every wait: a machine whose processor is emulated is slow, and Python on it slower.
const patience = 2 * time.Minute

// asProgram makes the test's own file be another program.
const asProgram = "JUMPLEAD_TEST_MAIN"

func TestMain(m *testing.M) {
	switch os.Getenv(asProgram) {
	case "jumplead":
		proc := app.OS()
		proc.Commands = all.Commands()
		os.Exit(app.Main(context.Background(), proc, all.Specs()...))
	case "bare":
		os.Exit(serveBare(os.Args[1]))
	}
	os.Exit(m.Run())
}

// A flavour is one of the two exporters, which take the same arguments.
type flavour struct {
	name    string
	program string
	env     []string
	ours    bool
}

func jumplead() flavour {
	return flavour{name: "jumplead", program: os.Args[0], env: []string{asProgram + "=jumplead"}, ours: true}
}

// The devices of a bench, all of which are the kernel's, and what is at their far side.
type bench struct {
	*gpiotest.Sim
	acm    *usbtest.ACM
	serial *usbtest.Port
	tty    string
	meters map[string]*i2ctest.INA
	bus    *usbtest.I2C
	number string // of the I2C bus
}

// meters are those on the I2C bus, as the harness calls them.
var meters = map[string]struct {
	model   int
	address uint16
}{"ina219": {219, 0x40}, "ina226": {226, 0x41}, "ina260": {260, 0x44}, "rail": {226, 0x45}}

// onBus is a meter at an address of an adapter.
type onBus struct{ *i2ctest.INA }

func (c onBus) Write(b []byte) bool { return len(b) == 0 || c.Tx(b, nil) == nil }
func (c onBus) Read(n int) ([]byte, bool) {
	b := make([]byte, n)
	return b, c.Tx(nil, b) == nil
}

func newBench(t *testing.T) *bench {
	b := &bench{Sim: gpiotest.NewSim(t, cdev.Bus()), acm: &usbtest.ACM{}, bus: &usbtest.I2C{}, meters: map[string]*i2ctest.INA{}}
	b.Drive(t, 6, true)
	b.serial = plug(t, b.acm)
	b.tty = device(t, b.serial, "*/tty/tty*")
	for name, m := range meters {
		b.meters[name] = i2ctest.NewINA(m.model, 0.1)
		b.bus.Put(m.address, onBus{b.meters[name]})
	}
	_, b.number, _ = strings.Cut(device(t, plug(t, b.bus), "*/i2c-*/i2c-dev/i2c-*"), "-")
	return b
}

func plug(t *testing.T, m usbtest.Model) *usbtest.Port {
	t.Helper()
	p, err := usbtest.Plug(m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Unplug(); err != nil {
			t.Errorf("Unplug() = %v; want nil", err)
		}
	})
	return p
}

// device waits for what a driver makes of a USB device, and for its file.
func device(t *testing.T, p *usbtest.Port, pattern string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	path, err := p.Await(ctx, pattern)
	if err != nil {
		t.Fatal(err)
	}
	dev := "/dev/" + filepath.Base(path)
	drivertest.Until(t, dev+" is there", func() bool { _, err := os.Stat(dev); return err == nil })
	return dev
}

var harness = template.Must(template.New("").Parse(`apiVersion: jumpstarter.dev/v1alpha1
kind: ExporterConfig
metadata: {namespace: default, name: devices}
export:
  relay: {type: jumpstarter_driver_gpiod.driver.DigitalOutput, config: {device: {{.Chip}}, line: 1}}
  low: {type: jumpstarter_driver_gpiod.driver.DigitalOutput, config: {device: {{.Chip}}, line: 2, active_low: true, initial_value: active}}
  supply: {type: jumpstarter_driver_gpiod.driver.PowerSwitch, config: {device: {{.Chip}}, line: 3}}
  boot: {type: jumpstarter_driver_gpiod.driver.DigitalOutput, config: {device: {{.Chip}}, line: 4, initial_value: on}}
  button: {type: jumpstarter_driver_gpiod.driver.DigitalInput, config: {device: {{.Chip}}, line: 5}}
  drain: {type: jumpstarter_driver_gpiod.driver.DigitalOutput, config: {device: {{.Chip}}, line: 6, drive: open_drain, initial_value: on}}
  console: {type: jumpstarter_driver_pyserial.driver.PySerial, config: {url: {{.TTY}}, baudrate: 250000}}
{{- if .Bus}}
  ina219: {type: jumplead.power.INA219, config: {bus: {{.Bus}}, address: 0x40}}
  ina226: {type: jumplead.power.INA226, config: {bus: {{.Bus}}, address: 0x41}}
  ina260: {type: jumplead.power.INA260, config: {bus: {{.Bus}}, address: 0x44}}
  rail:
    type: jumplead.power.INA226
    config: {bus: {{.Bus}}, address: 0x45}
    children:
      switch: {type: jumpstarter_driver_gpiod.driver.PowerSwitch, config: {device: {{.Chip}}, line: 7}}
{{- end}}
`))

// config is the harness for an exporter, as a file.
func (b *bench) config(t testing.TB, f flavour) string {
	t.Helper()
	values := struct{ Chip, TTY, Bus string }{Chip: b.Device(), TTY: b.tty}
	if !strings.HasPrefix(values.Chip, "/") {
		values.Chip = "/dev/" + values.Chip
	}
	if f.ours {
		values.Bus = b.number
	}
	var text bytes.Buffer
	if err := harness.Execute(&text, values); err != nil {
		t.Fatal(err)
	}
	return write(t, text.String())
}

func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "devices.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// serve starts an exporter, waits until it is ready, and returns its address. It ends with the test, with status 0.
func (f flavour) serve(t testing.TB, config string) string {
	t.Helper()
	address := freePort(t)
	cmd := exec.Command(f.program, "run", "--exporter-config", config, "--tls-grpc-listener", address, "--tls-grpc-insecure")
	cmd.Env = pyenv.Environ(t.TempDir(), f.env...)
	ended := start(t, f.name, cmd)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() {
		select {
		case <-ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	c, err := client.Dial(ctx, address, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	return address
}

// start starts a program that serves until it is told to end. The stock exporter serves from a child in a session of its
// own, which would outlive it if it were killed. The channel is closed when it has ended.
func start(t testing.TB, name string, cmd *exec.Cmd) <-chan struct{} {
	t.Helper()
	said, err := os.Create(filepath.Join(t.TempDir(), "said"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	t.Cleanup(func() {
		defer said.Close()
		pid := cmd.Process.Pid
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(patience):
			t.Errorf("%s is still there %v after SIGTERM", name, patience)
			cmd.Process.Kill()
			<-done
		}
		for _, child := range strings.Fields(string(children)) {
			if n, err := strconv.Atoi(child); err == nil {
				syscall.Kill(n, syscall.SIGKILL)
			}
		}
		if status := cmd.ProcessState.ExitCode(); status != 0 {
			t.Errorf("%s ended with status %d; want 0", name, status)
		}
		if t.Failed() {
			s, _ := os.ReadFile(said.Name())
			t.Logf("%s said:\n%s", name, s[max(0, len(s)-8000):])
		}
	})
	return done
}

// freePort is a port of the loopback that nobody had a moment ago.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A ruling is a line of the judge: a case of its table, how one went, or what it asks of the devices.
type ruling struct {
	Name    string
	Defect  string // what the stock exporter does wrong
	Shows   string // how that shows, as a regular expression
	Needs   string // what an exporter must have
	Outcome string // pass, fail or, if that is missing, absent
	Text    string
	Seconds float64

	Ask  string
	Args []json.RawMessage
	Done bool // there are no more cases
}

// A judge is the Python process.
type judge struct {
	table map[string]ruling
	to    *json.Encoder
	from  *bufio.Scanner
	said  *bytes.Buffer
}

func newJudge(t *testing.T, python string) *judge {
	t.Helper()
	j := &judge{table: map[string]ruling{}, said: &bytes.Buffer{}}
	cmd := exec.Command(python, "testdata/judge.py")
	cmd.Env = pyenv.Environ(t.TempDir())
	cmd.Stderr = j.said
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	outOf, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		late := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		defer late.Stop()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the judge: %v:\n%s", err, j.said)
		}
	})
	j.to, j.from = json.NewEncoder(in), bufio.NewScanner(outOf)
	j.from.Buffer(nil, 1<<20)
	for r := j.next(t); !r.Done; r = j.next(t) {
		j.table[r.Name] = r
	}
	return j
}

// next reads a line of the judge's.
func (j *judge) next(t *testing.T) (r ruling) {
	t.Helper()
	if !j.from.Scan() {
		t.Fatalf("the judge ended: %v", j.from.Err())
	}
	if err := json.Unmarshal(j.from.Bytes(), &r); err != nil {
		t.Fatalf("the judge: %v: %s", err, j.from.Text())
	}
	return r
}

// hear lets the judge try an exporter. Each case is a subtest when it is over.
func (j *judge) hear(t *testing.T, f flavour, b *bench, address string) {
	t.Helper()
	lacks := map[string]string{}
	if !f.ours {
		lacks["meters"] = "the stock exporter has no driver for power meters"
	}
	if err := j.to.Encode(map[string]any{"main": address, "lacks": lacks}); err != nil {
		t.Fatal(err)
	}
	left := make(map[string]ruling)
	for name, c := range j.table {
		if _, lack := lacks[c.Needs]; !lack {
			left[name] = c
		}
	}
	for {
		r := j.next(t)
		switch {
		case r.Done:
			for name := range left {
				t.Errorf("%s: the judge said nothing", name)
			}
			return
		case r.Ask != "":
			answer := map[string]any{}
			if v, err := b.answer(t, r.Ask, r.Args); err != nil {
				answer["error"] = err.Error()
			} else {
				answer["value"] = v
			}
			if err := j.to.Encode(answer); err != nil {
				t.Fatal(err)
			}
		case r.Outcome == "absent":
		default:
			c := left[r.Name]
			delete(left, r.Name)
			t.Run(r.Name, func(t *testing.T) { check(t, f, c, r) })
		}
	}
}

func check(t *testing.T, f flavour, c, got ruling) {
	if !f.ours && c.Defect != "" {
		if got.Outcome != "fail" || !regexp.MustCompile(c.Shows).MatchString(got.Text) {
			t.Errorf("the defect of the stock exporter, that %s, does not show as %q: %s: %s", c.Defect, c.Shows, got.Outcome, got.Text)
		}
		t.Logf("a defect of the stock exporter: %s: %s", c.Defect, got.Text)
	} else if got.Outcome != "pass" {
		t.Errorf("%s: %s", got.Outcome, got.Text)
	}
	t.Logf("it took %.1f s", got.Seconds)
}

// answer does what the judge asks of the devices.
func (b *bench) answer(t *testing.T, ask string, args []json.RawMessage) (any, error) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var line int
	var name string
	var high bool
	var volts, amps float64
	var data []byte
	into := map[string][]any{
		"level": {&line}, "pull": {&line, &high}, "hear": {&data}, "heard": {&data}, "tell": {&data},
		"feed": {&name, &volts, &amps}, "lift": {&name}, "seat": {&name},
	}[ask]
	if len(into) != len(args) {
		return nil, fmt.Errorf("%d arguments; want %d", len(args), len(into))
	}
	for i, a := range args {
		if err := json.Unmarshal(a, into[i]); err != nil {
			return nil, err
		}
	}
	switch ask {
	case "level":
		return b.Level(t, line), nil
	case "pull":
		b.Drive(t, line, high)
	case "remove":
		b.Remove(t)
	case "remake":
		b.Remake(t)
	case "hear":
		return nil, b.acm.Received.Await(ctx, string(data))
	case "heard":
		return bytes.Contains(b.acm.Received.Bytes(), data), nil
	case "tell":
		for tick := time.Tick(time.Millisecond); !b.acm.Listening(); {
			select {
			case <-tick:
			case <-ctx.Done():
				return nil, errors.New("the host does not listen to the adapter")
			}
		}
		_, err := b.acm.Write(data)
		return nil, err
	case "baud":
		return b.acm.Baud(), nil
	case "lines":
		l := b.acm.Lines()
		return map[string]bool{"dtr": l.DTR, "rts": l.RTS}, nil
	case "unplug":
		return nil, b.serial.Unplug()
	case "replug":
		if err := b.serial.Replug(); err != nil {
			return nil, err
		}
		if again := device(t, b.serial, "*/tty/tty*"); again != b.tty {
			return nil, fmt.Errorf("the adapter came back as %s; want %s", again, b.tty)
		}
	case "feed":
		b.meters[name].Set(volts, amps)
	case "lift":
		b.bus.Put(meters[name].address, nil)
	case "seat":
		b.bus.Put(meters[name].address, onBus{b.meters[name]})
	default:
		return nil, errors.New("the test does not know that")
	}
	return nil, nil
}

// TestDevices runs the judge's table against both exporters.
func TestDevices(t *testing.T) {
	hwtest.Need(t, hwtest.GPIOSim)
	hwtest.Need(t, hwtest.USB)
	var env *pyenv.Env
	hwtest.NeedFunc(t, hwtest.Python, func() (err error) {
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
		defer cancel()
		env, err = pyenv.Open(ctx)
		return err
	})
	j := newJudge(t, env.Bin("python"))
	for _, f := range []flavour{jumplead(), {name: "python", program: env.Bin("jmp")}} {
		t.Run(f.name, func(t *testing.T) {
			b := newBench(t)
			j.hear(t, f, b, f.serve(t, b.config(t, f)))
		})
	}
}
