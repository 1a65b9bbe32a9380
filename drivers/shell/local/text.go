package local

import (
	"strings"
	"unicode/utf8"
)

// whole is how many of these bytes can be made text of now: all but the
// beginning of a character at their end, of which more may come.
func whole(p []byte) int {
	for k := 1; k < utf8.UTFMax && k <= len(p); k++ {
		if !utf8.FullRune(p[len(p)-k:]) {
			return len(p) - k
		}
	}
	return len(p)
}

// text makes text of bytes. As in the Python exporter, and as the Unicode
// standard recommends, one U+FFFD stands for every longest beginning of a
// character that does not go on, and for every other byte out of place.
func text(p []byte) string {
	if utf8.Valid(p) {
		return string(p)
	}
	var b strings.Builder
	b.Grow(len(p))
	for len(p) > 0 {
		r, n := utf8.DecodeRune(p)
		if r == utf8.RuneError && n == 1 {
			for n < len(p) && !utf8.FullRune(p[:n]) && !utf8.FullRune(p[:n+1]) {
				n++
			}
		}
		b.WriteRune(r)
		p = p[n:]
	}
	return b.String()
}
