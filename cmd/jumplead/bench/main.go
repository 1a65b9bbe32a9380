// Bench measures jumplead against the Python exporter and a bare gRPC server of
// the same messages, all in one run on one machine, and prints a table of
// ratios. Times of different machines do not compare; ratios of one run do.
//
// Every number is the median of interleaved rounds: in each round each
// contender is measured once, so that what else the machine does meets all of
// them.
//
// Usage: bench [-rounds N] [-only PATTERN]
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/jumplead/jumplead/cmd/jumplead/interop/pyenv"
)

func main() {
	rounds := flag.Int("rounds", 7, "interleaved rounds, of which the median is taken")
	only := flag.String("only", "", "regular expression of the measurements to make")
	flag.Parse()
	ctx := context.Background()
	b := &bench{rounds: *rounds, only: regexp.MustCompile(*only)}
	err := b.run(ctx)
	b.close()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type bench struct {
	rounds int
	only   *regexp.Regexp

	root   string // of the checkout
	build  string // folder
	env    *pyenv.Env
	peer   *peer
	config string
	python *stock
	ends   []func()
	rows   []row
}

// row is one line of the table.
type row struct {
	what, ours, base, ratio, want string
	ok                            bool
}

func (b *bench) close() {
	for _, end := range slices.Backward(b.ends) {
		end()
	}
}

// wanted reports whether a measurement was asked for.
func (b *bench) wanted(name string) bool {
	if !b.only.MatchString(name) {
		return false
	}
	fmt.Fprintf(os.Stderr, "%s ...\n", name)
	return true
}

// below adds a line whose ratio ours/base should be at most limit; above one
// whose ratio should be at least it.
func (b *bench) below(what string, ours, base, limit float64, unit string) {
	r := ours / base
	b.rows = append(b.rows, row{what, format(ours, unit), format(base, unit), ratio(r), "≤ " + ratio(limit), r <= limit})
}

func (b *bench) above(what string, ours, base, limit float64, unit string) {
	r := ours / base
	b.rows = append(b.rows, row{what, format(ours, unit), format(base, unit), ratio(r), "≥ " + ratio(limit), r >= limit})
}

func ratio(r float64) string {
	if r < 0.2 {
		return fmt.Sprintf("1/%.0f", 1/r)
	}
	return fmt.Sprintf("%.2f", r)
}

func format(v float64, unit string) string {
	switch unit {
	case "s":
		return time.Duration(v * float64(time.Second)).Round(time.Microsecond).String()
	case "B":
		return fmt.Sprintf("%.1f MB", v/1e6)
	case "B/s":
		return fmt.Sprintf("%.0f MB/s", v/1e6)
	}
	return fmt.Sprint(v)
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// interleave runs each contender once a round and returns their medians.
func (b *bench) interleave(contenders ...func() (float64, error)) ([]float64, error) {
	values := make([][]float64, len(contenders))
	for range b.rounds {
		for i, f := range contenders {
			v, err := f()
			if err != nil {
				return nil, err
			}
			values[i] = append(values[i], v)
		}
	}
	medians := make([]float64, len(contenders))
	for i := range values {
		medians[i] = median(values[i])
	}
	return medians, nil
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.root, err = pyenv.Root(); err != nil {
		return err
	}
	b.build = filepath.Join(b.root, ".build", "bench")
	if err := os.MkdirAll(b.build, 0o755); err != nil {
		return err
	}
	for name, pkg := range map[string]string{"jumplead": "./cmd/jumplead", "bare": "./cmd/jumplead/bench/bare"} {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(b.build, name), pkg)
		cmd.Dir, cmd.Env = b.root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build %s: %w: %s", pkg, err, out)
		}
	}
	if b.env, err = pyenv.Open(ctx); err != nil {
		return err
	}
	if b.peer, err = newPeer(); err != nil {
		return err
	}
	b.ends = append(b.ends, b.peer.close)
	if b.config, err = b.writeConfig(); err != nil {
		return err
	}

	if err := b.start(ctx); err != nil {
		return err
	}
	ours, err := b.launch(ctx, b.ours(b.config))
	if err != nil {
		return err
	}
	theirs, err := b.launch(ctx, b.theirs(b.config))
	if err != nil {
		return err
	}
	bare, err := b.launch(ctx, b.bare())
	if err != nil {
		return err
	}
	if b.python, err = b.startStock(ctx, filepath.Join(b.root, "cmd/jumplead/bench/stock.py")); err != nil {
		return err
	}
	for _, f := range []func(context.Context, *exporter, *exporter, *exporter) error{b.memory, b.calls, b.commands, b.tunnels, b.load} {
		if err := f(ctx, ours, theirs, bare); err != nil {
			return err
		}
	}
	for _, f := range []func(context.Context) error{b.images, b.codecs, b.shell, b.hosted, b.board} {
		if err := f(ctx); err != nil {
			return err
		}
	}
	b.print()
	return nil
}

func (b *bench) print() {
	cpu := "unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				cpu = strings.TrimSpace(v)
				break
			}
		}
	}
	fmt.Printf("Medians of %d interleaved rounds on %s, %d cores, %s.\n\n", b.rounds, cpu, runtime.NumCPU(), runtime.Version())
	fmt.Println("| measurement | jumplead | against | ratio | wanted |\n|---|---|---|---|---|")
	for _, r := range b.rows {
		mark := ""
		if !r.ok {
			mark = " (missed)"
		}
		fmt.Printf("| %s | %s | %s | %s | %s%s |\n", r.what, r.ours, r.base, r.ratio, r.want, mark)
	}
}

// writeConfig writes a harness of ten nodes.
func (b *bench) writeConfig() (string, error) {
	host, port := b.peer.addr()
	var s strings.Builder
	fmt.Fprintf(&s, "apiVersion: jumpstarter.dev/v1alpha1\nkind: ExporterConfig\nmetadata: {namespace: default, name: bench}\nexport:\n")
	fmt.Fprintf(&s, "  power: {type: jumpstarter_driver_power.driver.MockPower}\n")
	fmt.Fprintf(&s, "  tcp: {type: jumpstarter_driver_network.driver.TcpNetwork, config: {host: %s, port: %d}}\n", host, port)
	for i := range 3 {
		fmt.Fprintf(&s, "  power%d: {type: jumpstarter_driver_power.driver.MockPower}\n", i)
		fmt.Fprintf(&s, "  echo%d: {type: jumpstarter_driver_network.driver.EchoNetwork}\n", i)
	}
	fmt.Fprintf(&s, "  serial: {type: jumpstarter_driver_pyserial.driver.PySerial, config: {url: 'loop://'}}\n")
	return b.write("bench.yaml", s.String())
}

// write writes a file into the build folder.
func (b *bench) write(name, text string) (string, error) {
	path := filepath.Join(b.build, name)
	return path, os.WriteFile(path, []byte(text), 0o644)
}

// stock is the Python process that runs the stock client.
type stock struct {
	in  *json.Encoder
	out *bufio.Scanner
}

func (b *bench) startStock(ctx context.Context, script string) (*stock, error) {
	cmd := exec.CommandContext(ctx, b.env.Bin("python"), script)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	b.ends = append(b.ends, func() { in.Close(); cmd.Wait() })
	return &stock{json.NewEncoder(in), bufio.NewScanner(out)}, nil
}

// do runs one command of the stock client and returns its seconds.
func (s *stock) do(at, op string, n, chunk int) (float64, error) {
	return s.run(at, op, map[string]any{"n": n, "chunk": chunk})
}

func (s *stock) run(at, op string, args map[string]any) (float64, error) {
	args["at"], args["op"] = at, op
	if err := s.in.Encode(args); err != nil {
		return 0, err
	}
	if !s.out.Scan() {
		return 0, fmt.Errorf("stock client: %s at %s: it ended", op, at)
	}
	var r struct{ Seconds float64 }
	err := json.Unmarshal(s.out.Bytes(), &r)
	return r.Seconds, err
}
