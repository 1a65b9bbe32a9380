package interop

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/jumplead/jumplead/cmd/jumplead/interop/pyenv"
	jumpstarterv1 "github.com/jumplead/jumplead/proto/jumpstarter/v1"
)

// A flavour is one of the two exporters that every case runs against. They
// take the same arguments, so that a unit file needs only another program.
type flavour struct {
	name    string
	program string // what is run
	ours    bool
	hosting bool // ours, with the drivers of the other
}

// scratch is a folder for this process, with a short path: the address of a
// Unix socket holds 108 bytes.
var scratch string

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "interop-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(scratch)
	os.Exit(code)
}

// needPython returns the environment of the stock release, needDrivers that of all
// driver packages; without it the test is skipped.
var needPython, needDrivers = pyenv.Need, pyenv.NeedDrivers

// buildJumplead builds the program under test, once. It has the race
// detector if the tests have it: what it finds makes the exit status 66.
var buildJumplead = sync.OnceValues(func() (string, error) {
	var flags []string
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "-race" && s.Value == "true" {
				flags = append(flags, "-race")
			}
		}
	}
	return build("jumplead", flags...)
})

// build builds jumplead under a name of its own.
func build(name string, flags ...string) (string, error) {
	root, err := pyenv.Root()
	if err != nil {
		return "", err
	}
	program := filepath.Join(scratch, name)
	cmd := exec.Command("go", slices.Concat([]string{"build", "-o", program}, flags, []string{"./cmd/jumplead"})...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/jumplead: %w: %s", err, out)
	}
	return program, nil
}

func jumplead() (flavour, error) {
	program, err := buildJumplead()
	return flavour{name: "jumplead", program: program, ours: true}, err
}

func python() (flavour, error) {
	env, err := pyenv.Once()
	if err != nil {
		return flavour{}, err
	}
	return flavour{name: "python", program: env.Bin("jmp")}, nil
}

// flavours lists both exporters; each is looked up when its turn comes, so
// that one can be run without the other.
var flavours = []func() (flavour, error){jumplead, python}

// forBoth runs a test against both exporters.
func forBoth(t *testing.T, test func(t *testing.T, f flavour)) {
	t.Helper()
	needPython(t)
	for i, name := range []string{"jumplead", "python"} {
		t.Run(name, func(t *testing.T) {
			f, err := flavours[i]()
			if err != nil {
				t.Fatal(err)
			}
			test(t, f)
		})
	}
}

// environment is what a program under test gets.
func environment(more ...string) []string { return pyenv.Environ(scratch, more...) }

// A process is a program under test.
type process struct {
	cmd    *exec.Cmd
	stderr *buffer
	done   chan struct{} // closed when it has ended
}

// start starts a program whose standard error, and output if it has no
// reader yet, is kept.
func start(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, stderr: new(buffer), done: make(chan struct{})}
	cmd.Stderr = p.stderr
	if cmd.Stdout == nil {
		cmd.Stdout = p.stderr
	}
	if cmd.Env == nil {
		cmd.Env = environment()
	}
	// A child that outlives its parent must not hold up Wait.
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// run is a command that runs an exporter with these arguments of `run`.
func (f flavour) run(args ...string) *exec.Cmd {
	cmd := exec.Command(f.program, append([]string{"run"}, args...)...)
	cmd.Env = environment()
	return cmd
}

// exporter starts an exporter with these arguments of `run`.
func (f flavour) exporter(args ...string) (*process, error) { return start(f.run(args...)) }

// status waits for the end and returns the exit status, negative for a death
// by a signal.
func (p *process) status(limit time.Duration) (int, error) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-time.After(limit):
		return 0, fmt.Errorf("%s is still there after %v:\n%s", filepath.Base(p.cmd.Path), limit, p.stderr.tail())
	}
}

// stop ends the process with a signal and wants the exit status 0.
func (p *process) stop(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("ended before it was told to: %w: %v:\n%s", err, p.cmd.ProcessState, p.stderr.tail())
	}
	code, err := p.status(30 * time.Second)
	if err != nil {
		p.kill()
		return err
	}
	if code != 0 {
		return fmt.Errorf("exit status after %v = %d; want 0:\n%s", sig, code, p.stderr.tail())
	}
	return nil
}

// kill ends the process and its children, if they are still there. The stock
// exporter serves from a child in a session of its own, which would otherwise
// outlive it.
func (p *process) kill() {
	select {
	case <-p.done:
		return
	default:
	}
	children := p.children()
	p.cmd.Process.Kill()
	for _, pid := range children {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	<-p.done
}

func (p *process) children() []int {
	pid := p.cmd.Process.Pid
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	var pids []int
	for _, c := range strings.Fields(string(text)) {
		if child, err := strconv.Atoi(c); err == nil {
			pids = append(pids, child)
		}
	}
	return pids
}

// files counts the open files, sockets included, of the process that serves.
func (p *process) files() (int, error) {
	pid := p.cmd.Process.Pid
	if children := p.children(); len(children) > 0 {
		pid = children[0]
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(fds), err
}

// A buffer keeps what a process says while others read it.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// tail returns the last lines.
func (b *buffer) tail() string {
	s := b.String()
	return s[max(0, len(s)-4000):]
}

// freePort returns a port of the loopback that nobody had a moment ago.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// A way is how to reach an exporter that listens.
type way struct {
	target     string // for gRPC
	tls        credentials.TransportCredentials
	passphrase string
}

// ready waits until the exporter answers that its lease is ready.
func (p *process) ready(ctx context.Context, w way) error {
	creds := w.tls
	if creds == nil {
		creds = insecure.NewCredentials()
	}
	conn, err := grpc.NewClient(w.target, grpc.WithTransportCredentials(creds), grpc.WithNoProxy(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1, MaxDelay: 20 * time.Millisecond}}))
	if err != nil {
		return err
	}
	defer conn.Close()
	if w.passphrase != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "x-jumpstarter-passphrase", w.passphrase)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	client := jumpstarterv1.NewExporterServiceClient(conn)
	for {
		got, err := client.GetStatus(ctx, &jumpstarterv1.GetStatusRequest{})
		if err == nil && got.Status == jumpstarterv1.ExporterStatus_EXPORTER_STATUS_LEASE_READY {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%v before it was ready:\n%s", p.cmd.ProcessState, p.stderr.tail())
		case <-ctx.Done():
			return fmt.Errorf("not ready: status %v, %v:\n%s", got.GetStatus(), err, p.stderr.tail())
		case <-tick.C:
		}
	}
}

// An authority is a certificate authority made for a test.
type authority struct {
	pem  []byte
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), cert, key}, nil
}

// issue writes a certificate for the loopback, and its key, as PEM.
func (a *authority) issue(certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: "exporter"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600),
	)
}

// trust returns credentials that trust the authority alone.
func (a *authority) trust() credentials.TransportCredentials {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return credentials.NewTLS(&tls.Config{RootCAs: pool})
}
