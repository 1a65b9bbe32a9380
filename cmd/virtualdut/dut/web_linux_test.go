//go:build !ppc64 && !ppc64le

package dut

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver/drivertest"
)

func openWeb(t *testing.T, addr string) *web {
	t.Helper()
	w, err := newWeb(addr, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// browser is an HTTP client that leaves nothing behind.
func browser(t *testing.T) *http.Client {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

func TestWeb(t *testing.T) {
	drivertest.NoLeaks(t)
	w, c := openWeb(t, "127.0.0.1:0"), browser(t)
	if err := w.Start(func() string { return "fine\n" }); err != nil {
		t.Fatal(err)
	}
	all := string(pattern)
	big := strings.Repeat("0123456789abcdef", 1<<16)
	tests := []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/", "", 200, "fine\n"},
		{"HEAD", "/", "", 200, ""},
		{"GET", "/nowhere", "", 404, "404 page not found\n"},
		{"POST", "/", "x", 405, "Method Not Allowed\n"},
		{"POST", "/echo", "", 200, ""},
		{"POST", "/echo", "hi", 200, "hi"},
		{"POST", "/echo", big, 200, big},
		{"POST", "/sink", "", 200, "0\n"},
		{"POST", "/sink", big, 200, "1048576\n"},
		{"GET", "/bytes?n=0", "", 200, ""},
		{"GET", "/bytes?n=3", "", 200, "\x00\x01\x02"},
		{"GET", "/bytes?n=65537", "", 200, all + "\x00"},
		{"HEAD", "/bytes?n=9223372036854775807", "", 200, ""},
		{"GET", "/bytes", "", 400, "n=\"\": want a number of bytes\n"},
		{"GET", "/bytes?n=-1", "", 400, "n=\"-1\": want a number of bytes\n"},
		{"GET", "/bytes?n=1k", "", 400, "n=\"1k\": want a number of bytes\n"},
	}
	for _, test := range tests {
		req, err := http.NewRequestWithContext(t.Context(), test.method, "http://"+w.Addr()+test.path, strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Errorf("%s %s = %v; want an answer", test.method, test.path, err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != test.status || err != nil || string(body) != test.want {
			t.Errorf("%s %s = %d %.40q, %v; want %d %.40q", test.method, test.path, resp.StatusCode, body, err, test.status, test.want)
		}
	}
}

// refusedAt reports whether a connection to the address is refused.
func refusedAt(t *testing.T, addr string) bool {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err == nil {
		c.Close()
		return false
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("Dial(%s) = %v; want success or ECONNREFUSED", addr, err)
	}
	return true
}

func TestWebFollowsPower(t *testing.T) {
	drivertest.NoLeaks(t)
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0", "localhost:0"} {
		w := openWeb(t, addr)
		if !refusedAt(t, w.Addr()) {
			t.Errorf("%s: a connection before Start was accepted; want it refused", w.Addr())
		}
		for range 20 {
			if err := w.Start(func() string { return "" }); err != nil {
				t.Fatal(err)
			}
			if refusedAt(t, w.Addr()) {
				t.Errorf("%s: a connection after Start was refused; want it accepted", w.Addr())
			}
			w.Stop()
			if !refusedAt(t, w.Addr()) {
				t.Errorf("%s: a connection after Stop was accepted; want it refused", w.Addr())
			}
		}
		w.Stop()
	}
}

// TestWebResets cuts the power under connections in every state.
func TestWebResets(t *testing.T) {
	tests := []struct {
		name, send string
		busy       int
	}{
		{"silent", "", 0},
		{"in a header", "GET / HT", 0},
		{"idle after a request", "GET / HTTP/1.1\r\nHost: dut\r\n\r\n", 0},
		{"in a body", "POST /sink HTTP/1.1\r\nHost: dut\r\nContent-Length: 1000\r\n\r\nx", 1},
		{"in an echo", "POST /echo HTTP/1.1\r\nHost: dut\r\nContent-Length: 1000\r\n\r\nx", 1},
		{"in an answer", "GET /bytes?n=1000000000000 HTTP/1.1\r\nHost: dut\r\n\r\n", 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			drivertest.NoLeaks(t)
			w := openWeb(t, "127.0.0.1:0")
			if err := w.Start(func() string { return "fine" }); err != nil {
				t.Fatal(err)
			}
			c, err := net.Dial("tcp", w.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := io.WriteString(c, test.send); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(test.send, "GET / HTTP") {
				got := make([]byte, 4096)
				for n := 0; !bytes.HasSuffix(got[:n], []byte("fine")); {
					m, err := c.Read(got[n:])
					if err != nil {
						t.Fatalf("Read() = %v after %q; want an answer", err, got[:n])
					}
					n += m
				}
			}
			drivertest.Until(t, "the server has the connection", func() bool {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.serve.mu.Lock()
				defer w.serve.mu.Unlock()
				return len(w.serve.open) == 1
			})
			drivertest.Until(t, "the request is in progress", func() bool { return w.Busy() == test.busy })
			w.Stop()
			if got := w.Busy(); got != 0 {
				t.Errorf("Busy() after Stop = %d; want 0", got)
			}
			if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("Read() after Stop = %v; want ECONNRESET", err)
			}
		})
	}
}

func TestWebRefusesAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, test := range []struct{ addr, want string }{
		{"0.0.0.0:0", "not a loopback address"},
		{":8100", "not a loopback address"},
		{"192.0.2.1:80", "not a loopback address"},
		{"127.0.0.1", "missing port"},
		{"127.0.0.1:x", "unknown port"},
		{l.Addr().String(), "address already in use"},
	} {
		w, err := newWeb(test.addr, slog.New(slog.DiscardHandler))
		if err == nil {
			w.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("newWeb(%q) = %v; want an error with %q", test.addr, err, test.want)
		}
	}
}
