package app

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/jumplead/jumplead/exporter/config"
)

// TestFillIn gives the demo places that need quoting.
func TestFillIn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), `it's "here" \ and $there`)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "harness.yaml")
	if err := os.WriteFile(path, []byte(fillIn(dir, "/it's/jumplead", "127.0.0.1:4711")), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, problems, err := config.Load(path, func(string) string { return "" })
	if err != nil || len(problems) > 0 {
		t.Fatalf("Load() = %v, %v; want neither problem nor error", problems, err)
	}
	values := map[string]string{}
	for _, n := range cfg.Export.Children {
		if n.Config == nil {
			continue
		}
		for i := 0; i+1 < len(n.Config.Content); i += 2 {
			values[n.Name+"."+n.Config.Content[i].Value] = n.Config.Content[i+1].Value
		}
		if n.Name == "bench" {
			unplug := n.Config.Content[1].Content[1].Content[3].Value
			want := `'/it'\''s/jumplead' demo --dut '` + filepath.Dir(dir) + `/it'\''s "here" \ and $there' unplug uart "$@"`
			if unplug != want {
				t.Errorf("bench.unplug = %s; want %s", unplug, want)
			}
		}
	}
	for key, want := range map[string]string{
		"power.socket":   dir + "/control.sock",
		"storage.socket": dir + "/control.sock",
		"serial.url":     dir + "/uart",
		"tcp.port":       "4711",
	} {
		if values[key] != want {
			t.Errorf("%s = %q; want %q", key, values[key], want)
		}
	}
}
