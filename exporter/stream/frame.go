package stream

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"

	"github.com/jumplead/jumplead/drivers/driver"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec for all other messages
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// Frame is a router frame, StreamRequest and StreamResponse alike, whose
// payload stays in the buffers that it arrived in or is sent from: a tunnel
// moves hundreds of megabytes a second, and a copy into a fresh slice for each
// frame would leave as much to the garbage collector. Connections that carry
// frames must use [Codec].
//
// A frame that was received owns its buffers until Free.
type Frame struct {
	Type pb.FrameType

	data mem.BufferSlice
	skip int // bytes of data that come before the payload
	size int // of the payload
}

// NewFrame makes a frame whose payload is not copied: it must not change until
// the frame was written.
func NewFrame(t pb.FrameType, payload []byte) *Frame {
	f := &Frame{Type: t, size: len(payload)}
	if len(payload) > 0 {
		f.data = mem.BufferSlice{mem.SliceBuffer(payload)}
	}
	return f
}

// Len is the length of the payload.
func (f *Frame) Len() int { return f.size }

// Free gives the buffers back.
func (f *Frame) Free() {
	f.data.Free()
	*f = Frame{}
}

// Payload is the payload in one piece.
func (f *Frame) Payload() []byte {
	if len(f.data) == 1 {
		return f.data[0].ReadOnlyData()[f.skip:]
	}
	return f.data.Materialize()[f.skip:]
}

// pieces appends the payload to bufs as it lies in the buffers.
func (f *Frame) pieces(bufs net.Buffers) net.Buffers {
	skip := f.skip
	for _, b := range f.data {
		p := b.ReadOnlyData()
		if skip >= len(p) {
			skip -= len(p)
			continue
		}
		bufs = append(bufs, p[skip:])
		skip = 0
	}
	return bufs
}

// reader reads the payload and frees the buffers as it goes. The frame is empty
// afterwards.
func (f *Frame) reader() *mem.Reader {
	r := f.data.Reader()
	_, _ = r.Discard(f.skip) // the header is there
	f.data.Free()            // the reader holds its own
	*f = Frame{}
	return r
}

// The wire form: field 1 is the payload, field 2 the type.
const (
	payloadTag = 1<<3 | 2
	typeTag    = 2<<3 | 0
)

func (f *Frame) marshal() mem.BufferSlice {
	head := make([]byte, 0, 16)
	if f.Type != pb.FrameType_FRAME_TYPE_DATA {
		head = binary.AppendUvarint(append(head, typeTag), uint64(f.Type))
	}
	if f.size > 0 {
		head = binary.AppendUvarint(append(head, payloadTag), uint64(f.size))
	}
	if len(head) == 0 {
		return nil
	}
	if f.skip > 0 { // one that was received, passed on: it lies there as it came
		f.data.Ref()
		return f.data
	}
	out := append(make(mem.BufferSlice, 0, 2), mem.SliceBuffer(head))
	f.data.Ref()
	return append(out, f.data...)
}

func (f *Frame) unmarshal(data mem.BufferSlice) error {
	*f = Frame{}
	total := data.Len()
	var head [1 + binary.MaxVarintLen64]byte
	if n := data.CopyTo(head[:]); n > 0 && head[0] == payloadTag {
		// what every data frame looks like: the payload and nothing else
		if size, m := binary.Uvarint(head[1:n]); m > 0 && size == uint64(total-1-m) {
			data.Ref()
			f.data, f.skip, f.size = data, 1+m, int(size)
			return nil
		}
	}
	var m pb.StreamRequest
	if err := proto.Unmarshal(data.Materialize(), &m); err != nil {
		return err
	}
	*f = *NewFrame(m.FrameType, m.Payload)
	return nil
}

// Raw is a message of any kind that is passed on as it came, without a look at
// what it says. One that was received owns its buffers until Free.
type Raw struct {
	data mem.BufferSlice
}

// Free gives the buffers back.
func (r *Raw) Free() {
	r.data.Free()
	r.data = nil
}

// Codec is gRPC's proto codec that also knows frames, and passes on what is raw.
type Codec struct{}

var base = encoding.GetCodecV2("proto")

// Name is that of the codec that it stands in for.
func (Codec) Name() string { return base.Name() }

// Marshal encodes a message.
func (Codec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case *Frame:
		return m.marshal(), nil
	case *Raw:
		m.data.Ref()
		return m.data, nil
	}
	return base.Marshal(v)
}

// Unmarshal decodes a message.
func (Codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch m := v.(type) {
	case *Frame:
		return m.unmarshal(data)
	case *Raw:
		data.Ref()
		m.data = data
		return nil
	}
	return base.Unmarshal(data, v)
}

// buffers are for what is read from drivers' streams, in the sizes that the
// pump reads with. gRPC's own pool has nothing between 32 KiB and 1 MiB.
var buffers = mem.NewTieredBufferPool(4<<10, leastBuffer, 4*leastBuffer, mostBuffer)

// pump reads from r and hands out frames.
type pump struct {
	r    io.Reader
	size int
	buf  *[]byte // left over from the last read
}

// next reads once. The frame may hold data also when there is an error.
func (p *pump) next() (*Frame, error) {
	if r, ok := p.r.(driver.PacketReader); ok {
		packet, err := r.ReadPacket()
		return NewFrame(pb.FrameType_FRAME_TYPE_DATA, packet), err
	}
	if p.buf == nil {
		p.buf = buffers.Get(p.size)
	}
	n, err := p.r.Read(*p.buf)
	if n < 0 || n > len(*p.buf) {
		return &Frame{}, fmt.Errorf("read: a stream returned %d bytes for a buffer of %d", n, len(*p.buf))
	}
	if n == 0 {
		return &Frame{}, err
	}
	f := &Frame{size: n}
	if n <= len(*p.buf)/4 {
		// a small piece must not keep a large buffer busy until it is written
		f.data = mem.BufferSlice{mem.Copy((*p.buf)[:n], buffers)}
		return f, err
	}
	b := p.buf
	p.buf = nil
	*b = (*b)[:n]
	f.data = mem.BufferSlice{mem.NewBuffer(b, buffers)}
	return f, err
}

// adapt chooses the size of the next read by what the last one brought.
func (p *pump) adapt(n int) {
	size := p.size
	switch {
	case n == p.size && p.size < mostBuffer:
		size *= 4
	case n <= p.size/16 && p.size > leastBuffer:
		size /= 4
	}
	if size != p.size {
		p.free()
		p.size = size
	}
}

func (p *pump) free() {
	if p.buf != nil {
		buffers.Put(p.buf)
		p.buf = nil
	}
}
