package exporter

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Of many exporters that start at once where one was killed, one gets the socket,
// and is reached there.
func TestListenTogether(t *testing.T) {
	dir := t.TempDir()
	at := Address{"unix", filepath.Join(dir, "socket")}
	for range 100 {
		stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: at.Address, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		stale.SetUnlinkOnClose(false)
		stale.Close()
		var (
			all   sync.WaitGroup
			mu    sync.Mutex
			taken []net.Listener
			start = make(chan struct{})
		)
		for range 8 {
			all.Go(func() {
				<-start
				ln, err := at.listen()
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					taken = append(taken, ln)
				} else if want := fmt.Sprintf("%s: process %d (", at, os.Getpid()); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), want) {
					t.Errorf("listen() beside another = %v; want %v and %q", err, syscall.EADDRINUSE, want)
				}
			})
		}
		close(start)
		all.Wait()
		for _, ln := range taken {
			defer ln.Close()
		}
		if len(taken) != 1 {
			t.Fatalf("%d of 8 exporters listen on %s; want 1", len(taken), at)
		}
		ln := taken[0]
		go func() { // also for those who asked whether anybody is there
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				io.WriteString(c, "here")
				c.Close()
			}
		}()
		c, err := net.Dial("unix", at.Address)
		if err != nil {
			t.Fatalf("Dial(%s) = %v; want who listens there", at, err)
		}
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if got, err := io.ReadAll(c); string(got) != "here" {
			t.Errorf("who listens says %q, %v; want here", got, err)
		}
		c.Close()
		ln.Close()
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Fatalf("there is left %v, %v; want nothing", left, err)
		}
	}
}

// What a crash leaves is in nobody's way; who is about to listen is.
func TestListenLock(t *testing.T) {
	at := Address{"unix", filepath.Join(t.TempDir(), "socket")}
	if err := os.WriteFile(at.Address+".lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ln, err := at.listen()
	if err != nil {
		t.Fatalf("listen() where a lock file is left = %v; want nil", err)
	}
	defer ln.Close()
	if _, err := os.Lstat(at.Address + ".lock"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Lstat() of the lock file = %v; want that it is gone", err)
	}

	precious := filepath.Join(t.TempDir(), "precious")
	if err := os.Symlink(precious, at.Address+".lock"); err != nil {
		t.Fatal(err)
	}
	if ln, err := at.listen(); err == nil || !errors.Is(err, syscall.ELOOP) {
		if err == nil {
			ln.Close()
		}
		t.Errorf("listen() with a link in the lock's place = %v; want %v", err, syscall.ELOOP)
	}
	if _, err := os.Lstat(precious); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Lstat() of what the link points to = %v; want that it was not made", err)
	}
}
