package app

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

func version(_ context.Context, p *program, args []string) error {
	fs := p.flags("version")
	if err := p.parse(fs, args, func(w io.Writer) { fmt.Fprintln(w, "Usage: jumplead version\n\nPrint the version.") }); err != nil {
		return err
	}
	v := "(unknown)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		v = info.Main.Version
	}
	fmt.Fprintf(p.Stdout, "jumplead %s %s %s/%s, %d drivers\n", v, runtime.Version(), runtime.GOOS, runtime.GOARCH, len(p.specs))
	return nil
}
