package local

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// TestText holds what Python's decoder makes of these, with errors="replace".
func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"":                             "",
		"plain\x00\r\n":                "plain\x00\r\n",
		"é€😀\uFFFD":                    "é€😀\uFFFD",
		"\xff\xfe":                     "\uFFFD\uFFFD",
		"a\x80b":                       "a\uFFFDb",
		"\xc3(":                        "\uFFFD(",
		"\xe2\x82(":                    "\uFFFD(",
		"\xf0\x9f\x98(":                "\uFFFD(",
		"\xe2\x82":                     "\uFFFD",
		"\xf0\x9f\x98":                 "\uFFFD",
		"\xc0\xaf":                     "\uFFFD\uFFFD",             // too long a form of '/'
		"\xe0\x80\xaf":                 "\uFFFD\uFFFD\uFFFD",       // and a longer one
		"\xed\xa0\x80":                 "\uFFFD\uFFFD\uFFFD",       // a surrogate
		"\xf4\x90\x80\x80":             "\uFFFD\uFFFD\uFFFD\uFFFD", // beyond U+10FFFF
		"\xf1\x80\xe1\x80\xc2b\x80c":   "\uFFFD\uFFFD\uFFFDb\uFFFDc",
		"\xe2\x82\xe2\x82\xac\xe2\x82": "\uFFFD€\uFFFD",
	} {
		if got := text([]byte(in)); got != want {
			t.Errorf("text(%q) = %q; want %q", in, got, want)
		}
	}
}

func TestWhole(t *testing.T) {
	for in, want := range map[string]int{
		"":                 0,
		"a":                1,
		"a\xe2":            1,
		"a\xe2\x82":        1,
		"a\xe2\x82\xac":    4,
		"\xf0\x9f\x98":     0,
		"a\xf0\x9f\x98":    1,
		"a\xff":            2, // no character begins so
		"a\x82\xac":        3,
		"\xed\xa0":         2, // a surrogate will not become one
		"\xe2\xe2\x82":     1,
		"\xf0\x9f\x98\x0e": 4,
	} {
		if got := whole([]byte(in)); got != want {
			t.Errorf("whole(%q) = %d; want %d", in, got, want)
		}
	}
}

// FuzzText reads bytes as they may come from a pipe, in pieces.
func FuzzText(f *testing.F) {
	f.Add([]byte("a€😀\n"), 2, 5)
	f.Add([]byte("\xe2\x82\xe2\x82\xac\xf0\x9f\x98"), 1, 3)
	f.Fuzz(func(t *testing.T, p []byte, i, j int) {
		want := text(p)
		if !utf8.ValidString(want) {
			t.Fatalf("text(%q) = %q; want valid UTF-8", p, want)
		}
		if utf8.Valid(p) && want != string(p) {
			t.Fatalf("text(%q) = %q; want it as it is", p, want)
		}
		i, j = i&0xff, j&0xff
		i, j = min(i, len(p)), min(max(i, j), len(p))
		var got strings.Builder
		var kept []byte
		for _, piece := range [][]byte{p[:i], p[i:j], p[j:]} {
			kept = append(kept, piece...)
			cut := whole(kept)
			if cut < len(kept)-utf8.UTFMax+1 {
				t.Fatalf("whole(%q) = %d; want all but a part of a character", kept, cut)
			}
			got.WriteString(text(kept[:cut]))
			kept = kept[cut:]
		}
		if got.WriteString(text(kept)); got.String() != want {
			t.Fatalf("text(%q) in pieces at %d, %d = %q; want %q", p, i, j, &got, want)
		}
	})
}
