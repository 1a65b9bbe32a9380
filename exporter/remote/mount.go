package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/client"
	"github.com/jumplead/jumplead/exporter/rpc"
	"github.com/jumplead/jumplead/exporter/scratch"
	keep "github.com/jumplead/jumplead/hw/process"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// conn is one connection to another exporter. It is not made again: after a
// restart, that exporter's nodes have other UUIDs.
type conn struct {
	grpc.ClientConnInterface
	io.Closer
	broken chan struct{} // closed when the connection breaks
	over   chan struct{} // closed when it is known why
	why    error
	end    func(error)
}

// newConn is a connection without a transport, and what its transport calls when it
// breaks.
func newConn() (c *conn, lost func()) {
	c = &conn{broken: make(chan struct{}), over: make(chan struct{})}
	var ended sync.Once
	lost = sync.OnceFunc(func() { close(c.broken) })
	c.end = func(why error) {
		ended.Do(func() {
			c.why = why
			close(c.over)
		})
		lost()
	}
	return c, lost
}

// attach makes a connection to a process of hosted drivers.
func attach(nc net.Conn) *conn {
	c, lost := newConn()
	w := newWire(nc, lost)
	c.ClientConnInterface, c.Closer = w, w
	return c
}

// connect prepares a connection to an exporter. Nothing is dialled before the first
// RPC.
func connect(dial func(context.Context) (net.Conn, error), opts ...grpc.DialOption) (*conn, error) {
	c, lost := newConn()
	var used atomic.Bool
	opts = append(append(rpc.DialOptions(), grpc.WithIdleTimeout(0),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			if used.Swap(true) {
				return nil, errors.New("the connection broke")
			}
			nc, err := dial(ctx)
			if err != nil {
				lost()
				return nil, err
			}
			return &watched{nc, lost}, nil
		})), opts...)
	cc, err := grpc.NewClient("passthrough:///exporter", opts...)
	c.ClientConnInterface, c.Closer = cc, cc
	return c, err
}

// watched tells when a connection breaks, before gRPC does.
type watched struct {
	net.Conn
	lost func()
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil {
		w.lost()
	}
	return n, err
}

// Close is called, too, when what comes is no HTTP/2.
func (w *watched) Close() error {
	w.lost()
	return w.Conn.Close()
}

// causeLimit is how long it may take to find out why a connection broke, such as
// with which status a process has ended.
const causeLimit = 2 * time.Second

// cause is why the connection broke, for an error that says that it did.
func (c *conn) cause(err error) error {
	switch st := status.Convert(err); {
	case st.Code() == codes.Unavailable, st.Code() == codes.Canceled:
	case st.Code() == codes.Internal && strings.Contains(st.Message(), io.ErrUnexpectedEOF.Error()): // in a message
	default:
		return err
	}
	select {
	case <-c.broken:
	default:
		return err // the other side's own word
	}
	t := time.NewTimer(causeLimit)
	defer t.Stop()
	select {
	case <-c.over:
		return unavailable(c.why)
	case <-t.C:
		return err
	}
}

func unavailable(why error) error {
	if why == nil {
		why = errors.New("it is gone")
	}
	if errors.Is(why, driver.ErrUnavailable) {
		return why
	}
	return &absent{why}
}

// absent makes any error one of a device that is not there now.
type absent struct{ error }

func (a *absent) Unwrap() []error { return []error{a.error, driver.ErrUnavailable} }

// mount is the other side of a node, whether it is there or not.
type mount struct {
	env *driver.Env

	mu   sync.Mutex
	root *driver.Remote       // as last known
	ids  map[uuid.UUID]string // of the nodes, on the other side
	conn *conn                // nil: there is none
	why  error                // there is none

	// again is asked to bring up what is down when a node is used; it may be nil.
	again func(context.Context) error
}

var _ rpc.Forwarder = (*mount)(nil)

// up takes what another exporter reports of itself.
func (m *mount) up(c *conn, reports []*pb.DriverInstanceReport) error {
	root, ids, err := translate(m.env, reports)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.root, m.ids, m.conn, m.why = root, ids, c, nil
	return nil
}

// down says why the other side cannot be used.
func (m *mount) down(why error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conn, m.why = nil, why
}

// Remote is what is mounted.
func (m *mount) Remote() *driver.Remote {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.root
}

func (m *mount) now() (*conn, map[uuid.UUID]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.conn, m.ids, m.why
}

func (m *mount) forward(ctx context.Context, id uuid.UUID) (link, error) {
	c, ids, why := m.now()
	if c == nil && m.again != nil {
		if err := m.again(ctx); err != nil {
			return link{}, m.unavailable(err)
		}
		c, ids, why = m.now()
	}
	if c == nil {
		return link{}, m.unavailable(why)
	}
	node, ok := ids[id]
	if !ok {
		return link{}, fmt.Errorf("%s: no driver has the uuid %s any more: read the report again", m.env.Path, id)
	}
	return link{c, m, node}, nil
}

func (m *mount) unavailable(why error) error {
	return fmt.Errorf("%s: %w", m.env.Path, unavailable(why))
}

// Forward is the way to a node.
func (m *mount) Forward(ctx context.Context, id uuid.UUID) (rpc.Link, error) {
	l, err := m.forward(ctx, id)
	if err != nil {
		return nil, err
	}
	return l, nil
}

type link struct {
	*conn
	mount *mount
	node  string
}

func (l link) Node() string { return l.node }

func (l link) Cause(err error) error {
	if cause := l.cause(err); cause != err {
		return fmt.Errorf("%s: %w", l.mount.env.Path, cause)
	}
	if limit := keep.Starved(l.mount.env.Limits, status.Convert(err).Message()); limit != "" {
		p := status.Convert(err).Proto()
		p.Message += ": " + limit
		return status.ErrorProto(p)
	}
	return err
}

// Caller reaches a node for a driver of this process.
func (m *mount) Caller(id uuid.UUID) driver.Caller { return &caller{m, id} }

type caller struct {
	*mount
	id uuid.UUID
}

var _ driver.PackedOfferer = (*caller)(nil)

// node is the node as it can be reached now.
func (c *caller) node(ctx context.Context) (*client.Node, error) {
	l, err := c.forward(ctx, c.id)
	if err != nil {
		return nil, err
	}
	return client.At(explained{l}, l.node), nil
}

// explained is a connection whose errors say why it broke.
type explained struct{ link }

func (e explained) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	err := e.link.Invoke(ctx, method, args, reply, opts...)
	if ctx.Err() == nil {
		err = e.Cause(err)
	}
	return rpc.Status(err)
}

func (c *caller) Call(ctx context.Context, method string, args ...any) (any, error) {
	n, err := c.node(ctx)
	if err != nil {
		return nil, err
	}
	return n.Call(ctx, method, args...)
}

func (c *caller) Feed(ctx context.Context, method string, args ...any) iter.Seq2[any, error] {
	return func(yield func(any, error) bool) {
		n, err := c.node(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		n.Feed(ctx, method, args...)(yield)
	}
}

func (c *caller) Stream(ctx context.Context, method string) (io.ReadWriteCloser, error) {
	n, err := c.node(ctx)
	if err != nil {
		return nil, err
	}
	return n.Stream(ctx, method)
}

func (c *caller) Offer(ctx context.Context) (driver.Resource, driver.Handle, error) {
	return c.OfferPacked(ctx, "")
}

func (c *caller) OfferPacked(ctx context.Context, encoding string) (driver.Resource, driver.Handle, error) {
	n, err := c.node(ctx)
	if err != nil {
		return nil, driver.Handle{}, err
	}
	return n.OfferPacked(ctx, encoding)
}

// maxNodes is how many nodes are taken from another exporter.
const maxNodes = 10_000

// translate makes a tree of what another exporter reports, with identities that
// derive from the places of the nodes in ours, and finds what they are called on
// the other side. A node may be listed at several places; children belong to the
// place that was listed last.
func translate(env *driver.Env, reports []*pb.DriverInstanceReport) (*driver.Remote, map[uuid.UUID]string, error) {
	type place struct {
		node  *driver.Remote
		names []string
		ref   bool // what is declared as a ref is another's
	}
	if len(reports) > maxNodes {
		return nil, nil, fmt.Errorf("it reports %d drivers, more than %d", len(reports), maxNodes)
	}
	var root *driver.Remote
	ids, latest := map[uuid.UUID]string{}, map[string]*place{}
	for _, r := range reports {
		p := &place{node: &driver.Remote{Labels: r.Labels, Description: r.GetDescription(), Methods: r.MethodsDescription}}
		if r.ParentUuid == nil {
			if root != nil {
				return nil, nil, errors.New("it reports two drivers without a parent")
			}
			root = p.node
		} else {
			above := latest[r.GetParentUuid()]
			if above == nil {
				return nil, nil, fmt.Errorf("it reports a driver %s before its parent", r.Uuid)
			}
			p.node.Name = r.Labels[driver.LabelName]
			if p.node.Name == "" {
				return nil, nil, fmt.Errorf("it reports a driver %s without a name", r.Uuid)
			}
			p.names = append(append([]string{}, above.names...), p.node.Name)
			p.ref = above.ref || env.IsRef(p.names...)
			if !above.ref {
				above.node.Children = append(above.node.Children, p.node)
			}
		}
		before := latest[r.Uuid]
		latest[r.Uuid] = p
		if p.node.UUID = env.ID(p.names...); before != nil { // a driver that another one has taken for its child, too
			p.node.UUID = before.node.UUID
		}
		if !p.ref {
			ids[p.node.UUID] = r.Uuid
		}
	}
	if root == nil {
		return nil, nil, errors.New("it reports no drivers")
	}
	return root, ids, nil
}

// folder makes a folder for a socket, and removes those that killed exporters have
// left.
func folder() (*scratch.Folder, error) { return scratch.Make("jumplead-py") }

// Limits of how soon what has failed is tried again.
const (
	leastPause = 100 * time.Millisecond
	mostPause  = 30 * time.Second
	healthy    = 5 * time.Second // who lasts that long has not failed in a row
)

// pauses are how long to wait after each failure in a row.
type pauses struct{ next time.Duration }

func (p *pauses) after(lasted time.Duration) time.Duration {
	if lasted >= healthy || p.next == 0 {
		p.next = leastPause
	}
	now := p.next
	p.next = min(2*p.next, mostPause)
	return now
}
