package virtualdut_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jumplead/jumplead/cmd/virtualdut/dut"
	"github.com/jumplead/jumplead/drivers/device/virtualdut"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/power"
	"github.com/jumplead/jumplead/drivers/power/powertest"
	"github.com/jumplead/jumplead/hw/hwtest"
)

// folder is a short-named temporary folder: socket paths are limited.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "vd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func device(t *testing.T, dir string) *dut.DUT {
	t.Helper()
	hwtest.Need(t, hwtest.PTY)
	d, err := dut.Start(dut.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func open(t *testing.T, socket string, log *drivertest.Log) *power.Client {
	t.Helper()
	return power.NewClient(drivertest.Bench{Log: log}.Open(t, fmt.Sprintf("{socket: %q}", socket), virtualdut.Power))
}

func TestPowerConformance(t *testing.T) {
	drivertest.NoLeaks(t)
	powertest.Test(t, func(t *testing.T) powertest.Supply {
		d := device(t, folder(t))
		return powertest.Supply{
			Interface: open(t, d.Control(), nil),
			State:     func(*testing.T) bool { return d.State().Rail == "on" },
			Measures:  true,
		}
	})
}

func TestPowerSpec(t *testing.T) {
	const config = "{socket: /run/dut/control.sock}"
	drivertest.Spec(t, virtualdut.Power, config)
	d, err := drivertest.Bench{}.Tree(t, config, virtualdut.Power).Root.Driver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	drivertest.Rows(t, d)
	for config, want := range map[string]string{
		"":                       `key "socket" is missing`,
		`{socket: ""}`:           "socket: is empty",
		"{socket: a, port: 1}":   `unknown key "port"`,
		"{socket: " + long + "}": "socket: has 108 bytes, and the kernel takes 107",
	} {
		_, problems := drivertest.Bench{}.Plan(t, config, virtualdut.Power)
		if err := problems.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Plan(%q) = %v; want %s", config, err, want)
		}
	}
}

var long = strings.Repeat("x", 108)

var group = driver.Define(driver.Spec{Type: "test.Group", Role: driver.Group},
	func(context.Context, *driver.Env, struct{}) (driver.Driver, error) { return driver.Driver{}, nil })

// Two nodes that switch one rail would each be wrong about it.
func TestPowerClaims(t *testing.T) {
	_, problems := driver.Plan(driver.Decl{Children: []driver.Decl{
		{Name: "a", Type: virtualdut.Power.Type, Config: drivertest.YAML(t, "{socket: dut/control.sock}")},
		{Name: "b", Type: virtualdut.Power.Type, Config: drivertest.YAML(t, "{socket: ./dut//control.sock}")},
	}}, driver.Options{Specs: []driver.Spec{virtualdut.Power, group}})
	if got := fmt.Sprint(problems); !strings.Contains(got, "virtual supply dut/control.sock") {
		t.Errorf("Plan() of two nodes with one socket = %v; want the contested supply", got)
	}
}

// Read measures once, at the moment of the call.
func TestRead(t *testing.T) {
	d := device(t, folder(t))
	var log drivertest.Log
	c := open(t, d.Control(), &log)
	read := func() power.Reading {
		t.Helper()
		var got []power.Reading
		for r, err := range c.Read(t.Context()) {
			if err != nil {
				t.Fatalf("Read() = %v; want a reading", err)
			}
			got = append(got, r)
		}
		if len(got) != 1 {
			t.Fatalf("Read() = %v; want one reading", got)
		}
		return got[0]
	}
	if got := read(); got != (power.Reading{}) {
		t.Errorf("Read() of a rail that is off = %+v; want 0 V, 0 A", got)
	}
	if err := c.On(t.Context()); err != nil {
		t.Fatal(err)
	}
	drivertest.Until(t, "the inrush is over", func() bool { return read().Current == 0.42 })
	if got, want := read(), (power.Reading{Voltage: 4.966, Current: 0.42}); got != want {
		t.Errorf("Read() of an idle device = %+v; want %+v", got, want)
	}
	if err := c.Off(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := log.String(); !strings.Contains(got, "power on") || !strings.Contains(got, "power off") {
		t.Errorf("log = %q; want power on and power off", got)
	}
}

// The device may come and go under an open driver.
func TestAbsent(t *testing.T) {
	dir := folder(t)
	socket := filepath.Join(dir, "control.sock")
	c := open(t, socket, nil)
	calls := map[string]func() error{
		"On":  func() error { return c.On(t.Context()) },
		"Off": func() error { return c.Off(t.Context()) },
		"Read": func() (last error) {
			for _, err := range c.Read(t.Context()) {
				last = err
			}
			return last
		},
	}
	absent := func(when string) {
		t.Helper()
		for name, call := range calls {
			err := call()
			if driver.Classify(err) != driver.Unavailable || !strings.Contains(fmt.Sprint(err), socket) ||
				!strings.Contains(fmt.Sprint(err), "virtualdut --dir "+dir) {
				t.Errorf("%s: %s() = %v; want unavailable, the socket, and the command that makes it", when, name, err)
			}
		}
	}
	absent("never started")
	for range 2 {
		d := device(t, dir)
		for name, call := range calls {
			if err := call(); err != nil {
				t.Errorf("%s() = %v; want nil", name, err)
			}
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		absent("stopped")
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	absent("killed")
}

// What listens at the socket may be something else, or ill.
func TestStrangers(t *testing.T) {
	drivertest.NoLeaks(t)
	for _, test := range []struct {
		name, answer string
		class        driver.Class
		want         string
	}{
		{"hangs up", "", driver.Unavailable, "hung up"},
		{"hangs up in its answer", `{"rail":"on"`, driver.Unavailable, "hung up"},
		{"refuses", `{"error":"melted"}` + "\n", driver.Internal, "melted"},
		{"speaks otherwise", "220 mail.example ESMTP\n", driver.Internal, "is it the control socket"},
		{"speaks of something else", "{}\n", driver.Internal, "is it the control socket"},
		{"does not stop", strings.Repeat("x", 1<<20), driver.Internal, "is it the control socket"},
		{"is silent", "wait", driver.Timeout, "no answer at"},
	} {
		t.Run(test.name, func(t *testing.T) {
			socket := filepath.Join(folder(t), "control.sock")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			defer func() { l.Close(); <-done }()
			go func() {
				defer close(done)
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				r := bufio.NewReader(conn)
				r.ReadString('\n')
				if test.answer != "wait" {
					io.WriteString(conn, test.answer)
					return
				}
				r.ReadByte() // the end
			}()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if test.answer == "wait" {
				ctx, cancel = context.WithTimeout(ctx, 20*time.Millisecond)
				defer cancel()
			}
			err = open(t, socket, nil).On(ctx)
			if driver.Classify(err) != test.class || !strings.Contains(fmt.Sprint(err), test.want) ||
				!strings.Contains(fmt.Sprint(err), socket) {
				t.Errorf("On() = %v (%v); want %v, %q and the socket", err, driver.Classify(err), test.class, test.want)
			}
		})
	}
}

// A caller who goes away is not held up by a device that does not answer.
func TestCancel(t *testing.T) {
	socket := filepath.Join(folder(t), "control.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if conn, err := l.Accept(); err == nil {
			bufio.NewReader(conn).ReadString('\n')
			cancel()
			io.Copy(io.Discard, conn)
			conn.Close()
		}
	}()
	if err := open(t, socket, nil).Off(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Off() = %v; want canceled", err)
	}
}
