package tcp_test

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/network"
	"github.com/jumplead/jumplead/drivers/network/networktest"
	"github.com/jumplead/jumplead/drivers/network/tcp"
)

// config points at an address, which may be one that is being listened at.
func config(t *testing.T, addr net.Addr) string {
	t.Helper()
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("{host: %q, port: %s}", host, port)
}

func open(t *testing.T, config string) *network.Client {
	t.Helper()
	return network.NewClient(drivertest.Open(t, config, tcp.Network))
}

func TestConformance(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		if ln, err := net.Listen("tcp", address); err == nil {
			ln.Close()
		} else if strings.Contains(address, "::1") {
			t.Logf("no IPv6 here: %v", err)
			continue
		}
		t.Run(address, func(t *testing.T) {
			networktest.Test(t, func(t *testing.T) networktest.Service {
				echo, reset, gone := networktest.Listen(t, "tcp", address), networktest.Listen(t, "tcp", address), networktest.Listen(t, "tcp", address)
				networktest.Serve(t, echo, networktest.Echo)
				networktest.Serve(t, reset, networktest.Reset)
				gone.Close()
				return networktest.Service{
					Interface: open(t, config(t, echo.Addr())),
					HalfClose: true,
					Absent:    open(t, config(t, gone.Addr())),
					Resetting: open(t, config(t, reset.Addr())),
				}
			})
		})
	}
}

func TestSpec(t *testing.T) {
	const config = "{host: 192.0.2.1, port: 22}"
	drivertest.Spec(t, tcp.Network, config)
	d, err := drivertest.Bench{}.Tree(t, config, tcp.Network).Root.Driver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	drivertest.Rows(t, d)
	if claims := (drivertest.Bench{}).Tree(t, config, tcp.Network).Root.Claims(); len(claims) != 0 {
		t.Errorf("Claims() = %v; want none: connections share nothing", claims)
	}
	for config, want := range map[string]string{
		"{host: dut, port: 22, prot: 1}":           `unknown key "prot"; did you mean "port"?`,
		"{host: dut}":                              `key "port" is missing`,
		"{port: 22}":                               `key "host" is missing`,
		`{host: "", port: 22}`:                     "host: is empty",
		"{host: dut, port: 65536}":                 "65536 is out of range: 1 to 65535",
		"{host: dut, port: ssh}":                   `wants an integer, got "ssh"`,
		"{host: dut, port: 22, enable_address: 5}": "wants true or false",
	} {
		_, problems := drivertest.Bench{}.Plan(t, config, tcp.Network)
		if err := problems.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Plan(%s) = %v; want %s", config, err, want)
		}
	}
}

func TestAddress(t *testing.T) {
	for config, want := range map[string]string{
		"{host: 127.0.0.1, port: 5201}":    "tcp://127.0.0.1:5201",
		`{host: "::1", port: "8080"}`:      "tcp://[::1]:8080",
		`{host: "2001:db8::1", port: 443}`: "tcp://[2001:db8::1]:443",
	} {
		if got, err := open(t, config).Address(t.Context()); got != want || err != nil {
			t.Errorf("Address() of %s = %q, %v; want %q", config, got, err, want)
		}
	}
	c := open(t, "{host: 127.0.0.1, port: 5201, enable_address: false}")
	got, err := c.Address(t.Context())
	if driver.Classify(err) != driver.Invalid || !strings.Contains(fmt.Sprint(err), "enable_address mode is not true in the exporter configuration") {
		t.Errorf("Address() when it is disabled = %q, %v; want an ArgError that names enable_address", got, err)
	}
}

func TestErrorsNameThePeer(t *testing.T) {
	ln := networktest.Listen(t, "tcp", "127.0.0.1:0")
	ln.Close()
	_, err := open(t, config(t, ln.Addr())).Connect(t.Context())
	port := strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)
	if want := "connect to 127.0.0.1:" + port + ": connect: connection refused"; err == nil || err.Error() != want {
		t.Errorf("Connect() = %v; want %q", err, want)
	}
}
