package unix_test

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/jumplead/jumplead/drivers/network/networktest"
)

// Simulators listen with queues as short as one; whoever comes then has to wait
// and is not turned away.
func TestFullQueue(t *testing.T) {
	path := filepath.Join(folder(t), "full")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), path)
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	ln, err := net.FileListener(f) // on a copy of the descriptor
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c := open(t, path)
	first, err := c.Connect(t.Context()) // fills the queue
	if err != nil {
		t.Fatalf("Connect() = %v; want a stream", err)
	}
	defer first.Close()
	if _, err := net.Dial("unix", path); err == nil {
		t.Skip("the kernel's queue is longer than was asked for")
	}
	networktest.Serve(t, ln, networktest.Echo)
	var all []func()
	for range 5 {
		done := make(chan error, 1)
		go func() {
			conn, err := c.Connect(t.Context())
			if err == nil {
				conn.Close()
			}
			done <- err
		}()
		all = append(all, func() {
			if err := <-done; err != nil {
				t.Errorf("Connect() to a busy listener = %v; want a stream", err)
			}
		})
	}
	for _, wait := range all {
		wait()
	}
}
