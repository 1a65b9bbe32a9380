package app

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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

// TestLines has several writers, some of which do not finish their lines.
func TestLines(t *testing.T) {
	var out strings.Builder
	l := &lines{w: &out}
	a, b := l.prefixed("console"), l.prefixed("")
	for _, step := range []struct {
		w    io.Writer
		text string
	}{{a, "one\r\ntw"}, {a, "o\r\ndut# "}, {b, "plain\nhalf"}, {a, "three\n"}, {a, "four"}} {
		if n, err := io.WriteString(step.w, step.text); n != len(step.text) || err != nil {
			t.Errorf("WriteString(%q) = %d, %v; want all", step.text, n, err)
		}
	}
	l.prompt("j power on")
	l.say("a\nb")
	want := "  console | one\n  console | two\n  console | dut# \nplain\nhalf\n  console | three\n  console | four\n$ j power on\n\n# a\n# b\n"
	if got := out.String(); got != want {
		t.Errorf("lines show %q; want %q", got, want)
	}
}

// TestTranscript awaits what is there, what comes, and what does not.
func TestTranscript(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, end := newTranscript(), make(chan struct{})
		io.WriteString(s, "one two one")
		if err := s.await(t.Context(), end, "one", "one"); err != nil {
			t.Errorf("await(one, one) = %v; want nil", err)
		}
		go func() {
			time.Sleep(time.Second)
			io.WriteString(s, " th")
			time.Sleep(time.Second)
			io.WriteString(s, "ree")
		}()
		if err := s.await(t.Context(), end, "three"); err != nil {
			t.Errorf("await(three) = %v; want nil", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.await(ctx, end, "one"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("await(one) of what was awaited before = %v; want a deadline", err)
		}
		go func() {
			time.Sleep(time.Second)
			io.WriteString(s, "last words")
			close(end)
		}()
		if err := s.await(t.Context(), end, "last", "words"); err != nil {
			t.Errorf("await(last, words) = %v; want nil", err)
		}
		if err := s.await(t.Context(), end, "more"); err == nil || !strings.Contains(err.Error(), `ended without "more"`) {
			t.Errorf("await(more) after the end = %v; want that it has ended", err)
		}
	})
}
