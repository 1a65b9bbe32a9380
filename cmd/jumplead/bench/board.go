package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// board measures what the wire adds to a line of a GPIO chip, which the kernel
// of the virtual machine simulates. Both sides run there: an emulated processor
// is slower than ours, and has other ratios.
func (b *bench) board(ctx context.Context) error {
	if !b.wanted("board") {
		return nil
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		fmt.Fprintln(os.Stderr, "board: left out:", err)
		return nil
	}
	vm := filepath.Join(b.build, "vm")
	build := exec.CommandContext(ctx, "go", "build", "-o", vm, "./cmd/vm")
	build.Dir, build.Env = b.root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build ./cmd/vm: %w: %s", err, out)
	}
	test := exec.CommandContext(ctx, "go", "test", "-exec", vm, "-run", "^$", "-bench", "^BenchmarkWire$",
		"-benchtime", fmt.Sprintf("%dx", 300*b.rounds), "./cmd/jumplead/interop/devices")
	test.Dir, test.Stderr = b.root, os.Stderr
	out, err := test.Output()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(test.Args, " "), err, out)
	}
	found := 0
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		method, ok := strings.CutPrefix(fields[0], "BenchmarkWire/")
		if !ok {
			continue
		}
		method, _, _ = strings.Cut(method, "-") // and the number of processors
		values := map[string]float64{}
		for i := 2; i+1 < len(fields); i += 2 { // after the number of rounds
			if values[fields[i+1]], err = strconv.ParseFloat(fields[i], 64); err != nil {
				return fmt.Errorf("board: %q: %w", line, err)
			}
		}
		b.below("GPIO "+method+", Go client, against the system call and a bare call, virtual machine",
			values["wire-ns"]/1e9, (values["bare-call-ns"]+values["ioctl-ns"])/1e9, 1.3, "s")
		found++
	}
	if found == 0 {
		return fmt.Errorf("board: no result in: %s", out)
	}
	return nil
}
