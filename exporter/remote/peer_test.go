package remote

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jumplead/jumplead/exporter/stream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Peer is the other end of a wire: what hosted.py does, for services that were
// written for gRPC.
type Peer struct {
	methods map[string]func(*peerCall) error

	conn  net.Conn
	wmu   sync.Mutex
	mu    sync.Mutex
	calls map[uint32]*peerCall
}

// RegisterService adds the methods of a service.
func (p *Peer) RegisterService(d *grpc.ServiceDesc, impl any) {
	if p.methods == nil {
		p.methods = map[string]func(*peerCall) error{}
	}
	for _, m := range d.Methods {
		p.methods[m.MethodName] = func(c *peerCall) error {
			ctx := grpc.NewContextWithServerTransportStream(c.ctx, unary{c})
			out, err := m.Handler(impl, ctx, c.RecvMsg, nil)
			if err == nil {
				err = c.SendMsg(out)
			}
			return err
		}
	}
	for _, s := range d.Streams {
		p.methods[s.StreamName] = func(c *peerCall) error { return s.Handler(impl, c) }
	}
}

// Serve answers RPCs until the connection ends, and returns when all handlers have.
func (p *Peer) Serve(conn net.Conn) error {
	p.conn, p.calls = conn, map[uint32]*peerCall{}
	var handlers sync.WaitGroup
	defer handlers.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r := bufio.NewReaderSize(conn, 64<<10)
	for {
		var head [wireHead]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return err
		}
		data := make([]byte, binary.BigEndian.Uint32(head[:]))
		if _, err := io.ReadFull(r, data); err != nil {
			return err
		}
		id, kind := binary.BigEndian.Uint32(head[4:]), head[8]
		p.mu.Lock()
		c := p.calls[id]
		p.mu.Unlock()
		if kind == wireOpen {
			c, err := p.open(ctx, id, data)
			if err != nil {
				return err
			}
			handlers.Go(c.run)
		} else if c != nil {
			c.frame(kind, data)
		}
	}
}

func (p *Peer) send(id uint32, kind byte, data mem.BufferSlice) error {
	p.wmu.Lock()
	defer p.wmu.Unlock()
	head := binary.BigEndian.AppendUint32(nil, uint32(data.Len()))
	bufs := net.Buffers{append(binary.BigEndian.AppendUint32(head, id), kind)}
	for _, b := range data {
		bufs = append(bufs, b.ReadOnlyData())
	}
	_, err := bufs.WriteTo(p.conn)
	data.Free()
	return err
}

func (p *Peer) open(ctx context.Context, id uint32, text []byte) (*peerCall, error) {
	var o opening
	if err := json.Unmarshal(text, &o); err != nil {
		return nil, err
	}
	handle := p.methods[o.Method]
	if handle == nil {
		return nil, fmt.Errorf("there is no method %q", o.Method)
	}
	c := &peerCall{peer: p, id: id, handle: handle, window: wireWindow}
	c.cond = sync.NewCond(&c.mu)
	ctx = metadata.NewIncomingContext(ctx, metadataOf(o.Metadata))
	if o.Seconds > 0 {
		c.ctx, c.cancel = context.WithTimeout(ctx, time.Duration(o.Seconds*float64(time.Second)))
	} else {
		c.ctx, c.cancel = context.WithCancel(ctx)
	}
	context.AfterFunc(c.ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.cond.Broadcast()
	})
	p.mu.Lock()
	p.calls[id] = c
	p.mu.Unlock()
	return c, nil
}

// peerCall is one RPC, as a handler sees it.
type peerCall struct {
	peer   *Peer
	id     uint32
	handle func(*peerCall) error
	ctx    context.Context
	cancel func()

	mu         sync.Mutex
	cond       *sync.Cond
	in         [][]byte
	ended      bool
	window     int
	taken      int
	headed     bool
	head, tail metadata.MD
}

func (c *peerCall) run() {
	defer c.cancel()
	err := c.handle(c)
	c.peer.mu.Lock()
	delete(c.peer.calls, c.id)
	c.peer.mu.Unlock()
	st := status.Convert(err)
	if d := st.Proto().GetDetails(); len(d) > 0 {
		text, merr := proto.Marshal(st.Proto())
		if merr != nil {
			panic(merr)
		}
		c.SetTrailer(metadata.Pairs("grpc-status-details-bin", string(text)))
	}
	var text []byte
	if st.Code() != codes.OK || len(c.tail) > 0 {
		text = pairs(closing{Code: st.Code(), Message: st.Message(), Metadata: pairsOf(c.tail)})
	}
	_ = c.peer.send(c.id, wireStatus, mem.BufferSlice{mem.SliceBuffer(text)})
}

func pairs(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}

func pairsOf(md metadata.MD) (list [][2]string) {
	for k, vs := range md {
		for _, v := range vs {
			if strings.HasSuffix(k, "-bin") {
				v = base64.StdEncoding.EncodeToString([]byte(v))
			}
			list = append(list, [2]string{k, v})
		}
	}
	return list
}

func (c *peerCall) frame(kind byte, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch kind {
	case wireMessage:
		c.in = append(c.in, data)
	case wireEnd:
		c.ended = true
	case wireCancel:
		c.cancel()
	case wireCredit:
		c.window += int(binary.BigEndian.Uint32(data))
	}
	c.cond.Broadcast()
}

func (c *peerCall) Context() context.Context { return c.ctx }

func (c *peerCall) SetHeader(md metadata.MD) error {
	c.head = metadata.Join(c.head, md)
	return nil
}

func (c *peerCall) SendHeader(md metadata.MD) error {
	_ = c.SetHeader(md)
	c.headed = true
	list := pairsOf(c.head)
	if list == nil {
		list = [][2]string{}
	}
	return c.peer.send(c.id, wireHeaders, mem.BufferSlice{mem.SliceBuffer(pairs(list))})
}

func (c *peerCall) SetTrailer(md metadata.MD) { c.tail = metadata.Join(c.tail, md) }

func (c *peerCall) SendMsg(m any) error {
	data, err := stream.Codec{}.Marshal(m)
	if err != nil {
		return err
	}
	if !c.headed {
		if err := c.SendHeader(nil); err != nil {
			return err
		}
	}
	c.mu.Lock()
	for c.window <= 0 && c.ctx.Err() == nil {
		c.cond.Wait()
	}
	c.window -= data.Len()
	c.mu.Unlock()
	if err := c.ctx.Err(); err != nil {
		return status.FromContextError(err).Err()
	}
	return c.peer.send(c.id, wireMessage, data)
}

func (c *peerCall) RecvMsg(m any) error {
	c.mu.Lock()
	for len(c.in) == 0 && !c.ended && c.ctx.Err() == nil {
		c.cond.Wait()
	}
	if err := c.ctx.Err(); err != nil {
		c.mu.Unlock()
		return status.FromContextError(err).Err()
	}
	if len(c.in) == 0 {
		c.mu.Unlock()
		return io.EOF
	}
	data := c.in[0]
	c.in = c.in[1:]
	c.taken += len(data)
	credit := 0
	if c.taken >= wireWindow/2 {
		credit, c.taken = c.taken, 0
	}
	c.mu.Unlock()
	if credit > 0 {
		b := binary.BigEndian.AppendUint32(nil, uint32(credit))
		if err := c.peer.send(c.id, wireCredit, mem.BufferSlice{mem.SliceBuffer(b)}); err != nil {
			return err
		}
	}
	return stream.Codec{}.Unmarshal(mem.BufferSlice{mem.SliceBuffer(data)}, m)
}

// unary is how the handler of a call of one message sets metadata.
type unary struct{ *peerCall }

func (u unary) Method() string { return "" }

func (u unary) SetTrailer(md metadata.MD) error {
	u.peerCall.SetTrailer(md)
	return nil
}
