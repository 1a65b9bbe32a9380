//go:build !ppc64 && !ppc64le

package pty_test

import (
	"errors"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jumplead/jumplead/hw/hwtest"
	"github.com/jumplead/jumplead/hw/serial/pty"
)

// TestOpen checks what the package promises of the two ends, through a close and a new open of the host's.
func TestOpen(t *testing.T) {
	hwtest.Need(t, hwtest.PTY)
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	exchange(t, master, slave)
	if err := slave.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := master.Read(make([]byte, 1)); !errors.Is(err, unix.EIO) {
		t.Errorf("Read() with the slave closed = %d, %v; want EIO", n, err)
	}
	again, err := os.OpenFile(slave.Name(), os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	exchange(t, master, again)
	if err := master.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := again.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("Read() with the master closed = %d, %v; want an error", n, err)
	}
}

// exchange sends every byte both ways. A terminal that is not raw would change some and echo them.
func exchange(t *testing.T, a, b *os.File) {
	t.Helper()
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for _, way := range []struct {
		name     string
		from, to *os.File
	}{{"to the host", a, b}, {"to the device", b, a}} {
		if _, err := way.from.Write(all); err != nil {
			t.Fatalf("%s: Write() = %v; want nil", way.name, err)
		}
		got := make([]byte, len(all))
		if _, err := io.ReadFull(way.to, got); err != nil || string(got) != string(all) {
			t.Fatalf("%s: Read() = %q, %v; want every byte as it was", way.name, got, err)
		}
	}
}
