package rpc

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/stream"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Forwarder is a mount whose other side speaks this protocol, too. What clients
// send is passed on to it as it is, but for the names of nodes, and its answers
// are passed back as they are: their headers, statuses and details included. What
// goes on, on a stream or in a sequence, is held up by whoever is slower.
type Forwarder interface {
	driver.Mounted

	// Forward is the way to a node, or why there is none now.
	Forward(ctx context.Context, id uuid.UUID) (Link, error)
}

// Link is the way to a node of another exporter.
type Link interface {
	grpc.ClientConnInterface
	Node() string // the UUID that the node has there
	// Cause is why a connection broke, for an error that is no answer of the other
	// side; others it returns as they are.
	Cause(error) error
}

func (s *server) link(ctx context.Context, n *driver.Node, id string) (Link, error) {
	m, err := n.Mounted(ctx)
	if err != nil {
		return nil, err
	}
	f, ok := m.(Forwarder)
	if !ok {
		return nil, fmt.Errorf("%s: calls cannot be forwarded to %T", n.Path, m)
	}
	u, err := uuid.Parse(id)
	if err != nil {
		return nil, err
	}
	return f.Forward(ctx, u)
}

func (s *server) forwardCall(ctx context.Context, n *driver.Node, in *pb.DriverCallRequest) (*pb.DriverCallResponse, error) {
	l, err := s.link(ctx, n, in.Uuid)
	if err != nil {
		return nil, Status(err)
	}
	in.Uuid = l.Node()
	out := new(pb.DriverCallResponse)
	var head, tail metadata.MD
	err = l.Invoke(outgoing(ctx), pb.ExporterService_DriverCall_FullMethodName, in, out, grpc.Header(&head), grpc.Trailer(&tail))
	_ = grpc.SetHeader(ctx, passed(head))
	_ = grpc.SetTrailer(ctx, passed(tail))
	if err != nil {
		return nil, answer(ctx, l, err)
	}
	return out, nil
}

func (s *server) forwardFeed(n *driver.Node, in *pb.StreamingDriverCallRequest, out grpc.ServerStream) error {
	l, err := s.link(out.Context(), n, in.Uuid)
	if err != nil {
		return Status(err)
	}
	in.Uuid = l.Node()
	ctx, cancel := context.WithCancel(outgoing(out.Context()))
	defer cancel()
	from, err := l.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, pb.ExporterService_StreamingDriverCall_FullMethodName)
	if err != nil {
		return answer(ctx, l, err)
	}
	if err := from.SendMsg(in); err != nil && err != io.EOF { // then RecvMsg tells why
		return answer(ctx, l, err)
	}
	_ = from.CloseSend() // always nil
	if _, err := begin(out, from); err != nil {
		return err
	}
	defer func() { out.SetTrailer(passed(from.Trailer())) }()
	for {
		var m stream.Raw
		if err := from.RecvMsg(&m); err == io.EOF {
			return nil
		} else if err != nil {
			return answer(ctx, l, err)
		}
		err := out.SendMsg(&m)
		m.Free()
		if err != nil {
			return err
		}
	}
}

// begin passes on the headers of a stream, when it is open.
func begin(out grpc.ServerStream, from grpc.ClientStream) (open bool, err error) {
	head, err := from.Header()
	if err != nil || head == nil { // ended before it was open: RecvMsg tells why
		return false, nil
	}
	return true, out.SendHeader(passed(head))
}

// forwardStream passes frames on in both directions. The stream ends when the
// client or the other side ends it: that both have said that nothing more comes
// does not mean that all of it was used.
func (s *server) forwardStream(rpc grpc.ServerStream, n *driver.Node, id string, resource bool) error {
	forwarded := !resource && n.Forwarded(id)
	l, err := s.link(rpc.Context(), n, id)
	if err != nil {
		return refuse(rpc, forwarded, opening(err))
	}
	ctx, cancel := context.WithCancel(outgoing(rpc.Context()))
	defer cancel()
	if ctx, err = readdress(ctx, l.Node()); err != nil {
		return unknown(err)
	}
	to, err := l.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, pb.RouterService_Stream_FullMethodName)
	if err != nil {
		return refuse(rpc, forwarded, answer(ctx, l, err))
	}
	open, err := begin(rpc, to)
	if err != nil {
		return err
	}
	defer func() { rpc.SetTrailer(passed(to.Trailer())) }()
	go func() { // until the RPC ends
		for {
			var f stream.Frame
			if err := rpc.RecvMsg(&f); err == io.EOF {
				_ = to.CloseSend()
				return
			} else if err != nil {
				cancel()
				return
			}
			err := to.SendMsg(&f)
			f.Free()
			if err != nil { // RecvMsg tells why
				return
			}
		}
	}()
	over := false
	for {
		var f stream.Frame
		if err := to.RecvMsg(&f); err == io.EOF {
			return nil
		} else if err != nil {
			if !open && ctx.Err() == nil {
				return refuse(rpc, forwarded, answer(ctx, l, err))
			}
			cause := l.Cause(err)
			if cause != err && !over && !resource && ctx.Err() == nil {
				// Some clients watch for nothing but an end of stream.
				why := text(cause)
				_ = rpc.SendMsg(stream.NewFrame(pb.FrameType_FRAME_TYPE_GOAWAY, []byte(why[:min(len(why), 1024)])))
			}
			return answer(ctx, l, cause)
		}
		over = over || f.Type == pb.FrameType_FRAME_TYPE_GOAWAY
		err := rpc.SendMsg(&f)
		f.Free()
		if err != nil {
			return err
		}
	}
}

// readdress names another node in the metadata that open a stream.
func readdress(ctx context.Context, node string) (context.Context, error) {
	md, _ := metadata.FromOutgoingContext(ctx)
	values := md.Get("request")
	request := map[string]json.RawMessage{} // with what we do not know, too
	if err := json.Unmarshal([]byte(values[len(values)-1]), &request); err != nil {
		return ctx, fmt.Errorf("stream: metadata entry request: %w", err)
	}
	request["uuid"] = json.RawMessage(`"` + node + `"`)
	text, err := json.Marshal(request)
	if err != nil {
		return ctx, err
	}
	md = md.Copy()
	md.Set("request", string(text))
	return metadata.NewOutgoingContext(ctx, md), nil
}

// answer is what a client is told of an error: what the other side said, or why it
// cannot say anything any more.
func answer(ctx context.Context, l Link, err error) error {
	if ctx.Err() == nil {
		err = l.Cause(err)
	}
	st, ok := status.FromError(err)
	if !ok || written(st.Message()) <= maxWritten {
		return Status(err)
	}
	p := st.Proto()
	p.Message = text(err)
	return status.ErrorProto(p)
}

// maxWritten is how long a message may be as it travels; see [maxText].
const maxWritten = 7 << 10

func written(s string) (n int) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			n += 2
		}
	}
	return n + len(s)
}

// outgoing is a context for the other side, with what the client's metadata say.
// The passphrase is for us.
func outgoing(ctx context.Context) context.Context {
	md, _ := metadata.FromIncomingContext(ctx)
	md = passed(md)
	delete(md, PassphraseKey)
	return metadata.NewOutgoingContext(ctx, md)
}

// passed are metadata without what belongs to one connection.
func passed(md metadata.MD) metadata.MD {
	out := make(metadata.MD, len(md))
	for k, v := range md {
		switch {
		case strings.HasPrefix(k, ":"), strings.HasPrefix(k, "grpc-"), k == "content-type", k == "user-agent", k == "te":
		default:
			out[k] = v
		}
	}
	return out
}
