package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	jumpstarterv1 "github.com/jumplead/jumplead/proto/jumpstarter/v1"
)

// serveSmall starts an exporter of the small harness and waits for it.
func (f flavour) serveSmall(t *testing.T, address string) *process {
	t.Helper()
	p, err := f.exporter("--exporter-config", "testdata/small.yaml", "--tls-grpc-listener", address, "--tls-grpc-insecure")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	if err := p.ready(t.Context(), way{target: address}); err != nil {
		t.Fatal(err)
	}
	return p
}

func port(t *testing.T) string {
	t.Helper()
	address, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// Any of the signals that ask for an end gives one with status 0, at once,
// whatever clients are doing. (The stock exporter gives its clients a second.)
func TestSignals(t *testing.T) {
	const soon = 200 * time.Millisecond
	forBoth(t, func(t *testing.T, f flavour) {
		var mu sync.Mutex
		least := time.Hour
		t.Run("all", func(t *testing.T) {
			for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP} {
				t.Run(sig.String(), func(t *testing.T) {
					t.Parallel()
					address := port(t)
					p := f.serveSmall(t, address)
					hold(t, address)
					start := time.Now()
					if err := p.stop(sig); err != nil {
						t.Error(err)
					}
					mu.Lock()
					defer mu.Unlock()
					least = min(least, time.Since(start))
				})
			}
		})
		// The least of four: the machine may be busy with other tests.
		t.Logf("the quickest end took %v", least)
		if f.ours && least > soon {
			t.Errorf("the quickest end took %v; want at most %v", least, soon)
		}
	})
}

// hold leaves a client with a stream and a log stream open until the test
// ends.
func hold(t *testing.T, address string) {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx, exporter := t.Context(), jumpstarterv1.NewExporterServiceClient(conn)
	report, err := exporter.GetReport(ctx, &emptypb.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exporter.LogStream(ctx, &emptypb.Empty{}); err != nil {
		t.Fatal(err)
	}
	echo := report.Reports[len(report.Reports)-1].Uuid
	request := fmt.Sprintf(`{"kind":"driver","uuid":%q,"method":"connect"}`, echo)
	stream, err := jumpstarterv1.NewRouterServiceClient(conn).Stream(metadata.AppendToOutgoingContext(ctx, "request", request))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&jumpstarterv1.StreamRequest{Payload: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if got, err := stream.Recv(); err != nil || string(got.Payload) != "x" {
		t.Fatalf("echo = %v, %v; want x", got, err)
	}
}

// Two exporters cannot have one port. The stock exporter shares it without a
// word, and each client meets one or the other.
func TestPortTaken(t *testing.T) {
	forBoth(t, func(t *testing.T, f flavour) {
		address := port(t)
		first := f.serveSmall(t, address)
		second, err := f.exporter("--exporter-config", "testdata/small.yaml", "--tls-grpc-listener", address, "--tls-grpc-insecure")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(second.kill)
		if f.ours {
			code, err := second.status(10 * time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if code != 1 {
				t.Errorf("exit status of the second = %d; want 1:\n%s", code, second.stderr.tail())
			}
			if said := second.stderr.String(); !strings.Contains(said, address) {
				t.Errorf("the second said %q; want the address %s", said, address)
			}
			if err := first.ready(t.Context(), way{target: address}); err != nil {
				t.Errorf("the first: %v", err)
			}
			return
		}
		t.Log("a defect of the stock exporter: two of them share a port (SO_REUSEPORT), and no one is told")
		if err := first.stop(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := second.ready(t.Context(), way{target: address}); err != nil {
			t.Errorf("the second does not serve the port, so the defect is gone: %v", err)
		}
	})
}

// What the stock exporter does with a config or a certificate that is no good
// once it runs: it starts anew until it gives up, and says that all is well.
const givesUp = "what is wrong after the config was read ends with status 0, after five attempts"

// And what it does with a driver that is not written as one.
const emptyNode = "a node that is not understood becomes an empty composite, without a word"

// TestStatuses holds exit statuses: 2 for usage, 1 for what cannot be loaded.
func TestStatuses(t *testing.T) {
	const (
		config   = "--exporter-config"
		listener = "--tls-grpc-listener"
		plain    = "--tls-grpc-insecure"
		good     = "good.yaml"
	)
	table := []struct {
		name   string
		file   string // of the config, if the arguments are the usual ones
		args   []string
		status int
		defect string // the stock exporter's status is 0, or it serves
	}{
		{name: "no config", status: 2},
		{name: "no config, with a listener", args: []string{listener, "{port}", plain}, status: 2},
		{name: "two configs", args: []string{config, good, "--exporter", "x", listener, "{port}", plain}, status: 2},
		{name: "config without a value", args: []string{config}, status: 2},
		{name: "neither plain nor TLS", args: []string{config, good, listener, "{port}"}, status: 2},
		{name: "plain and a certificate", args: []string{config, good, listener, "{port}", plain, "--tls-cert", "cert.pem"}, status: 2},
		{name: "plain and a key", args: []string{config, good, listener, "{port}", plain, "--tls-key", "key.pem"}, status: 2},
		{name: "certificate without a key", args: []string{config, good, listener, "{port}", "--tls-cert", "cert.pem"}, status: 2},
		{name: "key without a certificate", args: []string{config, good, listener, "{port}", "--tls-key", "key.pem"}, status: 2},
		{name: "certificate that is not there", args: []string{config, good, listener, "{port}", "--tls-cert", "nowhere", "--tls-key", "key.pem"}, status: 2},
		{name: "plain without a listener", args: []string{config, good, plain}, status: 2},
		{name: "passphrase without a listener", args: []string{config, good, "--passphrase", "x"}, status: 2},
		{name: "certificate without a listener", args: []string{config, good, "--tls-cert", "cert.pem", "--tls-key", "key.pem"}, status: 2},
		{name: "port 0", args: []string{config, good, listener, "0", plain}, status: 2},
		{name: "port 65536", args: []string{config, good, listener, "127.0.0.1:65536", plain}, status: 2},
		{name: "port -1", args: []string{config, good, listener, "127.0.0.1:-1", plain}, status: 2},
		{name: "port that is no number", args: []string{config, good, listener, "http", plain}, status: 2},
		{name: "host without a port", args: []string{config, good, listener, "127.0.0.1:", plain}, status: 2},
		{name: "empty listener", args: []string{config, good, listener, "", plain}, status: 2},
		{name: "unknown flag", args: []string{config, good, "--nonsense"}, status: 2},
		{name: "argument too many", args: []string{config, good, listener, "{port}", plain, "more"}, status: 2},

		{name: "config that is not there", args: []string{config, "nowhere.yaml", listener, "{port}", plain}, status: 1},
		{name: "alias that is not there", args: []string{"--exporter", "nowhere", listener, "{port}", plain}, status: 1},
		{name: "not YAML", file: "a: [\n", status: 1},
		{name: "empty file", file: "\n", status: 1},
		{name: "list", file: "- 1\n", status: 1},
		{name: "another kind", file: "kind: Other\n" + someMetadata, status: 1},
		{name: "another version", file: "apiVersion: v2\n" + someMetadata, status: 1},
		{name: "no metadata", file: "export: {}\n", status: 1},
		{name: "no namespace", file: "metadata: {name: x}\n", status: 1},
		{name: "unknown metadata", file: "metadata: {namespace: default, name: x, colour: blue}\n", status: 1},
		{name: "hooks that are a number", file: "hooks: 5\n" + someMetadata, status: 1},
		{name: "tls that is a number", file: "tls: 5\n" + someMetadata, status: 1},
		{name: "export that is a list", file: "export: []\n" + someMetadata, status: 1},
		{name: "children that are a list", file: node("children: []"), status: 1},

		{name: "unknown type", file: node("type: jumpstarter_driver_nowhere.driver.Nothing"), status: 1, defect: givesUp},
		{name: "reference to nothing", file: node("ref: nothing.here"), status: 1, defect: givesUp},
		{name: "unknown key of a driver", file: node("type: jumpstarter_driver_network.driver.TcpNetwork, config: {host: x, port: 1, colour: blue}"), status: 1, defect: givesUp},
		{name: "missing key of a driver", file: node("type: jumpstarter_driver_network.driver.TcpNetwork, config: {host: x}"), status: 1, defect: givesUp},
		{name: "certificate that is none", args: []string{config, good, listener, "{port}", "--tls-cert", "good.yaml", "--tls-key", "good.yaml"}, status: 2, defect: givesUp},
		{name: "misspelt type", file: node("typ: jumpstarter_driver_power.driver.MockPower"), status: 1, defect: emptyNode},
		{name: "empty node", file: node(""), status: 1, defect: emptyNode},
		{name: "type that is a number", file: node("type: 5"), status: 1, defect: emptyNode},
		{name: "driver's config that is a list", file: node("type: jumpstarter_driver_power.driver.MockPower, config: []"), status: 1, defect: emptyNode},
	}
	env := needPython(t)
	dir, err := os.MkdirTemp(scratch, "statuses-")
	if err != nil {
		t.Fatal(err)
	}
	ca, err := newAuthority("ours")
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.issue(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, good), []byte(node("type: jumpstarter_driver_power.driver.MockPower")), 0o644); err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	for i, c := range table {
		args := c.args
		if c.file != "" {
			name := fmt.Sprintf("%d.yaml", i)
			if err := os.WriteFile(filepath.Join(dir, name), []byte(c.file), 0o644); err != nil {
				t.Fatal(err)
			}
			args = []string{config, name, listener, "{port}", plain}
		}
		row := []string{"run"}
		for _, a := range args {
			row = append(row, strings.ReplaceAll(a, "{port}", port(t)))
		}
		rows = append(rows, row)
	}
	forBoth(t, func(t *testing.T, f flavour) {
		statuses := f.statuses(t, env.Bin("python"), dir, rows)
		for i, c := range table {
			t.Run(c.name, func(t *testing.T) {
				got := statuses[i]
				if c.defect != "" && !f.ours {
					t.Logf("a defect of the stock exporter: %s", c.defect)
					if serves := got.Status == nil; serves != (c.defect == emptyNode) || !serves && *got.Status != 0 {
						t.Errorf("run %q: %v; want the defect", rows[i], got)
					}
					return
				}
				if got.Status == nil || *got.Status != c.status {
					t.Errorf("run %q: %v; want exit status %d", rows[i], got, c.status)
				}
				if strings.TrimSpace(got.Said) == "" {
					t.Errorf("run %q says nothing; want the reason", rows[i])
				}
			})
		}
	})
}

const someMetadata = "metadata: {namespace: default, name: x}\n"

func node(keys string) string {
	return someMetadata + "export:\n  node: {" + keys + "}\n"
}

// An ending is how a run ended, or that it served.
type ending struct {
	Status *int
	Said   string
}

func (e ending) String() string {
	if e.Status == nil {
		return "it serves: " + e.Said
	}
	return fmt.Sprintf("exit status %d: %s", *e.Status, e.Said)
}

// statuses runs the program once for each row of arguments.
func (f flavour) statuses(t *testing.T, python, dir string, rows [][]string) []ending {
	t.Helper()
	var endings []ending
	if f.ours {
		for _, row := range rows {
			cmd := exec.Command(f.program, row...)
			cmd.Dir = dir
			p, err := start(cmd)
			if err != nil {
				t.Fatal(err)
			}
			e := ending{}
			if code, err := p.status(5 * time.Second); err == nil {
				e.Status = &code
			}
			p.kill()
			e.Said = p.stderr.String()
			endings = append(endings, e)
		}
		return endings
	}
	script, err := filepath.Abs("testdata/statuses.py")
	if err != nil {
		t.Fatal(err)
	}
	var in, said bytes.Buffer
	enc := json.NewEncoder(&in)
	for _, row := range rows {
		if err := enc.Encode(row); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, script)
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stderr = dir, environment(), &in, &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("statuses: %v: %s", err, &said)
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var e ending
		if err := dec.Decode(&e); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		endings = append(endings, e)
	}
	if len(endings) != len(rows) {
		t.Fatalf("statuses: %d of %d runs: %s", len(endings), len(rows), &said)
	}
	return endings
}
