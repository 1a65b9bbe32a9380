// Package lawtest checks import laws: which package of this module may import which, and why not.
//
// The house has floors, and a floor may lean only on those below it. A short test in each top folder states the law of
// that folder as a list of bans:
//
//	func TestLaws(t *testing.T) {
//		lawtest.Check(t, lawtest.Ban{
//			From:    []string{"./drivers/..."},
//			Imports: []string{"google.golang.org/grpc/..."},
//			Deps:    true,
//			Why:     "a driver must run without a network",
//		})
//	}
//
// A breach is reported with its reason, and with the chain of imports if it is indirect:
//
//	drivers/power imports google.golang.org/grpc (through drivers/driver, exporter/rpc): a driver must run without a network
//
// Test files are not judged: a test may import what it likes. Nor are files for other systems than the one that the
// test runs on; files that need cgo are, whether or not the machine can compile them.
package lawtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Ban says what some packages must not import.
//
// A pattern is an import path as the go command takes it. A package of this module starts with "./": "./hw/..." is hw
// and all below it, "./..." is every package of the module. Others have their full path, so that the standard library's
// "image" is not our "./image". In addition, "*" stands for exactly one element: "./drivers/*" is drivers/power, but not
// drivers/power/ykush.
type Ban struct {
	From    []string // whom the ban binds; a pattern that matches nothing is an error
	Except  []string // packages that match From and are free nevertheless
	Imports []string // what they must not import
	Allow   []string // packages that match Imports and are allowed nevertheless
	// Own is how many leading elements make a package the importer's own: with 3, drivers/power/ykush may import
	// drivers/power/ykush/wire although ./drivers/*/*/... is banned. 0 is none.
	Own  int
	Deps bool   // ban indirect imports too
	Why  string // the reason, for whoever breaks the law
}

// Check reports every breach of every ban in the module that the test belongs to.
func Check(t *testing.T, bans ...Ban) {
	t.Helper()
	m, err := loadOnce()
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range m.check(bans) {
		t.Error(err)
	}
}

// module is a module's import graph. Its own packages are named as in patterns, "./hw".
type module struct {
	own     []string // its packages, sorted
	imports map[string][]string
	broken  map[string]string // packages of its own that go list could not read, and why
}

func (m *module) check(bans []Ban) []error {
	var errs []error
	for _, b := range bans {
		if b.Why == "" || len(b.From) == 0 || len(b.Imports) == 0 {
			errs = append(errs, fmt.Errorf("ban %+v: From, Imports and Why are required", b))
			continue
		}
		for _, from := range b.From {
			if !slices.ContainsFunc(m.own, func(p string) bool { return match(from, p) }) {
				errs = append(errs, fmt.Errorf("ban of %q (%s): no package matches %q", b.Imports, b.Why, from))
			}
		}
		for _, p := range m.own {
			if !matchAny(b.From, p) || matchAny(b.Except, p) {
				continue
			}
			if why, ok := m.broken[p]; ok {
				errs = append(errs, fmt.Errorf("%s: cannot be judged: %s", strings.TrimPrefix(p, "./"), why))
				continue
			}
			errs = append(errs, m.breaches(p, b)...)
		}
	}
	return errs
}

// breaches walks p's imports breadth first, so that the chain it reports is a shortest one. It does not look behind a
// banned package: what that imports is its own affair.
func (m *module) breaches(p string, b Ban) []error {
	var errs []error
	via := map[string]string{p: ""} // by whom a package was first seen
	for queue := []string{p}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		for _, imp := range m.imports[at] {
			if _, seen := via[imp]; seen {
				continue
			}
			via[imp] = at
			if matchAny(b.Imports, imp) && !matchAny(b.Allow, imp) && !sameHead(p, imp, b.Own) {
				var chain []string
				for by := at; by != p; by = via[by] {
					chain = append(chain, strings.TrimPrefix(by, "./"))
				}
				slices.Reverse(chain)
				through := ""
				if len(chain) > 0 {
					through = " (through " + strings.Join(chain, ", ") + ")"
				}
				errs = append(errs, fmt.Errorf("%s imports %s%s: %s", strings.TrimPrefix(p, "./"), strings.TrimPrefix(imp, "./"), through, b.Why))
			} else if b.Deps {
				queue = append(queue, imp)
			}
		}
	}
	return errs
}

func matchAny(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, pkg) })
}

// match reports whether the package is one of the pattern's.
func match(pattern, pkg string) bool {
	want, have := strings.Split(pattern, "/"), strings.Split(pkg, "/")
	for i, w := range want {
		if w == "..." && i == len(want)-1 {
			return true
		}
		if i == len(have) || w != "*" && w != have[i] {
			return false
		}
	}
	return len(want) == len(have)
}

// sameHead reports whether a and b have their first n elements, not counting the dot, in common.
func sameHead(a, b string, n int) bool {
	if n == 0 {
		return false
	}
	n++
	as, bs := strings.Split(a, "/"), strings.Split(b, "/")
	return n <= len(as) && n <= len(bs) && slices.Equal(as[:n], bs[:n])
}

// loadOnce loads the module of the current directory; all tests of one program share it.
var loadOnce = sync.OnceValues(func() (*module, error) { return load(".") })

func load(dir string) (*module, error) {
	out, err := golist(dir, "-m", "-json=Path,Dir")
	if err != nil {
		return nil, err
	}
	var mod struct{ Path, Dir string }
	if err := json.Unmarshal(out, &mod); err != nil {
		return nil, fmt.Errorf("go list -m: %w", err)
	}
	if err := touch(mod.Dir); err != nil {
		return nil, err
	}
	out, err = golist(mod.Dir, "-e", "-deps", "-json=ImportPath,Imports,Module,Error", "./...")
	if err != nil {
		return nil, err
	}
	m := &module{imports: map[string][]string{}, broken: map[string]string{}}
	name := func(path string) string {
		if below, ours := strings.CutPrefix(path, mod.Path); ours && (below == "" || below[0] == '/') {
			return "." + below
		}
		return path
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath string
			Imports    []string
			Module     *struct{ Path string }
			Error      *struct{ Err string }
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		pkg := name(p.ImportPath)
		for _, i := range p.Imports {
			m.imports[pkg] = append(m.imports[pkg], name(i))
		}
		if p.Module != nil && p.Module.Path == mod.Path {
			m.own = append(m.own, pkg)
			if p.Error != nil {
				m.broken[pkg] = p.Error.Err
			}
		}
	}
	slices.Sort(m.own)
	return m, nil
}

func golist(dir string, args ...string) ([]byte, error) {
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1") // so that files that need cgo are seen on every machine
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w: %s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return out, nil
}

// touch looks at every source folder of the module. "go test" repeats an old verdict as long as the files are unchanged
// that the test itself has opened, and the sources are opened by another process, go list. For an opened folder it
// compares the names, sizes and times of the files within.
func touch(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if path != root && (strings.HasPrefix(d.Name(), ".") || strings.HasPrefix(d.Name(), "_") || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		return nil
	})
}
