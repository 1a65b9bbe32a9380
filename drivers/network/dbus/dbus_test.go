package dbus_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/network"
	"github.com/jumplead/jumplead/drivers/network/dbus"
	"github.com/jumplead/jumplead/drivers/network/networktest"
	"github.com/jumplead/jumplead/hw/hwtest"
)

// open opens the session bus at an address.
func open(t *testing.T, address string) *network.Client {
	t.Helper()
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", address)
	return network.NewClient(drivertest.Open(t, "{kind: session}", dbus.Network))
}

// folder is a short-named temporary folder: socket paths are limited.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "db")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestConformance(t *testing.T) {
	networktest.Test(t, func(t *testing.T) networktest.Service {
		dir := folder(t)
		echo, reset := filepath.Join(dir, "echo"), filepath.Join(dir, "reset")
		networktest.Serve(t, networktest.Listen(t, "unix", echo), networktest.Echo)
		networktest.Serve(t, networktest.Listen(t, "unix", reset), networktest.Reset)
		return networktest.Service{
			Interface: open(t, "unix:path="+echo),
			HalfClose: true,
			Absent:    open(t, "unix:path="+filepath.Join(dir, "absent")+";unix:path="+filepath.Join(dir, "absent_too")),
			Resetting: open(t, "unix:path="+reset),
		}
	})
}

func TestSpec(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "")
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent")
	drivertest.Spec(t, dbus.Network, "{kind: system}")
	drivertest.Bench{}.Lifecycle(t, "{kind: session}", dbus.Network)
	for _, kind := range []string{"system", "session"} {
		tree := drivertest.Bench{}.Tree(t, "{kind: "+kind+"}", dbus.Network)
		if got := tree.Reports()[0].Labels["jumpstarter.dev/dbusnetwork/kind"]; got != kind {
			t.Errorf("label of the %s bus = %q; want %q", kind, got, kind)
		}
	}
	if got, err := open(t, "unix:path=/x").Address(t.Context()); driver.Classify(err) != driver.NoMethod {
		t.Errorf("Address() = %q, %v; want %v", got, err, driver.ErrNoMethod)
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "tcp:host=x")
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "nonsense")
	for config, want := range map[string]string{
		"":                `key "kind" is missing`,
		"{kind: sistem}":  `kind: "sistem" is none of system, session; did you mean "system"?`,
		"{kind: system}":  `1:2: export: kind: DBUS_SYSTEM_BUS_ADDRESS is "tcp:host=x": "tcp:host=x": port is "": wants a number`,
		"{kind: session}": `kind: DBUS_SESSION_BUS_ADDRESS is "nonsense": "nonsense" has no transport`,
	} {
		_, problems := drivertest.Bench{}.Plan(t, config, dbus.Network)
		if err := problems.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Plan(%s) = %v; want %s", config, err, want)
		}
	}
}

// Without a word in the environment buses are where systems have them.
func TestDefaults(t *testing.T) {
	for kind, want := range map[string]string{
		"system":  "/run/dbus/system_bus_socket",
		"session": "/run/user/" + strconv.Itoa(os.Getuid()) + "/bus",
	} {
		t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "")
		t.Setenv("DBUS_SESSION_BUS_ADDRESS", "")
		log := &drivertest.Log{}
		c := network.NewClient(drivertest.Bench{Log: log}.Open(t, "{log_level: DEBUG, kind: "+kind+"}", dbus.Network))
		if conn, err := c.Connect(t.Context()); err == nil {
			conn.Close() // a machine with a bus
		} else if driver.Classify(err) != driver.Unavailable || !strings.Contains(err.Error(), want) {
			t.Errorf("Connect() to the %s bus = %v; want an error that names %s", kind, err, want)
		}
		if !strings.Contains(log.String(), "address="+want) {
			t.Errorf("log = %s; want it to name %s", log, want)
		}
	}
}

func TestTransports(t *testing.T) {
	abstract := t.Name() + filepath.Base(folder(t))
	dir := folder(t)
	tcp := networktest.Listen(t, "tcp", "127.0.0.1:0")
	port := strconv.Itoa(tcp.Addr().(*net.TCPAddr).Port)
	networktest.Serve(t, tcp, networktest.Echo)
	networktest.Serve(t, networktest.Listen(t, "unix", "@"+abstract), networktest.Echo)
	networktest.Serve(t, networktest.Listen(t, "unix", filepath.Join(dir, "a b,c")), networktest.Echo)
	for _, address := range []string{
		"tcp:host=127.0.0.1,port=" + port,
		"tcp:host=localhost,port=" + port + ",family=ipv4",
		"unix:abstract=" + abstract,
		"unix:path=" + dir + "/a%20b%2cc",
		"autolaunch:;unix:path=" + dir + "/absent;tcp:host=127.0.0.1,port=" + port,
	} {
		conn, err := open(t, address).Connect(t.Context())
		if err != nil {
			t.Errorf("Connect() to %s = %v; want a stream", address, err)
			continue
		}
		if got := drivertest.Exchange(t, conn, "hello"); got != "hello" {
			t.Errorf("Exchange(hello) over %s = %q; want hello", address, got)
		}
		conn.Close()
	}
}

// When no address answers, the error says of each why.
func TestAllAbsent(t *testing.T) {
	dir := folder(t)
	_, err := open(t, "unix:path="+dir+"/a;unix:path="+dir+"/b").Connect(t.Context())
	for _, want := range []string{"connect to " + dir + "/a: ", "; connect to " + dir + "/b: "} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("Connect() = %v; want %q in it", err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = open(t, "unix:path="+dir+"/a;unix:path="+dir+"/b").Connect(ctx)
	if driver.Classify(err) != driver.Canceled || strings.Contains(fmt.Sprint(err), "/b") {
		t.Errorf("Connect() that is cancelled = %v; want %v, and no second attempt", err, driver.Canceled)
	}
}

// daemon starts a bus and returns its address.
func daemon(t *testing.T) string {
	t.Helper()
	hwtest.Need(t, hwtest.DBus)
	dir := folder(t)
	config := filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(config, []byte(`<busconfig>
  <type>session</type>
  <listen>unix:path=`+dir+`/bus</listen>
  <policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy>
</busconfig>`), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dbus-daemon", "--config-file="+config, "--nofork", "--nopidfile", "--print-address=1")
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	address, err := bufio.NewReader(out).ReadString('\n') // it listens then
	if err != nil {
		t.Fatalf("dbus-daemon: %v", err)
	}
	return strings.TrimSpace(address)
}

// A real bus talks to a client that comes to it as upstream's does: through a
// forwarded TCP port.
func TestDaemon(t *testing.T) {
	c := open(t, daemon(t))
	ln := networktest.Listen(t, "tcp", "127.0.0.1:0")
	ctx, cancel := context.WithCancel(context.Background())
	forwarded := make(chan error, 1)
	go func() { forwarded <- network.Forward(ctx, ln, c, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-forwarded; err != nil {
			t.Errorf("Forward() = %v; want nil", err)
		}
	})
	var names []string
	for range 2 {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		r := bufio.NewReader(conn)
		say(t, conn, "\x00AUTH EXTERNAL "+hex.EncodeToString([]byte(strconv.Itoa(os.Getuid())))+"\r\n")
		if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "OK ") {
			t.Fatalf("AUTH = %q, %v; want OK", line, err)
		}
		say(t, conn, "BEGIN\r\n"+hello())
		names = append(names, answer(t, r))
	}
	if names[0] == names[1] || !strings.HasPrefix(names[0], ":1.") || !strings.HasPrefix(names[1], ":1.") {
		t.Errorf("Hello() = %q; want two names of the bus's making", names)
	}
}

func say(t *testing.T, w io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
}

// hello is the first call of every client, which asks the bus for a name.
func hello() string {
	var fields bytes.Buffer
	for i, f := range []struct {
		code byte
		kind string
		text string
	}{
		{1, "o", "/org/freedesktop/DBus"},
		{2, "s", "org.freedesktop.DBus"},
		{3, "s", "Hello"},
		{6, "s", "org.freedesktop.DBus"},
	} {
		if i > 0 {
			pad(&fields)
		}
		fields.Write([]byte{f.code, 1, f.kind[0], 0})
		binary.Write(&fields, binary.LittleEndian, uint32(len(f.text)))
		fields.WriteString(f.text + "\x00")
	}
	var m bytes.Buffer
	m.Write([]byte{'l', 1, 0, 1})
	binary.Write(&m, binary.LittleEndian, []uint32{0, 1, uint32(fields.Len())}) // no body, serial, fields
	m.Write(fields.Bytes())
	pad(&m)
	return m.String()
}

// pad fills up to a multiple of eight bytes.
func pad(b *bytes.Buffer) {
	for b.Len()%8 != 0 {
		b.WriteByte(0)
	}
}

// answer reads a method's answer whose body is a text.
func answer(t *testing.T, r io.Reader) string {
	t.Helper()
	head := make([]byte, 16)
	if _, err := io.ReadFull(r, head); err != nil || head[0] != 'l' || head[1] != 2 {
		t.Fatalf("answer = %q, %v; want a method's return", head, err)
	}
	body, fields := binary.LittleEndian.Uint32(head[4:]), binary.LittleEndian.Uint32(head[12:])
	rest := make([]byte, (fields+7)/8*8+body)
	if _, err := io.ReadFull(r, rest); err != nil {
		t.Fatal(err)
	}
	text := rest[len(rest)-int(body):]
	return string(text[4 : len(text)-1])
}
