package transfer_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/storage"
	"github.com/jumplead/jumplead/drivers/storage/fakestorage"
	"github.com/jumplead/jumplead/drivers/storage/localfs"
	"github.com/jumplead/jumplead/exporter/client"
	"github.com/jumplead/jumplead/exporter/rpc"
	"github.com/jumplead/jumplead/exporter/session"
	"github.com/jumplead/jumplead/exporter/stream/codec"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc"
	"gopkg.in/yaml.v3"
)

var seed = flag.Uint64("seed", 0, "repeat a run: where data is damaged is drawn from it; 0 draws a new one")

// dice are a test's own, and their seed is in its log.
func dice(t *testing.T) *rand.Rand {
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("to repeat: -seed=%d", s)
	return rand.New(rand.NewPCG(s, 0))
}

// muxes is how many there are: each of those who work at once has its own.
const muxes = 12

// bench is an exporter in this process: a flasher, some muxes and a folder.
type bench struct {
	*session.Session
	dir  string // of the drivers' temporary files
	root string // of the folder
	log  *lines
}

// lines is a log that can be looked into.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

// stall is how long the bench lets a presigned request stand still.
const stall = 400 * time.Millisecond

// newBench opens an exporter whose drivers keep their files below dir. It is not
// served yet.
func newBench(dir string) (*bench, error) {
	b := &bench{dir: dir, root: filepath.Join(dir, "folder"), log: &lines{}}
	offers, logs := session.NewOffers(), session.NewLogs()
	log := slog.New(slog.NewTextHandler(b.log, nil))
	offers.Log, offers.Stall = log, stall
	var config yaml.Node
	if err := yaml.Unmarshal([]byte(fmt.Sprintf("{scheme: fs, kwargs: {root: %q}}", b.root)), &config); err != nil {
		return nil, err
	}
	decl := driver.Decl{Children: []driver.Decl{
		{Name: "flasher", Type: fakestorage.Flasher.Type},
		{Name: "folder", Type: localfs.Spec.Type, Config: config.Content[0]},
	}}
	for i := range muxes {
		decl.Children = append(decl.Children, driver.Decl{Name: fmt.Sprint("mux", i), Type: fakestorage.MuxFlasher.Type})
	}
	tree, problems := driver.Plan(decl, driver.Options{Namespace: uuid.New(), Log: log, Resources: offers, Specs: []driver.Spec{
		driver.Define(driver.Spec{Type: "test.Group", Role: driver.Group, Contract: driver.Contract{Name: "test", Client: "test.Client", Kind: "test"}},
			func(context.Context, *driver.Env, struct{}) (driver.Driver, error) { return driver.Driver{}, nil }),
		fakestorage.Flasher, fakestorage.MuxFlasher, localfs.Spec,
	}})
	if err := problems.Err(); err != nil {
		return nil, err
	}
	if err := tree.Open(context.Background()); err != nil {
		return nil, err
	}
	b.Session = session.New(uuid.New(), tree, logs, offers)
	b.SetStatus(pb.ExporterStatus_EXPORTER_STATUS_LEASE_READY, "")
	return b, nil
}

// serve serves the bench on a free port of the loopback address.
func (b *bench) serve(opts ...grpc.ServerOption) (addr string, stop func(), err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	srv := grpc.NewServer(append(append(rpc.ServerOptions(), grpc.WaitForHandlers(true)), opts...)...)
	rpc.Register(srv, b.Session, slog.New(slog.DiscardHandler))
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	return ln.Addr().String(), func() { srv.Stop(); <-served }, nil
}

func openBench(t *testing.T) *bench {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	b, err := newBench(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if n := b.Offers.Len(); n != 0 {
			t.Errorf("%d streams wait for a call at the end; want none", n)
		}
		if err := b.Close(context.Background()); err != nil {
			t.Errorf("Close() = %v; want nil", err)
		}
	})
	return b
}

func (b *bench) listen(t *testing.T, opts ...grpc.ServerOption) string {
	t.Helper()
	addr, stop, err := b.serve(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return addr
}

func dial(t testing.TB, addr string, config *tls.Config) *client.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := client.Dial(ctx, addr, client.Options{TLS: config})
	if err != nil {
		t.Fatalf("Dial() = %v; want nil", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func node(c *client.Client, path string) *client.Node {
	n, err := c.Find(path)
	if err != nil {
		panic(err) // the bench has it
	}
	return n
}

// place is where content is put and got: a partition, a mux or a file.
type place struct {
	name  string
	write func(context.Context, driver.Transfer, io.Reader) error
	read  func(context.Context, driver.Transfer, io.Writer) error
	call  func(context.Context, driver.Handle) error // a write of what a handle names
	node  *client.Node
	disk  string // a pattern for its file
}

func flasherPlace(b *bench, c *client.Client, name string) place {
	n := node(c, "flasher")
	f := func(tr driver.Transfer) *storage.FlasherClient {
		f := storage.NewFlasherClient(n)
		f.Transfer = tr
		return f
	}
	return place{
		name:  "flasher",
		write: func(ctx context.Context, tr driver.Transfer, r io.Reader) error { return f(tr).Flash(ctx, r, name) },
		read:  func(ctx context.Context, tr driver.Transfer, w io.Writer) error { return f(tr).Dump(ctx, w, name) },
		call:  func(ctx context.Context, h driver.Handle) error { return driver.Run(ctx, n, "flash", h, name) },
		node:  n,
		disk:  filepath.Join(b.dir, "jumplead-storage-*", name),
	}
}

func muxPlace(c *client.Client, i int) place {
	n := node(c, fmt.Sprint("mux", i))
	f := func(tr driver.Transfer) storage.MuxFlasher {
		m := storage.NewMuxClient(n)
		m.Transfer = tr
		return storage.MuxFlasher{Mux: m}
	}
	return place{
		name:  "mux",
		write: func(ctx context.Context, tr driver.Transfer, r io.Reader) error { return f(tr).Flash(ctx, r, "") },
		read:  func(ctx context.Context, tr driver.Transfer, w io.Writer) error { return f(tr).Dump(ctx, w, "") },
		call: func(ctx context.Context, h driver.Handle) error {
			return errors.Join(driver.Run(ctx, n, "host"), driver.Run(ctx, n, "write", h), driver.Run(ctx, n, "dut"))
		},
		node: n,
	}
}

func filePlace(b *bench, c *client.Client, name string) place {
	n := node(c, "folder")
	o := func(tr driver.Transfer) *storage.OpendalClient {
		o := storage.NewOpendalClient(n)
		o.Transfer = tr
		return o
	}
	return place{
		name:  "file",
		write: func(ctx context.Context, tr driver.Transfer, r io.Reader) error { return o(tr).WriteFile(ctx, name, r) },
		read:  func(ctx context.Context, tr driver.Transfer, w io.Writer) error { return o(tr).ReadFile(ctx, name, w) },
		call: func(ctx context.Context, h driver.Handle) error {
			fd, err := o(driver.Transfer{}).Open(ctx, name, storage.ForWriting)
			if err != nil {
				return err
			}
			err = driver.Run(ctx, n, "file_write", fd, h)
			return errors.Join(err, o(driver.Transfer{}).FileClose(ctx, fd))
		},
		node: n,
		disk: filepath.Join(b.root, name),
	}
}

// content is what the place holds, looked up on the disk where that is possible.
func (p place) content(ctx context.Context) ([]byte, error) {
	if p.disk == "" {
		var b bytes.Buffer
		err := p.read(ctx, driver.Transfer{}, &b)
		return b.Bytes(), err
	}
	found, err := filepath.Glob(p.disk)
	if err != nil || len(found) != 1 {
		return nil, fmt.Errorf("%s: %d files, %v", p.disk, len(found), err)
	}
	return os.ReadFile(found[0])
}

func pack(t testing.TB, encoding string, content []byte) []byte {
	t.Helper()
	if encoding == "" {
		return content
	}
	var b bytes.Buffer
	w, err := codec.NewWriter(encoding, &b)
	if err == nil {
		_, err = w.Write(content)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unpack(encoding string, packed []byte) ([]byte, error) {
	if encoding == "" {
		return packed, nil
	}
	r, err := codec.NewReader(encoding, bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// random is content that cannot be packed, and text can.
func random(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// proxy is the network between a client and an exporter, with at most one fault.
type proxy struct {
	ln     net.Listener
	to     string
	resume chan struct{} // closed when what stands still may go on

	mu    sync.Mutex
	fault *fault
	conns []net.Conn
	work  sync.WaitGroup
}

// fault strikes once, when so many bytes have gone in a direction since it was
// set.
type fault struct {
	up   bool // from the client to the exporter
	left int
	do   string
}

// faults of networks.
const (
	cut   = "cut"   // both sides see an end
	reset = "reset" // both sides see a reset
	half  = "half"  // only the receiver sees an end
	stuck = "stuck" // nothing goes on until the proxy is told
	flip  = "flip"  // a bit changes, in what TLS protects
)

func newProxy(t testing.TB, to string) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{ln: ln, to: to, resume: make(chan struct{})}
	p.work.Go(p.accept)
	t.Cleanup(func() {
		ln.Close()
		p.release()
		p.mu.Lock()
		for _, c := range p.conns {
			c.Close()
		}
		p.mu.Unlock()
		p.work.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.ln.Addr().String() }

func (p *proxy) strike(f fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = &f
}

// release lets what stands still go on.
func (p *proxy) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.resume:
	default:
		close(p.resume)
	}
}

func (p *proxy) accept() {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		s, err := net.Dial("tcp", p.to)
		if err != nil {
			c.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, c, s)
		p.mu.Unlock()
		from, to := c.(*net.TCPConn), s.(*net.TCPConn)
		p.work.Go(func() { p.pump(from, to, true) })
		p.work.Go(func() { p.pump(to, from, false) })
	}
}

func (p *proxy) pump(from, to *net.TCPConn, up bool) {
	defer to.Close()
	buf := make([]byte, 16<<10)
	var tls records
	for {
		n, err := from.Read(buf)
		b := buf[:n]
		p.mu.Lock()
		sealed := tls.sealed(b)
		f := p.fault
		if f != nil && f.up == up {
			switch {
			case f.left >= n:
				f.left -= n
				f = nil
			case f.do == flip && !slices.Contains(sealed[f.left:], true):
				f.left = 0
				f = nil
			default:
				p.fault = nil
			}
		} else {
			f = nil
		}
		p.mu.Unlock()
		if f != nil {
			switch f.do {
			case flip:
				b[f.left+slices.Index(sealed[f.left:], true)] ^= 0x10
			default:
				to.Write(b[:f.left])
				b = b[f.left:]
			}
			switch f.do {
			case cut:
				from.Close()
				return
			case reset:
				from.SetLinger(0)
				to.SetLinger(0)
				from.Close()
				return
			case half:
				to.CloseWrite()
				io.Copy(io.Discard, from)
				return
			case stuck:
				<-p.resume
			}
		}
		if _, werr := to.Write(b); werr != nil || err != nil {
			from.Close()
			return
		}
	}
}

// records follows the records of TLS. A change in the head of one, which holds its
// length, could make the receiver wait for more.
type records struct {
	head []byte
	left int
}

// sealed says of the next bytes which belong to the body of a record.
func (r *records) sealed(b []byte) []bool {
	in := make([]bool, len(b))
	for i, c := range b {
		if in[i] = r.left > 0; in[i] {
			r.left--
		} else if r.head = append(r.head, c); len(r.head) == 5 {
			r.left = int(r.head[3])<<8 | int(r.head[4])
			r.head = r.head[:0]
		}
	}
	return in
}

// child is the environment variable that makes the test program an exporter: it
// holds the directory for its files and, behind a colon, how large one may get.
const child = "JUMPLEAD_TRANSFER_CHILD"

func TestMain(m *testing.M) {
	if dir, limit, ok := strings.Cut(os.Getenv(child), ":"); ok {
		if err := beExporter(dir, limit); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// beExporter serves until its standard input ends.
func beExporter(dir, limit string) error {
	if n, err := strconv.ParseUint(limit, 10, 64); err != nil {
		return err
	} else if n > 0 {
		if err := limitFiles(n); err != nil {
			return err
		}
	}
	b, err := newBench(dir)
	if err != nil {
		return err
	}
	addr, stop, err := b.serve()
	if err != nil {
		return err
	}
	fmt.Println(addr)
	io.Copy(io.Discard, os.Stdin)
	stop()
	return b.Close(context.Background())
}

// startExporter starts an exporter with a process of its own.
func startExporter(t *testing.T, limit int) (b *bench, addr string, pid int) {
	t.Helper()
	b = &bench{dir: t.TempDir()}
	b.root = filepath.Join(b.dir, "folder")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s:%d", child, b.dir, limit), "TMPDIR="+b.dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the exporter ended with %v; want nil", err)
		}
	})
	addr, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the exporter said %q, %v; want its address", addr, err)
	}
	return b, strings.TrimSpace(addr), cmd.Process.Pid
}

// leftovers are files under dir that a place has not got, other than those whose
// names say that they are a part.
func leftovers(t *testing.T, dir string, known func(name string) bool) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !known(e.Name()) && !strings.Contains(e.Name(), ".partial-") {
			t.Errorf("%s is left in %s; want nothing but whole files and partial names", e.Name(), dir)
		}
	}
}

var errTest = errors.New("this was made to fail")
