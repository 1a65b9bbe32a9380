package transfer_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/exporter/client"
	"github.com/jumplead/jumplead/exporter/stream/codec"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// grid is a matrix of damage. A cell damages one transfer and looks at what comes
// of it. Many work at once, as most cells wait.
type grid struct {
	t     *testing.T
	b     *bench
	rand  *rand.Rand
	cells []cell

	mu     sync.Mutex
	seen   map[string]map[driver.Class]int // by kind of damage
	silent atomic.Int32
}

// worker has a partition, a file and a mux to itself, and knows what they hold.
type worker struct {
	id    int
	cells int
	holds map[string][]byte
}

// kind is what becomes of a kind of damage.
type kind struct {
	name    string
	may     bool           // the damage may do no harm
	classes []driver.Class // that the error may have
}

type cell struct {
	kind kind
	name string
	run  func(*worker, *cell)
}

func newGrid(t *testing.T, b *bench) *grid {
	return &grid{t: t, b: b, rand: dice(t), seen: map[string]map[driver.Class]int{}}
}

func (g *grid) add(k kind, name string, run func(*worker, *cell)) {
	g.cells = append(g.cells, cell{k, name, run})
}

// all runs the cells.
func (g *grid) all() {
	next := make(chan *cell)
	var work sync.WaitGroup
	for id := range muxes {
		work.Go(func() {
			w := &worker{id: id, holds: map[string][]byte{}}
			for c := range next {
				w.cells++
				c.run(w, c)
			}
		})
	}
	for i := range g.cells {
		next <- &g.cells[i]
	}
	close(next)
	work.Wait()
	for _, k := range slices.Sorted(maps.Keys(g.seen)) {
		g.t.Logf("%-30s %v", k, g.seen[k])
	}
	g.t.Logf("%d cells, %d silent losses", len(g.cells), g.silent.Load())
	if len(g.cells) == 0 {
		g.t.Error("there are no cells; want some")
	}
	leftovers(g.t, g.b.root, func(name string) bool { return strings.HasPrefix(name, "cell") })
	for _, dir := range glob(g.t, filepath.Join(g.b.dir, "jumplead-storage-*")) {
		leftovers(g.t, dir, func(name string) bool { return strings.HasPrefix(name, "cell") || name == "medium" })
	}
}

func glob(t *testing.T, pattern string) []string {
	found, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// place is where a cell works: mostly a partition, sometimes a file or a mux.
func (g *grid) place(w *worker, c *client.Client) place {
	switch w.cells % 16 {
	case 0, 8:
		return muxPlace(c, w.id)
	case 4: // which waits for the disk
		return filePlace(g.b, c, fmt.Sprint("cell", w.id))
	}
	return flasherPlace(g.b, c, fmt.Sprint("cell", w.id))
}

// fill makes a place hold content.
func (w *worker) fill(ctx context.Context, p place, content []byte) error {
	if bytes.Equal(w.holds[p.name], content) && w.holds[p.name] != nil {
		return nil
	}
	w.holds[p.name] = nil
	if err := p.write(ctx, driver.Transfer{}, bytes.NewReader(content)); err != nil {
		return err
	}
	got, err := p.content(ctx)
	if err == nil && !bytes.Equal(got, content) {
		err = fmt.Errorf("%d of %d bytes are there", len(got), len(content))
	}
	if err == nil {
		w.holds[p.name] = content
	}
	return err
}

func (g *grid) judge(c *cell, p place, err error, whole bool) {
	class := driver.Classify(err)
	g.mu.Lock()
	k := c.kind.name
	if g.seen[k] == nil {
		g.seen[k] = map[driver.Class]int{}
	}
	g.seen[k][class]++
	g.mu.Unlock()
	switch {
	case err == nil && !whole:
		g.silent.Add(1)
		g.t.Errorf("%s, %s, %s: no error, and data is lost", c.kind.name, c.name, p.name)
	case err == nil && !c.kind.may:
		g.t.Errorf("%s, %s, %s: no error; want one", c.kind.name, c.name, p.name)
	case err != nil && !slices.Contains(c.kind.classes, class):
		g.t.Errorf("%s, %s, %s: %v of class %v; want one of %v", c.kind.name, c.name, p.name, err, class, c.kind.classes)
	}
}

const patience = 20 * time.Second

// write is a cell that damages a write of content.
func (g *grid) write(k kind, name string, c func() (*client.Client, func()), content []byte, damage func(context.Context, place) error) {
	g.add(k, name, func(w *worker, cell *cell) {
		c, settle := c()
		p := g.place(w, c)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		fail := func(what string, err error) { g.t.Errorf("%s, %s, %s: %s: %v", k.name, name, p.name, what, err) }
		old := w.holds[p.name]
		if old == nil || bytes.Equal(old, content) {
			old = []byte("the old content")
			if err := w.fill(ctx, p, old); err != nil {
				fail("the write before", err)
				return
			}
		}
		w.holds[p.name] = nil
		damaged := damage(ctx, p)
		settle()
		if ctx.Err() != nil {
			fail("the transfer does not end", damaged)
			return
		}
		got, err := p.content(ctx)
		if err != nil {
			fail("what is there", err)
			return
		}
		if damaged != nil && !bytes.Equal(got, old) && !bytes.Equal(got, content) {
			fail("what is there", fmt.Errorf("%d bytes that are neither the old content nor the new", len(got)))
		}
		g.judge(cell, p, damaged, bytes.Equal(got, content))
		if err := w.fill(ctx, p, append([]byte(name), content[:len(content)/2]...)); err != nil {
			fail("the next write", err)
		}
	})
}

// read is a cell that damages a read of content.
func (g *grid) read(k kind, name, encoding string, c func() (*client.Client, func()), content []byte, damage func(context.Context, place, io.Writer) error) {
	g.add(k, name, func(w *worker, cell *cell) {
		c, settle := c()
		p := g.place(w, c)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		fail := func(what string, err error) { g.t.Errorf("%s, %s, %s: %s: %v", k.name, name, p.name, what, err) }
		if err := w.fill(ctx, p, content); err != nil {
			fail("the write before", err)
			return
		}
		var b bytes.Buffer
		damaged := damage(ctx, p, &b)
		settle()
		if ctx.Err() != nil {
			fail("the transfer does not end", damaged)
			return
		}
		whole := false
		if damaged == nil {
			got, err := unpack(encoding, b.Bytes())
			whole = err == nil && bytes.Equal(got, content)
		}
		g.judge(cell, p, damaged, whole)
		b.Reset()
		if err := p.read(ctx, driver.Transfer{}, &b); err != nil || !bytes.Equal(b.Bytes(), content) {
			fail(fmt.Sprintf("the next read has %d of %d bytes", b.Len(), len(content)), err)
		}
	})
}

// same is a client for cells that do no harm to it.
func same(c *client.Client) func() (*client.Client, func()) {
	return func() (*client.Client, func()) { return c, func() {} }
}

// encodings are those of the wire, and none.
var encodings = append([]string{""}, codec.Encodings()...)

func name(encoding string) string { return cmp.Or(encoding, "none") }

// errs are the classes of errors that are told apart here.
var (
	broken    = []driver.Class{driver.Internal}    // data is damaged
	gone      = []driver.Class{driver.Unavailable} // the other side is
	cancelled = []driver.Class{driver.Canceled}
	late      = []driver.Class{driver.Timeout}
	local     = []driver.Class{driver.Internal, driver.Device} // the caller's own
)

// boundaries are the offsets in packed data where one part of the format ends.
func boundaries(encoding string, packed []byte) (list []int) {
	switch encoding {
	case codec.Zstd:
		at := 4 // the magic number
		fhd := packed[at]
		at++
		single := fhd&0x20 != 0
		if !single {
			at++
		}
		size := []int{0, 2, 4, 8}[fhd>>6]
		if size == 0 && single {
			size = 1
		}
		at += size
		for last := false; !last; {
			h := int(packed[at]) | int(packed[at+1])<<8 | int(packed[at+2])<<16
			list = append(list, at, at+3)
			n := h >> 3
			if h>>1&3 == 1 { // a byte that is repeated
				n = 1
			}
			at += 3 + n
			last = h&1 != 0
		}
		list = append(list, at) // the checksum
	case codec.XZ:
		at := 12 // the header
		list = append(list, at)
		at += (int(packed[at]) + 1) * 4
		for packed[at] != 0 { // chunks of LZMA2
			list = append(list, at)
			n := int(binary.BigEndian.Uint16(packed[at+1:])) + 1
			switch c := packed[at]; {
			case c < 0x80:
				at += 3 + n
			default:
				n = int(binary.BigEndian.Uint16(packed[at+3:])) + 1
				at += 5 + n
				if c >= 0xc0 {
					at++
				}
			}
		}
		list = append(list, at, at+1)
	}
	return list
}

// offsets are where packed data is damaged: all over its head and its tail,
// around the boundaries in it, and at random.
func (g *grid) offsets(encoding string, packed []byte, ends int, more ...int) []int {
	all := map[int]bool{}
	n := len(packed)
	for i := range ends {
		all[i], all[n-1-i] = true, true
	}
	for _, at := range append(more, boundaries(encoding, packed)...) {
		all[at-1], all[at], all[at+1] = true, true, true
	}
	for range 8 {
		all[g.rand.IntN(n)] = true
	}
	list := slices.Sorted(maps.Keys(all))
	return slices.DeleteFunc(list, func(at int) bool { return at < 0 || at >= n })
}

// TestDamagedData is a matrix of packed data that is damaged before it is sent.
func TestDamagedData(t *testing.T) {
	drivertest.NoLeaks(t)
	b := openBench(t)
	c := dial(t, b.listen(t), nil)
	g := newGrid(t, b)
	for _, e := range codec.Encodings() {
		tr := driver.Transfer{Encoding: e}
		send := func(packed []byte) func(context.Context, place) error {
			return func(ctx context.Context, p place) error { return p.write(ctx, tr, bytes.NewReader(packed)) }
		}
		first, second := random(g.rand, 700), bytes.Repeat([]byte("text that can be packed, "), 100)
		two := slices.Concat(pack(t, e, first), pack(t, e, second))
		member := len(pack(t, e, first))
		content := slices.Concat(first, second)
		for _, at := range g.offsets(e, two, 20, member) {
			if at != member { // what is left is whole
				g.write(kind{"truncated", false, broken}, fmt.Sprintf("%s at %d of %d", e, at, len(two)), same(c), content, send(two[:at]))
			}
			bad := bytes.Clone(two)
			bad[at] ^= 1 << g.rand.IntN(8)
			g.write(kind{"flipped", true, append(broken, driver.Unsupported)}, fmt.Sprintf("%s at %d of %d", e, at, len(two)), same(c), content, send(bad))
		}
		large := random(g.rand, 300<<10)
		packed := pack(t, e, large)
		for _, at := range g.offsets(e, packed, 2) {
			g.write(kind{"truncated", false, broken}, fmt.Sprintf("%s at %d of %d", e, at, len(packed)), same(c), large, send(packed[:at]))
		}
		for _, tail := range []string{"x", "\x00", "\x00\x00\x00", strings.Repeat("garbage", 100), string(two[:5])} {
			g.write(kind{"garbage behind it", false, append(broken, driver.Unsupported)}, fmt.Sprintf("%s and %d bytes", e, len(tail)), same(c), content, send(append(bytes.Clone(two), tail...)))
		}
		g.write(kind{"nothing", false, broken}, e, same(c), content, send(nil))
		g.write(kind{"not packed", false, append(broken, driver.Unsupported)}, e, same(c), content, send(content))
		for _, other := range codec.Encodings() {
			if other != e {
				g.write(kind{"packed otherwise", false, append(broken, driver.Unsupported)}, e+" is "+other, same(c), content, send(pack(t, other, content)))
			}
		}
	}
	g.all()
}

// TestDamagedTransfers is a matrix of clients that fail, or give up.
func TestDamagedTransfers(t *testing.T) {
	drivertest.NoLeaks(t)
	b := openBench(t)
	addr := b.listen(t)
	c := dial(t, addr, nil)
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	g := newGrid(t, b)
	for _, e := range encodings {
		tr := driver.Transfer{Encoding: e}
		content := random(g.rand, 120<<10)
		packed := pack(t, e, content)
		at := []int{0, 1, g.rand.IntN(len(packed)), len(packed) - 1, len(packed)}
		for _, at := range at {
			where := fmt.Sprintf("%s at %d of %d", name(e), at, len(packed))
			g.write(kind{"the source fails", false, local}, where, same(c), content, func(ctx context.Context, p place) error {
				return p.write(ctx, tr, then(packed[:at], func() (int, error) { return 0, errTest }))
			})
			g.write(kind{"the client cancels", false, cancelled}, where, same(c), content, func(ctx context.Context, p place) error {
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				return p.write(ctx, tr, then(packed[:at], func() (int, error) { cancel(); return 1, nil }))
			})
			g.write(kind{"the source stands still", false, late}, where, same(c), content, func(ctx context.Context, p place) error {
				ctx, cancel := context.WithTimeout(ctx, stall)
				defer cancel()
				return p.write(ctx, tr, then(packed[:at], func() (int, error) { <-ctx.Done(); return 0, ctx.Err() }))
			})
			g.write(kind{"the RPC ends", false, gone}, where, same(c), content, func(ctx context.Context, p place) error {
				return abandon(ctx, conn, p, e, packed[:at])
			})
			if at == len(packed) {
				continue // all of a read
			}
			g.read(kind{"the destination fails", false, local}, where, e, same(c), content, func(ctx context.Context, p place, w io.Writer) error {
				return p.read(ctx, tr, &full{w, at, nil})
			})
			g.read(kind{"the client cancels", false, cancelled}, where, e, same(c), content, func(ctx context.Context, p place, w io.Writer) error {
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				return p.read(ctx, tr, &full{w, at, cancel})
			})
		}
		g.read(kind{"the destination is full", false, []driver.Class{driver.Device}}, name(e), e, same(c), content, func(ctx context.Context, p place, w io.Writer) error {
			f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
			if err != nil {
				return nil
			}
			defer f.Close()
			return p.read(ctx, tr, f)
		})
	}
	g.all()
}

// abandon writes to a place as a client does that sends a part and then ends its
// RPC, without a word on the end of the data.
func abandon(ctx context.Context, conn *grpc.ClientConn, p place, encoding string, part []byte) error {
	request, err := json.Marshal(map[string]any{"kind": "resource", "uuid": p.node.UUID, "x_jmp_content_encoding": encoding})
	if err != nil {
		return err
	}
	s, err := pb.NewRouterServiceClient(conn).Stream(metadata.AppendToOutgoingContext(ctx, "request", string(request)))
	if err != nil {
		return err
	}
	md, err := s.Header()
	if err != nil {
		return err
	}
	var handle any
	if err := json.Unmarshal([]byte(md.Get("resource")[0]), &handle); err != nil {
		return err
	}
	if len(part) > 0 {
		if err := s.Send(&pb.StreamRequest{Payload: part}); err != nil {
			return err
		}
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	return p.call(ctx, driver.NewHandle(handle))
}

// then yields data, and then what f says.
func then(data []byte, f func() (int, error)) io.Reader {
	return io.MultiReader(bytes.NewReader(data), readerFunc(func([]byte) (int, error) { return f() }))
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// full takes so many bytes, and then fails or calls off.
type full struct {
	w    io.Writer
	left int
	off  func()
}

func (f *full) Write(p []byte) (int, error) {
	if len(p) <= f.left {
		f.left -= len(p)
		return f.w.Write(p)
	}
	if f.off != nil {
		f.off()
		return f.w.Write(p)
	}
	return 0, errTest
}
