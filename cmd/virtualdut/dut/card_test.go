package dut

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLoad(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 1<<20)
	for _, test := range []struct{ content, want string }{
		{"", "factory firmware 1.0"},
		{"x", `image "x"`},
		{"first line\nsecond", `image "first line"`},
		{"first line\r\nsecond", `image "first line"`},
		{strings.Repeat("x", nameMax), `image "` + strings.Repeat("x", nameMax) + `"`},
		{strings.Repeat("x", nameMax) + "\n", `image "` + strings.Repeat("x", nameMax) + `"`},
		{strings.Repeat("x", nameMax+1), "image"},
		{"\xeb\x3c\x90mkfs.fat\n", "image"},
		{"\x1b[2Jboo\n", "image"},
		{"\n\nlate", "image"},
		{"1234\n", "image"},
		{big, "image"},
	} {
		c, err := newCard(filepath.Join(t.TempDir(), "card"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(c.path, []byte(test.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if test.content != "" {
			sum := sha256.Sum256([]byte(test.content))
			test.want += fmt.Sprintf(", %d bytes, sha256 %x", len(test.content), sum[:6])
		}
		if got, err := c.load(t.Context()); err != nil || got.String() != test.want {
			t.Errorf("load() of %.70q = %v, %v; want %s", test.content, got, err, test.want)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.load(ctx); test.content != "" && !errors.Is(err, context.Canceled) {
			t.Errorf("load() of %.70q without power = %v; want it cancelled", test.content, err)
		}
	}
	if _, err := (card{filepath.Join(t.TempDir(), "card")}).load(t.Context()); err == nil || err.Error() != "the card is gone" {
		t.Errorf("load() without a file = %v; want the card gone", err)
	}
}

// TestCardKeeps puts the device away and takes it out again.
func TestCardKeeps(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "card")
	for _, name := range []string{".card.partial-0123abcd", "notes", ".cards.partial-1"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := newCard(path)
	if err != nil {
		t.Fatal(err)
	}
	left := func() string {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(entries)
	}
	if got, want := left(), "[- .cards.partial-1 - card - notes]"; got != want {
		t.Errorf("with a new card the directory has %s; want %s", got, want)
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Errorf("Close() = %v; want nil", err)
		}
	}
	if got, want := left(), "[- .cards.partial-1 - notes]"; got != want {
		t.Errorf("without an empty card the directory has %s; want %s", got, want)
	}
	if err := os.WriteFile(path, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if c, err = newCard(path); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "kept" {
		t.Errorf("ReadFile() = %q, %v; want what was on the card", b, err)
	}
}
