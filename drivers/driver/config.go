package driver

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/jumplead/jumplead/hw"
	"gopkg.in/yaml.v3"
)

// Pos is a place in a configuration file. Lines and columns count from 1.
type Pos struct {
	File         string
	Line, Column int
}

func (p Pos) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.File == "":
		return fmt.Sprintf("%d:%d", p.Line, p.Column)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Problem is something wrong, or merely odd, with a configuration.
type Problem struct {
	Pos     Pos
	Warning bool // the file works all the same
	Text    string

	Node     string // path of the instance that it is about, or ""
	Unread   bool   // a warning of a key that nobody reads: who checks a file takes it for a typo
	Upstream string // what the Python exporter makes of it without a word, or ""
}

func (p Problem) String() string {
	var b strings.Builder
	if at := p.Pos.String(); at != "" {
		b.WriteString(at + ": ")
	}
	if p.Warning {
		b.WriteString("warning: ")
	}
	b.WriteString(strings.Map(func(c rune) rune { // names and values of a file may hold anything
		if unicode.IsControl(c) {
			return '\uFFFD'
		}
		return c
	}, p.Text))
	return b.String()
}

// Problems is all that was found, in the order of the file.
type Problems []Problem

// Err is an error with every problem that is not a warning, one a line, or nil.
func (p Problems) Err() error {
	var errs []error
	for _, x := range p {
		if !x.Warning {
			errs = append(errs, errors.New(x.String()))
		}
	}
	return errors.Join(errs...)
}

// Warnings are the problems with which the file works all the same.
func (p Problems) Warnings() Problems {
	var out Problems
	for _, x := range p {
		if x.Warning {
			out = append(out, x)
		}
	}
	return out
}

// Sort orders problems by file and place.
func (p Problems) Sort() {
	slices.SortStableFunc(p, func(a, b Problem) int {
		if c := strings.Compare(a.Pos.File, b.Pos.File); c != 0 {
			return c
		}
		if a.Pos.Line != b.Pos.Line {
			return a.Pos.Line - b.Pos.Line
		}
		return a.Pos.Column - b.Pos.Column
	})
}

// Validator is a config, or a part of one, that checks more than its tags say.
// It is asked when all its keys could be read. An error made by [BadKey] is
// reported at the place of that key; errors.Join reports several.
type Validator interface {
	Validate() error
}

type keyError struct {
	key, text string
}

func (e *keyError) Error() string { return e.key + ": " + e.text }

// BadKey says which key of a config is wrong, and why.
func BadKey(key, format string, args ...any) error {
	return &keyError{key, fmt.Sprintf(format, args...)}
}

// DecodeConfig fills dst, a pointer to a struct, from a YAML mapping. The
// fields' tags say all about a key:
//
//	Baudrate int `yaml:"baudrate" default:"115200" min:"1" doc:"line speed in bits per second"`
//
// A key without a default is required unless its field is a pointer or tagged
// omitempty, and may then be null, too; oneof lists the words it may hold. The
// default of a list or a mapping is written in YAML. A field whose type reads
// text ([encoding.TextUnmarshaler]) does so where the file has a scalar, so that
// a struct with that method takes either a word or a mapping.
//
// Files are read as the Python exporter's YAML 1.1 reader understands them: on
// and off are booleans, the last of two equal keys wins, "5000" serves as a
// number. What works only that way draws a warning. Unknown keys are errors, or
// warnings when lenient. A nil node counts as an empty mapping whose place is
// pos.
func DecodeConfig(n *yaml.Node, dst any, pos Pos, lenient bool) Problems {
	d := decoder{file: pos.File, lenient: lenient, budget: maxNodes, last: pos}
	v := reflect.ValueOf(dst).Elem()
	d.structure(n, v, pos, "", 0)
	return d.problems
}

// maxNodes bounds how much is read, and maxErrors how much is said of it: aliases
// can blow up a small file.
const (
	maxNodes  = 100_000
	maxErrors = 100
)

type decoder struct {
	file     string
	lenient  bool
	problems Problems
	errors   int // among the problems
	budget   int // nodes that may still be read; below zero nothing is
	last     Pos // of the nodes
}

// enter counts a node, and reports whether it may be read.
func (d *decoder) enter(n *yaml.Node, at string, depth int) bool {
	if d.budget < 0 {
		return false // and that was said
	}
	d.budget--
	switch {
	case d.budget < 0 || depth > maxDepth:
		d.err(d.pos(n), "%s: nested deeper than %d, or aliases refer to themselves or to too much", at, maxDepth)
	case d.errors >= maxErrors:
		d.err(d.pos(n), "too many errors; the rest is not read")
	default:
		return true
	}
	d.budget = -1
	return false
}

// pos is where a node is; a default has the place of what was read before.
func (d *decoder) pos(n *yaml.Node) Pos {
	if n.Line > 0 {
		d.last = Pos{d.file, n.Line, n.Column}
	}
	return d.last
}

func (d *decoder) err(p Pos, format string, args ...any) {
	d.errors++
	d.problems = append(d.problems, Problem{Pos: p, Text: fmt.Sprintf(format, args...)})
}

func (d *decoder) warn(p Pos, format string, args ...any) {
	d.problems = append(d.problems, Problem{Pos: p, Warning: true, Text: fmt.Sprintf(format, args...)})
}

func (d *decoder) structure(n *yaml.Node, v reflect.Value, pos Pos, at string, depth int) {
	before := len(d.problems)
	var pairs []Pair
	if n = Resolve(n); n != nil && !isNull(n) {
		pos = d.pos(n)
		if n.Kind != yaml.MappingNode {
			d.err(pos, "%s: wants a mapping, got %s", orConfig(at), Found(n))
			return
		}
		var ps Problems
		pairs, ps = Pairs(n, d.file)
		d.problems = append(d.problems, ps...)
	}
	fields := fieldsOf(v.Type(), "yaml")
	keys := map[string]*yaml.Node{}
	for _, p := range pairs {
		if i := slices.IndexFunc(fields, func(f field) bool { return f.name == p.Name }); i >= 0 {
			if f := fields[i]; f.hasDef && !f.pointer && isNull(Resolve(p.Value)) {
				d.warn(d.pos(p.Key), "%s: nothing is given; the default %q counts", join(at, p.Name), f.def)
				continue
			}
			keys[p.Name] = p.Key
			d.value(p.Value, v.FieldByIndex(fields[i].index), fields[i], join(at, p.Name), depth+1)
			continue
		}
		names := make([]string, len(fields))
		for i, f := range fields {
			names[i] = f.name
		}
		name, hint := strconv.Quote(join(at, p.Name)), Hint(p.Name, names)
		if d.lenient { // upstream's drivers of this kind take any key
			d.warn(d.pos(p.Key), "unknown key %s is ignored%s", name, hint)
		} else {
			d.err(d.pos(p.Key), "unknown key %s%s", name, hint)
		}
	}
	for _, f := range fields {
		if keys[f.name] != nil {
			continue
		}
		switch {
		case f.hasDef:
			if f.def != "" {
				d.value(f.defaultNode(), v.FieldByIndex(f.index), f, join(at, f.name), depth+1)
			}
		case f.required():
			d.err(pos, "key %q is missing: %s", join(at, f.name), orElse(f.doc, "it has no default"))
		}
	}
	if d.problems[before:].Err() != nil {
		return // the check may rely on what could not be read
	}
	if c, ok := v.Addr().Interface().(Validator); ok {
		d.complain(c.Validate(), keys, pos, at)
	}
}

// complain reports what a [Validator] said.
func (d *decoder) complain(err error, keys map[string]*yaml.Node, pos Pos, at string) {
	if err == nil {
		return
	}
	if list, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range list.Unwrap() {
			d.complain(err, keys, pos, at)
		}
		return
	}
	var bad *keyError
	if errors.As(err, &bad) && keys[bad.key] != nil {
		pos = d.pos(keys[bad.key])
	}
	switch {
	case err == bad:
		d.err(pos, "%s: %s", join(at, bad.key), bad.text)
	case at != "":
		d.err(pos, "%s: %v", at, err)
	default:
		d.err(pos, "%v", err)
	}
}

// defaultNode is what a left-out key counts as.
func (f *field) defaultNode() *yaml.Node {
	t := f.typ
	if f.pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.String: // whatever it would be in YAML
		return &yaml.Node{Kind: yaml.ScalarNode, Value: f.def, Style: yaml.DoubleQuotedStyle}
	case reflect.Slice, reflect.Map, reflect.Struct, reflect.Interface:
		var n yaml.Node
		if err := yaml.Unmarshal([]byte(f.def), &n); err == nil {
			return Resolve(&n)
		}
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Value: f.def}
}

func (d *decoder) value(n *yaml.Node, v reflect.Value, f field, at string, depth int) {
	if n = Resolve(n); n == nil {
		return
	}
	t := v.Type()
	if t.Kind() == reflect.Interface {
		if x := d.plain(n, at, depth); x != nil {
			v.Set(reflect.ValueOf(x))
		}
		return
	}
	if !d.enter(n, at, depth) {
		return
	}
	pos := d.pos(n)
	if isNull(n) && f.omitEmpty {
		return
	}
	if t.Kind() == reflect.Pointer {
		if isNull(n) {
			return
		}
		p := reflect.New(t.Elem())
		d.value(n, p.Elem(), f, at, depth+1)
		v.Set(p)
		return
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok && n.Kind == yaml.ScalarNode && !isNull(n) {
		if err := u.UnmarshalText([]byte(n.Value)); err != nil {
			d.err(pos, "%s: %v", at, err)
		}
		return
	}
	element := f
	element.omitEmpty = false
	wrong := func(want string) { d.err(pos, "%s: wants %s, got %s", at, want, Found(n)) }
	switch t.Kind() {
	case reflect.Struct:
		d.structure(n, v, pos, at, depth)
		return
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			wrong("a list")
			return
		}
		s := reflect.MakeSlice(t, len(n.Content), len(n.Content))
		for i, c := range n.Content {
			d.value(c, s.Index(i), element, at+"["+strconv.Itoa(i)+"]", depth+1)
		}
		v.Set(s)
		return
	case reflect.Map:
		if n.Kind != yaml.MappingNode {
			wrong("a mapping")
			return
		}
		pairs, ps := Pairs(n, d.file)
		d.problems = append(d.problems, ps...)
		m := reflect.MakeMapWithSize(t, len(pairs))
		for _, p := range pairs {
			if x := Scalar(p.Key); x != any(p.Name) {
				if x == nil {
					x = "nothing"
				}
				d.problems = append(d.problems, Problem{Pos: d.pos(p.Key), Warning: true,
					Upstream: fmt.Sprintf("takes it for %v, which is no text", x),
					Text:     fmt.Sprintf("%s: the key %s is read as text; quote it", at, p.Name)})
			}
			x := reflect.New(t.Elem()).Elem()
			d.value(p.Value, x, element, join(at, p.Name), depth+1)
			m.SetMapIndex(reflect.ValueOf(p.Name).Convert(t.Key()), x)
		}
		v.Set(m)
		return
	}
	if n.Kind != yaml.ScalarNode {
		wrong(oneOf(t))
		return
	}
	switch {
	case t == durationType:
		x, ok := d.float(n, at)
		if !ok {
			wrong("a number of seconds")
			return
		}
		s, ok := seconds(x)
		if !ok {
			d.err(pos, "%s: %s is out of range: %s", at, n.Value, f.span(t, x > 0))
			return
		}
		v.SetInt(int64(s))
	case t.Kind() == reflect.String:
		switch Scalar(n).(type) {
		case string:
		case nil:
			wrong("text")
			return
		default:
			d.warn(pos, "%s: %s is read as text; quote it", at, n.Value)
		}
		v.SetString(n.Value)
	case t.Kind() == reflect.Bool:
		x := Scalar(n)
		b, ok := x.(bool)
		switch x := x.(type) {
		case string:
			if b, ok = word(x); x == "0" || x == "1" {
				ok = false // to Python both are true
			}
		case int64:
			b, ok = x == 1, x == 0 || x == 1
		}
		if !ok {
			wrong("true or false")
			return
		}
		if _, is := x.(bool); !is {
			d.warn(pos, "%s: %s is read as %t; write %t", at, Found(n), b, b)
		}
		v.SetBool(b)
	case v.CanInt(), v.CanUint():
		x, ok := d.float(n, at)
		if !ok || x != math.Trunc(x) {
			wrong("an integer")
			return
		}
		fits := false
		if i, exact := Scalar(n).(int64); exact { // a double would round the long ones
			_, fits = parseWhole(v, strconv.FormatInt(i, 10), 10)
		} else {
			fits = setWhole(v, x)
		}
		if !fits {
			d.err(pos, "%s: %s is out of range: %s", at, n.Value, f.span(t, x > 0))
			return
		}
	case v.CanFloat():
		x, ok := d.float(n, at)
		if !ok {
			wrong("a number")
			return
		}
		if v.OverflowFloat(x) {
			d.err(pos, "%s: %s is out of range: %s", at, n.Value, f.span(t, x > 0))
			return
		}
		v.SetFloat(x)
	default:
		d.err(pos, "%s: a %s cannot be configured", at, t)
		return
	}
	d.limits(n, v, f, at)
}

// oneOf is the name of a type as what one value of it is.
func oneOf(t reflect.Type) string {
	switch name := typeName(t); name {
	case "integer":
		return "an integer"
	case "number":
		return "a number"
	case "seconds":
		return "a number of seconds"
	default:
		return name
	}
}

// span names the numbers that a key may hold, when one is too large or too small
// for its type.
func (f field) span(t reflect.Type, large bool) string {
	var lo, hi string
	switch {
	case t == durationType:
		hi = strconv.FormatInt(math.MaxInt64/int64(time.Second), 10)
		lo = "-" + hi
	case t.Kind() == reflect.Float32:
		hi = strconv.FormatFloat(math.MaxFloat32, 'g', 3, 64)
		lo = "-" + hi
	case t.Kind() == reflect.Float64:
		hi = strconv.FormatFloat(math.MaxFloat64, 'g', 3, 64)
		lo = "-" + hi
	case reflect.Zero(t).CanInt():
		hi = strconv.FormatInt(1<<(t.Bits()-1)-1, 10)
		lo = strconv.FormatInt(-1<<(t.Bits()-1), 10)
	default:
		hi = strconv.FormatUint(math.MaxUint64>>(64-t.Bits()), 10)
		lo = "0"
	}
	lo, hi = orElse(f.min, lo), orElse(f.max, hi)
	switch {
	case (f.min == "") == (f.max == ""):
		return lo + " to " + hi
	case large:
		return "at most " + hi
	default:
		return "at least " + lo
	}
}

// limits checks min, max and oneof.
func (d *decoder) limits(n *yaml.Node, v reflect.Value, f field, at string) {
	if f.min == "" && f.max == "" && len(f.oneof) == 0 {
		return
	}
	pos := d.pos(n)
	x, _ := encode(v, 0)
	number, _ := x.(float64)
	if len(f.oneof) > 0 {
		word, isText := x.(string)
		if !isText {
			word = describe(x)
		}
		if !slices.Contains(f.oneof, word) {
			d.err(pos, "%s: %s is none of %s%s", at, describe(x), strings.Join(f.oneof, ", "), Hint(word, f.oneof))
			return
		}
	}
	lo, hi := math.Inf(-1), math.Inf(1)
	if f.min != "" {
		lo, _ = strconv.ParseFloat(f.min, 64)
	}
	if f.max != "" {
		hi, _ = strconv.ParseFloat(f.max, 64)
	}
	if number >= lo && number <= hi {
		return
	}
	switch {
	case f.max == "":
		d.err(pos, "%s: %s is out of range: at least %s", at, n.Value, f.min)
	case f.min == "":
		d.err(pos, "%s: %s is out of range: at most %s", at, n.Value, f.max)
	default:
		d.err(pos, "%s: %s is out of range: %s to %s", at, n.Value, f.min, f.max)
	}
}

// float reads a number; one that is text to YAML 1.1 draws a warning.
func (d *decoder) float(n *yaml.Node, at string) (f float64, ok bool) {
	switch x := Scalar(n).(type) {
	case int64:
		f, ok = float64(x), true
	case float64:
		f, ok = x, finite(x) != nil
	case string:
		if f, ok = number(x, true); ok {
			d.warn(d.pos(n), "%s: the text %s is read as a number; write %s", at, strconv.Quote(n.Value), digits(f))
		}
		return f, ok
	}
	// 22:30 is in sixties, and 022 in eighths.
	if whole := strings.TrimLeft(n.Value, "+-"); ok && (strings.Contains(whole, ":") || len(whole) > 1 && whole[0] == '0' && isDigits(whole)) {
		d.warn(d.pos(n), "%s: YAML takes %s for %s; write that, or what is meant", at, n.Value, digits(f))
	}
	return f, ok
}

func isDigits(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c != '_' && (c < '0' || c > '9') })
}

func quoted(n *yaml.Node) bool {
	return n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
}

func isNull(n *yaml.Node) bool { return Scalar(n) == nil }

// Found says what a node holds, for errors.
func Found(n *yaml.Node) string {
	if n = Resolve(n); n == nil {
		return "nothing"
	}
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch x := Scalar(n).(type) {
	case nil:
		return "nothing"
	case string:
		return describe(x)
	case other:
		return string(x)
	}
	return n.Value
}

func orConfig(at string) string { return orElse(at, "config") }

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// Resolve follows aliases, and enters a document. It returns nil for a nil node,
// for an empty document and for an alias that leads nowhere.
func Resolve(n *yaml.Node) *yaml.Node {
	for range maxDepth {
		switch {
		case n == nil || n.Kind == 0 || n.Kind == yaml.DocumentNode && len(n.Content) == 0:
			return nil
		case n.Kind == yaml.AliasNode:
			n = n.Alias
		case n.Kind == yaml.DocumentNode:
			n = n.Content[0]
		default:
			return n
		}
	}
	return nil
}

// Pair is one key of a mapping and its value.
type Pair struct {
	Name       string
	Key, Value *yaml.Node
}

// Pairs lists a mapping in the order in which Python lists it, with merge keys
// (<<) merged: what was merged in comes first, and a mapping's own keys win
// over it. The last of two equal keys wins, which draws a warning.
func Pairs(n *yaml.Node, file string) ([]Pair, Problems) {
	if n = Resolve(n); n == nil || n.Kind != yaml.MappingNode {
		return nil, nil
	}
	m := merger{file: file, done: map[*yaml.Node]*[]Pair{}, budget: maxPairs}
	list := m.flatten(n)
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := Resolve(n.Content[i])
		if k == nil || k.Kind != yaml.ScalarNode || k.ShortTag() == "!!merge" {
			continue
		}
		if seen[k.Value] {
			m.problems = append(m.problems, Problem{Pos: Pos{file, k.Line, k.Column}, Warning: true,
				Text: fmt.Sprintf("key %q stands twice; the last one counts", k.Value)})
		}
		seen[k.Value] = true
	}
	return list, m.problems
}

// maxPairs bounds the work of merging, which a small file can blow up: mappings
// that merge mappings that merge mappings.
const maxPairs = 1_000_000

type merger struct {
	file     string
	done     map[*yaml.Node]*[]Pair // nil while a mapping is being flattened
	budget   int
	problems Problems
}

func (m *merger) err(n *yaml.Node, text string) {
	m.problems = append(m.problems, Problem{Pos: Pos{m.file, n.Line, n.Column}, Text: text})
}

// merged lists what a merge key brings in: a mapping, or a list of them of which
// the first one wins.
func (m *merger) merged(n *yaml.Node) (list []Pair) {
	v := Resolve(n)
	if v != nil && v.Kind == yaml.SequenceNode {
		for _, c := range slices.Backward(v.Content) {
			if r := Resolve(c); r != nil && r.Kind == yaml.SequenceNode {
				m.err(c, "<<: wants a list of mappings, got a list of lists")
				continue
			}
			list = append(list, m.merged(c)...)
		}
		return list
	}
	if v == nil || v.Kind != yaml.MappingNode {
		m.err(n, "<<: wants a mapping, got "+Found(n))
		return nil
	}
	done, there := m.done[v]
	if there && done == nil {
		m.err(n, "<<: merges a mapping into itself")
		return nil
	}
	if there {
		list = *done
	} else {
		list = m.flatten(v)
	}
	if m.budget < 0 {
		return nil
	}
	if m.budget -= len(list); m.budget < 0 {
		m.err(n, "<<: merges too much")
		return nil
	}
	return list
}

func (m *merger) flatten(n *yaml.Node) []Pair {
	m.done[n] = nil
	var all, own []Pair
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch k := Resolve(key); {
		case k == nil || k.Kind != yaml.ScalarNode:
			m.err(key, "a key must be a plain word")
		case k.ShortTag() == "!!merge":
			all = append(all, m.merged(value)...)
		default:
			own = append(own, Pair{k.Value, key, value})
		}
	}
	var list []Pair
	index := map[string]int{}
	for _, p := range append(all, own...) {
		if i, there := index[p.Name]; there {
			list[i] = p
			continue
		}
		index[p.Name] = len(list)
		list = append(list, p)
	}
	m.done[n] = &list
	return list
}

// Plain turns a node into a JSON-shaped value, with YAML 1.1's booleans.
func Plain(n *yaml.Node) (any, error) {
	d := decoder{budget: maxNodes}
	x := d.plain(n, "value", 0)
	if err := d.problems.Err(); err != nil {
		return nil, err
	}
	return x, nil
}

func (d *decoder) plain(n *yaml.Node, at string, depth int) any {
	if n = Resolve(n); n == nil || !d.enter(n, at, depth) {
		return nil
	}
	switch n.Kind {
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, c := range n.Content {
			list[i] = d.plain(c, at+"["+strconv.Itoa(i)+"]", depth+1)
		}
		return list
	case yaml.MappingNode:
		pairs, ps := Pairs(n, d.file)
		d.problems = append(d.problems, ps...)
		m := make(map[string]any, len(pairs))
		for _, p := range pairs {
			m[p.Name] = d.plain(p.Value, join(at, p.Name), depth+1)
		}
		return m
	}
	switch x := Scalar(n).(type) {
	case int64:
		return float64(x)
	case float64:
		return finite(x)
	case other:
		return n.Value
	default:
		return x
	}
}

// Nearest finds the candidate that a mistyped word most likely meant, or "".
// At least half of the word has to be right.
func Nearest(word string, candidates []string) string { return hw.Nearest(word, candidates) }

// Hint is a question whether the nearest of the candidates was meant, to be put
// behind an error, or "".
func Hint(word string, candidates []string) string {
	if n := Nearest(word, candidates); n != "" {
		return fmt.Sprintf("; did you mean %q?", n)
	}
	return ""
}
