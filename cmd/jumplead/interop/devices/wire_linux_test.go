package devices_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/jumplead/jumplead/cmd/jumplead/interop/pyenv"
	"github.com/jumplead/jumplead/exporter/client"
	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/gpio/cdev"
	"github.com/jumplead/jumplead/hw/gpio/gpiotest"
	"github.com/jumplead/jumplead/hw/hwtest"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// bare is a gRPC server of the same messages, and nothing else.
type bare struct {
	pb.UnimplementedExporterServiceServer
}

func (bare) GetReport(context.Context, *emptypb.Empty) (*pb.GetReportResponse, error) {
	return &pb.GetReportResponse{Uuid: "1", Reports: []*pb.DriverInstanceReport{{Uuid: "1"}}}, nil
}

func (bare) GetStatus(context.Context, *pb.GetStatusRequest) (*pb.GetStatusResponse, error) {
	return &pb.GetStatusResponse{Status: pb.ExporterStatus_EXPORTER_STATUS_LEASE_READY}, nil
}

func (bare) DriverCall(context.Context, *pb.DriverCallRequest) (*pb.DriverCallResponse, error) {
	return &pb.DriverCallResponse{Uuid: "1", Result: structpb.NewNumberValue(1)}, nil
}

// serveBare is the program that does it.
func serveBare(address string) (status int) {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	g := grpc.NewServer()
	context.AfterFunc(ctx, g.Stop)
	pb.RegisterExporterServiceServer(g, bare{})
	if err := g.Serve(ln); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// BenchmarkWire tells what on and read_pin take through the wire, against the bare system call and a bare unary call of
// gRPC, each to a process of its own: the metric "ratio". The four are measured in turns, and the ratio is that of the
// medians, so that what else the machine does meets all of them.
func BenchmarkWire(b *testing.B) {
	hwtest.Need(b, hwtest.GPIOSim)
	w := gpiotest.NewSim(b, cdev.Bus())
	line, err := cdev.Bus().RequestLine(b.Context(), hw.LineRef{Chip: w.Device(), Offset: 1}, hw.LineOptions{Output: true})
	if err != nil {
		b.Fatal(err)
	}
	defer line.Close()
	ours := dial(b, jumplead().serve(b, write(b, fmt.Sprintf(`apiVersion: jumpstarter.dev/v1alpha1
kind: ExporterConfig
metadata: {namespace: default, name: wire}
export:
  relay: {type: jumpstarter_driver_gpiod.driver.DigitalOutput, config: {device: %s, line: 2}}
`, w.Label()))))
	relay, err := ours.Find("relay")
	if err != nil {
		b.Fatal(err)
	}
	address := freePort(b)
	cmd := exec.Command(os.Args[0], address)
	cmd.Env = pyenv.Environ(b.TempDir(), asProgram+"=bare")
	start(b, "bare", cmd)
	other := dial(b, address).Root

	call := func(n *client.Node, method string) func() error {
		return func() error { _, err := n.Call(b.Context(), method); return err }
	}
	for method, ioctl := range map[string]func() error{
		"on":       func() error { return line.SetValue(true) },
		"read_pin": func() error { _, err := line.Value(); return err },
	} {
		b.Run(method, func(b *testing.B) {
			contenders := []func() error{call(relay, method), call(other, method), ioctl}
			times := make([][]time.Duration, len(contenders))
			for b.Loop() {
				for i, f := range contenders {
					start := time.Now()
					if err := f(); err != nil {
						b.Fatal(err)
					}
					times[i] = append(times[i], time.Since(start))
				}
			}
			m := make([]float64, len(contenders))
			for i, t := range times {
				slices.Sort(t)
				m[i] = float64(t[len(t)/2])
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(m[0], "wire-ns")
			b.ReportMetric(m[1], "bare-call-ns")
			b.ReportMetric(m[2], "ioctl-ns")
			b.ReportMetric(m[0]/(m[1]+m[2]), "ratio")
		})
	}
}

func dial(b *testing.B, address string) *client.Client {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	c, err := client.Dial(ctx, address, client.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}
