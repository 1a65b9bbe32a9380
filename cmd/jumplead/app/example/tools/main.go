//go:build linux

// Tools is a jumplead with a driver that runs commands of the harness for its
// callers: those that its config allows, with arguments that it allows.
//
// Callers have a method execute, which is what makes such a driver dangerous:
// whoever reaches the harness runs programs on it. What keeps it harmless is here:
//
//   - a caller names a command of the config, and no other runs;
//   - there is no shell: an argument is a part of one word of the command line,
//     whatever it holds;
//   - each argument has to match a pattern, as a whole, and begins with a dash only
//     where that is allowed, so that none becomes an option;
//   - the environment is not the exporter's, with what may be secret in it;
//   - a command's time is limited, and all its processes end with the call, or with
//     the session;
//   - of what it writes, a caller gets no more than so many bytes;
//   - the limits that a config sets (x-jumplead) bind it as they bind the scripts of
//     jumplead's own Shell: memory, processors, files and so on.
//
// The files: tools.go is the driver, contract.go what it is on the wire and in j,
// lab_client.py what it is to the Python clients.
package main

import (
	"context"
	"os"

	"github.com/jumplead/jumplead/cmd/jumplead/app"
	"github.com/jumplead/jumplead/drivers/all"
	"github.com/jumplead/jumplead/exporter/remote"
)

func main() {
	proc := app.OS()
	proc.Commands = all.Commands()
	proc.Commands[Contract.Client] = Commands
	os.Exit(app.Main(context.Background(), proc, append(all.Specs(), remote.Exporter, Allowed)...))
}
