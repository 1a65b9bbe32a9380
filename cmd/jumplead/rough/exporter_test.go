package rough_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/composite"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/gpio/gpiod"
	"github.com/jumplead/jumplead/drivers/power/ina"
	"github.com/jumplead/jumplead/drivers/serial/pyserial"
	"github.com/jumplead/jumplead/exporter"
	"github.com/jumplead/jumplead/exporter/client"
	"github.com/jumplead/jumplead/hw"
)

// patience bounds every wait: a machine whose processor is emulated is slow.
const patience = 30 * time.Second

// node is one driver of a harness.
type node struct {
	name   string
	spec   driver.Spec
	config string
}

// serve runs an exporter of some nodes, and dials it.
func serve(t *testing.T, host hw.Host, nodes ...node) *client.Client {
	t.Helper()
	var export driver.Decl
	for _, n := range nodes {
		export.Children = append(export.Children, driver.Decl{Name: n.name, Type: n.spec.Type, Config: drivertest.YAML(t, n.config)})
	}
	dir, err := os.MkdirTemp("", "rough") // paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan net.Addr, 1), make(chan error, 1)
	go func() {
		done <- exporter.Run(ctx, exporter.Options{
			Name:   "test",
			Export: export,
			Driver: driver.Options{Host: host, Specs: []driver.Spec{composite.Composite, gpiod.Output, gpiod.Input, pyserial.Spec, ina.INA226}},
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
	return c
}

func find(t *testing.T, c *client.Client, path string) *client.Node {
	t.Helper()
	n, err := c.Find(path)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// until polls a condition, and says how long that took.
func until(what string, cond func() bool) (time.Duration, error) {
	start := time.Now()
	end := time.NewTimer(patience)
	defer end.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-end.C:
			return 0, fmt.Errorf("%s: not within %v", what, patience)
		}
	}
	return time.Since(start), nil
}

// held is what a process holds.
type held struct {
	routines, files int
	heap            uint64
}

func holds(t *testing.T) (h held) {
	t.Helper()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return held{runtime.NumGoroutine(), len(files), m.HeapAlloc}
}
