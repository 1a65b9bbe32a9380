package dut

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// Proc is what the command has of a process, in the manner of [os/exec.Cmd].
type Proc struct {
	Args   []string // with the command's name first
	Stdout io.Writer
	Stderr io.Writer
}

// ready is what the command tells when it serves.
type ready struct {
	Control string `json:"control"`
	UART    string `json:"uart"`
	TCP     string `json:"tcp"`
}

// Main is the command virtualdut. It runs until ctx is done, and returns the exit status: 0, or 1 when the device
// cannot be started, 2 when it is called in the wrong way. With the arguments ask REQUEST it sends that to the device that
// runs in the directory, and ends.
func Main(ctx context.Context, p Proc) int {
	var o Options
	name, args := "virtualdut", []string(nil)
	if len(p.Args) > 0 {
		name, args = p.Args[0], p.Args[1:]
	}
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(p.Stderr)
	flags.StringVar(&o.Dir, "dir", "", "the device's `directory`, for control.sock and uart")
	flags.StringVar(&o.TCP, "tcp", "127.0.0.1:0", "`host:port` of the web page, on loopback; port 0 takes a free one")
	flags.DurationVar(&o.BootTime, "boot-time", DefaultBootTime, "`time` from power on to the prompt")
	on := flags.Bool("on", false, "switch the rail on at once")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	ask := flags.NArg() > 1 && flags.Arg(0) == "ask"
	if o.Dir == "" || flags.NArg() > 0 && !ask {
		fmt.Fprintf(p.Stderr, "%s: want --dir, and no arguments or ask REQUEST\n", name)
		flags.Usage()
		return 2
	}
	if ask {
		s, err := Ask(ctx, o.Dir, strings.Join(flags.Args()[1:], " "))
		if err == nil {
			err = json.NewEncoder(p.Stdout).Encode(s)
		}
		if err != nil {
			fmt.Fprintf(p.Stderr, "%s: %v\n", name, err)
			return 1
		}
		return 0
	}
	o.Log = slog.New(slog.NewTextHandler(p.Stderr, nil))
	if err := serveUntil(ctx, o, *on, p.Stdout); err != nil {
		fmt.Fprintf(p.Stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}

func serveUntil(ctx context.Context, o Options, on bool, stdout io.Writer) (err error) {
	d, err := Start(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if on {
		d.On()
	}
	line, err := json.Marshal(ready{d.Control(), d.UART(), d.TCP()})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(stdout, "ready %s\n", line); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
