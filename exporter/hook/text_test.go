package hook

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// told is what lines makes of a text that is written in pieces.
func told(text []byte, cuts ...int) (got []string) {
	l := &lines{emit: func(s string) { got = append(got, s) }}
	at := 0
	for _, c := range append(cuts, len(text)) {
		c = min(max(c, at), len(text))
		_, _ = l.Write(text[at:c])
		at = c
	}
	l.flush()
	return got
}

func TestLines(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	for in, want := range map[string][]string{
		"":                                       nil,
		"\n\r\n \t\n":                            nil,
		"a":                                      {"a"},
		"a\r\n b \n\nc":                          {"a", " b", "c"},
		"a\rb\n":                                 {"a\rb"},
		"\xe2\x82\xac\xff\n":                     {"€\uFFFD"},
		long + "\n":                              {long},
		long:                                     {long},
		long + "y\nz":                            {long, "y", "z"},
		long[1:] + "€\n":                         {long[1:], "€"},
		long + long + "€ \nb\n":                  {long, long, "€", "b"},
		long[2:] + "\xe2\x82\xac" + "\x82\x82\n": {long[2:], "€\uFFFD"},
	} {
		for _, cuts := range [][]int{nil, {1}, {1, 2, 3}, {maxLine - 1}, {maxLine}, {maxLine + 1, maxLine + 2}} {
			if got := told([]byte(in), cuts...); !slices.Equal(got, want) {
				t.Errorf("lines of %.20q (%d bytes) cut at %v = %.20q; want %.20q", in, len(in), cuts, got, want)
			}
		}
	}
}

// FuzzLines writes what a hook may say, in pieces.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\r\n b\n\nc"), 2, 4)
	f.Add([]byte(strings.Repeat("€", maxLine)), 5, maxLine+1)
	f.Add([]byte("\xe2\x82\n\xff\xfe"), 1, 3)
	f.Fuzz(func(t *testing.T, p []byte, i, j int) {
		whole := told(p)
		for _, s := range whole {
			if !utf8.ValidString(s) || strings.Contains(s, "\n") || len(s) > 3*maxLine || strings.TrimRightFunc(s, space) != s || s == "" {
				t.Fatalf("lines of %q = %q; want short lines of text without blanks at their ends", p, s)
			}
		}
		if got := told(p, i, j); !slices.Equal(got, whole) {
			t.Fatalf("lines of %q cut at %d, %d = %q; want %q", p, i, j, got, whole)
		}
	})
}

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
		if err != nil || !utf8.ValidString(got) || len(got) > 3*maxMOTD || strings.TrimFunc(got, space) != got {
			t.Fatalf("readMOTD() of %q = %q, %v; want trimmed text", p, got, err)
		}
		if len(p) <= maxMOTD && utf8.Valid(p) && got != strings.TrimFunc(string(p), space) {
			t.Fatalf("readMOTD() of %q = %q; want it as it is", p, got)
		}
	})
}
