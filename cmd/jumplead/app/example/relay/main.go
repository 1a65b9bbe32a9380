// main.go

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
	os.Exit(app.Main(context.Background(), proc, append(all.Specs(), remote.Exporter, Relay)...))
}
