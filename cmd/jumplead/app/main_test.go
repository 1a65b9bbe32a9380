package app_test

import (
	"context"
	"os"
	"testing"

	"github.com/jumplead/jumplead/cmd/jumplead/app"
	"github.com/jumplead/jumplead/drivers/all"
)

// asProgram makes the test's own file be jumplead, and j where it is called so:
// for programs that hooks and scripts start.
const asProgram = "JUMPLEAD_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		proc := app.OS()
		proc.Commands = all.Commands()
		os.Exit(app.Main(context.Background(), proc, all.Specs()...))
	}
	os.Exit(m.Run())
}
