package network

import (
	"context"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
)

// busy is a TCP address that does not answer: its queue of connections is full,
// and Linux drops what comes then.
func busy(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	t.Cleanup(func() { f.Close() })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*syscall.SockaddrInet4).Port)).String()
	for range 8 {
		c, err := net.DialTimeout("tcp", addr, 200*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Skip("the kernel's queue of connections does not fill")
	return ""
}

func TestDialTimeout(t *testing.T) {
	addr := busy(t)
	_, err := dial(t.Context(), "tcp", addr, 100*time.Millisecond)
	if want := "connect to " + addr + ": no answer within 100ms: i/o timeout"; err == nil || err.Error() != want || driver.Classify(err) != driver.Timeout {
		t.Errorf("dial() = %v (%v); want %s (%v)", err, driver.Classify(err), want, driver.Timeout)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = Dial(ctx, "tcp", addr)
	if want := "connect to " + addr + ": i/o timeout"; err == nil || err.Error() != want || driver.Classify(err) != driver.Timeout {
		t.Errorf("Dial() with a deadline = %v (%v); want %s (%v)", err, driver.Classify(err), want, driver.Timeout)
	}
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err = Dial(ctx, "tcp", addr); driver.Classify(err) != driver.Canceled {
		t.Errorf("Dial() that is cancelled = %v (%v); want %v", err, driver.Classify(err), driver.Canceled)
	}
}
