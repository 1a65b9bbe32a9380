package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// commands measures what a user feels: from the start of a command to its end,
// on one exporter, ours. The memory is that of the largest process of a command
// at its peak.
func (b *bench) commands(ctx context.Context, ours, _, _ *exporter) error {
	if !b.wanted("commands") {
		return nil
	}
	bin := filepath.Join(b.build, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	j, jumplead := filepath.Join(bin, "j"), filepath.Join(b.build, "jumplead")
	if err := os.Remove(j); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := os.Symlink(jumplead, j); err != nil {
		return err
	}
	env := append(os.Environ(), "JUMPSTARTER_HOST="+ours.addr, "JMP_GRPC_INSECURE=1", "JMP_DRIVERS_ALLOW=UNSAFE",
		"PATH="+filepath.Dir(b.env.Bin("j"))+":"+os.Getenv("PATH")) // jmp's j; jumplead's shell puts its own before it
	timed := func(memory *float64, argv ...string) func() (float64, error) {
		return func() (float64, error) {
			cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
			cmd.Env = env
			start := time.Now()
			if out, err := cmd.CombinedOutput(); err != nil {
				return 0, fmt.Errorf("%q: %w: %s", argv, err, out)
			}
			took := time.Since(start).Seconds()
			if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
				*memory = max(*memory, float64(usage.Maxrss)*1024)
			}
			return took, nil
		}
	}
	shell := []string{"shell", "--tls-grpc", ours.addr, "--tls-grpc-insecure", "--", "j", "power", "on"}
	var memory, theirs, rest float64
	m, err := b.interleave(
		timed(&memory, append([]string{jumplead}, shell...)...), timed(&theirs, append([]string{b.env.Bin("jmp")}, shell...)...),
		timed(&rest, j, "power", "on"), timed(&rest, b.env.Bin("j"), "power", "on"))
	if err != nil {
		return err
	}
	b.below("shell -- j power on, against the stock client", m[0], m[1], 1.0/25, "s")
	b.below("j power on, against the stock client", m[2], m[3], 1.0/20, "s")
	b.below("shell -- j power on, memory at its peak (RSS)", memory, theirs, 1.0/5, "B")
	return nil
}
