package lawtest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, pkg string
		want         bool
	}{
		{"./hw", "./hw", true},
		{"./hw", "./hw/serial", false},
		{"./hw/...", "./hw", true},
		{"./hw/...", "./hw/serial/serialtest", true},
		{"./hw/...", "./hwfoo", false},
		{"./drivers/*", "./drivers/power", true},
		{"./drivers/*", "./drivers", false},
		{"./drivers/*", "./drivers/power/ykush", false},
		{"./drivers/*/*/...", "./drivers/power", false},
		{"./drivers/*/*/...", "./drivers/power/ykush", true},
		{"./drivers/*/*/...", "./drivers/power/ykush/wire", true},
		{"./...", "./hw", true},
		{"./...", ".", true},
		{"./...", "image", false},
		{"./image", "image", false},
		{"google.golang.org/grpc/...", "google.golang.org/grpc", true},
		{"google.golang.org/grpc/...", "google.golang.org/grpc/codes", true},
		{"google.golang.org/grpc/...", "google.golang.org/protobuf/proto", false},
	} {
		if got := match(c.pattern, c.pkg); got != c.want {
			t.Errorf("match(%q, %q) = %v; want %v", c.pattern, c.pkg, got, c.want)
		}
	}
}

// house is a small module with one of each: a direct import, a chain, a namesake of a standard package, a test file that
// breaks every law, and a package that does not parse.
var house = map[string]string{
	"go.mod":                     "module example.org/house\n\ngo 1.25\n",
	"hw/hw.go":                   "package hw\nimport _ \"image\"\n",
	"hw/hw_test.go":              "package hw\nimport _ \"example.org/house/cmd\"\n",
	"image/image.go":             "package image\n",
	"drivers/power/power.go":     "package power\nimport _ \"example.org/house/kernel\"\n",
	"drivers/power/a/a.go":       "package a\nimport (\n_ \"example.org/house/drivers/power\"\n_ \"example.org/house/drivers/power/a/wire\"\n)\n",
	"drivers/power/a/wire/w.go":  "package wire\n",
	"drivers/power/b/b.go":       "package b\nimport _ \"example.org/house/drivers/power/a\"\n",
	"kernel/kernel.go":           "package kernel\nimport _ \"example.org/house/wire\"\n",
	"wire/wire.go":               "package wire\nimport _ \"net/http\"\n",
	"broken/broken.go":           "package broken\nimport \"os\nfunc(\n",
	"cmd/main.go":                "package main\nimport (\n_ \"example.org/house/hw\"\n_ \"example.org/house/image\"\n)\nfunc main() {}\n",
	"hw/testdata/skipped/bad.go": "package bad\nimport _ \"net/http\"\n",
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	for name, text := range house {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("GOWORK", "off")
	t.Setenv("GOFLAGS", "-mod=mod")
	m, err := load(dir)
	if err != nil {
		t.Fatal(err)
	}

	for _, c := range []struct {
		name string
		ban  Ban
		want []string // the errors; a breach is whole, other errors are by a part
	}{
		{"lawful", Ban{From: []string{"./hw/..."}, Imports: []string{"./..."}, Why: "y"}, nil},
		{"direct",
			Ban{From: []string{"./drivers/power"}, Imports: []string{"./kernel"}, Why: "y"},
			[]string{"drivers/power imports kernel: y"}},
		{"indirect is not direct",
			Ban{From: []string{"./drivers/power"}, Imports: []string{"net/..."}, Why: "y"}, nil},
		{"indirect",
			Ban{From: []string{"./drivers/power"}, Imports: []string{"net/http"}, Deps: true, Why: "no network"},
			[]string{"drivers/power imports net/http (through kernel, wire): no network"}},
		{"a banned package hides what is behind it",
			Ban{From: []string{"./drivers/power"}, Imports: []string{"./wire", "net/http"}, Deps: true, Why: "y"},
			[]string{"drivers/power imports wire (through kernel): y"}},
		{"namesake",
			Ban{From: []string{"./cmd"}, Imports: []string{"./image"}, Why: "y"},
			[]string{"cmd imports image: y"}},
		{"allow",
			Ban{From: []string{"./cmd"}, Imports: []string{"./..."}, Allow: []string{"./image"}, Why: "y"},
			[]string{"cmd imports hw: y"}},
		{"except",
			Ban{From: []string{"./..."}, Except: []string{"./drivers/...", "./broken"}, Imports: []string{"./..."},
				Allow: []string{"./hw", "./image"}, Why: "y"},
			[]string{"kernel imports wire: y"}},
		{"own",
			Ban{From: []string{"./drivers/*/*/..."}, Imports: []string{"./drivers/*/*/..."}, Own: 3, Why: "y"},
			[]string{"drivers/power/b imports drivers/power/a: y"}},
		{"nobody", Ban{From: []string{"./hw", "./gone/..."}, Imports: []string{"./cmd"}, Why: "y"},
			[]string{`no package matches "./gone/..."`}},
		{"unreadable", Ban{From: []string{"./broken"}, Imports: []string{"./cmd"}, Why: "y"},
			[]string{"broken: cannot be judged: "}},
		{"no reason", Ban{From: []string{"./hw"}, Imports: []string{"./cmd"}},
			[]string{"From, Imports and Why are required"}},
	} {
		got := m.check([]Ban{c.ban})
		ok := slices.EqualFunc(got, c.want, func(err error, want string) bool {
			if strings.Contains(want, " imports ") {
				return err.Error() == want
			}
			return strings.Contains(err.Error(), want)
		})
		if !ok {
			t.Errorf("%s: check(%+v) = %q; want %q", c.name, c.ban, got, c.want)
		}
	}
}
