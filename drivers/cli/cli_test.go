package cli

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/cobra"
)

// As Python's repr has them.
func TestFloat(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0.0", 5: "5.0", -2.5: "-2.5", 0.1: "0.1", 4.966: "4.966", 1e-4: "0.0001", 1.5e-5: "1.5e-05",
		1e15: "1000000000000000.0", 1e16: "1e+16", -1.25e17: "-1.25e+17", 1e300: "1e+300",
		math.Inf(1): "inf", math.Inf(-1): "-inf",
	} {
		if got := Float(v); got != want {
			t.Errorf("Float(%g) = %s; want %s", v, got, want)
		}
	}
	if got := Float(math.NaN()); got != "nan" {
		t.Errorf("Float(NaN) = %s; want nan", got)
	}
}

func TestCheckArgs(t *testing.T) {
	for _, test := range []struct{ use, args, want string }{
		{"c", "", ""},
		{"c", "a", "Got unexpected extra argument (a)"},
		{"c", "a b", "Got unexpected extra arguments (a b)"},
		{"c A", "", "Missing argument 'A'."},
		{"c A B", "a", "Missing argument 'B'."},
		{"c A B", "a b", ""},
		{"c A B", "a b c", "Got unexpected extra argument (c)"},
		{"c [A]", "", ""},
		{"c [A]", "a", ""},
		{"c [A]", "a b", "Got unexpected extra argument (b)"},
		{"c [A]...", "", ""},
		{"c [A]...", "a b c", ""},
		{"c A...", "", "Missing argument 'A'."},
		{"c A...", "a b", ""},
		{"main\u00a0rail A", "a", ""},
	} {
		err := CheckArgs(&cobra.Command{Use: test.use}, strings.Fields(test.args))
		if got := errText(err); got != test.want {
			t.Errorf("CheckArgs(%s, %s) = %q; want %q", test.use, test.args, got, test.want)
		}
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// A command that passes on what it does not know takes its own and nothing else.
func TestOwn(t *testing.T) {
	for _, test := range []struct {
		args         string
		interspersed bool
		rest         string
		flag         bool
		text         string
		err          string
	}{
		{args: "a b", rest: "a b"},
		{args: "--flag a", rest: "a", flag: true},
		{args: "a --flag", rest: "a --flag"},
		{args: "a --flag b", interspersed: true, rest: "a b", flag: true},
		{args: "-- --flag", interspersed: true, rest: "--flag"},
		{args: "--text x a", rest: "a", text: "x"},
		{args: "--text=x=y a", rest: "a", text: "x=y"},
		{args: "-t x", text: "x"},
		{args: "-tx", text: "x"},
		{args: "-v --verbose - -t x", interspersed: true, rest: "-v --verbose -", text: "x"},
		{args: "-v --verbose - -t x", rest: "-v --verbose - -t x"},
		{args: "--json -ü", rest: "--json -ü"}, // the root's is not its own here
		{args: "--text", err: "Option '--text' requires an argument."},
		{args: "--flag=maybe", err: "Invalid value for '--flag': it takes no value."},
	} {
		var flag bool
		var text string
		root := &cobra.Command{Use: "root"}
		root.PersistentFlags().Bool("json", false, "")
		c := &cobra.Command{Use: "c [ARGS]...", DisableFlagParsing: true}
		c.Flags().BoolVar(&flag, "flag", false, "")
		c.Flags().StringVarP(&text, "text", "t", "", "")
		root.AddCommand(c)
		rest, err := Own(c, strings.Fields(test.args), test.interspersed)
		if got := strings.Join(rest, " "); errText(err) != test.err || err == nil && (got != test.rest || flag != test.flag || text != test.text) {
			t.Errorf("Own(%s, %v) = %q, %v, flag %v, text %q; want %q, %q, %v, %q", test.args, test.interspersed, got, err, flag, text,
				test.rest, test.err, test.flag, test.text)
		}
	}
}

func TestTell(t *testing.T) {
	c := &cobra.Command{Use: "j"}
	for _, test := range []struct {
		err    error
		status int
		want   string
	}{
		{nil, 0, ""},
		{Exit(7), 7, ""},
		{errors.New("it broke"), 1, "Error: it broke\n"},
		{Usage(c, "No %s", "way"), 1, "Usage: j [OPTIONS]\nTry 'j --help' for help.\n\nError: No way\n"},
		{Status(&exec.Error{Name: "x", Err: exec.ErrNotFound}), 127, "Error: exec: \"x\": executable file not found in $PATH\n"},
		{Status(&fs.PathError{Op: "exec", Path: "x", Err: fs.ErrPermission}), 126, "Error: exec x: permission denied\n"},
		{Status(nil), 0, ""},
	} {
		var b bytes.Buffer
		if got := Tell(&b, test.err); got != test.status || b.String() != test.want {
			t.Errorf("Tell(%v) = %d, %q; want %d, %q", test.err, got, &b, test.status, test.want)
		}
	}
}

// A group's commands are found out when one is called for, not before.
func TestLazily(t *testing.T) {
	for args, want := range map[string]string{
		"other":           "other; ",
		"lazy a":          "found a; ",
		"lazy":            "found ; no command is given",
		"lazy x":          "found ; No such command 'x'.",
		"__complete l":    "; ",
		"__complete lazy": "; ",
	} {
		var said []string
		s := &Session{}
		say := func(word string) *cobra.Command {
			return &cobra.Command{Use: word, RunE: func(*cobra.Command, []string) error { said = append(said, word); return nil }}
		}
		n := &Node{Name: "lazy", Class: "lazy", Session: s}
		table := Table{"lazy": func(n *Node) *cobra.Command {
			g := n.Group("")
			s.Lazily(g, func(context.Context) ([]*cobra.Command, error) {
				said = append(said, "found")
				return []*cobra.Command{say("a")}, nil
			})
			return g
		}, "other": func(n *Node) *cobra.Command { return n.Single(say("other")) }}
		table["root"] = func(n *Node) *cobra.Command { return table.Group(n, "") }
		root := table.Commands(&Node{Name: "j", Class: "root", Session: s, Children: []*Node{n, {Name: "other", Class: "other", Session: s}}})
		root.SetOut(&bytes.Buffer{})
		root.SetErr(&bytes.Buffer{})
		err := Execute(t.Context(), root, s, strings.Fields(args))
		if len(said) == 1 && said[0] == "found" {
			said = append(said, "")
		}
		if got := strings.Join(said, " ") + "; " + errText(err); got != want {
			t.Errorf("%s: %q; want %q", args, got, want)
		}
	}
}

func TestHelp(t *testing.T) {
	c := &cobra.Command{Use: "j", Long: "What it is.\n\n" + strings.Repeat("word ", 20), Annotations: map[string]string{groupKey: ""}}
	c.Flags().Int("wait", 2, "How long")
	long := &cobra.Command{Use: "long", Long: strings.Repeat("letters ", 20) + "at last. And more"}
	short := &cobra.Command{Use: "b\u00a0c X", Long: "One sentence. Another."}
	c.AddCommand(long, short)
	finish(c)
	var b bytes.Buffer
	writeHelp(&b, c)
	want := `Usage: j [OPTIONS] COMMAND [ARGS]...

  What it is.

  word word word word word word word word word word word word word word word
  word word word word word

Options:
  --wait INTEGER  How long [default: 2]
  --help          Show this message and exit.

Commands:
  b c   One sentence.
  long  letters letters letters letters letters letters letters letters...
`
	if b.String() != want {
		t.Errorf("help =\n%s\nwant\n%s", &b, want)
	}
}

// Elsewhere than on a terminal a transfer is a line every few seconds, and a
// short one nothing.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		c := &cobra.Command{}
		c.SetErr(&b)
		p := StartProgress(c, "flash")
		p.Set(500, 1000)
		p.Stop()
		if b.String() != "" {
			t.Errorf("a short transfer says %q; want nothing", &b)
		}
		p = StartProgress(c, "flash")
		time.Sleep(time.Second / 2)
		for i := range int64(12) {
			p.Set((i+1)*10e6, 120e6)
			time.Sleep(time.Second)
		}
		p.Set(120e6, 120e6)
		time.Sleep(4 * time.Second)
		p.Stop()
		want := []string{
			"flash  42% 50.0 MB/120.0 MB 10.0 MB/s 0:07 left",
			"flash  83% 100.0 MB/120.0 MB 10.0 MB/s 0:02 left",
			"flash 100% 120.0 MB/120.0 MB 4.0 MB/s finishing, 0:15",
			"flash 100% 120.0 MB/120.0 MB 7.3 MB/s in 0:17",
		}
		got := strings.Split(strings.TrimSpace(b.String()), "\n")
		if !slices.Equal(got, want) {
			t.Errorf("progress =\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		b.Reset()
		p = StartProgress(c, "dump")
		p.Set(3e9, -1)
		time.Sleep(6 * time.Second)
		p.Stop()
		if want := "dump 3.0 GB 600.0 MB/s\ndump 3.0 GB 500.0 MB/s in 0:06\n"; b.String() != want {
			t.Errorf("progress of who knows what = %q; want %q", &b, want)
		}
	})
}
