package app_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jumplead/jumplead/cmd/jumplead/app"
	"github.com/jumplead/jumplead/drivers/all"
	"github.com/jumplead/jumplead/drivers/power"
	"github.com/jumplead/jumplead/exporter/client"
)

const small = `
apiVersion: jumpstarter.dev/v1alpha1
kind: ExporterConfig
metadata: {namespace: default, name: bench}
export:
  power: {type: jumpstarter_driver_power.driver.MockPower}
`

// buffer is an io.Writer that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

type result struct {
	status         int
	stdout, stderr string
}

// jumplead runs the program until it ends.
func jumplead(ctx context.Context, env []string, args ...string) result {
	var stdout, stderr buffer
	status := app.Main(ctx, app.Proc{
		Args: append([]string{"jumplead"}, args...), Env: env, Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr,
	}, all.Specs()...)
	return result{status, stdout.String(), stderr.String()}
}

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUsage(t *testing.T) {
	config := file(t, "bench.yaml", small)
	for _, test := range []struct {
		args   string
		status int
		want   string // in what the program says
	}{
		{"", 2, "no command is given"},
		{"--help", 0, "Usage: jumplead"},
		{"rnu", 2, `did you mean "run"?`},
		{"--bad", 2, "not defined: --bad"},
		{"", 2, "Try 'jumplead --help'.\n"},
		{"run extra", 2, "Try 'jumplead run --help'.\n"},
		{"help", 0, "Usage: jumplead ["},
		{"help run", 0, "Usage: jumplead run"},
		{"help rnu", 2, `did you mean "run"?`},
		{"version", 0, "jumplead "},
		{"--version", 0, "jumplead "},
		{"version --help", 0, "Usage: jumplead version"},
		{"run --help", 0, "--tls-grpc-listener [HOST:]PORT"},
		{"run", 2, "one of --exporter, --exporter-config should be specified"},
		{"run --exporter a --exporter-config b", 2, "only one of"},
		{"run --exporter-config " + config + " extra", 2, "unexpected extra argument (extra)"},
		{"run --exporter-config " + config + " --tls-grpc-insecure", 2, "require --tls-grpc-listener"},
		{"run --exporter-config " + config + " --passphrase x", 2, "require --tls-grpc-listener"},
		{"run --exporter-config " + config + " --tls-grpc-listener 1234", 2, "requires either --tls-grpc-insecure or --tls-cert and --tls-key"},
		{"run --exporter-config " + config + " --tls-grpc-listener 1234 --tls-cert a", 2, "requires either"},
		{"run --exporter-config " + config + " --tls-grpc-listener 1234 --tls-grpc-insecure --tls-key a", 2, "cannot be combined"},
		{"run --exporter-config " + config + " --tls-grpc-listener x --tls-grpc-insecure", 2, `port must be an integer, got "x"`},
		{"run --exporter-config " + config + " --tls-grpc-listener 0 --tls-grpc-insecure", 2, "port must be between 1 and 65535, got 0"},
		{"run --exporter-config " + config + " --tls-grpc-listener 65536 --tls-grpc-insecure", 2, "port must be between 1 and 65535"},
		{"run --exporter-config " + config + " --tls-grpc-listener 1 --tls-cert /nowhere --tls-key /nowhere", 2, "/nowhere"},
		{"run --exporter-config " + config + " --listen 1234", 2, "is not unix:PATH"},
		{"run --exporter-config " + config + " --listen unix:", 2, "is not unix:PATH"},
		{"run --exporter-config " + config + " --listen unix:x --tls-grpc-listener 1", 2, "exclude each other"},
		{"run --log-level LOUD --exporter-config " + config, 2, "--log-level"},
		{"--log-format xml run --exporter-config " + config, 2, "--log-format"},
		{"run --exporter-config /nowhere/x.yaml --listen unix:x", 1, "/nowhere/x.yaml"},
		{"run --exporter nobody --listen unix:x", 1, "nobody"},
		{"run --exporter-config " + config, 1, "leasing through a controller (endpoint) is not served yet"},
	} {
		got := jumplead(t.Context(), []string{"HOME=" + t.TempDir()}, strings.Fields(test.args)...)
		if said := got.stdout + got.stderr; got.status != test.status || !strings.Contains(said, test.want) {
			t.Errorf("jumplead %s = %d, %q; want %d, %q", test.args, got.status, said, test.status, test.want)
		}
	}
}

// TestLoad checks that all mistakes of a file are told at once, with their
// places, and that nothing was opened.
func TestLoad(t *testing.T) {
	path := file(t, "bad.yaml", `metadata: {namespace: default, name: bad, nmae: worse}
export:
  power: {type: jumpstarter_driver_power.driver.MokPower}
  tcp:
    type: jumpstarter_driver_network.driver.TcpNetwork
    config: {hots: 127.0.0.1, port: 70000}
  again: {ref: tpc}
`)
	socket := filepath.Join(t.TempDir(), "s")
	got := jumplead(t.Context(), nil, "run", "--exporter-config", path, "--listen", "unix:"+socket)
	if got.status != 1 {
		t.Errorf("status = %d; want 1", got.status)
	}
	for _, want := range []string{
		path + ":1:43: ", `"nmae"`,
		path + ":3:17: ", "MockPower",
		path + ":6:14: ", `did you mean "host"?`,
		path + ":7:16: ", `did you mean "tcp"?`,
	} {
		if !strings.Contains(got.stderr, want) {
			t.Errorf("stderr = %q; want %q in it", got.stderr, want)
		}
	}
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket was made; want nothing started")
	}
}

// start runs the program in the background until the test ends, and returns
// what it logs.
func start(t *testing.T, env []string, args ...string) *buffer {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var stderr buffer
	done := make(chan int, 1)
	go func() {
		done <- app.Main(ctx, app.Proc{Args: append([]string{"jumplead", "run"}, args...), Env: env, Stdout: &stderr, Stderr: &stderr}, all.Specs()...)
	}()
	t.Cleanup(func() {
		cancel()
		if status := <-done; status != 0 {
			t.Errorf("status = %d; want 0: %s", status, stderr.String())
		}
	})
	return &stderr
}

func dial(t *testing.T, target string, opt client.Options) (*client.Client, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := client.Dial(ctx, target, opt)
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

func port(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func TestLocal(t *testing.T) {
	home := t.TempDir()
	dir := filepath.Join(home, ".config", "jumpstarter", "exporters")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bench.yaml"), []byte(small), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "new", "socket")
	start(t, []string{"HOME=" + home}, "--exporter", "bench", "--listen", "unix:"+socket)
	c, err := dial(t, socket, client.Options{})
	if err != nil {
		t.Fatalf("Dial() = %v; want nil", err)
	}
	n, err := c.Find("power")
	if err != nil {
		t.Fatal(err)
	}
	if err := power.NewClient(n).On(t.Context()); err != nil {
		t.Errorf("On() = %v; want nil", err)
	}
	if fi, err := os.Stat(socket); err != nil || fi.Mode().Perm()&0o077 != 0 {
		t.Errorf("Stat(socket) = %v, %v; want a socket for its owner only", fi.Mode(), err)
	}

	got := jumplead(t.Context(), []string{"HOME=" + home}, "run", "--exporter", "bench", "--listen", "unix:"+socket)
	if got.status != 1 || !strings.Contains(got.stderr, "listens there") {
		t.Errorf("second exporter on the socket = %d, %q; want 1 and who has it", got.status, got.stderr)
	}
}

func TestDirect(t *testing.T) {
	config, addr := file(t, "bench.yaml", small), port(t)
	cert, key, roots := certificate(t)
	log := start(t, nil, "--exporter-config", config, "--tls-grpc-listener", addr,
		"--tls-cert", cert, "--tls-key", key, "--passphrase", "open sesame")
	secure := client.Options{TLS: &tls.Config{RootCAs: roots}, Passphrase: "open sesame"}
	if _, err := dial(t, addr, secure); err != nil {
		t.Errorf("Dial() = %v; want nil", err)
	}
	secure.Passphrase = "open barley"
	if _, err := dial(t, addr, secure); err == nil || !strings.Contains(err.Error(), "invalid or missing passphrase") {
		t.Errorf("Dial() with a wrong passphrase = %v; want a refusal", err)
	}
	if said := log.String(); !strings.Contains(said, "authentication failed: invalid or missing passphrase") ||
		strings.Contains(said, "barley") || strings.Contains(said, "sesame") {
		t.Errorf("log = %q; want the failure without any passphrase", said)
	}

	got := jumplead(t.Context(), nil, "run", "--exporter-config", config, "--tls-grpc-listener", addr, "--tls-grpc-insecure")
	if got.status != 1 || !strings.Contains(got.stderr, "another program has this port") {
		t.Errorf("second exporter on the port = %d, %q; want 1 and why", got.status, got.stderr)
	}
	for line := range strings.Lines(log.String()) {
		var rec map[string]any
		if err := json.Unmarshal([]byte(line), &rec); err != nil {
			t.Errorf("log line %q is not JSON: %v", line, err)
		}
		for _, k := range []string{"ts", "level", "logger", "msg", "component"} {
			if rec[k] == nil {
				t.Errorf("log line %q lacks %q", line, k)
			}
		}
	}
}

// certificate makes a certificate for 127.0.0.1 that is its own root.
func certificate(t *testing.T) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(cert)
	certFile = file(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	keyFile = file(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
	return certFile, keyFile, roots
}
