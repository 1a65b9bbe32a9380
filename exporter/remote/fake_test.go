package remote_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// The test program stands in for a Python interpreter, or for another exporter,
// when it finds one of these in its environment.
const (
	asPython   = "JUMPLEAD_TEST_AS_PYTHON"   // a mode of interpret
	asExporter = "JUMPLEAD_TEST_AS_EXPORTER" // the socket to serve on; before it, what goes wrong
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(asExporter) != "":
		f := newFake("exporter")
		how, socket, ok := strings.Cut(os.Getenv(asExporter), " ")
		if !ok {
			how, socket = "", how
		}
		f.how = how
		if err := f.serve("unix", socket); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case os.Getenv(asPython) != "" && len(os.Args) > 2:
		interpret(os.Getenv(asPython), os.Args[2])
	default:
		os.Exit(m.Run())
	}
}

// fake is an exporter of nodes that each have a child called made.
type fake struct {
	pb.UnimplementedExporterServiceServer
	pb.UnimplementedRouterServiceServer

	mu    sync.Mutex
	nodes map[string]string // path by UUID
	logs  chan *pb.LogStreamResponse
	root  []*pb.DriverInstanceReport
	how   string // its report goes wrong
}

func newFake(path string) *fake {
	f := &fake{nodes: map[string]string{}, logs: make(chan *pb.LogStreamResponse, 16)}
	f.root = f.add(path)
	f.root[0].Labels["jumpstarter.dev/client"] = "jumpstarter_driver_composite.client.CompositeClient"
	delete(f.root[0].Labels, "jumpstarter.dev/name")
	return f
}

func (f *fake) serve(network, address string, opts ...grpc.ServerOption) error {
	if f.how == "exits" {
		fmt.Fprintln(os.Stderr, "it will not do")
		os.Exit(7)
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	for f.how == "garbage" {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		_, _ = c.Write([]byte("HTTP/1.0 400 What?\r\n\r\n"))
		c.Close()
	}
	return f.server(opts...).Serve(ln)
}

func (f *fake) server(opts ...grpc.ServerOption) *grpc.Server {
	s := grpc.NewServer(opts...)
	pb.RegisterExporterServiceServer(s, f)
	pb.RegisterRouterServiceServer(s, f)
	return s
}

// add adds a node, and returns the reports of it and its child.
func (f *fake) add(path string) []*pb.DriverInstanceReport {
	f.mu.Lock()
	defer f.mu.Unlock()
	name := path[strings.LastIndexByte(path, '.')+1:]
	id, child := uuid.NewString(), uuid.NewString()
	f.nodes[id], f.nodes[child] = path, path+".made"
	return []*pb.DriverInstanceReport{
		{Uuid: id, Labels: map[string]string{"jumpstarter.dev/client": "fake.Client", "jumpstarter.dev/name": name}},
		{Uuid: child, ParentUuid: &id, Labels: map[string]string{"jumpstarter.dev/client": "fake.Made", "jumpstarter.dev/name": "made"}},
	}
}

func (f *fake) path(id string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if path, ok := f.nodes[id]; ok {
		return path, nil
	}
	return "", status.Errorf(codes.Unknown, "no node %s", id)
}

func (f *fake) GetReport(context.Context, *emptypb.Empty) (*pb.GetReportResponse, error) {
	switch f.how {
	case "dies":
		fmt.Fprintln(os.Stderr, "no report today")
		os.Exit(4)
	case "refuses":
		return nil, status.Error(codes.FailedPrecondition, "not now")
	case "nothing":
		return &pb.GetReportResponse{}, nil
	case "roots":
		return &pb.GetReportResponse{Reports: append(f.root, f.root[0])}, nil
	}
	return &pb.GetReportResponse{Reports: f.root}, nil
}

func (f *fake) LogStream(_ *emptypb.Empty, out grpc.ServerStreamingServer[pb.LogStreamResponse]) error {
	for {
		select {
		case r := <-f.logs:
			if err := out.Send(r); err != nil {
				return err
			}
		case <-out.Context().Done():
			return nil
		}
	}
}

func (f *fake) DriverCall(ctx context.Context, in *pb.DriverCallRequest) (*pb.DriverCallResponse, error) {
	path, err := f.path(in.Uuid)
	if err != nil {
		return nil, err
	}
	md, _ := metadata.FromIncomingContext(ctx)
	_ = grpc.SetHeader(ctx, metadata.Pairs("x-head", strings.Join(md.Get("x-asked"), "")))
	_ = grpc.SetTrailer(ctx, metadata.Pairs("x-tail", "t"))
	var result any
	switch in.Method {
	case "path":
		result = path
	case "pid":
		result = float64(os.Getpid())
	case "echo":
		return &pb.DriverCallResponse{Uuid: in.Uuid, Result: in.Args[0]}, nil
	case "passphrase":
		result = strings.Join(md.Get("x-jumpstarter-passphrase"), "")
	case "hang":
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	case "unavailable":
		return nil, status.Error(codes.Unavailable, "the device is away")
	case "long":
		return nil, status.Error(codes.Unknown, strings.Repeat("ä", 5000))
	case "details":
		st, err := status.New(codes.Aborted, "aborted").WithDetails(wrapped("detail"))
		if err != nil {
			return nil, err
		}
		return nil, st.Err()
	case "log":
		f.logs <- &pb.LogStreamResponse{Severity: "WARNING", Message: "from there", Source: pb.LogSource_LOG_SOURCE_DRIVER.Enum()}
		f.logs <- &pb.LogStreamResponse{Severity: "INFO", Message: "a call", Source: pb.LogSource_LOG_SOURCE_DRIVER.Enum(), Operation: proto.String("on")}
		f.logs <- &pb.LogStreamResponse{Severity: "INFO", Message: "the end", Source: pb.LogSource_LOG_SOURCE_SYSTEM.Enum()}
	case "spawn": // a process in a session of its own, which outlives its parent
		cmd := exec.Command("setsid", "sleep", "600")
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		result = float64(cmd.Process.Pid)
	default:
		return nil, status.Errorf(codes.NotFound, "method %s not found on driver", in.Method)
	}
	v, err := structpb.NewValue(result)
	return &pb.DriverCallResponse{Uuid: in.Uuid, Result: v}, err
}

func wrapped(s string) *structpb.Value { return structpb.NewStringValue(s) }

func (f *fake) StreamingDriverCall(in *pb.StreamingDriverCallRequest, out grpc.ServerStreamingServer[pb.StreamingDriverCallResponse]) error {
	if _, err := f.path(in.Uuid); err != nil {
		return err
	}
	switch in.Method {
	case "count": // without end
		for i := 0; ; i++ {
			if err := out.Send(&pb.StreamingDriverCallResponse{Result: structpb.NewNumberValue(float64(i))}); err != nil {
				return err
			}
		}
	case "three":
		for i := range 3 {
			if err := out.Send(&pb.StreamingDriverCallResponse{Result: structpb.NewNumberValue(float64(i))}); err != nil {
				return err
			}
		}
		return status.Error(codes.DataLoss, "no more")
	}
	return status.Errorf(codes.NotFound, "method %s not found on driver", in.Method)
}

// Stream answers with each frame that it gets.
func (f *fake) Stream(s grpc.BidiStreamingServer[pb.StreamRequest, pb.StreamResponse]) error {
	md, _ := metadata.FromIncomingContext(s.Context())
	var req struct{ Kind, UUID, Method string }
	if err := json.Unmarshal([]byte(md.Get("request")[0]), &req); err != nil {
		return err
	}
	if _, err := f.path(req.UUID); err != nil {
		return err
	}
	head := metadata.MD{}
	switch {
	case req.Method == "refuse":
		return status.Error(codes.Unknown, "no stream today")
	case req.Kind == "resource":
		head = metadata.Pairs("resource", `{"kind":"client_stream","uuid":"theirs"}`, "x_jmp_accept_encoding", "")
	}
	if err := s.SendHeader(head); err != nil {
		return err
	}
	for {
		in, err := s.Recv()
		if err == io.EOF {
			<-s.Context().Done() // as the Python exporter waits for its client
			return nil
		}
		if err == nil && req.Method != "sink" {
			err = s.Send(&pb.StreamResponse{Payload: in.Payload, FrameType: in.FrameType})
		}
		if err != nil {
			return err
		}
	}
}

// interpret does what hosted.py does, for types that begin with "fake.".
func interpret(mode, socket string) {
	says := os.NewFile(3, "says")
	say := func(v any) {
		text, err := json.Marshal(v)
		if err == nil {
			_, err = says.Write(append(text, '\n'))
		}
		if err != nil {
			os.Exit(4)
		}
	}
	switch mode {
	case "exit":
		fmt.Fprintln(os.Stderr, "Traceback: it will not do")
		os.Exit(7)
	case "rubbish":
		fmt.Fprintln(says, "Welcome!")
		time.Sleep(time.Minute)
	case "late":
		time.Sleep(time.Minute)
	case "missing":
		say(map[string]any{"fatal": map[string]any{"kind": "missing", "module": "jumpstarter", "text": "no"}})
		os.Exit(3)
	case "prints":
		fmt.Fprintf(os.Stdout, "\x00\xff%s\n", strings.Repeat("x", 1_000_000))
		fmt.Fprintf(os.Stderr, "{\"id\": 1}\n\xfeno end of a line")
	case "noisy":
		go func() {
			for {
				fmt.Println("again and again")
			}
		}()
	case "closes":
		says.Close()
		time.Sleep(time.Minute)
	case "nosocket":
		say(map[string]any{"ready": map[string]any{}})
	case "garbage", "mute":
		ln, err := net.Listen("unix", socket)
		if err != nil {
			os.Exit(5)
		}
		go func() {
			for {
				c, err := ln.Accept()
				if err == nil && mode == "garbage" {
					_, _ = c.Write([]byte("HTTP/1.0 400 What?\r\n\r\n"))
					c.Close()
				}
			}
		}()
	}
	f := newFake("root")
	switch mode {
	case "nosocket", "garbage", "mute":
	default:
		go func() {
			if err := f.host(socket); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(5)
			}
		}()
	}
	for _, err := os.Stat(socket); errors.Is(err, os.ErrNotExist) && mode != "nosocket"; _, err = os.Stat(socket) {
		time.Sleep(time.Millisecond)
	}
	say(map[string]any{"ready": map[string]any{}})
	fmt.Println("a print")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var q struct {
			ID   int
			Op   string
			Type string
			Path []string
			Decl struct{ Type string }
		}
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			os.Exit(6)
		}
		answer := map[string]any{"id": q.ID}
		typ := q.Type + q.Decl.Type
		refuse := func(kind, text, module string) {
			answer["error"] = map[string]any{"kind": kind, "text": text, "module": module, "there": []string{"fake.Good"}}
		}
		switch {
		case typ == "fake.Exits" && q.Op == "open":
			fmt.Fprintln(os.Stderr, "cannot go on")
			os.Exit(9)
		case typ == "fake.Hangs" && q.Op == "open":
			time.Sleep(time.Minute)
		case typ == "fake.Rubbish" && q.Op == "open":
			fmt.Fprintln(says, "\x00\xffHello")
		case typ == "fake.Closes" && q.Op == "open":
			says.Close()
			time.Sleep(time.Minute)
		case typ == "fake.Huge" && q.Op == "open":
			answer["reports"] = strings.Repeat("A", 17<<20)
		case typ == "fake.Fails" && q.Op == "open":
			refuse("driver", "OSError: no device", "")
		case typ == "fake.Broken" && q.Op == "look":
			refuse("import", "ImportError: libfake.so", "")
		case strings.HasPrefix(typ, "jumpstarter_driver_gone"):
			refuse("missing", "no module", "jumpstarter_driver_gone")
		case typ == "fake.Goood":
			refuse("class", "fake has no driver Goood", "")
		case q.Op == "look":
			answer["client"], answer["fields"], answer["required"] = "fake.Client", []string{"speed", "uuid"}, []string{}
			if typ == "fake.Strict" {
				answer["required"] = []string{"speed"}
			}
		case q.Op == "open":
			reports := f.add(strings.Join(q.Path, "."))
			switch typ {
			case "fake.Nothing":
				reports = nil
			case "fake.TwoRoots":
				reports[1].ParentUuid = nil
			case "fake.Orphan":
				reports[1].ParentUuid = proto.String(uuid.NewString())
			case "fake.Nameless":
				delete(reports[1].Labels, "jumpstarter.dev/name")
			case "fake.Many":
				for range 10_000 {
					reports = append(reports, reports[1])
				}
			case "fake.Shares": // its second child has the first for a child, too
				parent := reports[0].Uuid
				second := f.add("second")[0]
				second.ParentUuid = &parent
				again := proto.CloneOf(reports[1])
				again.ParentUuid = &second.Uuid
				reports = append(reports, second, again)
			case "fake.Changes":
				reports[1].Labels["jumpstarter.dev/name"] = fmt.Sprintf("made%d", os.Getpid())
			}
			text, err := proto.Marshal(&pb.GetReportResponse{Reports: reports})
			if err != nil {
				os.Exit(6)
			}
			answer["reports"] = base64.StdEncoding.EncodeToString(text)
			switch typ {
			case "fake.NotBase64":
				answer["reports"] = "---"
			case "fake.NotProto":
				answer["reports"] = base64.StdEncoding.EncodeToString([]byte("\xff\xff\xff"))
			case "fake.Twice":
				say(answer)
				say(map[string]any{"id": 1_000_000})
			}
		}
		say(answer)
	}
	os.Exit(0)
}
