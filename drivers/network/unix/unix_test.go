package unix_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/network"
	"github.com/jumplead/jumplead/drivers/network/networktest"
	"github.com/jumplead/jumplead/drivers/network/unix"
)

func open(t *testing.T, path string) *network.Client {
	t.Helper()
	return network.NewClient(drivertest.Open(t, fmt.Sprintf("{path: %q}", path), unix.Network))
}

// folder is a short-named temporary folder: socket paths are limited.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "un")
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
			Interface: open(t, echo),
			HalfClose: true,
			Absent:    open(t, filepath.Join(dir, "absent")),
			Resetting: open(t, reset),
		}
	})
}

func TestSpec(t *testing.T) {
	const config = "{path: /run/example.sock}"
	drivertest.Spec(t, unix.Network, config)
	d, err := drivertest.Bench{}.Tree(t, config, unix.Network).Root.Driver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	drivertest.Rows(t, d)
	for config, want := range map[string]string{
		"":                   `key "path" is missing`,
		`{path: ""}`:         "path: is empty",
		"{path: a, host: b}": `unknown key "host"`,
		"{path: " + strings.Repeat("x", 108) + "}": "path: has 108 bytes, and the kernel takes 107",
	} {
		_, problems := drivertest.Bench{}.Plan(t, config, unix.Network)
		if err := problems.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Plan(%q) = %v; want %s", config, err, want)
		}
	}
	if got, err := open(t, "x").Address(t.Context()); driver.Classify(err) != driver.NoMethod {
		t.Errorf("Address() = %q, %v; want %v", got, err, driver.ErrNoMethod)
	}
}

func TestNames(t *testing.T) {
	t.Chdir(folder(t))
	abstract := "@" + t.Name() + filepath.Base(folder(t))
	for _, c := range []struct{ listen, path string }{
		{"relative", "relative"},
		{strings.Repeat("x", 107), strings.Repeat("x", 107)},
		{"./@file", "./@file"},
		{abstract, abstract},
	} {
		networktest.Serve(t, networktest.Listen(t, "unix", c.listen), networktest.Echo)
		conn, err := open(t, c.path).Connect(t.Context())
		if err != nil {
			t.Errorf("Connect() to %s = %v; want a stream", c.path, err)
			continue
		}
		if got := drivertest.Exchange(t, conn, "hello"); got != "hello" {
			t.Errorf("Exchange(hello) over %s = %q; want hello", c.path, got)
		}
		conn.Close()
	}
}

// A stale socket file, left by a service that was killed, refuses.
func TestStale(t *testing.T) {
	path := filepath.Join(folder(t), "stale")
	ln := networktest.Listen(t, "unix", path).(*net.UnixListener)
	ln.SetUnlinkOnClose(false)
	ln.Close()
	_, err := open(t, path).Connect(t.Context())
	if driver.Classify(err) != driver.Unavailable || !strings.Contains(fmt.Sprint(err), path) {
		t.Errorf("Connect() = %v; want an error that names %s and classifies as %v", err, path, driver.Unavailable)
	}
}
