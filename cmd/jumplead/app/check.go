package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"github.com/jumplead/jumplead/board"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter"
	"github.com/jumplead/jumplead/exporter/config"
)

// errChecked ends the program with status 1: what is wrong was printed.
var errChecked = errors.New("problems were found")

// check tells what is wrong with configs, without any of their hardware unless it
// is asked to look for that. It says all that run would, and is stricter: a key
// that nobody reads is an error here, where run has to go on with the files that
// labs have.
func check(ctx context.Context, p *program, args []string) error {
	var aliases []string
	var asJSON, elsewhere bool
	var how checking
	fs := p.flags("check")
	fs.Func("exporter", "check the config of the exporter `ALIAS`, too; may be given several times", func(s string) error {
		aliases = append(aliases, s)
		return nil
	})
	fs.Func("board", "check for the board `NAME` instead of this machine: "+strings.Join(board.Names(), ", "), func(s string) error {
		b, ok := board.ByName(s)
		if !ok {
			return fmt.Errorf("there are %s%s", strings.Join(board.Names(), ", "), driver.Hint(s, board.Names()))
		}
		p.Host.Names, elsewhere = names(b), true
		return nil
	})
	fs.BoolVar(&asJSON, "json", false, "print JSON, for programs")
	fs.BoolVar(&how.probe, "probe", false, "look for the hardware, too: on the harness")
	fs.BoolVar(&how.strict, "strict", false, "take warnings for errors")
	if err := p.parse(fs, args, commandHelp(fs, "check [OPTIONS] [FILE]...", checkHelp)); err != nil {
		return err
	}
	if how.probe && elsewhere {
		return usage("check: --probe looks for hardware of this machine, and --board speaks of another one")
	}
	if fs.NArg() == 0 && len(aliases) == 0 {
		return usage(`check: no file is given; "-" is the standard input`)
	}
	files := []checkedFile{} // an empty list is not null to programs
	for _, alias := range aliases {
		path, err := config.Find(alias, p.getenv)
		if err != nil {
			files = append(files, unread(alias, err))
			continue
		}
		files = append(files, p.checkFile(ctx, path, how))
	}
	for _, path := range fs.Args() {
		files = append(files, p.checkFile(ctx, path, how))
	}

	if asJSON {
		if err := printJSON(p.Stdout, map[string]any{"files": files}); err != nil {
			return err
		}
	} else {
		for i, f := range files {
			if i > 0 {
				fmt.Fprintln(p.Stdout)
			}
			f.print(p.Stdout)
		}
	}
	if slices.ContainsFunc(files, func(f checkedFile) bool { return !f.OK }) {
		return errChecked
	}
	return nil
}

// checking says how to check.
type checking struct {
	strict bool // warnings are errors
	probe  bool // the hardware is looked for
}

const checkHelp = `Tell what is wrong with ExporterConfig files, without the hardware that they
describe, and what would run each node. "-" is the standard input.

--probe is for the harness itself: it looks whether what the nodes need is there,
free, allowed and the right thing. It changes nothing and disturbs nobody. Serial
ports are not opened, GPIO lines not requested, networks not connected to; a meter
on an I2C bus is asked for its maker and its type.

The exit status is 0 when all files are good, 1 when one is not or something was
not found as it should be, 2 when the command was called wrongly. Warnings leave a
file good unless --strict is given.`

// commandHelp prints how a command is called, what it does, and its flags.
func commandHelp(fs *flag.FlagSet, usage, text string) func(io.Writer) {
	return func(w io.Writer) {
		fmt.Fprintf(w, "Usage: jumplead %s\n\n%s\n\nOptions:\n", usage, text)
		printFlags(w, fs)
	}
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// checkedFile is what was found out about one file, as --json prints it.
type checkedFile struct {
	File     string         `json:"file"`
	OK       bool           `json:"ok"`
	Errors   int            `json:"errors"`
	Warnings int            `json:"warnings"`
	Problems []checkProblem `json:"problems"`
	Nodes    []checkedNode  `json:"nodes"`

	// With --probe: that it was looked, and how many nodes lack something.
	Probed  bool `json:"probed,omitempty"`
	Missing int  `json:"missing,omitempty"`

	unprobed bool // it was to be looked, and the config is not sound
}

type checkProblem struct {
	Line     int    `json:"line,omitempty"` // from 1; 0 where the file as a whole is meant
	Column   int    `json:"column,omitempty"`
	Severity string `json:"severity"` // error, warning
	Message  string `json:"message"`
	Node     string `json:"node,omitempty"`     // path of the instance
	Upstream string `json:"upstream,omitempty"` // what the Python exporter makes of it
	Source   string `json:"source,omitempty"`   // the line
}

type checkedNode struct {
	Path     string   `json:"path"`
	Type     string   `json:"type,omitempty"` // none for a ref
	Ref      string   `json:"ref,omitempty"`
	Contract string   `json:"contract,omitempty"`
	Client   string   `json:"client,omitempty"`
	Claims   []string `json:"claims,omitempty"`
	Status   string   `json:"status"` // ok, refused; hosted: Python has it; unchecked: Python was not asked, or cannot tell

	Hardware *checkedHardware `json:"hardware,omitempty"` // with --probe
}

// unread is a file that cannot be read at all.
func unread(name string, err error) checkedFile {
	var path *fs.PathError
	if errors.As(err, &path) && errors.Is(err, fs.ErrNotExist) {
		err = path // the advice with it is about the flags of run
	}
	return checkedFile{File: name, Errors: 1, Problems: []checkProblem{{Severity: "error", Message: err.Error()}}, Nodes: []checkedNode{}}
}

// maxInput is more than a config may have, so that Parse says so.
const maxInput = 2 << 20

func (p *program) checkFile(ctx context.Context, path string, how checking) checkedFile {
	name, text, err := path, []byte(nil), error(nil)
	if path == "-" {
		name = "stdin"
		text, err = io.ReadAll(io.LimitReader(p.Stdin, maxInput))
	} else {
		text, err = config.Read(path)
	}
	if err != nil {
		return unread(name, err)
	}
	cfg, problems := config.Parse(name, text, p.getenv)
	f := checkedFile{File: name, Problems: []checkProblem{}, Nodes: []checkedNode{}}
	var tree *driver.Tree
	hosted := &hostedNodes{Hosts: p.hosts(nil)}
	hosted.Checking = !how.probe // a harness has the Python that it needs
	defer hosted.Close()
	if cfg != nil {
		o := exporter.Options{Namespace: cfg.Namespace, Name: cfg.Name, Export: cfg.Export,
			Driver: driver.Options{Specs: p.specs, Host: p.Host, Mounts: hosted.Mounts}}
		var more driver.Problems
		tree, more = o.Plan()
		problems = append(problems, more...)
		for _, x := range unkept(tree, cfg) { // the harness may be another machine
			x.Warning = true
			problems = append(problems, x)
		}
		problems.Sort()
	}
	src := newSource(text)
	refused := map[string]bool{}
	for _, x := range problems {
		c := checkProblem{Line: x.Pos.Line, Column: x.Pos.Column, Severity: "error", Message: driver.Problem{Text: x.Text}.String(),
			Node: x.Node, Upstream: x.Upstream, Source: src.line(x.Pos.Line)}
		if x.Warning && !x.Unread && !how.strict {
			c.Severity = "warning"
			f.Warnings++
		} else {
			refused[x.Node] = true
			f.Errors++
		}
		f.Problems = append(f.Problems, c)
	}
	f.OK = f.Errors == 0
	if cfg != nil {
		claims := map[string][]string{}
		if tree != nil {
			for _, n := range tree.Nodes() {
				for _, c := range n.Claims() {
					claims[n.Path] = append(claims[n.Path], c.String())
				}
			}
		}
		specs := map[string]*driver.Spec{}
		for i := range p.specs {
			s := &p.specs[i]
			specs[s.Type] = s
			if s.Role == driver.Group && specs[""] == nil {
				specs[""] = s
			}
		}
		var list func(decls []driver.Decl, above string)
		list = func(decls []driver.Decl, above string) {
			for i := range decls {
				d := &decls[i]
				if len(f.Nodes) == maxListed {
					return
				}
				n := checkedNode{Path: above + d.Name, Type: d.Type, Ref: d.Ref, Status: hosted.status(d)}
				n.Claims = claims[n.Path]
				if refused[n.Path] {
					n.Status = "refused"
				}
				// What has no type that can be read is no group for it.
				if s, ok := hosted.specs[d]; ok {
					n.Contract, n.Client = s.Contract.Name, s.Contract.Client
				} else if s := specs[d.Type]; s != nil && d.Ref == "" && (d.Type != "" || !refused[n.Path]) {
					n.Type, n.Contract, n.Client = s.Type, s.Contract.Name, s.Contract.Client
				}
				f.Nodes = append(f.Nodes, n)
				list(d.Children, n.Path+".")
			}
		}
		list(cfg.Export.Children, "")
	}
	if f.unprobed = how.probe && tree == nil; how.probe && tree != nil {
		f.probe(ctx, tree)
	}
	return f
}

// maxListed bounds the nodes that are listed for one file: aliases make many of
// few.
const maxListed = 10_000

func (f checkedFile) print(w io.Writer) {
	for _, c := range f.Problems {
		at := f.File
		if c.Line > 0 {
			at = driver.Pos{File: f.File, Line: c.Line, Column: c.Column}.String()
		}
		fmt.Fprintf(w, "%s: %s: %s\n", at, c.Severity, c.Message)
		gutter := strings.Repeat(" ", 5)
		if text, start, length := excerpt(c.Source, c.Column-1); text != "" {
			fmt.Fprintf(w, "%5d | %s\n%s | %s%s\n", c.Line, text, gutter, strings.Repeat(" ", start), strings.Repeat("^", length))
		}
		if c.Upstream != "" {
			fmt.Fprintf(w, "%s = the Python exporter says nothing, and %s\n", gutter, c.Upstream)
		}
	}
	found := []string{count(len(f.Nodes), "node")}
	if f.Errors > 0 {
		found = append(found, count(f.Errors, "error"))
	}
	if f.Warnings > 0 {
		found = append(found, count(f.Warnings, "warning"))
	}
	hardware := ""
	if f.Probed {
		hardware = "; hardware: " + f.hardware()
	} else if f.unprobed {
		hardware = "; hardware: not looked for before that is mended"
	}
	verdict := "good"
	if !f.OK {
		verdict = "not good"
	}
	fmt.Fprintf(w, "%s: %s: %s%s\n", f.File, verdict, strings.Join(found, ", "), hardware)
	var rows bytes.Buffer
	table := tabwriter.NewWriter(&rows, 0, 0, 2, ' ', 0)
	for _, n := range f.Nodes {
		runs := n.Type
		if n.Ref != "" {
			runs = "-> " + n.Ref
		}
		// A tab in a name would end a cell.
		fmt.Fprintf(table, "  %s\t%s\t%s\t%s\n", n.Status, printable(n.Path), n.Contract, printable(runs))
	}
	table.Flush()
	for line := range strings.Lines(rows.String()) {
		fmt.Fprintln(w, strings.TrimRight(line, " \n"))
	}
	f.printHardware(w)
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return '\uFFFD'
		}
		return c
	}, s)
}

// source is the text of a file by lines, as it may be shown.
type source struct {
	lines  []string
	secret *regexp.Regexp
	key    *regexp.Regexp
}

// newSource splits a text into lines as YAML does.
func newSource(text []byte) source {
	ends := strings.NewReplacer("\r\n", "\n", "\r", "\n", "\u0085", "\n", "\u2028", "\n", "\u2029", "\n")
	return source{
		lines: strings.Split(ends.Replace(strings.TrimPrefix(string(text), "\uFEFF")), "\n"),
		// The end of a key whose value is nobody's business.
		secret: regexp.MustCompile(`(?i)(?:passw(?:or)?d|passphrase|secret|token|_identity|(?:priv|private|auth|api)_?key)["']?\s*:\s+`),
		// A line of a key or a certificate.
		key: regexp.MustCompile(`^\s*[A-Za-z0-9+][A-Za-z0-9+/]{39,}=*\s*$`),
	}
}

// line is a line for people to read, who may be the readers of a CI's log: what
// looks like a password, a token or a key is starred out. A character of the file
// is a character of the line.
func (s source) line(n int) string {
	if n < 1 || n > len(s.lines) {
		return ""
	}
	line := s.lines[n-1]
	if s.key.MatchString(line) {
		return stars(line)
	}
	var b strings.Builder
	done := 0
	for _, at := range s.secret.FindAllStringIndex(line, -1) {
		if at[0] < done { // within a value
			continue
		}
		value := line[at[1]:]
		end := len(value)
		switch {
		case value == "" || strings.ContainsRune("#|>{[&*!", rune(value[0])):
			continue
		case value[0] == '"' || value[0] == '\'':
			if i := strings.IndexByte(value[1:], value[0]); i >= 0 {
				end = i + 2
			}
		default:
			stop := " #"
			if i := strings.Index(value, stop); i >= 0 {
				end = i
			}
			if i := strings.IndexAny(value[:end], ",}"); i >= 0 && strings.Contains(line[:at[0]], "{") {
				end = i
			}
		}
		b.WriteString(line[done:at[1]] + stars(value[:end]))
		done = at[1] + end
	}
	b.WriteString(line[done:])
	return printable(strings.ReplaceAll(b.String(), "\t", " "))
}

func stars(s string) string { return strings.Repeat("*", utf8.RuneCountInString(s)) }

// maxExcerpt is how much of a line is shown, in characters.
const maxExcerpt = 120

// excerpt is the part of a line that holds a column, counted from 0, and which
// characters of it to underline: the word that begins there.
func excerpt(line string, column int) (text string, start, length int) {
	runes := []rune(line)
	start = max(0, min(column, len(runes)))
	word := runes[start:]
	length = len(word)
	for i, c := range word {
		if i > 0 && (word[0] == '"' || word[0] == '\'') {
			if c == word[0] {
				length = i + 1
				break
			}
			continue
		}
		if strings.ContainsRune(" ,]}", c) || c == ':' && (i+1 == len(word) || word[i+1] == ' ') {
			length = i
			break
		}
		if i == 0 && strings.ContainsRune("{[|>", c) {
			length = 1
			break
		}
	}
	length = max(1, length)
	if len(runes) > maxExcerpt {
		from := max(0, min(start-maxExcerpt/2, len(runes)-maxExcerpt))
		to := from + maxExcerpt
		length = min(length, to-start)
		start -= from
		if runes = runes[from:to]; from > 0 {
			runes, start = append([]rune("..."), runes...), start+3
		}
		if to < utf8.RuneCountInString(line) {
			runes = append(slices.Clip(runes), []rune("...")...)
		}
	}
	return strings.TrimRight(string(runes), " "), start, length
}
