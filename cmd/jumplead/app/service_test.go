package app_test

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// An exporter with TLS and a passphrase in a file is ready, alive and stopping as
// the service manager sees it, and its watchdog's questions are answered.
func TestService(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	received := func() string {
		t.Helper()
		b := make([]byte, 4096)
		n, err := c.Read(b)
		if err != nil {
			t.Fatal("waiting for a notification:", err)
		}
		return string(b[:n])
	}
	cert, key, _ := certificate(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan result, 1)
	at := port(t)
	go func() {
		done <- jumplead(ctx, []string{"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=150000"}, "run", "--exporter-config", file(t, "bench.yaml", small),
			"--tls-grpc-listener", at, "--tls-cert", cert, "--tls-key", key, "--passphrase-file", file(t, "passphrase", "open sesame\nsecond line"))
	}()
	if got, want := received(), "READY=1\nSTATUS=serving bench on "+at; got != want {
		t.Errorf("first notification = %q; want %q", got, want)
	}
	for range 3 {
		if got := received(); got != "WATCHDOG=1" {
			t.Errorf("next notification = %q; want WATCHDOG=1", got)
		}
	}
	cancel()
	for {
		got := received()
		if got == "WATCHDOG=1" {
			continue
		}
		if want := "STOPPING=1\nSTATUS=stopping"; got != want {
			t.Errorf("last notification = %q; want %q", got, want)
		}
		break
	}
	if got := <-done; got.status != 0 || strings.Contains(got.stderr, "does not answer itself") {
		t.Errorf("run = %d, %s; want 0 and an exporter that answers itself", got.status, got.stderr)
	}
}

func TestPassphraseFile(t *testing.T) {
	config := file(t, "bench.yaml", small)
	for path, want := range map[string]string{
		file(t, "empty", "\nsecret"):       "the first line of",
		filepath.Join(t.TempDir(), "none"): "no such file",
	} {
		got := jumplead(t.Context(), nil, "run", "--exporter-config", config, "--tls-grpc-listener", port(t), "--tls-grpc-insecure", "--passphrase-file", path)
		if got.status != 2 || !strings.Contains(got.stderr, want) {
			t.Errorf("run --passphrase-file %s = %d, %q; want 2, %q", path, got.status, got.stderr, want)
		}
	}
}
