//go:build !ppc64 && !ppc64le

package dut

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/hwtest"
	"github.com/jumplead/jumplead/hw/serial"
	"github.com/jumplead/jumplead/hw/serial/serialtest"
)

// patience is how long a test waits for what ought to come at once.
const patience = 20 * time.Second

func start(t *testing.T, o Options) *DUT {
	t.Helper()
	hwtest.Need(t, hwtest.PTY)
	drivertest.NoLeaks(t)
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	d, err := Start(o)
	if err != nil {
		t.Fatalf("Start(%+v) = %v; want nil", o, err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("Close() = %v; want nil", err)
		}
	})
	return d
}

// switchboard is a client of the control socket.
type switchboard struct {
	net.Conn
	answers *bufio.Reader
}

func dial(t *testing.T, path string) *switchboard {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &switchboard{c, bufio.NewReader(c)}
}

func (s *switchboard) do(word string) (State, error) {
	s.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(s, word+"\n"); err != nil {
		return State{}, err
	}
	line, err := s.answers.ReadBytes('\n')
	if err != nil {
		return State{}, err
	}
	var answer struct {
		State
		Error string `json:"error"`
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		return State{}, err
	}
	if answer.Error != "" {
		return State{}, errors.New(answer.Error)
	}
	return answer.State, nil
}

// console is a host that has the UART open and records what comes.
type console struct {
	hw.SerialPort
	*serialtest.Recorder
	ended chan struct{}
}

func openConsole(t *testing.T, d *DUT) *console {
	t.Helper()
	p, err := serial.Open(t.Context(), d.UART(), hw.SerialOptions{Baud: 115200})
	if err != nil {
		t.Fatal(err)
	}
	c := &console{p, &serialtest.Recorder{}, make(chan struct{})}
	go func() {
		defer close(c.ended)
		io.Copy(c.Recorder, p)
	}()
	t.Cleanup(c.hangUp)
	return c
}

func (c *console) hangUp() {
	c.SerialPort.Close()
	<-c.ended
}

func (c *console) Close() error { panic("use hangUp") }

func (c *console) Write(p []byte) (int, error) { return c.SerialPort.Write(p) }
func (c *console) Read(p []byte) (int, error)  { return c.Recorder.Read(p) }

func (c *console) await(t *testing.T, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.Await(ctx, text); err != nil {
		t.Fatal(err)
	}
}

func (c *console) typ(t *testing.T, keys string) {
	t.Helper()
	c.SetWriteDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, keys); err != nil {
		t.Fatalf("Write(%q) = %v; want nil", keys, err)
	}
}

// TestPowerCycle is what a harness does with the device.
func TestPowerCycle(t *testing.T) {
	d := start(t, Options{BootTime: 50 * time.Millisecond})
	rail, web := dial(t, d.Control()), browser(t)
	for range 3 {
		c := openConsole(t, d)
		if s, err := rail.do("on"); err != nil || s.Rail != "on" || s.Current <= loadBoot || s.Voltage >= supply {
			t.Fatalf("on = %+v, %v; want the rail on and the inrush", s, err)
		}
		c.await(t, prompt)
		if s, err := rail.do("read"); err != nil || s.Phase != PhaseUp {
			t.Fatalf("read = %+v, %v; want phase up", s, err)
		}
		c.typ(t, "echo hello\r")
		c.await(t, "echo hello\r\nhello\r\n"+prompt)
		resp, err := web.Get("http://" + d.TCP())
		if err != nil {
			t.Fatal(err)
		}
		page, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !strings.Contains(string(page), "phase: up\n") || !strings.Contains(string(page), " V, 0.60") {
			t.Errorf("GET / = %q, %v; want phase up and the current of one request", page, err)
		}
		conn, err := net.Dial("tcp", d.TCP())
		if err != nil {
			t.Fatal(err)
		}
		if s, err := rail.do("off"); err != nil || s != (State{Rail: "off", Phase: PhaseOff, Card: SideDUT, UART: Plugged}) {
			t.Fatalf("off = %+v, %v; want off", s, err)
		}
		if _, err := io.Copy(io.Discard, conn); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a connection at power off: %v; want ECONNRESET", err)
		}
		conn.Close()
		if !refusedAt(t, d.TCP()) {
			t.Error("a connection after power off was accepted; want it refused")
		}
		c.hangUp()
	}
}

// TestUnpowered writes to the console of a dead device: the host is not held up, and there is no answer, not even an
// echo.
func TestUnpowered(t *testing.T) {
	d := start(t, Options{})
	c := openConsole(t, d)
	c.typ(t, strings.Repeat("echo anybody there\r", 50000))
	c.hangUp()
	if got := c.Bytes(); len(got) != 0 {
		t.Errorf("a dead device says %q; want silence", got)
	}
}

// TestNobodyListens lets the device talk while nobody has its console open, and while somebody has who does not read.
// Neither stops the device, and the next host sees nothing of it, even one that does not flush the port.
func TestNobodyListens(t *testing.T) {
	for _, open := range []bool{false, true} {
		t.Run(fmt.Sprintf("open=%t", open), func(t *testing.T) {
			d := start(t, Options{})
			idle := func() bool {
				r := d.board.current()
				return r.now() == PhaseUp && len(r.rx) == 0 && len(r.tx) == 0
			}
			host := func() *os.File {
				f, err := os.OpenFile(d.UART(), os.O_RDWR|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { f.Close() })
				return f
			}
			d.On()
			drivertest.Until(t, "the device is up", idle)
			first := host()
			expect(t, first, "\x03", "^C\r\n"+prompt)
			// The terminal holds some 20 KB. This is more than that.
			if _, err := io.WriteString(first, strings.Repeat("help\r", 60)); err != nil {
				t.Fatal(err)
			}
			drivertest.Until(t, "the device has begun to answer", func() bool { return !idle() })
			if open {
				drivertest.Until(t, "the device has answered", idle)
			}
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			drivertest.Until(t, "the device has answered", idle)
			drivertest.Until(t, "the device has noticed", func() bool { return !d.uart.terminal.told.Load() })

			expect(t, host(), "echo next\r", "echo next\r\nnext\r\n"+prompt)
		})
	}
}

// TestSendUnheard sends while nobody has the terminal open. Nothing reads the device's end here, and so nothing could tidy
// up afterwards.
func TestSendUnheard(t *testing.T) {
	hwtest.Need(t, hwtest.PTY)
	tty, err := openTerminal()
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	tty.Send([]byte("nobody hears this"))
	f, err := os.OpenFile(tty.path, os.O_RDWR|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tty.Send([]byte("this"))
	got := make([]byte, 4)
	f.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(f, got); err != nil || string(got) != "this" {
		t.Errorf("the host reads %q, %v; want %q", got, err, "this")
	}
}

// expect types keys and reads exactly what is wanted.
func expect(t *testing.T, tty *os.File, keys, want string) {
	t.Helper()
	if _, err := io.WriteString(tty, keys); err != nil {
		t.Fatal(err)
	}
	tty.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, len(want))
	if _, err := io.ReadFull(tty, got); err != nil || string(got) != want {
		t.Errorf("keys %q: the host reads %q, %v; want %q", keys, got, err, want)
	}
}

// TestReopen opens and closes the console many times.
func TestReopen(t *testing.T) {
	d := start(t, Options{})
	d.On()
	drivertest.Until(t, "the device is up", func() bool { return d.State().Phase == PhaseUp })
	for i := range 200 {
		c := openConsole(t, d)
		c.typ(t, fmt.Sprintf("\x03echo %d.\r", i))
		c.await(t, fmt.Sprintf("\n%d.\r\n", i))
		c.hangUp()
	}
}

// TestToggle switches the rail a thousand times under traffic on the console and the web page.
func TestToggle(t *testing.T) {
	d := start(t, Options{})
	rail, c, web := dial(t, d.Control()), openConsole(t, d), browser(t)
	ctx, cancel := context.WithCancel(t.Context())
	typed, surfed := make(chan error), make(chan error)
	tick := time.NewTicker(time.Millisecond) // for both, to leave the machine some time for the device
	defer tick.Stop()
	go func() {
		defer close(typed)
		for ; ctx.Err() == nil; <-tick.C {
			c.SetWriteDeadline(time.Now().Add(patience))
			if _, err := io.WriteString(c, strings.Repeat("help\recho\r\x03", 10)); err != nil {
				typed <- err
				return
			}
		}
	}()
	go func() {
		defer close(surfed)
		for ; ctx.Err() == nil; <-tick.C {
			req, err := http.NewRequestWithContext(ctx, "GET", "http://"+d.TCP()+"/bytes?n=1000000000", nil)
			if err != nil {
				surfed <- err
				return
			}
			if resp, err := web.Do(req); err == nil { // refused or reset otherwise
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		}
	}()
	for i := range 1000 {
		for _, word := range []string{"on", "off"} {
			if s, err := rail.do(word); err != nil || s.Rail != word {
				t.Fatalf("toggle %d: %s = %+v, %v; want %s", i, word, s, err, word)
			}
			if word == "on" && i%50 == 0 {
				drivertest.Until(t, "keys wait for the shell, a request is in progress", func() bool {
					return len(d.board.current().rx) > 0 && d.web.Busy() > 0
				})
			}
		}
	}
	cancel()
	if err := <-typed; err != nil {
		t.Errorf("the console's host: %v; want no error", err)
	}
	if err := <-surfed; err != nil {
		t.Errorf("the web page's host: %v; want no error", err)
	}
	d.On()
	drivertest.Until(t, "the device is up", func() bool { return d.State().Phase == PhaseUp })
	// Some of the traffic may be on the way still and fill the device's buffer, so that what is typed now is lost.
	deadline := time.Now().Add(patience)
	for alive := false; !alive; {
		c.typ(t, "\x03echo still alive\r")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := c.Await(ctx, "\r\nstill alive\r\n"+prompt)
		cancel()
		if alive = err == nil; !alive && time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestManyClients(t *testing.T) {
	d := start(t, Options{})
	idle := dial(t, d.Control())
	if _, err := io.WriteString(idle, "o"); err != nil { // and never the rest
		t.Fatal(err)
	}
	ended := make(chan error)
	const clients = 8
	for range clients {
		c := dial(t, d.Control())
		go func() {
			var err error
			for range 100 {
				for _, word := range []string{"on", "unplug uart 0.001", "of", "off", "card host", "plug uart", "card dut"} {
					if _, e := c.do(word); (e != nil) != (word == "of") {
						err = errors.Join(err, fmt.Errorf("%s: %v", word, e))
					}
				}
			}
			ended <- err
		}()
	}
	for range clients {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestClose(t *testing.T) {
	hwtest.Need(t, hwtest.PTY)
	drivertest.NoLeaks(t)
	dir := filepath.Join(t.TempDir(), "new", "dut")
	d, err := Start(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	rail, c := dial(t, d.Control()), openConsole(t, d)
	if _, err := rail.do("on"); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", d.Control())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 2 {
		if err := d.Close(); err != nil {
			t.Errorf("Close() = %v; want nil", err)
		}
	}
	if got := d.State(); got.Rail != "off" {
		t.Errorf("State() after Close = %+v; want off", got)
	}
	if _, err := rail.do("read"); err == nil {
		t.Error("read after Close succeeds; want the connection closed")
	}
	<-c.ended // hung up
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("after Close the directory has %v, %v; want nothing", left, err)
	}
	if !refusedAt(t, d.TCP()) {
		t.Error("a connection after Close was accepted; want it refused")
	}
	again := start(t, Options{Dir: dir, TCP: d.TCP()})
	if again.Control() != d.Control() || again.UART() != d.UART() || again.TCP() != d.TCP() {
		t.Errorf("started again at %s, %s, %s; want the same places", again.Control(), again.UART(), again.TCP())
	}
}

func TestStartRefuses(t *testing.T) {
	d := start(t, Options{})
	file := filepath.Join(t.TempDir(), "file")
	inTheWay := map[string]string{}
	for _, name := range []string{"uart", "control.sock"} {
		dir := t.TempDir()
		inTheWay[name] = filepath.Join(dir, name)
		if err := os.WriteFile(inTheWay[name], []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	noCard := t.TempDir()
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Mkdir(filepath.Join(noCard, "card"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		o    Options
		want string
	}{
		{"no directory", Options{}, "no directory"},
		{"negative boot time", Options{Dir: t.TempDir(), BootTime: -1}, "boot time -1ns: must not be negative"},
		{"a live one", Options{Dir: filepath.Dir(d.Control())}, "another virtual DUT is running there"},
		{"its address", Options{Dir: t.TempDir(), TCP: "127.0.0.1"}, "missing port"},
		{"a file", Options{Dir: file}, "not a directory"},
		{"a file for a console", Options{Dir: filepath.Dir(inTheWay["uart"])}, "not made by a virtual DUT"},
		{"a file for a socket", Options{Dir: filepath.Dir(inTheWay["control.sock"])}, "not made by a virtual DUT"},
		{"a directory for a card", Options{Dir: noCard}, "is a directory"},
		{"a long path", Options{Dir: filepath.Join(t.TempDir(), strings.Repeat("x", 120))}, "choose a shorter directory"},
	} {
		t.Run(test.name, func(t *testing.T) {
			drivertest.NoLeaks(t)
			got, err := Start(test.o)
			if err == nil {
				got.Close()
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Start(%+v) = %v; want an error with %q", test.o, err, test.want)
			}
		})
	}
	for _, path := range inTheWay {
		if b, err := os.ReadFile(path); string(b) != "precious" {
			t.Errorf("ReadFile(%s) = %q, %v; want it untouched", path, b, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(inTheWay["control.sock"]), "*")); len(left) != 1 {
		t.Errorf("a start that failed leaves %q; want only what was there", left)
	}
	if _, err := dial(t, d.Control()).do("on"); err != nil { // the live one
		t.Errorf("on = %v; want nil", err)
	}
}

// TestFlash puts an image on the card as a harness does, and cycles the power.
func TestFlash(t *testing.T) {
	d := start(t, Options{})
	rail, c := dial(t, d.Control()), openConsole(t, d)
	for _, word := range []string{"card host", "on"} {
		if _, err := rail.do(word); err != nil {
			t.Fatal(err)
		}
	}
	c.await(t, "vboot: card: none is in the slot")
	if err := os.WriteFile(d.Card(), []byte("my image\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := rail.do("card dut"); err != nil || s.Card != SideDUT {
		t.Fatalf("card dut = %+v, %v; want the card at the DUT", s, err)
	}
	c.await(t, `image "my image", 9 bytes, sha256 `)
	c.await(t, prompt)
	if err := os.Truncate(d.Card(), 0); err != nil {
		t.Fatal(err)
	}
	c.typ(t, "reboot\r")
	c.await(t, "vboot: card: empty")
}

// TestUnplug pulls the console's cable while a host has the terminal open.
func TestUnplug(t *testing.T) {
	d := start(t, Options{})
	cable := dial(t, d.Control())
	d.On()
	for range 3 {
		c := openConsole(t, d)
		c.typ(t, "\r")
		c.await(t, prompt)
		for range 2 {
			if s, err := cable.do("unplug uart"); err != nil || s.UART != Unplugged || s.Phase != PhaseUp {
				t.Fatalf("unplug uart = %+v, %v; want it unplugged, and the device up", s, err)
			}
		}
		<-c.ended // hung up
		if _, err := os.Lstat(d.UART()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Lstat(%s) = %v; want nothing there", d.UART(), err)
		}
		if _, err := serial.Open(t.Context(), d.UART(), hw.SerialOptions{Baud: 115200}); !errors.Is(err, hw.ErrAbsent) {
			t.Errorf("Open(%s) = %v; want it absent", d.UART(), err)
		}
		d.board.wire.Send([]byte("nobody hears this"))
		for range 2 {
			if s, err := cable.do("plug uart"); err != nil || s.UART != Plugged {
				t.Fatalf("plug uart = %+v, %v; want it plugged", s, err)
			}
		}
		c = openConsole(t, d)
		c.typ(t, "echo back\r")
		c.await(t, "echo back\r\nback\r\n")
		c.hangUp()
	}
}

// TestUnplugForAWhile pulls the cable for some time, which another word may cut short.
func TestUnplugForAWhile(t *testing.T) {
	d := start(t, Options{})
	plugged := func() bool { return d.State().UART == Plugged }
	begin := time.Now()
	d.Unplug(50 * time.Millisecond)
	if plugged() && time.Since(begin) < 50*time.Millisecond {
		t.Error("State() after Unplug(50ms) has the cable plugged; want it unplugged")
	}
	drivertest.Until(t, "the cable is back", plugged)
	if took := time.Since(begin); took < 50*time.Millisecond {
		t.Errorf("Unplug(50ms) lasts %v; want 50ms", took)
	}
	d.Unplug(time.Hour)
	if err := d.Plug(); err != nil || !plugged() {
		t.Errorf("Plug() = %v, %t; want the cable plugged", err, plugged())
	}
	d.Unplug(time.Hour)
	d.Unplug(time.Millisecond)
	drivertest.Until(t, "the cable is back", plugged)
	d.Unplug(time.Millisecond)
	d.Unplug(0) // for good
	d.uart.timers.Wait()
	if plugged() {
		t.Error("the cable is plugged after Unplug(0); want it unplugged for good")
	}
	d.Unplug(time.Hour) // and the test ends
}

// TestCannotPlugInTheWay has somebody put a file where the link goes.
func TestCannotPlugInTheWay(t *testing.T) {
	d := start(t, Options{})
	d.Unplug(0)
	if err := os.WriteFile(d.UART(), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := dial(t, d.Control()).do("plug uart"); err == nil || !strings.Contains(err.Error(), "is in the way") {
		t.Errorf("plug uart = %v; want what is in the way", err)
	}
	if err := os.Remove(d.UART()); err != nil {
		t.Fatal(err)
	}
	if err := d.Plug(); err != nil {
		t.Errorf("Plug() = %v; want nil", err)
	}
	d.Unplug(0)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d.Unplug(time.Hour)
	if err := d.Plug(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Plug() after Close = %v; want %v", err, net.ErrClosed)
	}
}

// TestTakeover starts in a directory that a killed device has left.
func TestTakeover(t *testing.T) {
	dir := t.TempDir()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "control.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if err := os.Symlink("/dev/pts/no-longer-there", filepath.Join(dir, "uart")); err != nil {
		t.Fatal(err)
	}
	d := start(t, Options{Dir: dir})
	c := openConsole(t, d)
	if _, err := dial(t, d.Control()).do("on"); err != nil {
		t.Errorf("on = %v; want nil", err)
	}
	c.await(t, prompt)
}

// TestDirectoryRemoved takes the directory away from a running device.
func TestDirectoryRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dut")
	d := start(t, Options{Dir: dir}) // its cleanup checks Close
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(d.UART()); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}
