package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// UsageError says that a command was called wrongly.
type UsageError struct {
	Command *cobra.Command
	Text    string
}

func (e *UsageError) Error() string { return e.Text }

// Usage makes a UsageError.
func Usage(c *cobra.Command, format string, args ...any) error {
	return &UsageError{c, fmt.Sprintf(format, args...)}
}

// Exit ends the program with a status and says nothing.
type Exit int

func (e Exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// helpError is a group that was called without a command.
type helpError struct{ c *cobra.Command }

func (e *helpError) Error() string { return "no command is given" }

// Tell writes what an error means to the user, in red if w is a terminal, and
// returns the exit status.
func Tell(w io.Writer, err error) int {
	var exit Exit
	var usage *UsageError
	var help *helpError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	case errors.As(err, &help):
		writeHelp(w, help.c)
		return 1
	case errors.As(err, &usage):
		fmt.Fprintf(w, "%s\nTry '%s --help' for help.\n\nError: %s\n", usageLine(usage.Command), path(usage.Command), usage.Text)
		return 1
	}
	text := err.Error()
	if _, ok := Terminal(w); ok {
		text = "\x1b[31m" + text + "\x1b[0m"
	}
	fmt.Fprintf(w, "Error: %s\n", text)
	var f *failure
	if errors.As(err, &f) {
		return f.status
	}
	return 1
}

// noCommand is what a group does itself.
func noCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return &helpError{c}
	}
	var names []string
	for _, sub := range c.Commands() {
		if !sub.Hidden {
			names = append(names, name(sub))
		}
	}
	return Usage(c, "No such command '%s'.%s", args[0], didYouMean(args[0], names))
}

func didYouMean(word string, candidates []string) string {
	if near := driver.Nearest(word, candidates); near != "" {
		return fmt.Sprintf(" Did you mean '%s'?", near)
	}
	return ""
}

// flagError puts what the parser says into Click's words.
func flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var lacks *pflag.ValueRequiredError
	var bad *pflag.InvalidValueError
	switch {
	case errors.Is(err, pflag.ErrHelp): // only -h is left to it: --help is an option
		return Usage(c, "No such option '-h'. Did you mean '--help'?")
	case errors.As(err, &unknown):
		if unknown.GetSpecifiedShortnames() != "" {
			return Usage(c, "No such option '-%s'.", unknown.GetSpecifiedName())
		}
		var names []string
		c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		word, hint := unknown.GetSpecifiedName(), ""
		if near := driver.Nearest(word, names); near != "" {
			hint = fmt.Sprintf(" Did you mean '--%s'?", near)
		}
		return Usage(c, "No such option '--%s'.%s", word, hint)
	case errors.As(err, &lacks):
		dashes := "--"
		if lacks.GetSpecifiedShortnames() != "" {
			dashes = "-"
		}
		return Usage(c, "Option '%s%s' requires an argument.", dashes, lacks.GetSpecifiedName())
	case errors.As(err, &bad):
		f := bad.GetFlag()
		option := "'--" + f.Name + "'"
		if f.Shorthand != "" {
			option += " / '-" + f.Shorthand + "'"
		}
		why := errors.Unwrap(bad).Error()
		switch f.Value.Type() {
		case "int":
			why = fmt.Sprintf("'%s' is not a valid integer.", bad.GetValue())
		case "float64":
			why = fmt.Sprintf("'%s' is not a valid float.", bad.GetValue())
		case "bool":
			why = "it takes no value."
		}
		return Usage(c, "Invalid value for %s: %s", option, why)
	}
	return Usage(c, "%v", err)
}

// Choice is the value of an option that takes one of a few words.
type Choice struct {
	Value *string
	Words []string
	Fold  bool // upper and lower case are one
}

func (c Choice) String() string {
	if c.Value == nil {
		return ""
	}
	return *c.Value
}

// Completions are what a shell completes the value with.
func (c Choice) Completions() []string { return c.Words }

func (c Choice) Type() string { return "[" + strings.Join(c.Words, "|") + "]" }

func (c Choice) Set(word string) error {
	for _, w := range c.Words {
		if w == word || c.Fold && strings.EqualFold(w, word) {
			*c.Value = w
			return nil
		}
	}
	return fmt.Errorf("'%s' is not one of '%s'.", word, strings.Join(c.Words, "', '")) //nolint:staticcheck // Click's sentence
}

// parameter is an argument as the Use of a command declares it.
type parameter struct {
	name           string
	optional, rest bool
}

func parameters(c *cobra.Command) (ps []parameter) {
	for _, word := range strings.Split(c.Use, " ")[1:] {
		p := parameter{name: word}
		p.name, p.rest = strings.CutSuffix(p.name, "...")
		if inner, ok := strings.CutPrefix(p.name, "["); ok {
			p.name, p.optional = strings.TrimSuffix(inner, "]"), true
		}
		ps = append(ps, p)
	}
	return ps
}

// CheckArgs checks the arguments of a command against its Use.
func CheckArgs(c *cobra.Command, args []string) error {
	left := len(args)
	for _, p := range parameters(c) {
		switch {
		case p.rest && (p.optional || left > 0):
			return nil
		case left > 0:
			left--
		case !p.optional:
			return Usage(c, "Missing argument '%s'.", p.name)
		}
	}
	if left > 0 {
		extra := args[len(args)-left:]
		s := ""
		if left > 1 {
			s = "s"
		}
		return Usage(c, "Got unexpected extra argument%s (%s)", s, strings.Join(extra, " "))
	}
	return nil
}

// finish gives all commands what they have in common.
func finish(c *cobra.Command) {
	if c.Flags().Lookup("help") == nil {
		c.Flags().Bool("help", false, "Show this message and exit.")
	}
	c.Flags().SortFlags = false
	c.Short = sentence(c.Long, 60) // completion shows it
	switch {
	case isGroup(c):
		c.Args = cobra.ArbitraryArgs
		c.Flags().SetInterspersed(false) // what follows a word that is no command is not ours
	case c.DisableFlagParsing:
		c.Args = cobra.ArbitraryArgs // the command looks for itself
	case c.Args == nil:
		c.Args = CheckArgs
	}
	if c.ValidArgsFunction == nil && (isGroup(c) || len(parameters(c)) == 0) {
		c.ValidArgsFunction = cobra.NoFileCompletions // else shells offer the names of files
	}
	c.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
		if v, ok := f.Value.(interface{ Completions() []string }); ok {
			// It fails for one that is registered already, which is as good.
			_ = c.RegisterFlagCompletionFunc(f.Name, cobra.FixedCompletions(v.Completions(), cobra.ShellCompDirectiveNoFileComp))
		}
	})
	for _, sub := range c.Commands() {
		finish(sub)
	}
}

// Own parses the options of a command that passes on what it does not know:
// cobra must leave them alone (DisableFlagParsing). It returns what is passed
// on. Options behind a word that is none are looked for only if interspersed,
// and none is behind "--".
func Own(c *cobra.Command, args []string, interspersed bool) (rest []string, err error) {
	own := c.LocalNonPersistentFlags()
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			return append(rest, args...), nil
		case !strings.HasPrefix(arg, "-") || arg == "-":
			rest = append(rest, arg)
			if !interspersed {
				return append(rest, args...), nil
			}
			continue
		}
		f, value, given := option(own, arg)
		if f == nil {
			rest = append(rest, arg)
			continue
		}
		if f.Name == "help" {
			writeHelp(c.OutOrStdout(), c)
			return nil, Exit(0)
		}
		if !given {
			if value = f.NoOptDefVal; value == "" {
				if len(args) == 0 {
					return nil, Usage(c, "Option '%s' requires an argument.", arg)
				}
				value, args = args[0], args[1:]
			}
		}
		if err := own.Set(f.Name, value); err != nil {
			return nil, flagError(c, err)
		}
	}
	return rest, nil
}

// option finds the option that an argument is, and its value if that is part of
// the argument.
func option(fs *pflag.FlagSet, arg string) (f *pflag.Flag, value string, given bool) {
	if long, ok := strings.CutPrefix(arg, "--"); ok {
		long, value, given = strings.Cut(long, "=")
		return fs.Lookup(long), value, given
	}
	f = fs.ShorthandLookup(arg[1:2])
	return f, arg[2:], len(arg) > 2
}

// name is a command's name as people type it.
func name(c *cobra.Command) string { return strings.ReplaceAll(c.Name(), noBreak, " ") }

func path(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), noBreak, " ") }

func isGroup(c *cobra.Command) bool { _, ok := c.Annotations[groupKey]; return ok }

const groupKey = "group"

// Help, laid out as Click does.
const width = 78

func usageLine(c *cobra.Command) string {
	words := []string{"Usage:", path(c), "[OPTIONS]"}
	if isGroup(c) {
		words = append(words, "COMMAND [ARGS]...")
	}
	return strings.Join(append(words, strings.Split(c.Use, " ")[1:]...), " ")
}

func writeHelp(w io.Writer, c *cobra.Command) {
	fmt.Fprintln(w, usageLine(c))
	if c.Long != "" {
		fmt.Fprintln(w)
	}
	for i, paragraph := range strings.Split(strings.TrimSpace(c.Long), "\n\n") {
		if i > 0 {
			fmt.Fprintln(w)
		}
		for _, line := range wrap(paragraph, width-2) {
			fmt.Fprintln(w, "  "+line)
		}
	}
	var options, commands [][2]string
	visit := func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		left := "--" + f.Name
		if f.Shorthand != "" {
			left = "-" + f.Shorthand + ", " + left
		}
		if f.NoOptDefVal == "" {
			left += " " + metavar(f.Value.Type())
		}
		help := f.Usage
		if f.NoOptDefVal == "" && f.DefValue != "" && f.DefValue != "[]" {
			help = strings.TrimSpace(help + "  [default: " + f.DefValue + "]")
		}
		options = append(options, [2]string{left, help})
	}
	c.LocalFlags().VisitAll(visit)
	options = append(options, [2]string{"--help", "Show this message and exit."})
	for _, sub := range c.Commands() {
		if !sub.Hidden {
			commands = append(commands, [2]string{name(sub), sub.Long})
		}
	}
	slices.SortFunc(commands, func(a, b [2]string) int { return cmp.Compare(a[0], b[0]) })
	table(w, "Options", options, false)
	table(w, "Commands", commands, true)
}

func metavar(typ string) string {
	switch typ {
	case "int":
		return "INTEGER"
	case "float64":
		return "FLOAT"
	case "string", "stringArray":
		return "TEXT"
	}
	return typ
}

// table writes two columns. In the short form the second one is a single line.
func table(w io.Writer, title string, rows [][2]string, short bool) {
	if len(rows) == 0 {
		return
	}
	const most = 30 // characters of the first column
	column := 0
	for _, r := range rows {
		column = max(column, len([]rune(r[0])))
	}
	column = min(column, most)
	fmt.Fprintf(w, "\n%s:\n", title)
	for _, r := range rows {
		lines := wrap(r[1], width-column-4)
		if short && len(lines) > 0 {
			lines = []string{sentence(r[1], width-column-4)}
		}
		left := r[0]
		if n := len([]rune(left)); n > column {
			fmt.Fprintln(w, "  "+left)
			left = ""
		}
		if len(lines) == 0 {
			lines = []string{""}
		}
		for _, line := range lines {
			fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("  %-*s  %s", column, left, line), " "))
			left = ""
		}
	}
}

// sentence is the first sentence of a text, shortened to fit.
func sentence(text string, most int) string {
	paragraph, _, _ := strings.Cut(strings.TrimSpace(text), "\n\n")
	words := strings.Fields(paragraph)
	for i, w := range words {
		if strings.HasSuffix(w, ".") {
			words = words[:i+1]
			break
		}
	}
	s := strings.Join(words, " ")
	if len([]rune(s)) <= most {
		return s
	}
	lines := wrap(s, most-3)
	return lines[0] + "..."
}

func wrap(text string, most int) (lines []string) {
	line := ""
	for _, w := range strings.Fields(text) {
		switch {
		case line == "":
			line = w
		case len([]rune(line))+1+len([]rune(w)) > most:
			lines = append(lines, line)
			line = w
		default:
			line += " " + w
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

// Float is a number as Python prints it: 5.0, 0.1, 1e+16.
func Float(v float64) string {
	if abs := math.Abs(v); abs != 0 && (abs < 1e-4 || abs >= 1e16) {
		return strings.ToLower(strings.TrimPrefix(strconv.FormatFloat(v, 'e', -1, 64), "+"))
	}
	s := strconv.FormatFloat(v, 'f', -1, 64)
	if !strings.ContainsAny(s, ".N") {
		s += ".0"
	}
	return strings.ToLower(s)
}
