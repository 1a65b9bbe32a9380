package manners_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/cmd/jumplead/app"
	"github.com/jumplead/jumplead/drivers/all"
)

// asProgram makes the test's own file be jumplead.
const asProgram = "JUMPLEAD_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(app.Main(context.Background(), app.OS(), all.Specs()...))
	}
	os.Exit(m.Run())
}

const head = `apiVersion: jumpstarter.dev/v1alpha1
kind: ExporterConfig
metadata: {namespace: default, name: bench}
endpoint: ""
token: ""
export:
`

// probe runs check --probe on a config, on this machine.
func probe(t *testing.T, config string) (status int, stdout string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(config), 0o666); err != nil {
		t.Fatal(err)
	}
	var out, stderr bytes.Buffer
	proc := app.OS()
	proc.Args, proc.Stdin, proc.Stdout, proc.Stderr = []string{"jumplead", "check", "--probe", file}, strings.NewReader(""), &out, &stderr
	proc.Signals = false
	status = app.Main(t.Context(), proc, all.Specs()...)
	if stderr.Len() > 0 {
		t.Errorf("check --probe says on stderr %q; want nothing", stderr.String())
	}
	return status, out.String()
}
