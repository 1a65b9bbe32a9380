package pyserial_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/serial"
	"github.com/jumplead/jumplead/drivers/serial/pyserial"
	"github.com/jumplead/jumplead/drivers/serial/serialtest"
	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/hwtest"
	hwserial "github.com/jumplead/jumplead/hw/serial"
	models "github.com/jumplead/jumplead/hw/serial/serialtest"
	"github.com/jumplead/jumplead/hw/usbtest"
)

func open(t testing.TB, b drivertest.Bench, config string) *serial.Client {
	t.Helper()
	return serial.NewClient(b.Open(t, config, pyserial.Spec))
}

func connect(t testing.TB, c serial.Interface) io.ReadWriteCloser {
	t.Helper()
	s, err := c.Connect(t.Context())
	if err != nil {
		t.Fatalf("Connect() = %v; want a stream", err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestSpec(t *testing.T) {
	for _, config := range []string{"url: /dev/ttyUSB0", "url: loop://", "url: socket://localhost:2000"} {
		drivertest.Spec(t, pyserial.Spec, config)
	}
	host, _ := hwtest.Host()
	for _, config := range []string{"{url: /dev/ttyUSB0, check_present: false}", "url: loop://", "url: socket://localhost:2000"} {
		tree := drivertest.Bench{Host: host}.Tree(t, config, pyserial.Spec)
		d, err := tree.Root.Driver(t.Context())
		if err != nil {
			t.Fatalf("Driver(%s) = %v; want a driver", config, err)
		}
		drivertest.Rows(t, d)
		var got []string
		for _, e := range d.Exports {
			got = append(got, e.Kind().String()+" "+e.Usage())
		}
		want := []string{"stream connect()", "call close()", "call set_dtr(value)", "call set_rts(value)"}
		if !slices.Equal(got, want) {
			t.Errorf("Exports = %q; want %q", got, want)
		}
	}
}

func TestConfig(t *testing.T) {
	tests := []struct{ config, want string }{
		{"url: /dev/ttyUSB0", ""},
		{"url: ttyUSB0", ""},
		{"url: LOOP://", ""},
		{"url: socket://localhost:2000", ""},
		{"url: Socket://[::1]:2000/?logging=debug", ""},
		{"url: socket://:2000", ""},
		{"{url: loop://, cps: null}", ""},
		{"{url: loop://, cps: -1}", ""},
		{"{url: loop://, baudrate: 250000, check_present: no, cps: 10, disable_hupcl: on}", ""},
		{"{}", `key "url" is missing`},
		{"url: ''", "url: is empty"},
		{"url: loop://?logging=debug", "url: loop:// takes no options"},
		{"url: socket://localhost", `port "" is not a number`},
		{"url: socket://localhost:0", `port "0" is not a number`},
		{"url: socket://localhost:65536", `port "65536" is not a number`},
		{"url: socket://localhost:telnet", `invalid port ":telnet" after host`},
		{"url: socket://localhost:2000?debug", `unknown option "debug"`},
		{"url: socket://localhost:2000?logging=loud", "logging=loud is none of debug, info, warning, error"},
		{"url: RFC2217://localhost:2000", "url: rfc2217:// is not supported: let the server offer"},
		{"url: spy:///dev/ttyUSB0", "spy:// is not supported"},
		{"url: alt:///dev/ttyUSB0?class=PosixPollSerial", "alt:// is not supported: give the path alone"},
		{"url: hwgrep://0403:6001", "/dev/serial/by-id"},
		{"url: cp2110://", "cp2110:// is not supported"},
		{"url: file:///dev/ttyUSB0", "file:// is unknown; supported are a device path, loop:// and socket://HOST:PORT"},
		{"{url: loop://, baudrate: 0}", "baudrate: 0 is out of range"},
		{"{url: loop://, baudrate: fast}", "baudrate: wants an integer"},
		{"{url: loop://, cps: slow}", "cps: wants a number"},
		{"{url: loop://, baud: 9600}", `unknown key "baud"`},
	}
	for _, test := range tests {
		_, problems := drivertest.Bench{}.Plan(t, test.config, pyserial.Spec)
		got := fmt.Sprint(problems.Err())
		if test.want == "" && problems.Err() != nil || !strings.Contains(got, test.want) {
			t.Errorf("Plan(%s) = %v; want an error with %q", test.config, got, test.want)
		}
	}
}

func TestClaims(t *testing.T) {
	tests := []struct {
		config string
		want   []driver.Claim
	}{
		{"url: /dev//ttyUSB0", []driver.Claim{{Kind: "serial port", Name: "/dev/ttyUSB0"}}},
		{"url: loop://", nil},
		{"url: socket://localhost:2000", nil},
	}
	for _, test := range tests {
		tree, problems := drivertest.Bench{}.Plan(t, test.config, pyserial.Spec)
		if err := problems.Err(); err != nil {
			t.Fatalf("Plan(%s) = %v; want no error", test.config, err)
		}
		if got := tree.Root.Claims(); !slices.Equal(got, test.want) {
			t.Errorf("Claims(%s) = %v; want %v", test.config, got, test.want)
		}
	}
}

func TestLoop(t *testing.T) {
	drivertest.NoLeaks(t)
	for _, config := range []string{"url: loop://", "{url: loop://, cps: 1e9}"} {
		serialtest.Test(t, func(t *testing.T) serialtest.Line {
			return serialtest.Line{Interface: open(t, drivertest.Bench{}, config), Loop: true}
		})
	}
}

// duplex joins the two directions of a model.
type duplex struct {
	io.Reader
	io.Writer
}

// device is a model of a serial device with modem lines.
type device struct {
	*models.UART
	path  string
	board *hwtest.Board
}

// plug plugs a device in and returns it with the bench on which it is.
func plug(t testing.TB, u *models.UART) (device, drivertest.Bench) {
	t.Helper()
	host, board := hwtest.Host()
	d := device{u, "/dev/ttyUSB0", board}
	d.plugIn(t)
	return d, drivertest.Bench{Host: host, Log: &drivertest.Log{}}
}

func (d device) plugIn(testing.TB) { d.board.Serial.Plug(d.path, d.UART) }
func (d device) unplug(testing.TB) { d.board.Serial.Unplug(d.path) }

func (d device) far(*testing.T) io.ReadWriter { return duplex{&d.Received, d.UART} }

func TestUART(t *testing.T) {
	drivertest.NoLeaks(t)
	serialtest.Test(t, func(t *testing.T) serialtest.Line {
		d, bench := plug(t, &models.UART{})
		return serialtest.Line{
			Interface: open(t, bench, "url: "+d.path),
			Far:       d.far,
			Lines:     func(*testing.T) (dtr, rts bool) { l := d.UART.Lines(); return l.DTR, l.RTS },
			Unplug:    func(t *testing.T) { d.unplug(t) },
			Replug:    func(t *testing.T) { d.plugIn(t) },
		}
	})
}

func TestPTY(t *testing.T) {
	hwtest.Need(t, hwtest.PTY)
	drivertest.NoLeaks(t)
	bench := drivertest.Bench{Host: hw.Host{Serial: hwserial.Bus{}}}
	serialtest.Test(t, func(t *testing.T) serialtest.Line {
		p, err := models.OpenPTY(filepath.Join(t.TempDir(), "tty"))
		if err != nil {
			t.Fatalf("OpenPTY() = %v; want a terminal", err)
		}
		t.Cleanup(func() { p.Close() })
		check := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		return serialtest.Line{
			Interface: open(t, bench, "url: "+p.Path()),
			Far:       func(*testing.T) io.ReadWriter { return p },
			NoLines:   true,
			Unplug:    func(*testing.T) { check(p.Unplug()) },
			Replug:    func(*testing.T) { check(p.Replug()) },
		}
	})
}

// TestUSBAdapter is TestUART on the kernel's own driver, modem lines included.
func TestUSBAdapter(t *testing.T) {
	hwtest.Need(t, hwtest.USB)
	drivertest.NoLeaks(t)
	bench := drivertest.Bench{Host: hw.Host{Serial: hwserial.Bus{}}}
	serialtest.Test(t, func(t *testing.T) serialtest.Line {
		check := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(t.TempDir(), "usb-adapter") // a link, as udev makes them
		a := &usbtest.ACM{}
		p, err := usbtest.Plug(a)
		check(err)
		t.Cleanup(func() { check(p.Unplug()) })
		link := func(t *testing.T) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			tty, err := p.Await(ctx, "*/tty/tty*")
			check(err)
			check(os.Symlink("/dev/"+filepath.Base(tty), path))
		}
		link(t)
		return serialtest.Line{
			Interface: open(t, bench, "url: "+path),
			Far:       func(*testing.T) io.ReadWriter { return duplex{&a.Received, a} },
			Lines:     func(*testing.T) (dtr, rts bool) { l := a.Lines(); return l.DTR, l.RTS },
			Unplug:    func(*testing.T) { check(os.Remove(path)); check(p.Unplug()) },
			Replug:    func(t *testing.T) { check(p.Replug()); link(t) },
		}
	})
}

func TestBench(t *testing.T) {
	hwtest.Need(t, hwtest.UART)
	// Whether something is at the far end is not known. Only what needs none is
	// tried: opening, the lines, one client at a time.
	bench := drivertest.Bench{Host: hw.Host{Serial: hwserial.Bus{}}}
	c := open(t, bench, "url: "+hwtest.UARTPath())
	for range 3 {
		s := connect(t, c)
		if err := errors.Join(c.SetDTR(t.Context(), false), c.SetRTS(t.Context(), true)); err != nil {
			t.Errorf("SetDTR, SetRTS = %v; want nil", err)
		}
		if _, err := c.Connect(t.Context()); !errors.Is(err, driver.ErrBusy) {
			t.Errorf("Connect() of a second client = %v; want %v", err, driver.ErrBusy)
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close() = %v; want nil", err)
		}
	}
}

// server is a terminal server whose far end the test plays.
func server(t testing.TB) (addr string, accept func() net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String(), func() net.Conn {
		t.Helper()
		c, err := l.Accept()
		if err != nil {
			t.Fatalf("Accept() = %v; want a connection", err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
}

// accepted is a line of a terminal server that sees each new client.
type accepted struct {
	serial.Interface
	accept func() net.Conn
	far    net.Conn
}

func (a *accepted) Connect(ctx context.Context) (io.ReadWriteCloser, error) {
	s, err := a.Interface.Connect(ctx)
	if err == nil {
		a.far = a.accept()
	}
	return s, err
}

func TestSocket(t *testing.T) {
	drivertest.NoLeaks(t)
	serialtest.Test(t, func(t *testing.T) serialtest.Line {
		addr, accept := server(t)
		a := &accepted{Interface: open(t, drivertest.Bench{}, "url: socket://"+addr), accept: accept}
		return serialtest.Line{
			Interface: a,
			Far:       func(*testing.T) io.ReadWriter { return a.far },
			Many:      true,
		}
	})
}

// A terminal server that hangs up, orderly or not, is a loss that the client
// must see.
func TestSocketLost(t *testing.T) {
	for _, linger := range []int{-1, 0} { // FIN, RST
		addr, accept := server(t)
		s := connect(t, open(t, drivertest.Bench{}, "url: socket://"+addr))
		far := accept().(*net.TCPConn)
		if got := drivertest.Exchange(t, duplex{s, far}, "last words"); got != "last words" {
			t.Errorf("Read() = %q; want the last words", got)
		}
		far.SetLinger(linger)
		far.Close()
		n, err := s.Read(make([]byte, 1))
		if n != 0 || driver.Classify(err) != driver.Unavailable || errors.Is(err, io.EOF) {
			t.Errorf("Read() after the peer closed (linger %d) = %d, %v; want 0 and an error of class %v", linger, n, err, driver.Unavailable)
		}
	}
}

func TestSocketRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	c := open(t, drivertest.Bench{}, "url: socket://"+addr) // nobody is asked yet
	if _, err := c.Connect(t.Context()); driver.Classify(err) != driver.Unavailable || !strings.Contains(err.Error(), addr) {
		t.Errorf("Connect() = %v; want an error of class %v that names %s", err, driver.Unavailable, addr)
	}
	if l, err = net.Listen("tcp", addr); err != nil {
		t.Skipf("needs port %s back, which another took: %v", addr, err)
	}
	defer l.Close()
	connect(t, c)
}

// Neither planning nor opening a tree, nor a second look, may move DTR.
func TestPresenceMovesNothing(t *testing.T) {
	d, bench := plug(t, &models.UART{})
	for range 2 {
		tree := bench.Tree(t, "url: "+d.path, pyserial.Spec)
		if _, err := tree.Root.Driver(t.Context()); err != nil {
			t.Fatalf("Driver() = %v; want a driver", err)
		}
		if err := serial.NewClient(tree.Root.Caller()).Close(t.Context()); err != nil {
			t.Fatalf("Close() = %v; want nil", err)
		}
	}
	if got := d.Edges(); len(got) != 0 {
		t.Errorf("Edges() = %v; want none", got)
	}
}

func TestPresence(t *testing.T) {
	tests := []struct {
		path  string
		check bool
		class driver.Class // of close, which needs no device by itself
	}{
		{"/dev/absent", true, driver.Unavailable},
		{"/dev/absent", false, driver.OK},
		{"/dev/other", true, driver.Unavailable},
		{"/dev/forbidden", true, driver.Device},
		{"/dev/forbidden", false, driver.OK},
	}
	for _, test := range tests {
		host, board := hwtest.Host()
		board.Serial.Put("/dev/other")
		board.Serial.Plug("/dev/forbidden", &models.UART{})
		board.Serial.Forbid("/dev/forbidden", true)
		log := &drivertest.Log{}
		c := open(t, drivertest.Bench{Host: host, Log: log}, fmt.Sprintf("{url: %s, check_present: %t}", test.path, test.check))
		warned := strings.Contains(log.String(), "device cannot be used now")
		if warned != test.check {
			t.Errorf("with check_present %t, the log is %q; want a warning = %t", test.check, log, test.check)
		}
		err := c.Close(t.Context())
		if got := driver.Classify(err); got != test.class {
			t.Errorf("Close() with %s = %v; want class %v", test.path, err, test.class)
		}
		if err != nil && !strings.Contains(err.Error(), test.path) {
			t.Errorf("Close() = %v; want an error that names %s", err, test.path)
		}
		if _, err := c.Connect(t.Context()); err == nil || test.path == "/dev/absent" && driver.Classify(err) != driver.Unavailable {
			t.Errorf("Connect() with %s = %v; want an error", test.path, err)
		}
	}
}

// A device that is plugged in after the session began is found.
func TestLatePlug(t *testing.T) {
	d, bench := plug(t, &models.UART{})
	d.unplug(t)
	c := open(t, bench, "url: "+d.path)
	if _, err := c.Connect(t.Context()); driver.Classify(err) != driver.Unavailable {
		t.Fatalf("Connect() = %v; want class %v", err, driver.Unavailable)
	}
	d.plugIn(t)
	s := connect(t, c)
	if got := drivertest.Exchange(t, duplex{s, d.UART}, "found"); got != "found" {
		t.Errorf("Read() = %q; want found", got)
	}
}

func TestBusy(t *testing.T) {
	d, bench := plug(t, &models.UART{})
	c := open(t, bench, "url: "+d.path)
	connect(t, c)
	if _, err := c.Connect(t.Context()); !errors.Is(err, driver.ErrBusy) || !strings.Contains(err.Error(), "already connected") {
		t.Errorf("Connect() of a second client = %v; want %v that says why", err, driver.ErrBusy)
	}
	// Another program, or another node, has the port.
	other := open(t, bench, "url: "+d.path)
	if _, err := other.Connect(t.Context()); !errors.Is(err, hw.ErrBusy) {
		t.Errorf("Connect() from elsewhere = %v; want %v", err, hw.ErrBusy)
	}
	if err := other.SetDTR(t.Context(), false); !errors.Is(err, hw.ErrBusy) {
		t.Errorf("SetDTR() from elsewhere = %v; want %v", err, hw.ErrBusy)
	}
}

func edges(u *models.UART) string {
	var all []string
	for _, e := range u.Edges() {
		all = append(all, e.String())
	}
	return strings.Join(all, " ")
}

func TestLines(t *testing.T) {
	type step struct {
		do   func(t *testing.T, c *serial.Client)
		want string // edges
	}
	var s io.ReadWriteCloser
	open_ := func(t *testing.T, c *serial.Client) { s = connect(t, c) }
	shut := func(t *testing.T, _ *serial.Client) { s.Close() }
	dtr := func(on bool) func(*testing.T, *serial.Client) {
		return func(t *testing.T, c *serial.Client) {
			if err := c.SetDTR(t.Context(), on); err != nil {
				t.Fatalf("SetDTR(%t) = %v; want nil", on, err)
			}
		}
	}
	rts := func(on bool) func(*testing.T, *serial.Client) {
		return func(t *testing.T, c *serial.Client) {
			if err := c.SetRTS(t.Context(), on); err != nil {
				t.Fatalf("SetRTS(%t) = %v; want nil", on, err)
			}
		}
	}
	tests := []struct {
		name, keys string
		steps      []step
	}{
		{"while connected", "", []step{
			{open_, "DTR+ RTS+"},
			{dtr(true), ""},
			{dtr(false), "DTR-"},
			{rts(false), "RTS-"},
			{rts(true), "RTS+"},
			{shut, "RTS-"},
		}},
		{"on its own", "", []step{
			{dtr(true), "DTR+ RTS+ DTR- RTS-"},
			{rts(false), "DTR+ RTS+ RTS- DTR-"},
		}},
		{"kept on its own", ", disable_hupcl: true", []step{
			{dtr(true), "DTR+ RTS+"},
			{dtr(false), "DTR-"},
		}},
		{"kept while connected", ", disable_hupcl: true", []step{
			{open_, "DTR+ RTS+"},
			{rts(false), "RTS-"},
			{shut, ""},
			{open_, "RTS+"},
			{shut, ""},
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d, bench := plug(t, &models.UART{})
			c := open(t, bench, fmt.Sprintf("{url: %s%s}", d.path, test.keys))
			before := ""
			for i, st := range test.steps {
				st.do(t, c)
				all := edges(d.UART)
				if got := strings.TrimSpace(strings.TrimPrefix(all, before)); got != st.want {
					t.Errorf("step %d: edges = %q; want %q", i, got, st.want)
				}
				before = all
			}
		})
	}
}

// A line that is set while a client is connected must not open the port again:
// that would discard what has come in.
func TestLinesKeepInput(t *testing.T) {
	d, bench := plug(t, &models.UART{})
	c := open(t, bench, "url: "+d.path)
	s := connect(t, c)
	io.WriteString(d, "unread")
	if err := c.SetDTR(t.Context(), false); err != nil {
		t.Fatalf("SetDTR() = %v; want nil", err)
	}
	if got := drivertest.Exchange(t, duplex{s, io.Discard}, "unread"); got != "unread" {
		t.Errorf("Read() = %q; want unread", got)
	}
}

// Values as upstream's lax booleans.
func TestLinesLax(t *testing.T) {
	d, bench := plug(t, &models.UART{})
	call := bench.Open(t, "url: "+d.path, pyserial.Spec)
	connect(t, serial.NewClient(call))
	for _, v := range []any{"off", 1, false, "true", 0.0} {
		if err := driver.Run(t.Context(), call, "set_dtr", v); err != nil {
			t.Errorf("set_dtr(%v) = %v; want nil", v, err)
		}
	}
	if got, want := edges(d.UART), "DTR+ RTS+ DTR- DTR+ DTR- DTR+ DTR-"; got != want {
		t.Errorf("edges = %s; want %s", got, want)
	}
	for _, v := range []any{nil, 2, "maybe", []any{}} {
		if err := driver.Run(t.Context(), call, "set_rts", v); driver.Classify(err) != driver.Invalid {
			t.Errorf("set_rts(%v) = %v; want class %v", v, err, driver.Invalid)
		}
	}
}

func TestSettings(t *testing.T) {
	for _, test := range []struct {
		keys string
		want models.Settings
	}{
		{"", models.Settings{Baud: 115200, HUPCL: true}},
		{", baudrate: 250000, disable_hupcl: true", models.Settings{Baud: 250000}},
	} {
		d, bench := plug(t, &models.UART{})
		connect(t, open(t, bench, fmt.Sprintf("{url: %s%s}", d.path, test.keys)))
		if got := d.Settings(); got != test.want {
			t.Errorf("Settings() with %q = %+v; want %+v", test.keys, got, test.want)
		}
	}
	for _, url := range []string{"loop://", "socket://localhost:2000"} {
		log := &drivertest.Log{}
		open(t, drivertest.Bench{Log: log}, fmt.Sprintf("{url: '%s', disable_hupcl: true}", url))
		if !strings.Contains(log.String(), "disable_hupcl has no effect") {
			t.Errorf("log of %s = %q; want a warning about disable_hupcl", url, log)
		}
	}
}

// The rate of the config reaches every kind of line.
func TestCPS(t *testing.T) {
	const text = "hello world!" // 12 bytes take 11 pauses
	t.Run("loop", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			for cps, want := range map[string]time.Duration{"5": 2200 * time.Millisecond, "0": 0, "-1": 0, "null": 0} {
				s := connect(t, open(t, drivertest.Bench{}, "{url: loop://, cps: "+cps+"}"))
				began := time.Now()
				drivertest.Exchange(t, s, text)
				if got := time.Since(began); got != want {
					t.Errorf("Write(%d bytes) at cps %s took %v; want %v", len(text), cps, got, want)
				}
			}
		})
	})
	t.Run("device", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d, bench := plug(t, &models.UART{})
			s := connect(t, open(t, bench, fmt.Sprintf("{url: %s, cps: 5}", d.path)))
			began := time.Now()
			io.WriteString(s, text)
			if got, want := time.Since(began), 2200*time.Millisecond; got != want || string(d.Received.Bytes()) != text {
				t.Errorf("Write(%q) took %v and sent %q; want %v and all", text, got, d.Received.Bytes(), want)
			}
		})
	})
	t.Run("socket", func(t *testing.T) {
		addr, accept := server(t)
		s := connect(t, open(t, drivertest.Bench{}, fmt.Sprintf("{url: 'socket://%s', cps: 0.001}", addr)))
		far := accept()
		writing := make(chan error, 1)
		go func() {
			_, err := io.WriteString(s, "ab")
			writing <- err
		}()
		if got := drivertest.Exchange(t, duplex{far, io.Discard}, "a"); got != "a" {
			t.Errorf("Read() = %q; want the first byte", got)
		}
		s.Close() // the second is due in a quarter of an hour
		if err := <-writing; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write() = %v; want %v", err, net.ErrClosed)
		}
	})
}

// Chunks keep their boundaries, a full loop makes its writer wait, and each
// client has a loop to itself.
func TestLoopChunks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, drivertest.Bench{}, "url: loop://")
		s, other := connect(t, c), connect(t, c)
		var sent []string
		written := 0
		go func() {
			for i := range 40 {
				io.WriteString(s, strings.Repeat("x", i))
				written++
			}
		}()
		synctest.Wait()
		if written != 32 {
			t.Errorf("%d chunks fit into a loop; want 32", written)
		}
		buf := make([]byte, 64)
		for i := range 40 {
			n, err := s.Read(buf)
			if n != i || err != nil {
				t.Errorf("Read() of chunk %d = %d, %v; want %d, nil", i, n, err, i)
			}
			sent = append(sent, string(buf[:n]))
		}
		if _, ok := s.(driver.PacketStream); !ok {
			t.Errorf("Connect() = %T; want a PacketStream", s)
		}
		if got := drivertest.Exchange(t, other, "mine"); got != "mine" {
			t.Errorf("Read() of another client = %q; want its own", got)
		}
	})
}

// A huge write comes out whole, and what follows waits for room.
func TestLoopLongChunk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := connect(t, open(t, drivertest.Bench{}, "url: loop://"))
		want := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB
		done := false
		go func() {
			s.Write(want[:len(want)-1])
			s.Write(want[len(want)-1:])
			done = true
		}()
		synctest.Wait()
		if done {
			t.Error("Write() behind 4 MiB returned before a Read; want it to wait")
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("Read() = %v, equal = %t; want what was written", err, bytes.Equal(got, want))
		}
	})
}

// When the session ends so does every stream.
func TestSessionEnd(t *testing.T) {
	drivertest.NoLeaks(t)
	addr, _ := server(t)
	d, bench := plug(t, &models.UART{})
	for _, url := range []string{"loop://", "socket://" + addr, d.path} {
		tree, problems := bench.Plan(t, "url: "+url, pyserial.Spec)
		if err := problems.Err(); err != nil {
			t.Fatalf("Plan() = %v; want nil", err)
		}
		c := serial.NewClient(tree.Root.Caller())
		s := connect(t, c)
		reading := make(chan error, 1)
		go func() {
			_, err := s.Read(make([]byte, 1))
			reading <- err
		}()
		if err := tree.Close(); err != nil {
			t.Errorf("Close() of the tree = %v; want nil", err)
		}
		if err := <-reading; driver.Classify(err) != driver.Unavailable {
			t.Errorf("Read() of %s = %v; want class %v", url, err, driver.Unavailable)
		}
		if _, err := c.Connect(t.Context()); driver.Classify(err) != driver.Unavailable {
			t.Errorf("Connect() to %s after the end = %v; want class %v", url, err, driver.Unavailable)
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close() of the stream of %s = %v; want nil", url, err)
		}
	}
	if got := d.Open(); got != 0 {
		t.Errorf("%d ports are open; want none", got)
	}
}

func FuzzURL(f *testing.F) {
	for _, url := range []string{"/dev/ttyUSB0", "loop://", "socket://[::1]:2000/?logging=info", "socket://a:b", "spy://x", "://", "socket://%zz:1"} {
		f.Add(url)
	}
	f.Fuzz(func(t *testing.T, url string) {
		c := &pyserial.Config{URL: url}
		err, claims := c.Validate(), c.Claims()
		switch {
		case err != nil && !strings.HasPrefix(err.Error(), "url: "):
			t.Errorf("Validate(%q) = %v; want an error about url", url, err)
		case (len(claims) > 0) != (err == nil && !strings.Contains(url, "://")):
			t.Errorf("Claims(%q) = %v with %v; want one for a path only", url, claims, err)
		}
	})
}
