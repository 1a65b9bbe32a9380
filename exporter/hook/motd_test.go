package hook

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jumplead/jumplead/hw/process"
)

// FuzzMOTD reads what a hook may leave.
func FuzzMOTD(f *testing.F) {
	f.Add([]byte(" hello\n\n"))
	f.Add([]byte(strings.Repeat("€", maxMOTD)))
	f.Add([]byte("\x00\xff"))
	path := filepath.Join(f.TempDir(), "motd")
	f.Fuzz(func(t *testing.T, p []byte) {
		if err := os.WriteFile(path, p, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readMOTD(path)
		if err != nil || !utf8.ValidString(got) || len(got) > 3*maxMOTD || strings.TrimFunc(got, process.IsSpace) != got {
			t.Fatalf("readMOTD() of %q = %q, %v; want trimmed text", p, got, err)
		}
		if len(p) <= maxMOTD && utf8.Valid(p) && got != strings.TrimFunc(string(p), process.IsSpace) {
			t.Fatalf("readMOTD() of %q = %q; want it as it is", p, got)
		}
	})
}
