package app

import (
	"context"
	"fmt"
	"reflect"
	"runtime"
	"runtime/debug"
	"strings"
)

const versionHelp = `Print what this program is: its version and build, the machine that it is made
for, and the drivers and the hardware support in it.`

// build is what the program is, as --json prints it.
type build struct {
	Version  string   `json:"version"`            // of jumplead
	Program  *module  `json:"program,omitempty"`  // what it was built into, if that is another
	Revision string   `json:"revision,omitempty"` // of the program's source
	Time     string   `json:"time,omitempty"`     // of the revision
	Modified bool     `json:"modified"`           // the source was not quite that revision
	Go       string   `json:"go"`
	Target   string   `json:"target"` // operating system and architecture
	Cgo      bool     `json:"cgo"`
	Hardware []string `json:"hardware"` // the buses that drivers can use
	Missing  []string `json:"missing"`  // those that this build has no support for
	Drivers  []string `json:"drivers"`
	Own      []string `json:"ownDrivers"` // those of them that are not jumplead's
}

func version(_ context.Context, p *program, args []string) error {
	var asJSON, verbose bool
	fs := p.flags("version")
	fs.BoolVar(&asJSON, "json", false, "print JSON, for programs")
	fs.BoolVar(&verbose, "verbose", false, "list the drivers")
	if err := p.parse(fs, args, commandHelp(fs, "version [OPTIONS]", versionHelp)); err != nil {
		return err
	}
	b := p.build()
	if asJSON {
		return printJSON(p.Stdout, b)
	}
	fmt.Fprintf(p.Stdout, "jumplead %s\n", b.Version)
	if b.Program != nil {
		fmt.Fprintf(p.Stdout, "program   %s\n", strings.TrimSpace(b.Program.Path+" "+b.Program.Version))
	}
	if b.Revision != "" {
		modified := ""
		if b.Modified {
			modified = ", modified"
		}
		fmt.Fprintf(p.Stdout, "revision  %s of %s%s\n", b.Revision, b.Time, modified)
	}
	cgo := ""
	if b.Cgo {
		cgo = ", with cgo"
	}
	fmt.Fprintf(p.Stdout, "built     with %s for %s%s\n", b.Go, b.Target, cgo)
	hardware := orNone(b.Hardware)
	if len(b.Missing) > 0 {
		hardware += "; not " + strings.Join(b.Missing, ", ")
	}
	fmt.Fprintf(p.Stdout, "hardware  %s\ndrivers   %d", hardware, len(b.Drivers))
	if len(b.Own) > 0 {
		fmt.Fprintf(p.Stdout, "; of the program's own %s", strings.Join(b.Own, ", "))
	}
	fmt.Fprintln(p.Stdout)
	if verbose {
		for _, d := range b.Drivers {
			fmt.Fprintf(p.Stdout, "  %s\n", d)
		}
	}
	return nil
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

func (p *program) build() build {
	b := build{Version: "(unknown)", Go: runtime.Version(), Target: runtime.GOOS + "/" + runtime.GOARCH,
		Hardware: []string{}, Missing: []string{}, Drivers: []string{}}
	main := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		main = info.Main.Path
		var version string
		if version, b.Program = versions(info); version != "" {
			b.Version = version
		}
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Revision = s.Value
			case "vcs.time":
				b.Time = s.Value
			case "vcs.modified":
				b.Modified = s.Value == "true"
			case "CGO_ENABLED":
				b.Cgo = s.Value == "1"
			}
		}
	}
	// The interfaces of a host are its buses; one that it lacks is nil.
	host := reflect.ValueOf(p.Host)
	for i := range host.NumField() {
		name := strings.ToLower(host.Type().Field(i).Name)
		if host.Field(i).Kind() != reflect.Interface { // what the board calls them
			continue
		}
		if host.Field(i).IsNil() {
			b.Missing = append(b.Missing, name)
		} else {
			b.Hardware = append(b.Hardware, name)
		}
	}
	for _, s := range p.specs {
		b.Drivers = append(b.Drivers, s.Type)
	}
	b.Own = ownDrivers(p.specs, main)
	return b
}
