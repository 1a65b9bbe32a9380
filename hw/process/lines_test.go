package process

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// told is what is made of a text that is written in pieces.
func told(l Lines, text []byte, cuts ...int) (got []string) {
	l.Emit = func(s string) { got = append(got, s) }
	at := 0
	for _, c := range append(cuts, len(text)) {
		c = min(max(c, at), len(text))
		_, _ = l.Write(text[at:c])
		at = c
	}
	l.Flush()
	return got
}

func TestLines(t *testing.T) {
	long := strings.Repeat("x", MaxLine)
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
		for _, cuts := range [][]int{nil, {1}, {1, 2, 3}, {MaxLine - 1}, {MaxLine}, {MaxLine + 1, MaxLine + 2}} {
			if got := told(Lines{}, []byte(in), cuts...); !slices.Equal(got, want) {
				t.Errorf("lines of %.20q (%d bytes) cut at %v = %.20q; want %.20q", in, len(in), cuts, got, want)
			}
		}
	}
}

// Of lines that are too long there is the beginning.
func TestLinesCut(t *testing.T) {
	long := strings.Repeat("x", MaxLine)
	for in, want := range map[string][]string{
		"a\n" + long + "\nb":                 {"a", long, "b"},
		"a\n" + long + "y\nb\n":              {"a", long, "b"},
		long + long + long + long + "y\nb\n": {long, "b"},
		long + long + "y":                    {long},
		long[1:] + "€y\nb":                   {long[1:], "b"},
	} {
		for _, cuts := range [][]int{nil, {1}, {MaxLine - 1}, {MaxLine}, {MaxLine + 1, MaxLine + 2}, {2 * MaxLine, 3*MaxLine + 5}} {
			if got := told(Lines{Cut: true}, []byte(in), cuts...); !slices.Equal(got, want) {
				t.Errorf("lines of %.20q (%d bytes) cut at %v = %.20q; want %.20q", in, len(in), cuts, got, want)
			}
		}
	}
}

// FuzzLines writes what a program may say, in pieces.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\r\n b\n\nc"), 2, 4)
	f.Add([]byte(strings.Repeat("€", MaxLine)), 5, MaxLine+1)
	f.Add([]byte("\xe2\x82\n\xff\xfe"), 1, 3)
	f.Fuzz(func(t *testing.T, p []byte, i, j int) {
		whole := told(Lines{}, p)
		for _, s := range whole {
			if !utf8.ValidString(s) || strings.Contains(s, "\n") || len(s) > 3*MaxLine || strings.TrimRightFunc(s, IsSpace) != s || s == "" {
				t.Fatalf("lines of %q = %q; want short lines of text without blanks at their ends", p, s)
			}
		}
		cut := told(Lines{Cut: true}, p)
		if again := told(Lines{Cut: true}, p, i, j); !slices.Equal(again, cut) {
			t.Fatalf("lines of %q, cut short, in pieces of %d, %d = %q; want %q", p, i, j, again, cut)
		}
		if got := told(Lines{}, p, i, j); !slices.Equal(got, whole) {
			t.Fatalf("lines of %q cut at %d, %d = %q; want %q", p, i, j, got, whole)
		}
	})
}
