package hook

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxLine is how long a line may be, in bytes; a longer one is told in pieces.
const maxLine = 8 << 10

// lines makes lines of what is written to it. Blank ones are dropped.
type lines struct {
	emit func(string)
	rest []byte // of a line that has not ended yet
}

func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	rest := l.rest
	for {
		line, after, ok := bytes.Cut(rest, []byte{'\n'})
		if !ok && len(line) <= maxLine {
			break
		}
		if n := maxLine; len(line) > n {
			for n > maxLine-utf8.UTFMax && !utf8.RuneStart(line[n]) { // a character stays whole
				n--
			}
			line, after = rest[:n], rest[n:]
		}
		l.tell(line)
		rest = after
	}
	l.rest = append(l.rest[:0], rest...)
	return len(p), nil
}

// flush tells the last line, if it did not end.
func (l *lines) flush() {
	l.tell(l.rest)
	l.rest = nil
}

func (l *lines) tell(line []byte) {
	if s := strings.TrimRightFunc(text(line), space); s != "" {
		l.emit(s)
	}
}

// text makes text of bytes.
func text(p []byte) string { return strings.ToValidUTF8(string(p), "\uFFFD") }

// space is what Python takes for white space.
func space(r rune) bool { return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f }
