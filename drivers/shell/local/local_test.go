package local_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/shell"
	"github.com/jumplead/jumplead/drivers/shell/local"
	"github.com/jumplead/jumplead/drivers/shell/shelltest"
	"github.com/jumplead/jumplead/exporter"
	"github.com/jumplead/jumplead/exporter/client"
)

func open(t testing.TB, config string) *shell.Client {
	t.Helper()
	return shell.NewClient(drivertest.Open(t, config, local.Shell))
}

// wire serves the scripts over gRPC, as an exporter does.
func wire(t testing.TB, config string) *shell.Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "shell") // paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan net.Addr, 1), make(chan error, 1)
	go func() {
		done <- exporter.Run(ctx, exporter.Options{
			Name:   "test",
			Export: driver.Decl{Type: local.Shell.Type, Config: drivertest.YAML(t, config)},
			Driver: driver.Options{Specs: []driver.Spec{local.Shell}},
			Listen: exporter.Address{Network: "unix", Address: filepath.Join(dir, "s")},
			Ready:  func(a net.Addr) { ready <- a },
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run() = %v; want nil", err)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		done <- err
		t.Fatalf("Run() = %v; want it to serve", err)
	}
	c, err := client.Dial(t.Context(), filepath.Join(dir, "s"), client.Options{})
	if err != nil {
		t.Fatalf("Dial() = %v; want nil", err)
	}
	t.Cleanup(func() { c.Close() })
	return shell.NewClient(c.Root)
}

func TestConformance(t *testing.T) {
	drivertest.NoLeaks(t)
	shelltest.Test(t, func(t *testing.T, config string) shell.Interface { return open(t, config) })
}

func TestConformanceOverTheWire(t *testing.T) {
	drivertest.NoLeaks(t)
	shelltest.Test(t, func(t *testing.T, config string) shell.Interface { return wire(t, config) })
}
