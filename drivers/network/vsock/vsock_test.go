package vsock_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/network"
	"github.com/jumplead/jumplead/drivers/network/vsock"
)

func open(t *testing.T, config string) *network.Client {
	t.Helper()
	return network.NewClient(drivertest.Open(t, config, vsock.Network))
}

func TestSpec(t *testing.T) {
	const config = "{cid: 3, port: 1024}"
	drivertest.Spec(t, vsock.Network, config)
	drivertest.Bench{}.Lifecycle(t, config, vsock.Network)
	for config, want := range map[string]string{
		"{port: 1}":                     `key "cid" is missing`,
		"{cid: 3}":                      `key "port" is missing`,
		"{cid: -1, port: 1}":            "-1 is out of range",
		"{cid: 4294967295, port: 1}":    "4294967295 is out of range", // any
		"{cid: 3, port: 4294967296}":    "4294967296 is out of range",
		"{cid: host, port: 1}":          `cid: wants an integer, got "host"`,
		"{cid: 3, port: 1, host: vm-3}": `unknown key "host"`,
	} {
		_, problems := drivertest.Bench{}.Plan(t, config, vsock.Network)
		if err := problems.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Plan(%s) = %v; want %s", config, err, want)
		}
	}
	if got, err := open(t, config).Address(t.Context()); driver.Classify(err) != driver.NoMethod {
		t.Errorf("Address() = %q, %v; want %v", got, err, driver.ErrNoMethod)
	}
}

func TestErrorsNameThePeer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := open(t, "{cid: 3, port: 1024}").Connect(ctx)
	if want := "connect to vsock:3:1024: "; driver.Classify(err) != driver.Canceled || !strings.HasPrefix(fmt.Sprint(err), want) {
		t.Errorf("Connect() with a context that is done = %v (%v); want %s... (%v)", err, driver.Classify(err), want, driver.Canceled)
	}
}
