// Package client reaches an exporter from Go: it dials, reads the tree, and
// hands out a [driver.Caller] for every node, on which the typed clients of the
// contracts are built.
//
//	c, err := client.Dial(ctx, "harness:1234", client.Options{TLS: &tls.Config{}})
//	...
//	defer c.Close()
//	node, err := c.Find("dut.power")
//	...
//	err = power.NewClient(node).On(ctx)
package client

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/rpc"
	"github.com/jumplead/jumplead/exporter/stream"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// Options say how to reach an exporter.
type Options struct {
	TLS        *tls.Config // nil: plaintext
	Passphrase string      // sent with every RPC when not empty

	// FailFast makes it an error at once that the exporter cannot be reached.
	// Without it Dial waits for one until its context is done.
	FailFast bool
}

// Client is a connection to an exporter and the tree that it reported.
type Client struct {
	Root *Node
	MOTD string

	wait   grpc.CallOption
	conn   *grpc.ClientConn
	export pb.ExporterServiceClient
	router pb.RouterServiceClient
	byPath map[string]*Node
}

// Node is one driver of the exporter. It is a [driver.PackedOfferer].
type Node struct {
	Name        string // "" at the root
	Path        string // names from the root, joined by dots
	UUID        string
	Class       string // of the Python client
	Labels      map[string]string
	Description string
	Methods     map[string]string
	Children    []*Node

	c *Client
}

var _ driver.PackedOfferer = (*Node)(nil)

// alive notices a network that stands still, and ends what goes on there. The
// pings are as frequent as those of upstream's clients, and its exporters allow
// them on TCP; on a Unix socket they take them for an attack.
var alive = keepalive.ClientParameters{Time: 20 * time.Second, Timeout: time.Minute, PermitWithoutStream: true}

// Dial connects to an exporter and reads its tree. The target is HOST:PORT, or
// unix:PATH, or a path to a Unix socket. The context bounds the dialling.
func Dial(ctx context.Context, target string, opt Options) (*Client, error) {
	creds := insecure.NewCredentials()
	if opt.TLS != nil {
		creds = credentials.NewTLS(opt.TLS)
	}
	opts := append(rpc.DialOptions(), grpc.WithTransportCredentials(creds))
	if opt.Passphrase != "" {
		opts = append(opts, grpc.WithPerRPCCredentials(passphrase(opt.Passphrase)))
	}
	if strings.Contains(target, "/") && !strings.HasPrefix(target, "unix:") {
		target = "unix:" + target
	}
	if !strings.HasPrefix(target, "unix:") {
		target = "dns:///" + target
		opts = append(opts, grpc.WithKeepaliveParams(alive))
	}
	conn, err := grpc.NewClient(target, opts...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", target, err)
	}
	c := &Client{wait: grpc.WaitForReady(!opt.FailFast), conn: conn, export: pb.NewExporterServiceClient(conn), router: pb.NewRouterServiceClient(conn)}
	if err := c.Refresh(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("dial %s: %w", target, err)
	}
	return c, nil
}

// Close closes the connection. Streams and calls in progress end.
func (c *Client) Close() error { return c.conn.Close() }

// Refresh reads the tree anew, as is needed after the exporter has restarted.
// The nodes found before keep what they were made with. It must not be called
// concurrently with Find or itself.
func (c *Client) Refresh(ctx context.Context) error {
	r, err := c.export.GetReport(ctx, &emptypb.Empty{}, c.wait)
	if err != nil {
		return remote(err)
	}
	var root *Node
	byPath, byID := map[string]*Node{}, map[string]*Node{}
	for _, rep := range r.Reports {
		n := &Node{
			Name: rep.Labels[driver.LabelName], UUID: rep.Uuid, Class: rep.Labels[driver.LabelClient],
			Labels: rep.Labels, Description: rep.GetDescription(), Methods: rep.MethodsDescription, c: c,
		}
		if rep.ParentUuid == nil {
			if root != nil {
				return fmt.Errorf("report: two drivers have no parent: %s and %s", root.UUID, n.UUID)
			}
			root = n
		} else {
			p := byID[rep.GetParentUuid()] // of several, the latest
			if p == nil {
				return fmt.Errorf("report: driver %s comes before its parent %s", n.UUID, rep.GetParentUuid())
			}
			n.Path = n.Name
			if p.Path != "" {
				n.Path = p.Path + "." + n.Name
			}
			p.Children = append(p.Children, n)
		}
		byID[rep.Uuid] = n
		byPath[n.Path] = n
	}
	if root == nil {
		return errors.New("report: the exporter has no drivers")
	}
	c.MOTD, c.Root, c.byPath = r.Motd, root, byPath
	return nil
}

// Find finds a node by its path, such as "dut.power".
func (c *Client) Find(path string) (*Node, error) {
	if n := c.byPath[path]; n != nil {
		return n, nil
	}
	paths := slices.Sorted(maps.Keys(c.byPath))
	text := fmt.Sprintf("no driver %q", path)
	if near := driver.Nearest(path, paths); near != "" {
		text += fmt.Sprintf("; did you mean %q?", near)
	}
	return nil, errors.New(text)
}

// Status is what the exporter says of itself.
func (c *Client) Status(ctx context.Context) (*pb.GetStatusResponse, error) {
	r, err := c.export.GetStatus(ctx, &pb.GetStatusRequest{})
	return r, remote(err)
}

// Reset brings every driver that can be reset into its initial state.
func (c *Client) Reset(ctx context.Context) error {
	_, err := c.export.Reset(ctx, &pb.ResetRequest{})
	return remote(err)
}

// EndSession tells the exporter that this client is done.
func (c *Client) EndSession(ctx context.Context) (ok bool, message string, err error) {
	r, err := c.export.EndSession(ctx, &pb.EndSessionRequest{})
	return r.GetSuccess(), r.GetMessage(), remote(err)
}

// Logs follows the exporter's log until the context is done.
func (c *Client) Logs(ctx context.Context) iter.Seq2[*pb.LogStreamResponse, error] {
	return func(yield func(*pb.LogStreamResponse, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		s, err := c.export.LogStream(ctx, &emptypb.Empty{})
		follow(s, err, func(r *pb.LogStreamResponse) (*pb.LogStreamResponse, error) { return r, nil }, yield)
	}
}

// follow yields what a server stream sends.
func follow[M, R any](s grpc.ServerStreamingClient[M], err error, convert func(*M) (R, error), yield func(R, error) bool) {
	var zero R
	for {
		var m *M
		if err == nil {
			m, err = s.Recv()
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			yield(zero, remote(err))
			return
		}
		r, cerr := convert(m)
		if !yield(r, cerr) || cerr != nil {
			return
		}
	}
}

func arguments(method string, args []any) ([]*structpb.Value, error) {
	values := make([]*structpb.Value, len(args))
	for i, a := range args {
		v, err := driver.Encode(a)
		if err == nil {
			values[i], err = rpc.ToValue(v)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: argument %d: %w", method, i+1, err)
		}
	}
	return values, nil
}

// Call calls a method that answers once.
func (n *Node) Call(ctx context.Context, method string, args ...any) (any, error) {
	values, err := arguments(method, args)
	if err != nil {
		return nil, err
	}
	r, err := n.c.export.DriverCall(ctx, &pb.DriverCallRequest{Uuid: n.UUID, Method: method, Args: values})
	if err != nil {
		return nil, remote(err)
	}
	return rpc.FromValue(r.Result)
}

// Feed calls a method that answers with a sequence.
func (n *Node) Feed(ctx context.Context, method string, args ...any) iter.Seq2[any, error] {
	return func(yield func(any, error) bool) {
		values, err := arguments(method, args)
		if err != nil {
			yield(nil, err)
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		s, err := n.c.export.StreamingDriverCall(ctx, &pb.StreamingDriverCallRequest{Uuid: n.UUID, Method: method, Args: values})
		follow(s, err, func(r *pb.StreamingDriverCallResponse) (any, error) { return rpc.FromValue(r.Result) }, yield)
	}
}

// Stream opens a byte stream, a [*stream.Stream]. The context bounds the
// opening; Close ends the stream.
func (n *Node) Stream(ctx context.Context, method string) (io.ReadWriteCloser, error) {
	s, _, err := n.open(ctx, map[string]any{"kind": "driver", "uuid": n.UUID, "method": method})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Offer opens a resource stream on the node, for a method that takes a handle.
// What the driver is to read is written to the stream, and ended with
// CloseWrite; what the driver writes is read from it. [driver.Upload] and
// [driver.Download] do all of that.
func (n *Node) Offer(ctx context.Context) (driver.Resource, driver.Handle, error) {
	return n.OfferPacked(ctx, "")
}

// OfferPacked is Offer for data that is packed at this end. The exporter unpacks
// what is written and packs what is read; if it does not know the encoding, that
// is done here.
func (n *Node) OfferPacked(ctx context.Context, encoding string) (driver.Resource, driver.Handle, error) {
	var asked any
	if encoding != "" {
		asked = encoding
	}
	s, md, err := n.open(ctx, map[string]any{"kind": "resource", "uuid": n.UUID, "x_jmp_content_encoding": asked})
	if err != nil {
		return nil, driver.Handle{}, err
	}
	var handle map[string]any
	text := md.Get("resource")
	if len(text) == 0 || json.Unmarshal([]byte(text[0]), &handle) != nil || handle == nil {
		s.Close()
		return nil, driver.Handle{}, fmt.Errorf("resource: the exporter answered without a handle: %v", md)
	}
	if encoding == "" {
		return s, driver.NewHandle(handle), nil
	}
	r, err := agree(s, encoding, handle["x_jmp_content_encoding"], md.Get("x_jmp_accept_encoding") != nil)
	if err != nil {
		s.Close()
		return nil, driver.Handle{}, err
	}
	return r, driver.NewHandle(handle), nil
}

func (n *Node) open(ctx context.Context, request map[string]any) (*stream.Stream, metadata.MD, error) {
	text, err := json.Marshal(request)
	if err != nil {
		return nil, nil, err
	}
	live, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	s, err := n.c.router.Stream(metadata.AppendToOutgoingContext(live, "request", string(text)))
	var md metadata.MD
	if err == nil {
		md, err = s.Header() // the exporter sends it when the stream is open
	}
	for err == nil && (md == nil || md.Get(rpc.RefusedKey) != nil) {
		_, err = s.Recv() // ended before it was open: this yields why
	}
	if !stop() {
		err = fmt.Errorf("open stream: %w", ctx.Err())
	}
	if err != nil {
		cancel()
		return nil, nil, remote(err)
	}
	return stream.New(frames{s}, cancel), md, nil
}

// frames is the client's side of a stream RPC.
type frames struct {
	rpc grpc.BidiStreamingClient[pb.StreamRequest, pb.StreamResponse]
}

func (f frames) SendMsg(m any) error {
	err := f.rpc.SendMsg(m)
	if err == io.EOF { // the RPC has ended; RecvMsg tells why
		return fmt.Errorf("stream: the exporter has ended it: %w", io.ErrClosedPipe)
	}
	return remote(err)
}

func (f frames) RecvMsg(m any) error { return remote(f.rpc.RecvMsg(m)) }

func (f frames) CloseSend() error { return f.rpc.CloseSend() }

// remote is an error of the wire as the error that it was on the other side.
func remote(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	text := st.Message()
	if st.Code() == codes.Unauthenticated || text == "" {
		text = strings.TrimSpace(st.Code().String() + ": " + text)
	}
	return &driver.RemoteError{Class: rpc.Class(st.Code()), Text: text}
}

type passphrase string

func (p passphrase) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{rpc.PassphraseKey: string(p)}, nil
}

func (passphrase) RequireTransportSecurity() bool { return false }

// WaitReady polls until driver calls are served, or never will be because the
// hook before the lease failed.
func (c *Client) WaitReady(ctx context.Context) error {
	t := time.NewTicker(50 * time.Millisecond)
	defer t.Stop()
	for {
		st, err := c.Status(ctx)
		if err != nil {
			return err
		}
		switch st.Status {
		case pb.ExporterStatus_EXPORTER_STATUS_LEASE_READY:
			return nil
		case pb.ExporterStatus_EXPORTER_STATUS_BEFORE_LEASE_HOOK_FAILED:
			return fmt.Errorf("the exporter's beforeLease hook failed: %s", st.GetMessage())
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the exporter to be ready, it is %s: %w", st.Status, ctx.Err())
		}
	}
}
