package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/jumplead/jumplead/drivers/driver"
	"gopkg.in/yaml.v3"
)

// document parses the only document of a file. It returns nil, having said why,
// when there is none that could safely be walked.
func (r *reader) document(text []byte) *yaml.Node {
	fail := func(offset int, format string, args ...any) *yaml.Node {
		line, column := place(text, offset)
		r.err(&yaml.Node{Line: line, Column: column}, format, args...)
		return nil
	}
	if len(text) > maxSize {
		r.problems = append(r.problems, driver.Problem{Pos: driver.Pos{File: r.file},
			Text: fmt.Sprintf("the file is larger than %d bytes, which no configuration is", maxSize)})
		return nil
	}
	text = bytes.TrimPrefix(text, []byte("\uFEFF"))
	if offset, what := unreadable(text); what != "" {
		return fail(offset, "%s", what)
	}
	text = plainDirectives(text)
	docs, err := parse(text)
	if err != nil {
		offset, what := diagnose(text, err)
		return fail(offset, "%s", what)
	}
	if len(docs) == 0 || len(docs) == 1 && null(docs[0]) {
		return fail(0, "the file is empty: an ExporterConfig needs at least metadata")
	}
	if len(docs) > 1 {
		r.err(docs[1], "a second document begins here: a file holds one ExporterConfig")
		return nil
	}
	if !r.walkable(docs[0]) {
		return nil
	}
	return docs[0].Content[0]
}

// place counts lines and columns, in characters, from 1.
func place(text []byte, offset int) (line, column int) {
	before := text[:min(offset, len(text))]
	start := bytes.LastIndexByte(before, '\n') + 1
	return bytes.Count(before, []byte("\n")) + 1, utf8.RuneCount(before[start:]) + 1
}

// unreadable finds what no YAML reader takes: bytes that are not UTF-8, and
// control characters. The parser would not say where they are.
func unreadable(text []byte) (offset int, what string) {
	if bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff")) {
		return 0, "the file is in UTF-16: save it as UTF-8"
	}
	for i := 0; i < len(text); {
		c, size := utf8.DecodeRune(text[i:])
		switch {
		case c == utf8.RuneError && size == 1:
			return i, fmt.Sprintf("the byte 0x%02x is not UTF-8: save the file as UTF-8", text[i])
		case c == '\t', c == '\n', c == '\r', c == 0x85:
		case unicode.IsControl(c), c == 0xFEFF, c == 0xFFFE, c == 0xFFFF:
			return i, fmt.Sprintf("the character %U must not be in a YAML file", c)
		}
		i += size
	}
	return 0, ""
}

// plainDirectives makes comments of the directives that do not matter: those
// for the version of YAML, which the parser refuses if it is not 1.1, and those
// that YAML does not know, which are to be skipped.
func plainDirectives(text []byte) []byte {
	if !bytes.Contains(text, []byte("%")) {
		return text
	}
	text = bytes.Clone(text)
	for rest := text; len(rest) > 0; {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte("\n"))
		words := bytes.Fields(line)
		switch {
		case len(words) == 0 || line[0] == '#':
		case line[0] != '%':
			return text
		case string(words[0]) == "%YAML" && len(words) > 1 && bytes.HasPrefix(words[1], []byte("1.")),
			string(words[0]) != "%YAML" && string(words[0]) != "%TAG":
			line[0] = '#'
		}
	}
	return text
}

// parse reads up to two documents: one is too many.
func parse(text []byte) (docs []*yaml.Node, err error) {
	defer func() {
		// The parser is not ours, and panics where it thinks that it is wrong.
		if p := recover(); p != nil {
			err = fmt.Errorf("yaml: %v", p)
		}
	}()
	// The parser names lines only beyond the first, so that there has to be one
	// more.
	dec := yaml.NewDecoder(io.MultiReader(strings.NewReader("\n"), bytes.NewReader(text)))
	for len(docs) < 2 {
		n := new(yaml.Node)
		switch err := dec.Decode(n); {
		case errors.Is(err, io.EOF):
			return docs, nil
		case err != nil:
			return nil, err
		}
		shift(n)
		docs = append(docs, n)
	}
	return docs, nil
}

// shift takes back the line that parse put in front.
func shift(n *yaml.Node) {
	n.Line--
	for _, c := range n.Content {
		shift(c)
	}
}

// diagnose finds where the parser gave up, and says why in other words. What
// the parser itself says of the place is the line of the construct it was in,
// one off or none, so it is asked again: the place is the end of the shortest
// beginning of the text that fails in the same way.
func diagnose(text []byte, err error) (offset int, what string) {
	same := func(n int) bool {
		_, e := parse(text[:n])
		return e != nil && e.Error() == err.Error()
	}
	var ends []int // of the lines
	for i, c := range text {
		if c == '\n' {
			ends = append(ends, i+1)
		}
	}
	ends = append(ends, len(text))
	line := sort.Search(len(ends)-1, func(i int) bool { return same(ends[i]) })
	start, end := 0, ends[line]
	if line > 0 {
		start = ends[line-1]
	}
	offset = start + sort.Search(end-start, func(i int) bool { return same(start + i) })
	offset = max(offset-1, start) // of the last character that it takes
	for offset > start && !utf8.RuneStart(text[offset]) {
		offset--
	}
	for offset > start && offset < len(text) && !bytes.ContainsRune([]byte(" \t\r\n[{,"), rune(text[offset])) &&
		!bytes.ContainsRune([]byte(" \t[{,"), rune(text[offset-1])) {
		offset-- // to the beginning of its word
	}
	c, _ := utf8.DecodeRune(text[min(offset, len(text)):])
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(message, "line "); ok {
		_, message, _ = strings.Cut(rest, ": ")
	}
	return offset, reword(message, c)
}

// reword says what the parser says for those who do not know its grammar; c is
// where it gave up.
func reword(message string, c rune) string {
	is := func(part string) bool { return strings.Contains(message, part) }
	switch {
	case is("tab character"), is("cannot start any token") && c == '\t':
		return "a tab stands where YAML wants spaces"
	case is("cannot start any token"):
		return fmt.Sprintf("text cannot begin with %c: put it in quotes", c)
	case is("mapping values are not allowed"):
		return `a second "key: value" begins here: put a text with ": " in it in quotes, and look at the indentation`
	case is("did not find expected key"):
		return "a key is expected here: look at the indentation, and for text behind a closing quote"
	case is("did not find expected '-' indicator"):
		return `an item of a list, "- ", is expected here: look at the indentation`
	case is("could not find expected ':'"):
		return `this is neither "key: value" nor part of the text above: look at the colon and at the indentation`
	case is("did not find expected ',' or ']'"):
		return "this [ list ] lacks a comma or its end"
	case is("did not find expected ',' or '}'"):
		return "this { mapping } lacks a comma or its end"
	case is("found unexpected end of stream"):
		return "the quotes that open here are never closed"
	case is("found unknown escape character"):
		return `\ escapes a character that it cannot: text with backslashes is best in single quotes`
	case is("block sequence entries are not allowed"):
		return `"- " is out of place: a list begins in a line of its own`
	case is("did not find expected node content") && (c == '[' || c == '{'):
		return fmt.Sprintf("the %c that opens here is never closed", c)
	case is("did not find expected node content"):
		return "a value is expected here"
	case is("unknown anchor"):
		name, _, _ := strings.Cut(strings.TrimPrefix(message, "unknown anchor '"), "' referenced")
		return fmt.Sprintf("*%s: no anchor &%s stands before it", name, name)
	case is("incompatible YAML document"):
		return "this version of YAML is not known; 1.1 is"
	case is("exceeded max depth"):
		return "values nest too deeply"
	}
	return "YAML: " + message
}

// maxNodes bounds how many values a file may hold when each alias counts as
// much as what it stands for. Aliases of aliases would fill any memory.
const maxNodes = 1_000_000

// walkable reports whether a document can be walked like a tree: its aliases
// neither go in circles nor multiply without end, and its tags are known.
func (r *reader) walkable(doc *yaml.Node) bool {
	ok := true
	bad := func(n *yaml.Node, format string, args ...any) {
		r.err(n, format, args...)
		ok = false
	}
	sizes := map[*yaml.Node]int{} // of what was visited; 0 during the visit
	var size func(*yaml.Node) int
	size = func(n *yaml.Node) int {
		s, seen := sizes[n]
		if seen {
			return s
		}
		sizes[n] = 0
		if n.Style&yaml.TaggedStyle != 0 && !knownTag[n.Tag] {
			bad(n, "the tag %s is not known", n.Tag)
		}
		s = 1
		if a := n.Alias; a != nil {
			if s = size(a); s == 0 {
				bad(n, "*%s stands for something that it is itself a part of", n.Value)
			}
		}
		for _, c := range n.Content {
			s = min(s+size(c), maxNodes+1)
		}
		sizes[n] = s
		return s
	}
	if size(doc) > maxNodes {
		bad(doc.Content[0], "with all aliases followed, this is more than %d values", maxNodes)
	}
	return ok
}

// knownTag has the tags that the Python exporter's reader takes.
var knownTag = map[string]bool{"!!map": true, "!!seq": true, "!!str": true, "!!int": true, "!!float": true, "!!bool": true,
	"!!null": true, "!!timestamp": true, "!!binary": true, "!!merge": true, "!!set": true, "!!omap": true, "!!pairs": true}
