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

// wire carries RPCs to a process of hosted drivers. They are gRPC's in all but the
// transport: methods, metadata, messages, statuses and back-pressure are the same,
// and who makes them sees no difference. gRPC's server for asyncio hands each
// message from a thread of its own to that of the loop and back, which takes longer
// than most drivers do; what comes here, the process reads and answers in its loop.
//
// The connection carries frames: four bytes of the length of what follows the
// header, four of the number of the RPC, one of the kind, numbers with the most
// significant byte first. This side numbers the RPCs.
//
//	open      to the process: an opening, in JSON
//	message   a message, as protobuf encodes it
//	end       to the process: no message follows
//	cancel    to the process: nobody waits for the RPC any more
//	credit    four bytes: so many more bytes of messages may be sent
//	headers   to here: metadata, in JSON
//	status    to here: the RPC is over; a closing in JSON, or nothing for OK
//
// Who sends messages on an RPC may send [wireWindow] bytes, and as many more as it
// has got credit for; the message with which it exceeds that is sent whole. Both
// sides read at all times, so that an RPC whose messages nobody takes holds up no
// other.
type wire struct {
	conn net.Conn
	lost func()
	both sync.WaitGroup
	some chan struct{} // has a token when there is something for the writer

	mu    sync.Mutex
	last  uint32
	calls map[uint32]*wireCall
	queue []wireFrame
	bytes int           // of what is in it
	room  chan struct{} // closed when the queue has room again; nil while it has
	err   error         // the connection is of no use any more
}

const (
	wireOpen = 1 + iota
	wireMessage
	wireEnd
	wireCancel
	wireCredit
	wireHeaders
	wireStatus
)

const (
	wireHead    = 9
	wireWindow  = 1 << 20  // hosted.py has it, too
	wireCushion = 1 << 20  // bytes that the kernel may hold, if it is allowed to
	wireQueue   = 1 << 10  // frames that wait to be written before what is new waits, too
	wireBacklog = 4 << 20  // bytes of them
	maxMessage  = 4 << 20  // bytes of a message that gRPC's clients take
	maxFrame    = 64 << 20 // bytes of a frame that may be meant
)

// wireBuffers are for messages, in the sizes that tunnels have them.
var wireBuffers = mem.NewTieredBufferPool(4<<10, 17<<10, 65<<10, 257<<10, 1025<<10)

type wireFrame struct {
	id   uint32
	kind byte
	data mem.BufferSlice // freed when it was written
}

// opening begins an RPC.
type opening struct {
	Method   string      `json:"method"`
	Metadata [][2]string `json:"metadata,omitempty"` // binary ones in base64
	Seconds  float64     `json:"seconds,omitempty"`  // that it may take; 0: any
}

// closing ends an RPC.
type closing struct {
	Code     codes.Code  `json:"code"`
	Message  string      `json:"message"`
	Metadata [][2]string `json:"metadata,omitempty"`
}

// newWire uses a connection; lost is called when it breaks.
func newWire(conn net.Conn, lost func()) *wire {
	if c, ok := conn.(interface{ SetWriteBuffer(int) error }); ok {
		_ = c.SetWriteBuffer(wireCushion) // it is faster, and works without
	}
	w := &wire{conn: conn, lost: lost, calls: map[uint32]*wireCall{}, some: make(chan struct{}, 1)}
	w.both.Go(func() { w.fail(w.read()) })
	w.both.Go(func() { w.fail(w.write()) })
	return w
}

// Close ends the connection and all RPCs.
func (w *wire) Close() error {
	w.fail(net.ErrClosed)
	w.both.Wait()
	return nil
}

// fail ends all RPCs.
func (w *wire) fail(err error) {
	w.mu.Lock()
	if w.err != nil {
		w.mu.Unlock()
		return
	}
	w.err = status.Errorf(codes.Unavailable, "the connection to the process of hosted drivers broke: %v", err)
	calls, queue := w.calls, w.queue
	w.calls, w.queue, w.bytes = nil, nil, 0
	w.roomy()
	w.mu.Unlock()
	w.lost()
	w.conn.Close()
	w.wake()
	for _, f := range queue {
		f.data.Free()
	}
	for _, c := range calls {
		c.finish(nil, w.err)
	}
}

// wake lets the writer have a look.
func (w *wire) wake() {
	select {
	case w.some <- struct{}{}:
	default:
	}
}

// add puts frames into the queue. The caller holds mu, and wakes the writer.
func (w *wire) add(frames ...wireFrame) {
	for _, f := range frames {
		w.queue = append(w.queue, f)
		w.bytes += f.data.Len()
	}
}

// full is nil, or will be closed when the queue has room again, as the process takes
// something. The caller holds mu.
func (w *wire) full() chan struct{} {
	if w.err != nil || len(w.queue) < wireQueue && w.bytes < wireBacklog {
		return nil
	}
	if w.room == nil {
		w.room = make(chan struct{})
	}
	return w.room
}

// roomy tells who waits that the queue has room. The caller holds mu.
func (w *wire) roomy() {
	if w.room != nil {
		close(w.room)
		w.room = nil
	}
}

// put sends frames, as soon as the process takes them.
func (w *wire) put(frames ...wireFrame) {
	w.mu.Lock()
	if w.err != nil {
		w.mu.Unlock()
		for _, f := range frames {
			f.data.Free()
		}
		return
	}
	w.add(frames...)
	w.mu.Unlock()
	w.wake()
}

// write writes what is in the queue, all that there is at once.
func (w *wire) write() error {
	var frames []wireFrame
	var heads []byte
	var bufs net.Buffers
	for range w.some {
		w.mu.Lock()
		frames, w.queue, w.bytes = w.queue, frames[:0], 0
		err := w.err
		w.roomy()
		w.mu.Unlock()
		if err != nil {
			return err
		}
		heads, bufs = heads[:0], bufs[:0]
		for _, f := range frames {
			at := len(heads)
			heads = binary.BigEndian.AppendUint32(heads, uint32(f.data.Len()))
			heads = append(binary.BigEndian.AppendUint32(heads, f.id), f.kind)
			bufs = append(bufs, heads[at:])
			for _, b := range f.data {
				bufs = append(bufs, b.ReadOnlyData())
			}
		}
		out := bufs // WriteTo consumes it
		_, err = out.WriteTo(w.conn)
		for _, f := range frames {
			f.data.Free()
		}
		clear(frames)
		clear(bufs)
		if err != nil {
			return err
		}
	}
	return nil
}

// read hands out what comes.
func (w *wire) read() error {
	r := bufio.NewReaderSize(w.conn, 64<<10)
	var head [wireHead]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return err
		}
		size, id, kind := binary.BigEndian.Uint32(head[:]), binary.BigEndian.Uint32(head[4:]), head[8]
		if size > maxFrame {
			return fmt.Errorf("a frame has %d bytes, more than %d", size, maxFrame)
		}
		buf := wireBuffers.Get(int(size))
		if _, err := io.ReadFull(r, *buf); err != nil {
			wireBuffers.Put(buf)
			return err
		}
		data := mem.NewBuffer(buf, wireBuffers)
		w.mu.Lock()
		c := w.calls[id]
		w.mu.Unlock()
		if c == nil { // nobody waits for it any more
			data.Free()
			continue
		}
		if err := c.frame(kind, data); err != nil {
			return err // of this RPC, too
		}
		if kind == wireStatus {
			w.mu.Lock()
			delete(w.calls, id)
			w.mu.Unlock()
		}
	}
}

// wireCall is one RPC.
type wireCall struct {
	wire *wire
	id   uint32
	ctx  context.Context
	stop func() bool // watching the context

	headed           chan struct{} // closed when the metadata are there, or will not be
	arrived, granted chan struct{} // have a token when there is something new

	mu     sync.Mutex
	in     []mem.Buffer // messages
	held   int          // bytes of them
	taken  int          // bytes that the process was given no credit for yet
	window int          // bytes that may be sent
	head   metadata.MD
	tail   metadata.MD
	over   bool
	err    error // why it is over; nil: with OK
}

// open begins an RPC, with its first message if there is one.
func (w *wire) open(ctx context.Context, method string, first ...wireFrame) (*wireCall, error) {
	free := func(err error) (*wireCall, error) {
		for _, f := range first {
			f.data.Free()
		}
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return free(status.FromContextError(err).Err())
	}
	o := opening{Method: method[strings.LastIndexByte(method, '/')+1:]}
	md, _ := metadata.FromOutgoingContext(ctx)
	for k, vs := range md {
		for _, v := range vs {
			if strings.HasSuffix(k, "-bin") {
				v = base64.StdEncoding.EncodeToString([]byte(v))
			}
			o.Metadata = append(o.Metadata, [2]string{k, v})
		}
	}
	if at, ok := ctx.Deadline(); ok {
		o.Seconds = max(time.Until(at).Seconds(), 1e-3)
	}
	text, err := json.Marshal(o)
	if err != nil {
		return free(status.Error(codes.Internal, err.Error()))
	}
	c := &wireCall{wire: w, ctx: ctx, window: wireWindow, headed: make(chan struct{}),
		arrived: make(chan struct{}, 1), granted: make(chan struct{}, 1)}
	w.mu.Lock()
	for room := w.full(); room != nil; room = w.full() {
		w.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return free(status.FromContextError(ctx.Err()).Err())
		}
		w.mu.Lock()
	}
	if err := w.err; err != nil {
		w.mu.Unlock()
		return free(err)
	}
	for w.last++; w.calls[w.last] != nil; {
		w.last++
	}
	c.id = w.last
	w.calls[c.id] = c
	w.add(wireFrame{c.id, wireOpen, mem.BufferSlice{mem.SliceBuffer(text)}})
	for _, f := range first {
		f.id = c.id
		w.add(f)
		c.window -= f.data.Len()
	}
	w.mu.Unlock()
	w.wake()
	return c, nil
}

// frame takes what came for the RPC. An error is one of the connection: what came
// was not agreed on.
func (c *wireCall) frame(kind byte, data mem.Buffer) error {
	if kind == wireMessage {
		return c.message(data)
	}
	defer data.Free()
	switch kind {
	case wireCredit:
		if data.Len() != 4 {
			return fmt.Errorf("credit has %d bytes; want 4", data.Len())
		}
		c.mu.Lock()
		c.window += int(binary.BigEndian.Uint32(data.ReadOnlyData()))
		c.mu.Unlock()
		token(c.granted)
	case wireHeaders:
		var pairs [][2]string
		if err := json.Unmarshal(data.ReadOnlyData(), &pairs); err != nil {
			return fmt.Errorf("headers: %w", err)
		}
		c.mu.Lock()
		c.begun(metadataOf(pairs))
		c.mu.Unlock()
	case wireStatus:
		var s closing
		if data.Len() > 0 {
			if err := json.Unmarshal(data.ReadOnlyData(), &s); err != nil {
				return fmt.Errorf("status: %w", err)
			}
		}
		tail := metadataOf(s.Metadata)
		c.finish(tail, statusError(s, tail))
	default:
		return fmt.Errorf("a frame is of kind %d, which is none", kind)
	}
	return nil
}

func (c *wireCall) message(data mem.Buffer) error {
	if n := data.Len(); n > maxMessage {
		data.Free()
		c.cancel(status.Errorf(codes.ResourceExhausted, "grpc: received message larger than max (%d vs. %d)", n, maxMessage))
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.over:
		data.Free()
	case c.held >= wireWindow:
		data.Free()
		return fmt.Errorf("more was sent on an RPC than was asked for")
	default:
		c.begun(metadata.MD{})
		c.in = append(c.in, data)
		c.held += data.Len()
		token(c.arrived)
	}
	return nil
}

// begun takes the metadata that come first. The caller holds mu.
func (c *wireCall) begun(head metadata.MD) {
	if c.head == nil && !c.over {
		c.head = head
		close(c.headed)
	}
}

// finish ends the RPC as the other side, or the end of the connection, has it.
func (c *wireCall) finish(tail metadata.MD, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	if c.head == nil {
		close(c.headed)
	}
	c.over, c.tail, c.err = true, tail, err
	if c.stop != nil {
		c.stop()
	}
	token(c.arrived)
	token(c.granted)
}

// cancel ends the RPC as this side has it.
func (c *wireCall) cancel(err error) {
	c.finish(nil, err)
	c.mu.Lock()
	for _, b := range c.in {
		b.Free()
	}
	c.in = nil
	c.mu.Unlock()
	w := c.wire
	w.mu.Lock()
	known := w.calls[c.id] == c
	delete(w.calls, c.id)
	w.mu.Unlock()
	if known {
		w.put(wireFrame{id: c.id, kind: wireCancel})
	}
}

func (c *wireCall) abandon() { c.cancel(status.FromContextError(c.ctx.Err()).Err()) }

// next is the next message, or io.EOF after an RPC that ended with OK.
func (c *wireCall) next() (mem.Buffer, error) {
	for {
		c.mu.Lock()
		if len(c.in) > 0 {
			data := c.in[0]
			c.in[0] = nil
			c.in = c.in[1:]
			c.held -= data.Len()
			c.taken += data.Len()
			credit := c.taken
			if credit < wireWindow/2 || c.over {
				credit = 0
			} else {
				c.taken = 0
			}
			c.mu.Unlock()
			if credit > 0 {
				b := binary.BigEndian.AppendUint32(nil, uint32(credit))
				c.wire.put(wireFrame{c.id, wireCredit, mem.BufferSlice{mem.SliceBuffer(b)}})
			}
			return data, nil
		}
		over, err := c.over, c.err
		c.mu.Unlock()
		switch {
		case over && err == nil:
			return nil, io.EOF
		case over:
			return nil, err
		}
		select {
		case <-c.arrived:
		case <-c.ctx.Done():
			c.abandon()
		}
	}
}

// Invoke makes a call of one message and one answer.
func (w *wire) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	data, err := stream.Codec{}.Marshal(args)
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	c, err := w.open(ctx, method, wireFrame{kind: wireMessage, data: data})
	if err != nil {
		return err
	}
	answer, err := c.next()
	switch err {
	case nil:
		in := mem.BufferSlice{answer}
		if err = (stream.Codec{}).Unmarshal(in, reply); err != nil {
			err = status.Error(codes.Internal, err.Error())
		}
		in.Free()
		if more, end := c.next(); end == nil {
			more.Free()
			err = status.Error(codes.Internal, "the process of hosted drivers answered a call twice")
			c.cancel(err)
		} else if end != io.EOF {
			err = end
		}
	case io.EOF:
		err = status.Error(codes.Internal, "the process of hosted drivers gave no answer to a call")
	}
	for _, o := range opts {
		switch o := o.(type) {
		case grpc.HeaderCallOption:
			*o.HeaderAddr, _ = c.Header()
		case grpc.TrailerCallOption:
			*o.TrailerAddr = c.Trailer()
		}
	}
	return err
}

// NewStream begins an RPC of messages in both directions.
func (w *wire) NewStream(ctx context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	c, err := w.open(ctx, method)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, c.abandon)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stop = stop; c.over {
		stop()
	}
	return c, nil
}

// Context is the context that the RPC was begun with.
func (c *wireCall) Context() context.Context { return c.ctx }

// Header waits for the metadata that come first. They are nil when there are none
// because the RPC is over.
func (c *wireCall) Header() (metadata.MD, error) {
	<-c.headed // also when the context is done
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.head, nil
}

// Trailer is the metadata that came last.
func (c *wireCall) Trailer() metadata.MD {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tail
}

// SendMsg sends a message once the other side has room for it. It returns io.EOF
// when the RPC is over; RecvMsg then tells why.
func (c *wireCall) SendMsg(m any) error {
	data, err := stream.Codec{}.Marshal(m)
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	for {
		c.wire.mu.Lock()
		room := c.wire.full()
		c.wire.mu.Unlock()
		c.mu.Lock()
		over, may := c.over, c.window > 0 && room == nil
		if !over && may {
			c.window -= data.Len()
		}
		c.mu.Unlock()
		switch {
		case over:
			data.Free()
			return io.EOF
		case may:
			c.wire.put(wireFrame{c.id, wireMessage, data})
			return nil
		}
		select {
		case <-c.granted: // also when the context is done
		case <-room:
		}
	}
}

// RecvMsg receives a message.
func (c *wireCall) RecvMsg(m any) error {
	data, err := c.next()
	if err != nil {
		return err
	}
	in := mem.BufferSlice{data}
	defer in.Free()
	if err := (stream.Codec{}).Unmarshal(in, m); err != nil {
		err = status.Error(codes.Internal, err.Error())
		c.cancel(err)
		return err
	}
	return nil
}

// CloseSend says that no message follows.
func (c *wireCall) CloseSend() error {
	c.wire.put(wireFrame{id: c.id, kind: wireEnd})
	return nil
}

// token wakes who waits.
func token(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func metadataOf(pairs [][2]string) metadata.MD {
	md := make(metadata.MD, len(pairs))
	for _, p := range pairs {
		if strings.HasSuffix(p[0], "-bin") {
			if b, err := base64.StdEncoding.DecodeString(p[1]); err == nil {
				p[1] = string(b)
			}
		}
		md.Append(p[0], p[1])
	}
	return md
}

// statusError is the error of a status, with its details, which travel beside it.
func statusError(s closing, tail metadata.MD) error {
	if s.Code == codes.OK {
		return nil
	}
	st := status.New(s.Code, s.Message)
	if d := tail.Get("grpc-status-details-bin"); len(d) > 0 {
		if p := st.Proto(); proto.Unmarshal([]byte(d[len(d)-1]), p) == nil && codes.Code(p.Code) == s.Code {
			st = status.FromProto(p)
		}
	}
	return st.Err()
}
