package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
)

// kind is a contender: how it is started on an address.
type kind struct {
	name string
	argv func(addr string) []string
	env  []string // beside our own
}

func (b *bench) ours(config string) kind {
	return kind{name: "jumplead", argv: func(addr string) []string {
		return []string{filepath.Join(b.build, "jumplead"), "run", "--exporter-config", config,
			"--tls-grpc-listener", addr, "--tls-grpc-insecure"}
	}}
}

func (b *bench) theirs(config string) kind {
	return kind{name: "jmp", argv: func(addr string) []string {
		return []string{b.env.Bin("jmp"), "run", "--exporter-config", config,
			"--tls-grpc-listener", addr, "--tls-grpc-insecure"}
	}}
}

func (b *bench) bare() kind {
	return kind{name: "bare", argv: func(addr string) []string {
		return []string{filepath.Join(b.build, "bare"), addr, b.peer.ln.Addr().String()}
	}}
}

// exporter is a contender's process.
type exporter struct {
	kind
	addr  string
	cmd   *exec.Cmd
	first time.Duration // from exec to the answer of the first GetReport
}

// spawn starts a contender and waits for its first report.
func (b *bench) spawn(ctx context.Context, k kind) (*exporter, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := ln.Addr().String()
	ln.Close()
	argv := k.argv(addr)
	e := &exporter{kind: k, addr: addr, cmd: exec.CommandContext(ctx, argv[0], argv[1:]...)}
	e.cmd.Env = append(os.Environ(), k.env...)
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log, err := os.CreateTemp("", "bench-*.log")
	if err != nil {
		return nil, err
	}
	defer os.Remove(log.Name())
	defer log.Close()
	e.cmd.Stderr = log
	start := time.Now()
	if err := e.cmd.Start(); err != nil {
		return nil, err
	}
	if err := e.report(ctx, start); err != nil {
		e.stop()
		text, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("%s: %w: %s", k.name, err, text)
	}
	return e, nil
}

func (e *exporter) report(ctx context.Context, start time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var c net.Conn
	for {
		var err error
		if c, err = net.Dial("tcp", e.addr); err == nil {
			break
		}
		if ctx.Err() != nil {
			return err
		}
		time.Sleep(100 * time.Microsecond)
	}
	used := false
	conn, err := grpc.NewClient("passthrough:///"+e.addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			if !used { // the connection that we have
				used = true
				return c, nil
			}
			return nil, errors.New("one connection is enough")
		}))
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := pb.NewExporterServiceClient(conn).GetReport(ctx, &emptypb.Empty{}, grpc.WaitForReady(true)); err != nil {
		return err
	}
	e.first = time.Since(start)
	return nil
}

// launch is spawn for a contender that stays until the end.
func (b *bench) launch(ctx context.Context, k kind) (*exporter, error) {
	e, err := b.spawn(ctx, k)
	if err == nil {
		b.ends = append(b.ends, e.stop)
	}
	return e, err
}

func (e *exporter) stop() {
	syscall.Kill(-e.cmd.Process.Pid, syscall.SIGTERM)
	t := time.AfterFunc(10*time.Second, func() { syscall.Kill(-e.cmd.Process.Pid, syscall.SIGKILL) })
	defer t.Stop()
	for _, pid := range e.pids()[1:] { // a session of its own
		syscall.Kill(pid, syscall.SIGTERM)
	}
	e.cmd.Wait()
}

// pids are the process and its descendants.
func (e *exporter) pids() []int {
	pids := []int{e.cmd.Process.Pid}
	for i := 0; i < len(pids); i++ {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i]))
		for _, t := range tasks {
			text, _ := os.ReadFile(t)
			for _, f := range strings.Fields(string(text)) {
				if pid, err := strconv.Atoi(f); err == nil {
					pids = append(pids, pid)
				}
			}
		}
	}
	return pids
}

// pss is the memory of a contender: what is shared with others counts in
// proportion.
func (e *exporter) pss() (float64, error) {
	sum := 0.0
	for _, pid := range e.pids() {
		f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		for s := bufio.NewScanner(f); s.Scan(); {
			if rest, ok := strings.CutPrefix(s.Text(), "Pss:"); ok {
				kb, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
				if err != nil {
					f.Close()
					return 0, err
				}
				sum += kb * 1024
			}
		}
		f.Close()
	}
	return sum, nil
}
