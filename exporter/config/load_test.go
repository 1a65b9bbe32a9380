package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
)

const minimal = "metadata: {namespace: lab, name: bench}\n"

// What an archive of text cannot hold.
func TestParseBytes(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"byte order mark", "\uFEFF" + minimal, ""},
		{"CR LF", strings.ReplaceAll(minimal+"export:\n  a: {type: 5}\n  b: *c\n", "\n", "\r\n"), `f:4:6: *c: no anchor &c stands before it`},
		{"CR LF in text", "metadata: {namespace: lab, name: bench}\r\nmotd: |\r\n  one\r\n  two\r\nexport: 5\r\n", `f:5:9: export: wants a mapping, got 5`},
		{"token of digits", minimal + "token: 12345678\n", `f:2:8: token: wants text, got [secret]; put it in quotes`},
		{"no newline at the end", strings.TrimSpace(minimal), ""},
		{"UTF-16", "\xff\xfem\x00e\x00", "f:1:1: the file is in UTF-16: save it as UTF-8"},
		{"Latin-1", minimal + "description: B\xe4nk am Fenster\n", "f:2:15: the byte 0xe4 is not UTF-8: save the file as UTF-8"},
		{"cut character", minimal + "motd: \xe2\x82", "f:2:7: the byte 0xe2 is not UTF-8: save the file as UTF-8"},
		{"columns are characters", minimal + "motd: größer: als\n", `f:2:7: a second "key: value" begins here: put a text with ": " in it in quotes, and look at the indentation`},
		{"NUL", minimal + "\x00", "f:2:1: the character U+0000 must not be in a YAML file"},
		{"byte order mark within", minimal + "motd: a\uFEFFb\n", "f:2:8: the character U+FEFF must not be in a YAML file"},
		{"directive with CR", "%YAML 1.2\r\n---\r\n" + minimal, ""},
		{"as large as can be", minimal + "#" + strings.Repeat("x", maxSize-len(minimal)-1), ""},
		{"too large", minimal + "#" + strings.Repeat("x", maxSize), "f: the file is larger than 1048576 bytes, which no configuration is"},
		{"deep lists", minimal + "x-deep: " + strings.Repeat("[", 11000), "f:2:10009: values nest too deeply"},
		{"deep blocks", minimal + "x-deep:\n  " + strings.Repeat("- ", 11000) + "a\n", "f:3:20001: values nest too deeply"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, problems := Parse("f", []byte(c.text), none)
			var got []string
			for _, p := range problems {
				got = append(got, p.String())
			}
			if s := strings.Join(got, "\n"); s != c.want {
				t.Errorf("Parse() found %q; want %q", s, c.want)
			}
		})
	}
}

// Small files that would take years, or any memory, if their aliases were
// followed without a count.
func TestParseBombs(t *testing.T) {
	list := "x-l: &l [" + strings.Repeat("1, ", 50_000) + "]\n"
	var uses strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&uses, "  n%d: {type: lab.X, config: {l: *l}}\n", i)
	}
	for name, text := range map[string]string{
		"children":           minimal + bomb(30, func(i int) string { return fmt.Sprintf("{children: {a: *b%d, b: *b%d}}", i, i) }) + "export: {a: *b30}\n",
		"values of a config": minimal + list + "export:\n" + uses.String(),
		"lists":              minimal + bomb(30, func(i int) string { return fmt.Sprintf("[*b%d, *b%d]", i, i) }) + "export: {a: {type: lab.X, config: {l: *b30}}}\n",
		"merges":             minimal + bomb(30, func(i int) string { return fmt.Sprintf("{<<: [*b%d, *b%d]}", i, i) }) + "export: {a: *b30}\n",
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, problems := Parse("f", []byte(text), none)
			if err := problems.Err(); err == nil || !strings.Contains(err.Error(), "more than 1000000 values") {
				t.Errorf("Parse() found %v; want too many values", problems)
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("Parse() took %v", took)
			}
		})
	}
}

// bomb is a list of anchors, each of which holds the one before twice.
func bomb(levels int, next func(i int) string) string {
	var b strings.Builder
	b.WriteString("x-b0: &b0 {type: lab.X}\n")
	for i := range levels {
		fmt.Fprintf(&b, "x-b%d: &b%d %s\n", i+1, i+1, next(i))
	}
	return b.String()
}

// Instances may nest as deeply as the parser allows; the tree then says that
// this is too deep.
func TestParseDeep(t *testing.T) {
	c, problems := Parse("f", []byte(minimal+"export: "+strings.Repeat("{a: {children: ", 4000)+"{}"+strings.Repeat("}}", 4000)), none)
	if c == nil || len(problems) > 0 {
		t.Fatalf("Parse() = %v, %v; want a config", c, problems)
	}
	_, problems = driver.Plan(c.Export, driver.Options{Specs: specs})
	if err := problems.Err(); err == nil || !strings.Contains(err.Error(), "nest deeper than") {
		t.Errorf("Plan() found %v; want that children nest too deeply", problems)
	}
}

// The problems of a file and those of its harness come together, by place.
func TestParseThenPlan(t *testing.T) {
	c, problems := Parse("f", []byte(`metadata: {namespace: lab, name: bench}
motdd: hello
export:
  a: {type: lab.Yacht}
  b: {type: 5, config: {speed: 7}}
  c: {ref: b}
  d: {ref: e.power}
  e: {type: lab.Boat, config: {sped: 7}}
  f: {type: lab.Boat, config: {speed: fast}}
endpoint: 5
`), none)
	if c == nil {
		t.Fatalf("Parse() = nil, %v; want what could be understood", problems)
	}
	tree, more := driver.Plan(c.Export, driver.Options{Specs: specs})
	if tree != nil {
		t.Errorf("Plan() = a tree; want none")
	}
	problems = append(problems, more...)
	problems.Sort()
	want := []struct{ at, part string }{
		{"f:2:1", `unknown key "motdd"`},
		{"f:4:13", `"lab.Yacht"; did you mean "lab.Yawl"?`},
		{"f:5:13", "b: type: wants text, got 5"},
		{"f:7:12", `ref "e.power"`},
		{"f:8:31", `key "speed" is missing`},
		{"f:8:32", `unknown key "sped"; did you mean "speed"?`},
		{"f:9:39", `speed: wants an integer, got "fast"`},
		{"f:10:11", "endpoint: wants text, got 5"},
	}
	for i, p := range problems {
		if i >= len(want) || p.Pos.String() != want[i].at || !strings.Contains(p.Text, want[i].part) {
			t.Fatalf("Parse() and Plan() found\n%v\nwant\n%v", problems, want)
		}
	}
	if len(problems) != len(want) {
		t.Errorf("Parse() and Plan() found %v; want %v", problems, want)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	path := write("good.yaml", minimal, 0o600)
	c, problems, err := Load(path, none)
	if err != nil || len(problems) != 0 || c.Name != "bench" || c.Path != path {
		t.Errorf("Load(good) = %+v, %v, %v; want bench of %s", c, problems, err, path)
	}
	path = write("broken.yaml", "metadata: 5\n", 0o600)
	if _, problems, err = Load(path, none); err != nil || len(problems) != 1 || problems[0].Pos != (driver.Pos{File: path, Line: 1, Column: 11}) {
		t.Errorf("Load(broken) = %v, %v; want one problem at %s:1:11", problems, err, path)
	}
	if _, problems, err = Load("/dev/zero", none); err != nil || len(problems) != 1 || !strings.Contains(problems[0].Text, "larger than") {
		t.Errorf("Load(/dev/zero) = %v, %v; want that it is too large", problems, err)
	}
	if _, _, err = Load(dir, none); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("Load(directory) = %v; want that it is one", err)
	}
	if _, _, err = Load(filepath.Join(dir, "none.yaml"), none); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "alias") {
		t.Errorf("Load(nothing) = %v; want that it does not exist, and what to do", err)
	}
	path = write("secret.yaml", minimal, 0)
	_, _, err = Load(path, none)
	if os.Geteuid() == 0 {
		t.Log("root may read all files: cannot see what others see")
	} else if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "right to read") {
		t.Errorf("Load(secret) = %v; want that it must not be read, and what to do", err)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	user, system := filepath.Join(dir, "user"), filepath.Join(dir, "system")
	for _, path := range []string{"user/mine.yaml", "user/both.yaml", "system/both.yaml", "system/bench-7.yaml", "system/notes.txt", "notdir"} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		alias string
		dirs  []string
		want  string // or the error
	}{
		{"mine", []string{user, system}, user + "/mine.yaml"},
		{"both", []string{user, system}, user + "/both.yaml"},
		{"bench-7", []string{user, system}, system + "/bench-7.yaml"},
		{"bench-7", []string{dir + "/absent", system}, system + "/bench-7.yaml"},
		{"bench-7", []string{dir + "/notdir/exporters", system}, system + "/bench-7.yaml"},
		{"bench7", []string{user, system}, `exporter "bench7": file does not exist: looked for ` + user + `/bench7.yaml and ` + system + `/bench7.yaml; there is bench-7, both, mine; did you mean "bench-7"?`},
		{"x", []string{dir + "/absent"}, `exporter "x": file does not exist: looked for ` + dir + `/absent/x.yaml; there are no others`},
		{"notes", []string{system}, `exporter "notes": file does not exist: looked for ` + system + `/notes.yaml; there is bench-7, both`},
		{"", []string{user}, `exporter alias "": must be the name of a file without .yaml; for a path there is --exporter-config`},
		{"..", []string{user}, `exporter alias "..": must be the name of a file without .yaml; for a path there is --exporter-config`},
		{"../user/mine", []string{user}, `exporter alias "../user/mine": must be the name of a file without .yaml; for a path there is --exporter-config`},
		{`a\b`, []string{user}, `exporter alias "a\\b": must be the name of a file without .yaml; for a path there is --exporter-config`},
	} {
		got, err := find(c.alias, c.dirs...)
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("find(%q) = %s; want %s", c.alias, got, c.want)
		}
	}
	if _, err := find("none", user); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("find(none) = %v; want one that is fs.ErrNotExist", err)
	}
	if _, err := find(strings.Repeat("x", 300), user); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("find(300 letters) = %v; want the system's reason", err)
	}
}

func TestFindUserDir(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"HOME": "/home/me"}, "/home/me/.config/jumpstarter/exporters"},
		{map[string]string{"HOME": "/home/me", "XDG_CONFIG_HOME": "/cfg"}, "/cfg/jumpstarter/exporters"},
		{map[string]string{"HOME": "/home/me", "XDG_CONFIG_HOME": "relative"}, "/home/me/.config/jumpstarter/exporters"},
		{map[string]string{"HOME": "/home/me", "XDG_CONFIG_HOME": "/cfg", "JMP_CLIENT_CONFIG_HOME": "/jmp"}, "/jmp/exporters"},
		{map[string]string{"JMP_CLIENT_CONFIG_HOME": "here"}, "here/exporters"},
	} {
		if got := userDir(environ(c.env)); got != c.want {
			t.Errorf("userDir(%v) = %s; want %s", c.env, got, c.want)
		}
	}
	if got := userDir(none); !filepath.IsAbs(got) {
		t.Errorf("userDir without HOME = %s; want the user's own", got)
	}

	// The same by way of the exported function.
	dir := t.TempDir()
	path := filepath.Join(dir, "exporters", "bench.yaml")
	if err := os.Mkdir(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if got, err := Find("bench", environ(map[string]string{"JMP_CLIENT_CONFIG_HOME": dir})); got != path || err != nil {
		t.Errorf("Find(bench) = %s, %v; want %s", got, err, path)
	}
}

// FuzzParse holds that no file, however strange, hangs or breaks the exporter,
// and that every problem has a place within the file.
func FuzzParse(f *testing.F) {
	paths, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil || len(paths) == 0 {
		f.Fatalf("Glob() = %v, %v; want the corpus", paths, err)
	}
	for _, path := range paths {
		if text := readArchive(f, path).files["config.yaml"]; len(text) < 2000 {
			f.Add([]byte(text))
			f.Add([]byte(strings.NewReplacer("lab.X", "lab.Boat", "jumpstarter_driver_power.driver.MockPower", "lab.Yawl").Replace(text)))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, problems := Parse("f", text, none)
		if c == nil && problems.Err() == nil {
			t.Errorf("Parse() = nil without an error")
		}
		lines := bytes.Count(text, []byte("\n")) + bytes.Count(text, []byte("\r")) + strings.Count(string(text), "\u0085") +
			strings.Count(string(text), "\u2028") + strings.Count(string(text), "\u2029") + 1
		if c != nil {
			tree, more := driver.Plan(c.Export, driver.Options{Specs: specs})
			if (tree == nil) != (more.Err() != nil) {
				t.Errorf("Plan() = %v, %v; want a tree or an error", tree, more)
			}
			if tree != nil {
				tree.Reports()
			}
			problems = append(problems, more...)
		}
		for _, p := range problems {
			if p.Pos.Line < 1 || p.Pos.Line > lines+1 || p.Pos.Column < 1 {
				t.Errorf("problem %v is at no place in a file of %d lines", p, lines)
			}
			if strings.Contains(p.String(), "\n") || p.Text == "" {
				t.Errorf("problem %q is not one line", p)
			}
		}
	})
}
