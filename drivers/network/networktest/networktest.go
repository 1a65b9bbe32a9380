// Package networktest is the conformance suite of the network contract, and the
// peers that it needs. The same suite serves a backend, its in-process round
// trip and a client behind a wire.
package networktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/network"
)

// Service is a service under test and what is known of it.
type Service struct {
	network.Interface // connects to a peer that sends back what it is sent

	Packets   bool // the boundaries of writes are kept, of empty ones too
	Largest   int  // how much one write may hold at most; 0: any
	HalfClose bool // connections have CloseWrite, and the peer answers it by finishing too

	Absent    network.Interface // the same, where nobody listens; nil if there is no such thing
	Resetting network.Interface // the same, with a [Reset] peer; nil if there is no such thing
}

// patience bounds every wait of the suite. Nothing in it takes long.
const patience = 20 * time.Second

// Test runs the suite. Open makes a fresh service and registers its cleanup.
func Test(t *testing.T, open func(t *testing.T) Service) {
	t.Run("echo", func(t *testing.T) {
		for _, size := range []int{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 1 << 20, -1} {
			s := open(t)
			if size < 0 {
				size = s.Largest
			}
			if s.Largest > 0 && size > s.Largest {
				continue
			}
			c := connect(t, s)
			exchange(t, c, size, s.Packets)
			exchange(t, c, 3, s.Packets) // still in step
			closing(t, c)
		}
	})
	t.Run("boundaries", func(t *testing.T) {
		s := open(t)
		if !s.Packets {
			t.Skip("service keeps no packet boundaries")
		}
		c := connect(t, s)
		buf := make([]byte, 16)
		for _, want := range []string{"a", "", "bb", "", "", "ccc"} {
			if n, err := io.WriteString(c, want); n != len(want) || err != nil {
				t.Fatalf("Write(%q) = %d, %v; want %d, nil", want, n, err, len(want))
			}
		}
		for _, want := range []string{"a", "", "bb", "", "", "ccc"} {
			n, err := c.Read(buf)
			if got := string(buf[:n]); got != want || err != nil {
				t.Fatalf("Read() = %q, %v; want %q, nil", got, err, want)
			}
		}
		closing(t, c)
	})
	t.Run("half-close", func(t *testing.T) {
		s := open(t)
		if !s.HalfClose {
			t.Skip("service cannot be half-closed")
		}
		c := connect(t, s)
		want := noise(100_000)
		sent := start(t, "write and half-close", func() error {
			for _, part := range [][]byte{want[:1], want[1:70_000], want[70_000:]} {
				if _, err := c.Write(part); err != nil {
					return err
				}
			}
			return c.(interface{ CloseWrite() error }).CloseWrite()
		})
		defer time.AfterFunc(patience, func() { c.Close() }).Stop()
		got, err := io.ReadAll(c)
		if !bytes.Equal(got, want) || err != nil {
			t.Errorf("ReadAll() = %d bytes, %v; want the %d that were sent, nil", len(got), err, len(want))
		}
		sent()
		if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("Read() after the end = %d, %v; want 0, EOF", n, err)
		}
		if n, err := io.WriteString(c, "more"); err == nil {
			t.Errorf("Write() after CloseWrite = %d, nil; want an error", n)
		}
		closing(t, c)
	})
	t.Run("close while reading", func(t *testing.T) {
		s := open(t)
		c := connect(t, s)
		exchange(t, c, 1, s.Packets) // the connection is up at both ends
		reading := start(t, "read", func() error {
			if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
				return fmt.Errorf("Read() of a closed stream = %d, %v; want 0, an error", n, err)
			}
			return nil
		})
		closing(t, c)
		reading()
		if n, err := io.WriteString(c, "x"); err == nil {
			t.Errorf("Write() to a closed stream = %d, nil; want an error", n)
		}
	})
	t.Run("concurrent", func(t *testing.T) {
		s := open(t)
		var waits []func()
		for range 32 {
			waits = append(waits, start(t, "connect and exchange", func() error {
				c, err := s.Connect(t.Context())
				if err != nil {
					return fmt.Errorf("Connect() = %v; want a stream", err)
				}
				defer c.Close()
				for _, size := range []int{1, 500, 1000} { // all together fit a UDP peer's receive buffer
					if err := exchanged(c, size, s.Packets); err != nil {
						return err
					}
				}
				return nil
			}))
		}
		for _, wait := range waits {
			wait()
		}
	})
	t.Run("context", func(t *testing.T) {
		s := open(t)
		ctx, cancel := context.WithCancel(t.Context())
		c, err := s.Connect(ctx)
		if err != nil {
			t.Fatalf("Connect() = %v; want a stream", err)
		}
		cancel()
		exchange(t, c, 100, s.Packets) // the context bounds the opening only
		closing(t, c)
		c, err = s.Connect(ctx)
		if !errors.Is(err, context.Canceled) || driver.Classify(err) != driver.Canceled {
			t.Errorf("Connect() with a context that is done = %v, %v; want context.Canceled", c, err)
		}
		if c != nil {
			c.Close()
		}
	})
	t.Run("absent", func(t *testing.T) {
		s := open(t)
		if s.Absent == nil {
			t.Skip("service cannot be absent")
		}
		c, err := s.Absent.Connect(t.Context())
		if err == nil {
			c.Close()
		}
		if got := driver.Classify(err); got != driver.Unavailable {
			t.Errorf("Connect() where nobody listens = %v (%v); want %v", err, got, driver.Unavailable)
		}
	})
	t.Run("reset", func(t *testing.T) {
		s := open(t)
		if s.Resetting == nil {
			t.Skip("service has no resets")
		}
		c, err := s.Resetting.Connect(t.Context())
		if err != nil {
			t.Fatalf("Connect() = %v; want a stream", err)
		}
		if _, err := io.WriteString(c, "xy"); err != nil {
			t.Fatalf("Write() = %v; want nil", err)
		}
		read := start(t, "read", func() error {
			n, err := c.Read(make([]byte, 1))
			if n != 0 || err == nil || errors.Is(err, io.EOF) {
				return fmt.Errorf("Read() of a stream that was reset = %d, %v; want 0, an error other than EOF", n, err)
			}
			if got := driver.Classify(err); got != driver.Unavailable {
				return fmt.Errorf("Read() of a stream that was reset = %v (%v); want %v", err, got, driver.Unavailable)
			}
			return nil
		})
		read()
		closing(t, c)
	})
	t.Run("leaks", func(t *testing.T) {
		s := open(t)
		c := connect(t, s) // what is made once for all connections is there now
		exchange(t, c, 1, s.Packets)
		closing(t, c)
		settled := Settled(t)
		for range 20 {
			var batch []io.Closer
			for i := range 50 {
				c := connect(t, s)
				if i%2 == 0 { // drop half of them with something under way
					if _, err := io.WriteString(c, "under way"); err != nil {
						t.Fatalf("Write() = %v; want nil", err)
					}
				}
				batch = append(batch, c)
			}
			for _, c := range batch {
				closing(t, c)
			}
		}
		settled()
	})
}

// Settled notes how many goroutines run and how many files are open. The
// returned function waits until there are no more than that again, and fails
// the test if that does not happen. Where the system does not list a process's
// files, only goroutines count.
func Settled(t testing.TB) func() {
	t.Helper()
	goroutines, files := runtime.NumGoroutine(), openFiles()
	return func() {
		t.Helper()
		var g, f int
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(time.Millisecond) {
			if g, f = runtime.NumGoroutine(), openFiles(); g <= goroutines && f <= files {
				return
			}
		}
		var stacks strings.Builder
		pprof.Lookup("goroutine").WriteTo(&stacks, 1)
		t.Errorf("goroutines, files = %d, %d; want at most %d, %d\n%s", g, f, goroutines, files, &stacks)
	}
}

func openFiles() int {
	files, _ := os.ReadDir("/proc/self/fd")
	return len(files)
}

func connect(t *testing.T, s network.Interface) io.ReadWriteCloser {
	t.Helper()
	c, err := s.Connect(t.Context())
	if err != nil {
		t.Fatalf("Connect() = %v; want a stream", err)
	}
	t.Cleanup(func() { c.Close() }) // for tests that fail half way
	return c
}

func closing(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Errorf("Close() = %v; want nil", err)
	}
}

func exchange(t *testing.T, c io.ReadWriteCloser, size int, packets bool) {
	t.Helper()
	if err := exchanged(c, size, packets); err != nil {
		t.Fatal(err)
	}
}

// exchanged writes at once and reads back what it wrote: while it writes, as a
// peer need not take all of it before it answers.
func exchanged(c io.ReadWriteCloser, size int, packets bool) error {
	defer time.AfterFunc(patience, func() { c.Close() }).Stop()
	want := noise(size)
	wrote := make(chan error, 1)
	go func() {
		n, err := c.Write(want)
		if err == nil && n != size {
			err = fmt.Errorf("Write(%d bytes) = %d, nil; want %d", size, n, size)
		}
		wrote <- err
	}()
	got := make([]byte, size)
	var n int
	var err error
	if packets {
		n, err = c.Read(got)
	} else {
		n, err = io.ReadFull(c, got)
	}
	if err != nil || !bytes.Equal(got[:n], want) {
		return fmt.Errorf("Read() = %d bytes, %v; want the %d that were written", n, err, size)
	}
	return <-wrote
}

func noise(n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(n)})
	b := make([]byte, n)
	r.Read(b)
	return b
}

// start runs f beside the test. The returned function waits for it and reports
// its error.
func start(t *testing.T, what string, f func() error) func() {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return func() {
		t.Helper()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Fatalf("%s: still busy after %v", what, patience)
		}
	}
}

// Serve lets handle have each connection of a listener, and ends them all with
// the test. It closes connections when handle returns.
func Serve(t testing.TB, ln net.Listener, handle func(net.Conn)) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		ln.Close()
		all.Wait()
	})
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				if ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
					t.Errorf("Accept() = %v; want a connection", err)
				}
				return
			}
			all.Go(func() {
				defer c.Close()
				defer context.AfterFunc(ctx, func() { c.Close() })()
				handle(c)
			})
		}
	})
}

// Listen is net.Listen for tests; the listener is closed with the test.
func Listen(t testing.TB, network, address string) net.Listener {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatalf("Listen(%s, %s) = %v; want nil", network, address, err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// Echo sends back what comes, and finishes sending after the other side did.
func Echo(c net.Conn) { io.Copy(c, struct{ io.Reader }{c}) }

// Reset closes a connection without having read all that came, which resets it,
// TCP and Unix sockets alike. It waits for two bytes.
func Reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0) // the second byte may come later
	}
	c.Read(make([]byte, 1))
}
