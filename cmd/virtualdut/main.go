// Virtualdut is a device under test that needs no bench: a supply rail, a serial console and a web page. Package
// [github.com/jumplead/jumplead/cmd/virtualdut/dut] describes the device and how to reach it; the command is run as
//
//	virtualdut --dir DIR [--tcp HOST:PORT] [--boot-time D] [--on]
//	virtualdut --dir DIR ask REQUEST
//
// The first serves until it is interrupted, and then exits with status 0. The second sends a request to the first's
// control socket and prints the answer: ask unplug uart 5.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/jumplead/jumplead/cmd/virtualdut/dut"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	defer stop()
	os.Exit(dut.Main(ctx, dut.Proc{Args: os.Args, Stdout: os.Stdout, Stderr: os.Stderr}))
}
