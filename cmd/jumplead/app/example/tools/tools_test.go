//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/drivers/cli"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
)

// commands are for the tests. DIR is a folder of the test's own.
const commands = `
timeout: 20
output: 1000
commands:
  words:
    argv: [/usr/bin/printf, '[%s]', 'a={a}{b}', '{b}', '{c}']
    args:
      - {name: a}
      - {name: b, pattern: '.*'}
      - {name: c, pattern: '-?[a-z]+', dash: true}
    description: Shows its words
  env: {argv: [/usr/bin/env]}
  fail: {argv: [/bin/sh, -c, 'echo out; echo oops >&2; exit 3']}
  killed: {argv: [/bin/sh, -c, 'kill -9 $$']}
  loud: {argv: [/usr/bin/head, -c, '{bytes}', /dev/zero], args: [{name: bytes}]}
  hang: {argv: [/bin/sh, -c, 'sleep 1000 & setsid sleep 1000 & echo $$ $! >DIR/pids; wait']}
  late: {argv: [/bin/sleep, "1000"], timeout: 0.05}
  leave: {argv: [/bin/sh, -c, 'setsid sleep 1000 >/dev/null 2>&1 & echo $!']}
  nothing: {argv: [/no/such/program]}
`

func open(t *testing.T) (c *Client, dir string) {
	t.Helper()
	dir = t.TempDir()
	return NewClient(drivertest.Open(t, strings.ReplaceAll(commands, "DIR", dir), Allowed)), dir
}

func TestDriver(t *testing.T) {
	drivertest.Spec(t, Allowed, commands)
	drivertest.Bench{}.Lifecycle(t, commands, Allowed)
}

func TestExecute(t *testing.T) {
	drivertest.NoLeaks(t)
	c, _ := open(t)
	for _, test := range []struct {
		call string // words between bars
		want Result
	}{
		{"words|x|y|z", Result{Stdout: "[a=xy][y][z]"}},
		{"words|x-1,y=2|$(id); `id` && rm -rf / #|-z", Result{Stdout: "[a=x-1,y=2$(id); `id` && rm -rf / #][$(id); `id` && rm -rf / #][-z]"}},
		{"words|a|{c}{a}|z", Result{Stdout: "[a=a{c}{a}][{c}{a}][z]"}},
		{"words|a|%s %n|z", Result{Stdout: "[a=a%s %n][%s %n][z]"}},
		{"fail", Result{Code: 3, Stdout: "out\n", Stderr: "oops\n"}},
		{"killed", Result{Code: -9}},
		{"loud|1000", Result{Stdout: strings.Repeat("\x00", 1000)}},
		{"loud|5000000", Result{Stdout: strings.Repeat("\x00", 1000), Truncated: true}},
	} {
		words := strings.Split(test.call, "|")
		got, err := c.Execute(t.Context(), words[0], words[1:]...)
		if err != nil || got != test.want {
			t.Errorf("Execute(%s) = %+v, %v; want %+v", test.call, got, err, test.want)
		}
	}
	r, err := c.Execute(t.Context(), "env")
	for line := range strings.Lines(r.Stdout) {
		if name, _, _ := strings.Cut(line, "="); name != "PATH" && name != "LANG" && !strings.HasPrefix(name, "JUMPLEAD_RUN_") {
			t.Errorf("a command's environment has %q; want nothing of the exporter's", line)
		}
	}
	if err != nil || r.Stdout == "" {
		t.Errorf("Execute(env) = %+v, %v; want an environment", r, err)
	}
}

// What is not allowed is an error of the caller's, and nothing is run.
func TestRefused(t *testing.T) {
	c, _ := open(t)
	for call, want := range map[string]string{
		"word|x":          `command: "word" is none of env, fail, hang, killed, late, leave, loud, nothing, words; did you mean "words"?`,
		"|x":              `command: "" is none of`,
		"/usr/bin/env":    `command: "/usr/bin/env" is none of`,
		"words|x|y":       "args: wants 3 (a, b, c), got 2",
		"words|x|y|z|z":   "args: wants 3 (a, b, c), got 4",
		"env|x":           "args: wants 0, got 1",
		"words||y|z":      "a: is empty",
		"words|-x|y|z":    `a: "-x" begins with a dash`,
		"words|x|-y|z":    `b: "-y" begins with a dash`,
		"words|x y|y|z":   `a: "x y" does not match [A-Za-z0-9]`,
		"words|../x|y|z":  `a: "../x" does not match`,
		"words|x;y|y|z":   `a: "x;y" does not match`,
		"words|x\ny|y|z":  `a: "x\ny" does not match`,
		"words|x\n|y|z":   `a: "x\n" does not match`,
		"words|é|y|z":     `a: "é" does not match`,
		"words|x|y\ny|z":  `b: "y\ny" does not match .*`,
		"words|x|y|--":    `c: "--" does not match`,
		"words|x|y|-z1":   `c: "-z1" does not match`,
		"words|x|y\x00|z": "b: holds a NUL byte",
		"words|x|y|z" + strings.Repeat("z", 4096): "c: has 4097 bytes; at most 4096 are allowed",
	} {
		words := strings.Split(call, "|")
		r, err := c.Execute(t.Context(), words[0], words[1:]...)
		var arg *driver.ArgError
		if !errors.As(err, &arg) || !strings.HasPrefix(err.Error(), want) || r != (Result{}) {
			t.Errorf("Execute(%.60q) = %+v, %v; want an ArgError %q", call, r, err, want)
		}
	}
	if _, err := c.Execute(t.Context(), "nothing"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Execute(nothing) = %v; want %v", err, os.ErrNotExist)
	}
}

// gone waits until processes have ended.
func gone(t *testing.T, pids string) {
	t.Helper()
	list := strings.Fields(pids)
	if len(list) == 0 {
		t.Fatal("no process was named")
	}
	for _, pid := range list {
		drivertest.Until(t, "process "+pid+" has ended", func() bool {
			stat, err := os.ReadFile("/proc/" + pid + "/stat")
			return err != nil || bytes.Contains(stat, []byte(") Z "))
		})
	}
}

// A command ends with all of its processes, however it ends.
func TestEnds(t *testing.T) {
	hanging := func(t *testing.T, end func(cancel func(), tree *driver.Tree)) (pids string, err error) {
		drivertest.NoLeaks(t)
		dir := t.TempDir()
		tree := drivertest.Bench{}.Tree(t, strings.ReplaceAll(commands, "DIR", dir), Allowed)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() {
			_, err := NewClient(tree.Root.Caller()).Execute(ctx, "hang")
			done <- err
		}()
		drivertest.Until(t, "the command runs", func() bool {
			text, _ := os.ReadFile(filepath.Join(dir, "pids"))
			pids = string(text)
			return strings.HasSuffix(pids, "\n")
		})
		end(cancel, tree)
		return pids, <-done
	}
	t.Run("caller goes", func(t *testing.T) {
		pids, err := hanging(t, func(cancel func(), _ *driver.Tree) { cancel() })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Execute() = %v; want %v", err, context.Canceled)
		}
		gone(t, pids)
	})
	t.Run("session ends", func(t *testing.T) {
		pids, err := hanging(t, func(_ func(), tree *driver.Tree) {
			if err := tree.Close(); err != nil {
				t.Errorf("Close() = %v; want nil", err)
			}
		})
		if !errors.Is(err, driver.ErrUnavailable) {
			t.Errorf("Execute() = %v; want %v", err, driver.ErrUnavailable)
		}
		gone(t, pids)
	})
	t.Run("time is over", func(t *testing.T) {
		c, _ := open(t)
		if _, err := c.Execute(t.Context(), "late"); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "late: ended after 50ms") {
			t.Errorf("Execute() = %v; want %v", err, context.DeadlineExceeded)
		}
	})
	t.Run("by itself", func(t *testing.T) {
		drivertest.NoLeaks(t)
		c, _ := open(t)
		r, err := c.Execute(t.Context(), "leave")
		if err != nil || r.Code != 0 {
			t.Errorf("Execute() = %+v, %v; want 0, nil", r, err)
		}
		gone(t, r.Stdout)
	})
}

// Mistakes in a config are found before anything is called.
func TestConfig(t *testing.T) {
	for yaml, want := range map[string]string{
		"{}":                          `key "commands" is missing`,
		"commands: {x: {argv: []}}":   `commands.x.argv: wants a program by its absolute path, got ""`,
		"commands: {x: {argv: [ls]}}": `wants a program by its absolute path, got "ls"`,
		"commands: {x: {argv: [/bin/ls, '{a}']}, y: {args: [{name: a}]}}":          `key "commands.y.argv" is missing`,
		"commands: {x: {argv: [/bin/ls, '{b}'], args: [{name: a}]}}":               "commands.x.argv: it has no place for {a}",
		"commands: {x: {argv: ['/bin/{a}', '{a}'], args: [{name: a}]}}":            "callers do not choose the program",
		"commands: {x: {argv: [/bin/ls, '{a}'], args: [{name: a}, {name: a}]}}":    "commands.x.args: two are called a",
		"commands: {x: {argv: [/bin/ls, '{a b}'], args: [{name: a b}]}}":           `commands.x.args[0].name: "a b" is no word`,
		"commands: {x: {argv: [/bin/ls, '{a}'], args: [{name: a, pattern: '('}]}}": "commands.x.args[0].pattern: error parsing regexp",
		"commands: {x: {argv: [/bin/ls, '{a}'], args: [{name: a, patern: 'a'}]}}":  `unknown key "commands.x.args[0].patern"; did you mean "pattern"?`,
		"{commands: {x: {argv: [/bin/ls]}}, timeout: 0}":                           "timeout: 0 is out of range",
	} {
		_, problems := drivertest.Bench{}.Plan(t, yaml, Allowed)
		if err := problems.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Plan(%s) = %v; want %q", yaml, err, want)
		}
	}
}

func TestList(t *testing.T) {
	c, _ := open(t)
	list, err := c.List(t.Context())
	if err != nil || len(list) != 9 || fmt.Sprint(list[8]) != "{words [a b c] Shows its words}" {
		t.Errorf("List() = %v, %v; want nine, words as the last", list, err)
	}
}

// j has a command for each.
func TestJ(t *testing.T) {
	c, _ := open(t)
	for _, test := range []struct {
		call           string
		status         int
		stdout, stderr string // a part of it
	}{
		{"words x y z", 0, "[a=xy][y][z]", ""},
		{"words -- x y -z", 0, "[a=xy][y][-z]", ""},
		{"words x y", 1, "", "Missing argument 'C'"},
		{"words x,; y z", 1, "", `a: "x,;" does not match`},
		{"fail", 3, "out\n", "oops\n"},
		{"--json fail", 3, `{"code":3,"stdout":"out\n","stderr":"oops\n","truncated":false}`, ""},
		{"killed", 137, "", ""},
		{"loud 1001", 0, "\x00", "(there was more)"},
		{"--help", 0, "words", ""},
		{"words --help", 0, "Shows its words", ""},
	} {
		var stdout, stderr bytes.Buffer
		s := &cli.Session{Getenv: func(string) string { return "" }}
		root := cli.Table{Contract.Client: Commands}.Commands(&cli.Node{Caller: c.c, Name: "tools", Class: Contract.Client, Session: s})
		root.SetOut(&stdout)
		root.SetErr(&stderr)
		status := cli.Tell(&stderr, cli.Execute(t.Context(), root, s, strings.Fields(test.call)))
		if status != test.status || !strings.Contains(stdout.String(), test.stdout) || !strings.Contains(stderr.String(), test.stderr) {
			t.Errorf("j tools %s = %d, %q, %q; want %d, %q, %q", test.call, status, &stdout, &stderr, test.status, test.stdout, test.stderr)
		}
	}
}

// FuzzWords makes command lines of what strangers send.
func FuzzWords(f *testing.F) {
	f.Add("x", "y", "[a-z]+", true)
	f.Add("-x", "{b}", ".*", false)
	f.Add("x\n", "{a}{b}", "(?m)^a$|b", false)
	f.Add("..", "--", "a)|(b", true)
	f.Add("A.b:c@d%e+f=g,h_i-j", "", `\Qa`, false)
	f.Add("x", "ab", "a|ab", false)
	f.Add("x", "ab", "(?U)a+b*", false)
	simple := regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._:@%+=,-]*\z`)
	f.Fuzz(func(t *testing.T, first, second, pattern string, dash bool) {
		whole, err := regexp.Compile(`\A(?:` + pattern + `)\z`)
		if err != nil { // such as \Qa, which is a pattern only by itself
			whole = nil
		}
		c := command{Argv: []string{"/bin/x", "-o={b}", "{a}", "{b}{a}", "{c}"},
			Args: []argument{{Name: "a", Pattern: "[A-Za-z0-9][A-Za-z0-9._:@%+=,-]*"}, {Name: "b", Pattern: pattern, Dash: dash}}}
		for i := range c.Args {
			if err := c.Args[i].Validate(); err != nil {
				return // check says so, and nothing is run
			}
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("Validate() = %v; want nil", err)
		}
		words, err := c.words([]string{first, second})
		good := simple.MatchString(first) && second != "" && (dash || second[0] != '-') && !strings.Contains(second, "\x00") &&
			len(first) <= maxArgument && len(second) <= maxArgument
		if whole != nil {
			good = good && whole.MatchString(second)
		}
		var arg *driver.ArgError
		switch {
		case err != nil && (!errors.As(err, &arg) || words != nil):
			t.Fatalf("words(%q, %q) = %q, %v; want an ArgError, and no words", first, second, words, err)
		case err != nil && good && whole != nil:
			t.Fatalf("words(%q, %q) with %q = %v; want nil", first, second, pattern, err)
		case err == nil && !good:
			t.Fatalf("words(%q, %q) with %q = %q; want an error", first, second, pattern, words)
		case err == nil && !slices.Equal(words, []string{"/bin/x", "-o=" + second, first, second + first, "{c}"}):
			t.Fatalf("words(%q, %q) = %q; want each in its place", first, second, words)
		}
	})
}
