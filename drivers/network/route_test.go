package network_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/network"
)

// A way is found without anybody being connected to.
func TestRoute(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		accepted <- err
	}()
	addr := l.Addr().String()
	if got, err := network.Route(t.Context(), addr); err != nil || !strings.HasPrefix(got, "there is a way to "+addr+" (127.0.0.1), from 127.0.0.1;") {
		t.Errorf("Route(%s) = %q, %v; want a way", addr, got, err)
	}
	l.Close()
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept() = %v; want that nobody has connected", err)
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		ctx  context.Context
		addr string
		want driver.Condition
		text string
	}{
		{t.Context(), "bad..name:22", driver.Absent, "connect to bad..name:22: unavailable: lookup bad..name: no such host"},
		{done, "127.0.0.1:22", driver.Wrong, "connect to 127.0.0.1:22: context canceled"},
		{t.Context(), "127.0.0.1", driver.Wrong, "missing port in address"},
	} {
		_, err := network.Route(test.ctx, test.addr)
		if driver.ConditionOf(err) != test.want || !strings.Contains(fmt.Sprint(err), test.text) {
			t.Errorf("Route(%s) = %v (%s); want %s with %q", test.addr, err, driver.ConditionOf(err), test.want, test.text)
		}
	}
}

func TestSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "route") // paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path, file := filepath.Join(dir, "s"), filepath.Join(dir, "f")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		path string
		want driver.Condition
		text string
	}{
		{path, driver.Healthy, "the socket " + path},
		{"@bus", driver.Healthy, "an abstract socket, @bus"},
		{path + "x", driver.Absent, "connect to " + path + "x: unavailable: no such file or directory: does the service run?"},
		{file, driver.Wrong, "it is no socket"},
		{filepath.Join(file, "x"), driver.Wrong, "not a directory"},
	} {
		got, err := network.Socket(test.path)
		if err != nil {
			got = err.Error()
		}
		if driver.ConditionOf(err) != test.want || !strings.Contains(got, test.text) {
			t.Errorf("Socket(%s) = %s (%s); want %s with %q", test.path, got, driver.ConditionOf(err), test.want, test.text)
		}
	}
}
