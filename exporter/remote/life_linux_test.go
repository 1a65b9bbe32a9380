package remote_test

import (
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
	"io"
	"log/slog"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/remote"
	"github.com/jumplead/jumplead/exporter/rpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"gopkg.in/yaml.v3"
)

// alive reports whether a process runs.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// The process is killed again and again while it is busy. Nothing else notices, it
// is always back soon, and nothing is left over.
func TestKills(t *testing.T) {
	kills := 100
	if testing.Short() {
		kills = 5
	}
	python(t, "ok")
	b := serve(t, good("far"), good("other"), driver.Decl{Name: "near", Type: native.Type})
	far, near := b.find(t, "far"), b.find(t, "near")
	b.call(t, "far", "path")
	files, routines := openFiles(t), runtime.NumGoroutine()

	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var served atomic.Int64
	for range 2 {
		load.Go(func() { // native nodes answer all the time
			for ctx.Err() == nil {
				if v, err := near.Call(ctx, "path"); ctx.Err() == nil && (err != nil || v != "near") {
					t.Errorf("native node = %v, %v; want near", v, err)
					return
				}
			}
		})
		load.Go(func() {
			for ctx.Err() == nil {
				v, err := far.Call(ctx, "path")
				switch {
				case err == nil && v == "far":
					served.Add(1)
				case err != nil && (ctx.Err() != nil || driver.Classify(err) == driver.Unavailable):
				default:
					t.Errorf("hosted node = %v, %v; want far, or unavailable", v, err)
					return
				}
			}
		})
		load.Go(func() {
			for ctx.Err() == nil {
				s, err := far.Stream(ctx, "connect")
				if err != nil {
					continue
				}
				for err == nil && ctx.Err() == nil {
					if _, err = s.Write(make([]byte, 10_000)); err == nil {
						_, err = io.ReadFull(s, make([]byte, 10_000))
					}
				}
				s.Close()
			}
		})
	}
	var worst time.Duration
	for i := range kills {
		var pid any
		eventually(t, "the hosted node answers", func() bool {
			var err error
			pid, err = far.Call(soon(t), "pid")
			return err == nil
		})
		wait := time.NewTimer(time.Duration(mrand.IntN(20)) * time.Millisecond)
		<-wait.C
		killed := time.Now()
		if err := syscall.Kill(int(pid.(float64)), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the hosted node is back", func() bool {
			now, err := far.Call(soon(t), "pid")
			if err != nil && driver.Classify(err) == driver.Unavailable && i == 0 && !strings.Contains(err.Error(), "far: ") {
				t.Errorf("error of a node whose process was killed = %v; want its path", err)
			}
			return err == nil && now != pid
		})
		worst = max(worst, time.Since(killed))
		b.forget() // or the pauses between the starts would grow
	}
	stop()
	load.Wait()
	t.Logf("%d calls were served, the longest absence was %v", served.Load(), worst)
	if served.Load() == 0 {
		t.Error("no call on the hosted node was served")
	}
	eventually(t, "descriptors and goroutines are as many as before", func() bool {
		return openFiles(t) <= files+2 && runtime.NumGoroutine() <= routines+2
	})
	if !strings.Contains(b.log.String(), "was killed by signal 9") {
		t.Error("the log does not say that the process was killed")
	}
}

// forget makes the pauses after failures start anew.
func (b *bench) forget() { remote.Forget(b.hosts) }

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// Calls that are under way when the process dies are told why.
func TestDeathInCall(t *testing.T) {
	python(t, "ok")
	b := serve(t, good("far"))
	n := b.find(t, "far")
	s, err := n.Stream(soon(t), "connect")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 3)
	go func() { _, err := n.Call(soon(t), "hang"); failed <- err }()
	go func() {
		for _, err := range n.Feed(soon(t), "count") {
			if err != nil {
				failed <- err
			}
		}
	}()
	go func() { _, err := s.Read(make([]byte, 1)); failed <- err }()
	pid := int(b.call(t, "far", "pid").(float64))
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := <-failed; driver.Classify(err) != driver.Unavailable || !strings.Contains(err.Error(), "was killed by signal 9") {
			t.Errorf("what was under way = %v; want unavailable, and why", err)
		}
	}
}

// Nothing that the process has started outlives it, nor does it outlive the harness.
func TestNothingStays(t *testing.T) {
	python(t, "ok")
	b := serve(t, good("far"))
	pid, started := int(b.call(t, "far", "pid").(float64)), int(b.call(t, "far", "spawn").(float64))
	if !alive(started) {
		t.Fatalf("process %d has ended; want it to run", started)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the process of the dead one is gone", func() bool { return !alive(started) })
	eventually(t, "the node is back", func() bool { _, err := b.find(t, "far").Call(soon(t), "pid"); return err == nil })
	pid, started = int(b.call(t, "far", "pid").(float64)), int(b.call(t, "far", "spawn").(float64))
	b.hosts.Close()
	if alive(pid) || alive(started) {
		t.Errorf("after Close: process %d runs: %t, the one it has started: %t; want both gone", pid, alive(pid), alive(started))
	}
	if _, err := b.find(t, "far").Call(soon(t), "pid"); driver.Classify(err) != driver.Unavailable {
		t.Errorf("Call() after Close = %v; want unavailable", err)
	}
}

// A harness is opened and closed many times on one process.
func TestSessions(t *testing.T) {
	self := python(t, "ok")
	h := &remote.Hosts{Getenv: func(k string) string { return map[string]string{"JUMPLEAD_PYTHON": self}[k] }}
	defer h.Close()
	var first any
	files := 0
	for i := range 200 {
		tree, problems := plan(t, h, nil, good("far"), good("other"), driver.Decl{Name: "near", Type: native.Type})
		if err := problems.Err(); err != nil {
			t.Fatalf("Plan() = %v; want nil", err)
		}
		if err := tree.Open(t.Context()); err != nil {
			t.Fatalf("Open() = %v; want nil", err)
		}
		pid, err := tree.Nodes()[1].Caller().Call(soon(t), "pid")
		if err != nil {
			t.Fatalf("session %d: Call() = %v; want nil", i, err)
		}
		if i == 0 {
			first, files = pid, openFiles(t)
		}
		if pid != first {
			t.Fatalf("session %d is in process %v; want %v", i, pid, first)
		}
		if err := tree.Close(); err != nil {
			t.Fatalf("Close() = %v; want nil", err)
		}
	}
	if n := openFiles(t); n > files {
		t.Errorf("%d descriptors are open after 200 sessions; want %d", n, files)
	}
}

// A driver that takes too long is given up, with its process, and the others are
// back.
func TestHangs(t *testing.T) {
	self := python(t, "ok")
	log := new(records)
	h := &remote.Hosts{Getenv: func(k string) string { return map[string]string{"JUMPLEAD_PYTHON": self}[k] }, Start: 300 * time.Millisecond}
	defer h.Close()
	tree, problems := plan(t, h, slog.New(slog.NewTextHandler(log, nil)), good("far"), driver.Decl{Name: "bad", Type: "fake.Hangs"})
	if err := problems.Err(); err != nil {
		t.Fatalf("Plan() = %v; want nil", err)
	}
	if err := tree.Open(t.Context()); err != nil {
		t.Fatalf("Open() = %v; want nil", err)
	}
	defer tree.Close()
	eventually(t, "the other one answers", func() bool {
		_, err := tree.Nodes()[1].Caller().Call(soon(t), "path")
		return err == nil
	})
	eventually(t, "the log says what took too long", func() bool {
		return strings.Contains(log.String(), "bad: open took longer than 300ms")
	})
}

// The process runs as another user, and cannot do what that user cannot.
func TestUser(t *testing.T) {
	if os.Geteuid() != 0 {
		h := &remote.Hosts{Getenv: func(string) string { return python(t, "ok") }, Start: 10 * time.Second}
		defer h.Close()
		_, problems := plan(t, h, nil, driver.Decl{Name: "far", Type: "fake.Good", Hosting: driver.Hosting{User: "root"}})
		if err := problems.Err(); err == nil || !strings.Contains(err.Error(), "only root can start programs as another user") {
			t.Errorf("Plan() = %v; want that only root can", err)
		}
		return
	}
	// This program is where only root can run it from.
	self := python(t, "ok")
	dir, err := os.MkdirTemp("/tmp", "remote-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	text, err := os.ReadFile(self)
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	program := filepath.Join(dir, "python")
	if err == nil {
		err = os.WriteFile(program, text, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	far := good("far")
	far.Hosting = driver.Hosting{Python: program, User: "nobody"}
	b := serve(t, far, good("own"))
	for name, root := range map[string]bool{"far": false, "own": true} {
		pid := int(b.call(t, name, "pid").(float64))
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(status), "Uid:\t0\t0\t0\t0\n"); got != root {
			t.Errorf("%s runs as root: %t; want %t", name, got, root)
		}
	}
}

func exporterNode(t *testing.T, config string) driver.Decl {
	t.Helper()
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(config), &n); err != nil {
		t.Fatal(err)
	}
	return driver.Decl{Name: "there", Type: remote.Exporter.Type, Config: &n}
}

// served serves a fake exporter until it is stopped.
func served(t *testing.T, ln net.Listener, opts ...grpc.ServerOption) (*fake, func()) {
	t.Helper()
	f := newFake("exporter")
	s := f.server(opts...)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(ln) }()
	stop := func() { s.Stop(); <-done }
	t.Cleanup(stop)
	return f, stop
}

func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// Another exporter is mounted, comes and goes, and keeps its identities here.
func TestExporter(t *testing.T) {
	dir, err := os.MkdirTemp("", "remote-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "there")
	f, stop := served(t, listen(t, "unix", path))
	b := serve(t, exporterNode(t, "unix: "+path), driver.Decl{Name: "near", Type: native.Type})
	if got := b.call(t, "there.made", "path"); got != "exporter.made" {
		t.Errorf("path = %v; want exporter.made", got)
	}
	id := b.find(t, "there.made").UUID
	b.call(t, "there", "log")
	eventually(t, "its log is ours", func() bool {
		text := b.log.String()
		return strings.Contains(text, `level=WARN msg="from there" driver=there`) && strings.Contains(text, `msg="the end" mount=there`)
	})
	if strings.Contains(b.log.String(), "a call") {
		t.Error("records of calls are taken over; want only our own")
	}
	stop()
	eventually(t, "it is known to be gone", func() bool {
		_, err := b.find(t, "there").Call(soon(t), "path")
		return driver.Classify(err) == driver.Unavailable && strings.Contains(err.Error(), path)
	})
	if err := b.client.Refresh(soon(t)); err != nil {
		t.Fatal(err)
	}
	if got := b.find(t, "there.made").UUID; got != id {
		t.Errorf("uuid while it is gone = %s; want %s, as last known", got, id)
	}
	if got := b.call(t, "near", "path"); got != "near" {
		t.Errorf("path of another node = %v; want near", got)
	}
	again, _ := served(t, listen(t, "unix", path))
	eventually(t, "it is back", func() bool {
		v, err := b.find(t, "there.made").Call(soon(t), "path")
		return err == nil && v == "exporter.made"
	})
	if f == again || b.find(t, "there.made").UUID != id {
		t.Errorf("uuid after its restart = %s; want %s", b.find(t, "there.made").UUID, id)
	}
}

// One that is not there when the harness is opened may come later.
func TestExporterLate(t *testing.T) {
	ln := listen(t, "tcp", "127.0.0.1:0")
	addr := ln.Addr().String()
	ln.Close()
	b := serve(t, exporterNode(t, "address: '"+addr+"'"))
	_, err := b.find(t, "there").Call(soon(t), "path")
	if driver.Classify(err) != driver.Unavailable || !strings.Contains(err.Error(), addr) {
		t.Errorf("Call() = %v; want unavailable, and where", err)
	}
	served(t, listen(t, "tcp", addr))
	eventually(t, "it is there", func() bool {
		_ = b.client.Refresh(soon(t))
		n, err := b.client.Find("there.made")
		if err != nil {
			return false
		}
		v, err := n.Call(soon(t), "path")
		return err == nil && v == "exporter.made"
	})
}

func TestExporterTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "there"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	ln := listen(t, "tcp", "127.0.0.1:0")
	opts := append(rpc.RequirePassphrase("secret", slog.New(slog.DiscardHandler)),
		grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})))
	served(t, ln, opts...)
	addr := ln.Addr().String()
	b := serve(t, exporterNode(t, fmt.Sprintf("{address: '%s', tls: true, ca: %s, passphrase: secret}", addr, ca)))
	if got := b.call(t, "there.made", "path"); got != "exporter.made" {
		t.Errorf("path = %v; want exporter.made", got)
	}
	b = serve(t, exporterNode(t, fmt.Sprintf("{address: '%s', tls: true, ca: %s, passphrase: wrong}", addr, ca)))
	if _, err := b.find(t, "there").Call(soon(t), "path"); driver.Classify(err) != driver.Unavailable || !strings.Contains(err.Error(), "passphrase") {
		t.Errorf("Call() with a wrong passphrase = %v; want unavailable, and why", err)
	}
	b = serve(t, exporterNode(t, fmt.Sprintf("{address: '%s', tls: true}", addr)))
	if _, err := b.find(t, "there").Call(soon(t), "path"); driver.Classify(err) != driver.Unavailable || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("Call() without the CA = %v; want unavailable, and why", err)
	}
}

// A command is started, ended with the harness, and started again when it dies.
func TestExporterCommand(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b := serve(t, exporterNode(t, fmt.Sprintf("command: [env, '%s={socket}', %s]", asExporter, self)))
	pid := int(b.call(t, "there", "pid").(float64))
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is started again", func() bool {
		v, err := b.find(t, "there").Call(soon(t), "pid")
		pid2 := 0
		if err == nil {
			pid2 = int(v.(float64))
		}
		return pid2 != 0 && pid2 != pid
	})
	pid = int(b.call(t, "there", "pid").(float64))
	if err := b.tree.Close(); err != nil {
		t.Errorf("Close() = %v; want nil", err)
	}
	if alive(pid) {
		t.Errorf("process %d runs after Close; want it gone", pid)
	}
}

func TestExporterConfig(t *testing.T) {
	for config, want := range map[string]string{
		"{}":                         "wants one of unix, address, command",
		"{unix: /a, address: 'b:1'}": "wants one of unix, address, command",
		"address: here":              "is no HOST:PORT",
		"{unix: /a, tls: true}":      "only an address is reached over TLS",
		"{address: 'a:1', ca: /ca}":  "it has no use without tls",
		"command: [run, it]":         "{socket} stands for the path of the socket",
		"{unix: /a, passphrase: a, passphrase_file: b}": "passphrase is there, too",
		"{unixx: /a}": `did you mean "unix"?`,
	} {
		_, problems := plan(t, &remote.Hosts{}, nil, exporterNode(t, config))
		if err := problems.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Plan(%s) = %v; want %q", config, err, want)
		}
	}
}

// A process ends that a reload has left without nodes, and so does one that was only
// asked about a config that is not good. The next who needs it gets it anew.
func TestIdle(t *testing.T) {
	self := python(t, "ok")
	h := &remote.Hosts{Start: 10 * time.Second, Idle: 50 * time.Millisecond}
	defer h.Close()
	var decls [3]driver.Decl
	for i := range decls {
		link := filepath.Join(t.TempDir(), "python")
		if err := os.Symlink(self, link); err != nil {
			t.Fatal(err)
		}
		decls[i] = good("far")
		decls[i].Hosting.Python = link
	}
	decls[2].Children = []driver.Decl{{Name: "gone", Type: "fake.Goood"}}
	decls[2].Children[0].Hosting = decls[2].Hosting
	tree, problems := plan(t, h, nil, decls[0])
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	if err := tree.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	pid := func() int {
		v, err := tree.Nodes()[1].Caller().Call(soon(t), "pid")
		if err != nil {
			t.Fatalf("Call() = %v; want nil", err)
		}
		n, err := strconv.Atoi(fmt.Sprint(v))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := pid()
	for _, i := range []int{1, 2, 0} {
		next, _, problems := tree.Reload(t.Context(), driver.Decl{Children: decls[i : i+1]}, func(*driver.Tree) {})
		if bad := i == 2; bad != (next == nil) {
			t.Fatalf("Reload() = %v; want it refused: %t", problems, bad)
		}
		if next != nil {
			tree = next
		}
		eventually(t, "there is one process", func() bool { return remote.Processes(h) == 1 })
		now := pid()
		if i != 2 {
			eventually(t, "the other one has ended", func() bool { return errors.Is(syscall.Kill(before, 0), syscall.ESRCH) })
		}
		if (now == before) != (i == 2) {
			t.Errorf("the process is %d after %d; want another one: %t", now, before, i != 2)
		}
		before = now
	}
	if err := tree.Close(); err != nil {
		t.Errorf("Close() = %v; want nil", err)
	}
	eventually(t, "there is no process", func() bool { return remote.Processes(h) == 0 })
	eventually(t, "it has ended", func() bool { return errors.Is(syscall.Kill(before, 0), syscall.ESRCH) })
}

// What lasts no longer than a process lies in a folder that only its user may enter,
// and its socket is gone once the exporter is connected: others who run as that user
// do not call drivers past the exporter. What a killed exporter has left goes.
func TestFolder(t *testing.T) {
	python(t, "ok")
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	left := filepath.Join(dir, "jumplead-py-123")
	if err := os.Mkdir(left, 0o700); err != nil {
		t.Fatal(err)
	}
	serve(t, good("far"))
	found, err := filepath.Glob(filepath.Join(dir, "jumplead-py-*"))
	if err != nil || len(found) != 1 || found[0] == left {
		t.Fatalf("folders = %v, %v; want the one of the process", found, err)
	}
	if info, err := os.Stat(found[0]); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder's mode is %v, %v; want it private", info.Mode(), err)
	}
	if _, err := os.Lstat(filepath.Join(found[0], "s")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket: %v; want it gone", err)
	}
}
