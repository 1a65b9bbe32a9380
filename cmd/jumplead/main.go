// Jumplead is the exporter of a test harness. See the README for its use.
package main

import (
	"context"
	"os"

	"github.com/jumplead/jumplead/cmd/jumplead/app"
	"github.com/jumplead/jumplead/drivers/all"
)

func main() {
	os.Exit(app.Main(context.Background(), app.OS(), all.Specs()...))
}
