package process

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxLine is how long a line of a program may be, in bytes.
const MaxLine = 8 << 10

// Lines makes lines of text of what a program prints, which may be anything. White
// space at their ends is left out, and so are blank ones; what is no UTF-8 is
// replaced.
type Lines struct {
	Emit func(line string)
	Cut  bool // the rest of a line that is too long is dropped, not told in pieces

	rest []byte // of a line that has not ended yet
	over bool   // it is one that is dropped
}

// Write never fails.
func (l *Lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	rest := l.rest
	for {
		line, after, ended := bytes.Cut(rest, []byte{'\n'})
		if !ended && len(line) <= MaxLine {
			break
		}
		if n := MaxLine; len(line) > n {
			for n > MaxLine-utf8.UTFMax && !utf8.RuneStart(line[n]) { // a character stays whole
				n--
			}
			line, after, ended = rest[:n], rest[n:], false
		}
		l.tell(line)
		l.over = l.Cut && !ended
		rest = after
	}
	l.rest = append(l.rest[:0], rest...)
	return len(p), nil
}

// Flush tells the last line, if it did not end.
func (l *Lines) Flush() {
	l.tell(l.rest)
	l.rest, l.over = nil, false
}

func (l *Lines) tell(line []byte) {
	if l.over {
		return
	}
	if s := strings.TrimRightFunc(strings.ToValidUTF8(string(line), "\uFFFD"), IsSpace); s != "" {
		l.Emit(s)
	}
}

// IsSpace reports whether Python takes a character for white space.
func IsSpace(r rune) bool { return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f }
