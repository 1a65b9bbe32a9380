package remote_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/client"
	"github.com/jumplead/jumplead/exporter/remote"
	"github.com/jumplead/jumplead/exporter/rpc"
	"github.com/jumplead/jumplead/exporter/session"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// group and native are what this program has drivers for.
var group = driver.Define(driver.Spec{Type: "group", Role: driver.Group},
	func(context.Context, *driver.Env, struct{}) (driver.Driver, error) { return driver.Driver{}, nil })

var native = driver.Define(driver.Spec{Type: "jumpstarter_driver_native.Native"},
	func(_ context.Context, env *driver.Env, _ struct{}) (driver.Driver, error) {
		return driver.Driver{Exports: []driver.Export{
			driver.Call("path", func(context.Context) (string, error) { return env.Path, nil }),
			driver.Call("child", func(ctx context.Context) (any, error) {
				c, ok := env.Child("far")
				if !ok {
					return nil, errors.New("there is no child")
				}
				return c.Call(ctx, "path")
			}),
		}}, nil
	})

var elsewhere = driver.Define(driver.Spec{Type: "lab.Own"},
	func(context.Context, *driver.Env, struct{}) (driver.Driver, error) { return driver.Driver{}, nil })

// forwarded is of a contract into whose streams clients forward connections.
var forwarded = driver.Define(driver.Spec{Type: "jumpstarter_driver_native.Forwarded", Contract: driver.Contract{Client: "fake.Made", Forwarded: true}},
	func(context.Context, *driver.Env, struct{}) (driver.Driver, error) { return driver.Driver{}, nil })

// records keeps what is logged.
type records struct {
	mu   sync.Mutex
	text strings.Builder
}

func (r *records) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *records) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// bench is a harness that is served.
type bench struct {
	hosts  *remote.Hosts
	tree   *driver.Tree
	client *client.Client
	conn   *grpc.ClientConn
	log    *records
}

// python makes this program the interpreter, in a mode.
func python(t testing.TB, mode string) string {
	t.Helper()
	t.Setenv(asPython, mode)
	t.Setenv("GORACE", "atexit_sleep_ms=0") // or each end takes a second
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return self
}

func plan(t testing.TB, hosts *remote.Hosts, log *slog.Logger, nodes ...driver.Decl) (*driver.Tree, driver.Problems) {
	t.Helper()
	return driver.Plan(driver.Decl{Children: nodes}, driver.Options{
		Specs: []driver.Spec{group, native, elsewhere, forwarded, remote.Exporter}, Log: log, Mounts: hosts.Mounts, Namespace: uuid.NameSpaceURL})
}

// serve serves a harness until the test ends.
func serve(t testing.TB, nodes ...driver.Decl) *bench {
	t.Helper()
	b := &bench{log: new(records)}
	log := slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b.hosts = &remote.Hosts{Log: log, Start: 10 * time.Second, Getenv: func(k string) string {
		return map[string]string{"JUMPLEAD_PYTHON": self}[k]
	}}
	t.Cleanup(b.hosts.Close)
	tree, problems := plan(t, b.hosts, log, nodes...)
	if err := problems.Err(); err != nil {
		t.Fatalf("Plan() = %v; want nil", err)
	}
	b.tree = tree
	if err := tree.Open(t.Context()); err != nil {
		t.Fatalf("Open() = %v; want nil", err)
	}
	s := session.New(uuid.New(), tree, session.NewLogs(), session.NewOffers())
	s.SetStatus(pb.ExporterStatus_EXPORTER_STATUS_LEASE_READY, "")
	dir, err := os.MkdirTemp("", "remote-")
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(rpc.ServerOptions()...)
	rpc.Register(srv, s, log)
	go srv.Serve(ln)
	b.conn, err = grpc.NewClient("unix:"+filepath.Join(dir, "s"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	b.client, err = client.Dial(t.Context(), filepath.Join(dir, "s"), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.client.Close()
		b.conn.Close()
		srv.Stop()
		if err := tree.Close(); err != nil {
			t.Errorf("Close() = %v; want nil", err)
		}
		os.RemoveAll(dir)
	})
	return b
}

func (b *bench) find(t testing.TB, path string) *client.Node {
	t.Helper()
	n, err := b.client.Find(path)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (b *bench) call(t testing.TB, path, method string, args ...any) any {
	t.Helper()
	v, err := b.find(t, path).Call(soon(t), method, args...)
	if err != nil {
		t.Fatalf("%s: Call(%s) = %v; want nil", path, method, err)
	}
	return v
}

func soon(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// eventually polls a condition.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func good(name string, children ...driver.Decl) driver.Decl {
	return driver.Decl{Name: name, Type: "fake.Good", Children: children}
}

// A hosted node is in the tree as if it were built in, with what it made itself,
// and refs lead to it and into it.
func TestHosted(t *testing.T) {
	python(t, "ok")
	b := serve(t,
		driver.Decl{Name: "dut", Children: []driver.Decl{good("far"), {Name: "near", Type: native.Type, Children: []driver.Decl{good("far")}}}},
		driver.Decl{Name: "alias", Ref: "dut.far"},
		driver.Decl{Name: "inner", Ref: "dut.far.made"},
	)
	for path, want := range map[string]string{
		"dut.far": "dut.far", "dut.far.made": "dut.far.made", "dut.near": "dut.near", "dut.near.far": "dut.near.far",
		"alias": "dut.far", "alias.made": "dut.far.made", "inner": "dut.far.made",
	} {
		if got := b.call(t, path, "path"); got != want {
			t.Errorf("%s: path = %v; want %s", path, got, want)
		}
	}
	if got := b.call(t, "dut.near", "child"); got != "dut.near.far" {
		t.Errorf("path of a hosted child, asked for by its native parent = %v; want dut.near.far", got)
	}
	if n := b.find(t, "dut.far"); n.Class != "fake.Client" || b.find(t, "inner").Class != "fake.Made" {
		t.Errorf("client classes = %s, %s; want those of the other side", n.Class, b.find(t, "inner").Class)
	}
	if a, b := b.call(t, "dut.far", "pid"), b.call(t, "dut.near.far", "pid"); a != b {
		t.Errorf("hosted nodes are in the processes %v and %v; want one", a, b)
	}
	eventually(t, "what the process prints is logged", func() bool { return strings.Contains(b.log.String(), `msg="a print"`) })
}

// A driver that is there twice has one identity, declared or not, and so has what a
// ref and the driver below it lead to.
func TestShared(t *testing.T) {
	python(t, "ok")
	b := serve(t, driver.Decl{Name: "far", Type: "fake.Shares"}, driver.Decl{Name: "alias", Ref: "far.second"})
	made := b.find(t, "far.made")
	for _, path := range []string{"far.second.made", "alias.made"} {
		if n := b.find(t, path); n.UUID != made.UUID {
			t.Errorf("uuid of %s = %s; want %s, as of far.made", path, n.UUID, made.UUID)
		}
		if got := b.call(t, path, "path"); got != "far.made" {
			t.Errorf("path of %s = %v; want far.made", path, got)
		}
	}
	if n := b.find(t, "far.second"); n.UUID != b.find(t, "alias").UUID || n.UUID == made.UUID {
		t.Errorf("uuids of far.second, alias, far.made = %s, %s, %s; want two the same", n.UUID, b.find(t, "alias").UUID, made.UUID)
	}
}

// What a call says of itself travels both ways as it is.
func TestForwardedCalls(t *testing.T) {
	python(t, "ok")
	b := serve(t, good("far"))
	id := b.find(t, "far").UUID
	export := pb.NewExporterServiceClient(b.conn)
	call := func(ctx context.Context, method string, opts ...grpc.CallOption) error {
		_, err := export.DriverCall(ctx, &pb.DriverCallRequest{Uuid: id, Method: method}, opts...)
		return err
	}
	var head, tail metadata.MD
	ctx := metadata.AppendToOutgoingContext(soon(t), "x-asked", "word", rpc.PassphraseKey, "secret")
	if err := call(ctx, "path", grpc.Header(&head), grpc.Trailer(&tail)); err != nil {
		t.Fatalf("DriverCall() = %v; want nil", err)
	}
	if got := head.Get("x-head"); !slices.Equal(got, []string{"word"}) || !slices.Equal(tail.Get("x-tail"), []string{"t"}) {
		t.Errorf("metadata = %v, %v; want those of the other side", head, tail)
	}
	r, err := export.DriverCall(ctx, &pb.DriverCallRequest{Uuid: id, Method: "passphrase"})
	if err != nil || r.Result.GetStringValue() != "" {
		t.Errorf("the other side saw the passphrase %q, %v; want none", r.GetResult().GetStringValue(), err)
	}
	for method, want := range map[string]struct {
		code codes.Code
		text string
	}{
		"nothing":     {codes.NotFound, "method nothing not found on driver"},
		"unavailable": {codes.Unavailable, "the device is away"},
		"details":     {codes.Aborted, "aborted"},
	} {
		err := call(soon(t), method)
		if status.Code(err) != want.code || status.Convert(err).Message() != want.text {
			t.Errorf("DriverCall(%s) = %v; want %v %q", method, err, want.code, want.text)
		}
		if d := status.Convert(err).Details(); method == "details" && len(d) != 1 {
			t.Errorf("details = %v; want one", d)
		}
	}
	if err := call(soon(t), "long"); len(status.Convert(err).Message()) > 3000 {
		t.Errorf("a message of 10 kB comes as %d bytes; want what fits a header", len(status.Convert(err).Message()))
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := call(short, "hang"); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("DriverCall(hang) = %v; want DeadlineExceeded", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	hung := make(chan error, 1)
	go func() { hung <- call(ctx, "hang") }()
	if got := b.call(t, "far", "echo", map[string]any{"a": []any{1.5, nil, "x"}}); fmt.Sprint(got) != "map[a:[1.5 <nil> x]]" {
		t.Errorf("echo = %v; want what was sent", got)
	}
	cancel()
	if err := <-hung; status.Code(err) != codes.Canceled {
		t.Errorf("DriverCall(hang) = %v; want Canceled", err)
	}
	if _, err := export.DriverCall(soon(t), &pb.DriverCallRequest{Uuid: uuid.NewString(), Method: "path"}); status.Code(err) != codes.Unknown {
		t.Errorf("DriverCall() on an unknown uuid = %v; want Unknown", err)
	}
}

func TestForwardedSequences(t *testing.T) {
	python(t, "ok")
	b := serve(t, good("far"))
	n, got := b.find(t, "far"), []any{}
	var last error
	for v, err := range n.Feed(soon(t), "three") {
		if last = err; err == nil {
			got = append(got, v)
		}
	}
	var re *driver.RemoteError
	if fmt.Sprint(got) != "[0 1 2]" || !errors.As(last, &re) || re.Text != "no more" {
		t.Errorf("three = %v, %v; want 0 1 2 and the error", got, last)
	}
	count := 0
	for v, err := range n.Feed(soon(t), "count") {
		if err != nil || v != float64(count) {
			t.Fatalf("item %d = %v, %v; want %d", count, v, err, count)
		}
		if count++; count == 5000 {
			break
		}
	}
}

func TestForwardedStreams(t *testing.T) {
	python(t, "ok")
	b := serve(t, good("far"))
	n := b.find(t, "far.made")
	s, err := n.Stream(soon(t), "connect")
	if err != nil {
		t.Fatalf("Stream() = %v; want nil", err)
	}
	defer s.Close()
	const total = 8 << 20
	go func() {
		buf := make([]byte, 64<<10)
		for range total / len(buf) {
			if _, err := s.Write(buf); err != nil {
				return
			}
		}
		s.(interface{ CloseWrite() error }).CloseWrite()
	}()
	if got, err := io.Copy(io.Discard, s); got != total || err != nil {
		t.Errorf("came back = %d bytes, %v; want %d and an end", got, err, total)
	}
	if _, err := n.Stream(soon(t), "refuse"); err == nil || !strings.Contains(err.Error(), "no stream today") {
		t.Errorf("Stream(refuse) = %v; want the other side's words", err)
	}
	_, h, err := n.Offer(soon(t))
	if err != nil || fmt.Sprint(h.Raw()) != "map[kind:client_stream uuid:theirs]" {
		t.Errorf("Offer() = %v, %v; want the other side's handle", h.Raw(), err)
	}
	// Who does not take what is sent holds up the sender.
	s, err = n.Stream(soon(t), "connect")
	if err != nil {
		t.Fatalf("Stream() = %v; want nil", err)
	}
	var sent atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 256<<10)
		for sent.Load() < 1<<30 {
			n, err := s.Write(buf)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	}()
	before, since := int64(-1), time.Now()
	eventually(t, "a sender whose receiver takes nothing is held up", func() bool {
		if now := sent.Load(); now != before {
			before, since = now, time.Now()
		}
		return time.Since(since) > 200*time.Millisecond
	})
	if got := b.call(t, "far", "path"); got != "far" {
		t.Errorf("path beside a stream that is held up = %v; want far", got)
	}
	s.Close()
	<-done
	if n := sent.Load(); n > 64<<20 {
		t.Errorf("%d bytes were taken from a sender whose receiver takes none; want it held up", n)
	}
}

// What cannot be hosted is named, with what can be done about it, and no more
// fails than has to.
func TestMistakes(t *testing.T) {
	for _, c := range []struct {
		name, mode string
		node       driver.Decl
		want       string
		warning    bool
	}{
		{"package", "ok", driver.Decl{Type: "jumpstarter_driver_gone.driver.X"}, "has no package jumpstarter_driver_gone: pip install jumpstarter-driver-gone", false},
		{"class", "ok", driver.Decl{Type: "fake.Goood"}, `did you mean "fake.Good"?`, false},
		{"near", "ok", driver.Decl{Type: "jumpstarter_driver_gone.Native"}, `no driver of type "jumpstarter_driver_gone.Native"; did you mean "jumpstarter_driver_native.Native"?; `, false},
		{"import", "ok", driver.Decl{Type: "fake.Broken"}, "cannot be imported by", true},
		{"required", "ok", driver.Decl{Type: "fake.Strict"}, `key "speed" is missing`, true},
		{"jumpstarter", "missing", driver.Decl{Type: "fake.Good"}, "has no package jumpstarter: pip install jumpstarter", false},
		{"exit", "exit", driver.Decl{Type: "fake.Good"}, "ended with status 7: Traceback: it will not do", false},
		{"rubbish", "rubbish", driver.Decl{Type: "fake.Good"}, `says "Welcome!" instead of`, false},
		{"late", "late", driver.Decl{Type: "fake.Good"}, "was not ready within 500ms", false},
		{"none", "ok", driver.Decl{Type: "fake.Good", Hosting: driver.Hosting{Python: "/nowhere/python"}}, "the config's python, /nowhere/python, is not there", false},
		{"own", "ok", driver.Decl{Type: "fake.Good", Children: []driver.Decl{{Name: "r", Ref: "own"}}}, "lab.Own is no Python driver", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			self := python(t, c.mode)
			h := &remote.Hosts{Getenv: func(k string) string { return map[string]string{"JUMPLEAD_PYTHON": self}[k] }, Start: 500 * time.Millisecond}
			defer h.Close()
			if c.mode == "ok" {
				h.Start = 10 * time.Second
			}
			c.node.Name, c.node.TypePos = "far", driver.Pos{File: "f", Line: 7, Column: 3}
			_, problems := plan(t, h, nil, c.node, driver.Decl{Name: "own", Type: elsewhere.Type})
			if len(problems) != 1 || !strings.Contains(problems[0].Text, c.want) || problems[0].Warning != c.warning {
				t.Fatalf("Plan() = %v; want one problem with %q, a warning: %t", problems, c.want, c.warning)
			}
			if !strings.HasPrefix(problems[0].Text, "far: ") && c.name != "own" || problems[0].Pos.Line != 7 && c.name != "own" {
				t.Errorf("problem = %+v; want it at line 7, of far", problems[0])
			}
		})
	}
}

// Settings of how nodes are hosted that do not come true are told: somebody may rely
// on them.
func TestSettings(t *testing.T) {
	self := python(t, "ok")
	with := func(d driver.Decl, python, user string) driver.Decl {
		d.Hosting.Python, d.Hosting.User = python, user
		return d
	}
	near := func(children ...driver.Decl) driver.Decl {
		return driver.Decl{Name: "near", Type: native.Type, Children: children}
	}
	for _, c := range []struct {
		name string
		root driver.Hosting
		node driver.Decl
		want []string
	}{
		{"hosted", driver.Hosting{}, with(good("far"), self, ""), nil},
		{"for all", driver.Hosting{Python: self, User: "harness"}, with(near(), self, "harness"), nil},
		{"native", driver.Hosting{}, with(near(), "/x", "harness"), []string{
			`warning: near: user "harness" is for what is hosted, and this is not: it runs as the exporter does`,
			`warning: near: python "/x" is for what is hosted, and this is not`}},
		{"below", driver.Hosting{}, driver.Decl{Name: "g", Children: []driver.Decl{with(near(), "", "harness")}},
			[]string{`warning: g.near: user "harness" is for what is hosted, and this is not: it runs as the exporter does`}},
		{"a group with one that is hosted", driver.Hosting{}, with(driver.Decl{Name: "g", Children: []driver.Decl{
			with(near(), self, ""), with(good("far"), self, "")}}, self, ""), nil},
		{"in the process of another", driver.Hosting{}, good("far", with(good("in"), "/x", "")), []string{
			`far.in: it runs in the process of far: give that one the python and user`}},
		{"in the process of another, as another user", driver.Hosting{}, good("far", driver.Decl{Name: "g", Children: []driver.Decl{with(good("in"), "", "harness")}}), []string{
			`far.g.in: it runs in the process of far: give that one the python and user`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &remote.Hosts{Getenv: func(k string) string { return map[string]string{"JUMPLEAD_PYTHON": self}[k] }}
			defer h.Close()
			_, problems := driver.Plan(driver.Decl{Hosting: c.root, Children: []driver.Decl{c.node}}, driver.Options{
				Specs: []driver.Spec{group, native}, Mounts: h.Mounts})
			var got []string
			for _, p := range problems {
				got = append(got, fmt.Sprint(p))
			}
			if slices.Sort(got); !slices.Equal(got, slices.Sorted(slices.Values(c.want))) {
				t.Errorf("Plan() = %q; want %q", got, c.want)
			}
		})
	}
}

// Nodes share a process only when their limits are the same.
func TestLimitsText(t *testing.T) {
	text := func(l *driver.Limits) string { return remote.LimitsText(&driver.Decl{Limits: l}) }
	paths := func(p ...driver.Path) []driver.Path { return p }
	for _, l := range []*driver.Limits{nil, {}} {
		if got := text(l); got != "" {
			t.Errorf("limitsText(%v) = %q; want none", l, got)
		}
	}
	different := []*driver.Limits{nil, {CPU: 50}, {CPU: 51}, {Read: []driver.Path{}}, {Write: []driver.Path{}}, {Read: paths("/a", "/b")}, {Read: paths("/a /b")},
		{Read: paths("/a], write [/b")}, {Read: paths("/a"), Write: paths("/b")}}
	for i, a := range different {
		for j, b := range different {
			if same := text(a) == text(b); same != (i == j) {
				t.Errorf("limitsText(%v) and limitsText(%v) are the same: %t; want %t", a, b, same, i == j)
			}
		}
	}
}

// Without any interpreter a config can be checked all the same.
func TestChecking(t *testing.T) {
	h := &remote.Hosts{Getenv: func(k string) string { return map[string]string{"JUMPLEAD_PYTHON": "/nowhere"}[k] }, Checking: true}
	defer h.Close()
	tree, problems := plan(t, h, nil, good("far"))
	if tree == nil || len(problems) != 1 || !problems[0].Warning || !strings.Contains(problems[0].Text, "hosted: not checked here: JUMPLEAD_PYTHON, /nowhere, is not there") {
		t.Errorf("Plan() = %v; want a warning", problems)
	}
}

// One driver that cannot be made keeps nobody from working, whatever it does to the
// process.
func TestBadNeighbour(t *testing.T) {
	for typ, want := range map[string]string{
		"fake.Fails":   "OSError: no device",
		"fake.Exits":   "ended with status 9: cannot go on",
		"fake.Rubbish": "instead of what was agreed on",
	} {
		t.Run(typ, func(t *testing.T) {
			python(t, "ok")
			b := serve(t, good("first"), driver.Decl{Name: "bad", Type: typ}, good("last"), driver.Decl{Name: "near", Type: native.Type})
			_, err := b.find(t, "bad").Call(soon(t), "path")
			if driver.Classify(err) != driver.Unavailable || !strings.Contains(err.Error(), want) {
				t.Errorf("Call() on what cannot be made = %v; want unavailable, and why: %s", err, want)
			}
			if got := b.call(t, "near", "path"); got != "near" {
				t.Errorf("path of a native node = %v; want near", got)
			}
			for _, name := range []string{"first", "last"} {
				eventually(t, name+" answers", func() bool {
					v, err := b.find(t, name).Call(soon(t), "path")
					return err == nil && v == name
				})
			}
			if n := b.find(t, "bad"); n.Class != "fake.Client" {
				t.Errorf("client class of what cannot be made = %s; want fake.Client all the same", n.Class)
			}
		})
	}
}

// A hosted driver reaches others only in its own process, so what it refers to is
// hosted with it; what is wanted to be hosted is, too.
func TestHostedWith(t *testing.T) {
	python(t, "ok")
	b := serve(t,
		good("far", driver.Decl{Name: "supply", Ref: "near"}),
		driver.Decl{Name: "near", Type: native.Type},
		driver.Decl{Name: "other", Type: native.Type},
		driver.Decl{Name: "wanted", Type: native.Type, Hosting: driver.Hosting{Wanted: true}},
	)
	pid := b.call(t, "far", "pid")
	for _, name := range []string{"near", "wanted"} {
		if got := b.call(t, name, "pid"); got != pid {
			t.Errorf("%s is in process %v; want %v", name, got, pid)
		}
	}
	if _, err := b.find(t, "other").Call(soon(t), "pid"); driver.Classify(err) != driver.NoMethod {
		t.Errorf("pid of a native node = %v; want no such method", err)
	}
}

// A reload closes and opens hosted nodes in the process that is there, and leaves
// those that are in use.
func TestReload(t *testing.T) {
	python(t, "ok")
	b := serve(t, good("far"), good("other"))
	pid := b.call(t, "far", "pid")
	s, err := b.find(t, "far").Stream(soon(t), "connect")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	next := driver.Decl{Children: []driver.Decl{
		{Name: "far", Type: "fake.New"}, {Name: "other", Type: "fake.New"}, {Name: "more", Type: "fake.Good"}}}
	tree, done, problems := b.tree.Reload(t.Context(), next, func(*driver.Tree) {})
	if tree == nil {
		t.Fatalf("Reload() = %v; want a tree", problems)
	}
	defer tree.Close()
	if !slices.Equal(done.Busy, []string{"far"}) || !slices.Equal(done.Changed, []string{"other"}) || !slices.Equal(done.Added, []string{"more"}) {
		t.Errorf("Reload() = %+v; want far busy, other changed, more added", done)
	}
	for _, n := range tree.Nodes()[1:] {
		if got, err := n.Caller().Call(soon(t), "pid"); err != nil || got != pid {
			t.Errorf("%s is in process %v, %v; want %v", n.Path, got, err, pid)
		}
	}
	if _, err := s.Write([]byte("x")); err != nil {
		t.Errorf("Write() on a stream of what is in use = %v; want nil", err)
	}
	if n, err := s.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("Read() on a stream of what is in use = %d, %v; want 1", n, err)
	}
}
