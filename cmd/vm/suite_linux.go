package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jumplead/jumplead/cmd/jumplead/interop/pyenv"
	"github.com/jumplead/jumplead/cmd/vm/guest"
	"github.com/jumplead/jumplead/hw/hwtest"
)

// tests says how to run tests.
type tests struct {
	race, verbose bool
	run           string
	count         int
	timeout       time.Duration
}

// goPackage is what `go list` says of a package.
type goPackage struct {
	ImportPath, Dir, Name     string
	GoFiles                   []string
	TestGoFiles, XTestGoFiles []string
	Imports                   []string
	TestImports, XTestImports []string
}

const (
	module     = "github.com/jumplead/jumplead"
	hwtestPath = module + "/hw/hwtest"
)

// suite runs the tests of those packages among the patterns that ask for
// something that the guest gives, in as few guests as make use of the processors,
// and prints what go test would.
func (t *tests) suite(ctx context.Context, s *setup, patterns []string) (int, error) {
	if len(patterns) == 0 {
		patterns = []string{"./..."}
	}
	asking, err := askers(ctx, patterns)
	if err != nil {
		return 1, err
	}
	if len(asking) == 0 {
		return 1, fmt.Errorf("no package of %q asks for what the guest gives", patterns)
	}
	dir, err := os.MkdirTemp("", "vm-tests-*")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	status, idle := 0, 0
	fail := func(p goPackage, took time.Duration, why error) {
		status = 1
		if why != nil {
			fmt.Println(why)
		}
		fmt.Printf("FAIL\t%s\t%.3fs\n", p.ImportPath, took.Seconds())
	}
	// All are built before any runs: the guest keeps what it has seen of the host's
	// folders.
	binaries := map[string]string{}
	start := time.Now()
	for i, p := range asking {
		out := filepath.Join(dir, fmt.Sprintf("%d-%s.test", i, p.Name))
		args := []string{"test", "-c", "-o", out}
		if t.race {
			args = append(args, "-race")
		}
		c := exec.CommandContext(ctx, "go", append(args, p.ImportPath)...)
		c.Env = append(os.Environ(), "GOTMPDIR="+dir) // go need not get to put it away
		c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
		c.WaitDelay = 10 * time.Second
		if said, err := c.CombinedOutput(); err != nil {
			fail(p, 0, fmt.Errorf("%s%w", said, err))
			continue
		}
		binaries[p.ImportPath] = out
	}
	fmt.Printf("vm: %d packages built in %.1f s\n", len(binaries), time.Since(start).Seconds())
	more, lack := python(ctx, asking)
	if lack != nil {
		fmt.Fprintln(os.Stderr, "vm:", lack)
	}
	// A guest has one processor: two of them make use of two. With -v all is shown as
	// it comes, which two would garble.
	guests := min(2, runtime.NumCPU(), len(binaries))
	if t.verbose {
		guests = 1
	}
	var mu sync.Mutex // for what is shown and counted
	built := slices.DeleteFunc(asking, func(p goPackage) bool { return binaries[p.ImportPath] == "" })
	var taken atomic.Int32
	var working sync.WaitGroup
	failed := make([]error, guests)
	for i := range guests {
		working.Go(func() {
			var m *machine
			var promised []string
			defer func() {
				if m != nil {
					m.close()
				}
			}()
			for ctx.Err() == nil && int(taken.Load()) < len(built) {
				if m == nil {
					start := time.Now()
					var err error
					if m, promised, err = s.boot(ctx); err != nil {
						failed[i] = err
						return // another guest may take what is left
					}
					promised = append(promised, more...)
					fmt.Printf("vm: booted in %.1f s; it gives %s\n", time.Since(start).Seconds(), strings.Join(promised, ", "))
				}
				n := int(taken.Add(1)) - 1
				if n >= len(built) {
					return
				}
				p := built[n]
				start := time.Now()
				said, got, lost := t.test(ctx, m, p, binaries[p.ImportPath], promised)
				took := time.Since(start)
				if dead := new(deadError); errors.As(lost, &dead) {
					if dead.hung {
						s.disappointed()
					}
					m = nil // the others get another one
				}
				mu.Lock()
				if (got != 0 || lost != nil) && !t.verbose {
					os.Stdout.Write(said)
				}
				switch {
				case ctx.Err() != nil:
				case got != 0 || lost != nil:
					fail(p, took, lost)
				default:
					note := ""
					if bytes.Contains(said, []byte("testing: warning: no tests to run\n")) {
						note = " [no tests to run]"
						idle++
					}
					fmt.Printf("ok  \t%s\t%.3fs%s\n", p.ImportPath, took.Seconds(), note)
				}
				mu.Unlock()
			}
		})
	}
	working.Wait()
	if err := cmp.Or(ctx.Err(), errors.Join(failed...)); err != nil {
		return 1, err
	}
	if status == 0 && idle == len(built) {
		return 1, fmt.Errorf("of %d packages none has a test that matches %q", idle, t.run)
	}
	if status != 0 {
		fmt.Println("FAIL") // as go test ends
	}
	return status, nil
}

// test runs the tests of one package, and returns what they print and their exit
// status.
func (t *tests) test(ctx context.Context, m *machine, p goPackage, binary string, promised []string) ([]byte, int, error) {
	args := []string{binary, "-test.paniconexit0", "-test.timeout=" + t.timeout.String(), "-test.count=" + strconv.Itoa(t.count)}
	if t.verbose {
		args = append(args, "-test.v=true")
	}
	if t.run != "" {
		args = append(args, "-test.run="+t.run)
	}
	said := &bytes.Buffer{}
	var out io.Writer = said
	if t.verbose {
		out = io.MultiWriter(os.Stdout, said)
	}
	got, err := m.run(ctx, guest.Job{Path: binary, Args: args, Dir: p.Dir, Env: append(environment(promised), "PWD="+p.Dir)},
		streams{Out: out, Err: out}, limit(args))
	return said.Bytes(), got, err
}

// python makes the environment of the stock Python packages if one of the
// packages asks for it: the guest has no network to make it with.
func python(ctx context.Context, asking []goPackage) ([]string, error) {
	for _, p := range asking {
		asks, err := mentions(p.Dir, slices.Concat(p.TestGoFiles, p.XTestGoFiles), map[string]bool{"Python": true})
		if err != nil {
			return nil, err
		}
		if !asks {
			continue
		}
		if _, err := pyenv.Open(ctx); err != nil {
			return nil, err
		}
		return []string{string(hwtest.Python)}, nil
	}
	return nil, nil
}

// askers finds the packages whose tests ask for what the guest gives: those in
// which a file says hwtest.GPIOSim, and those whose tests import such a package.
func askers(ctx context.Context, patterns []string) ([]goPackage, error) {
	all, err := list(ctx, module+"/...")
	if err != nil {
		return nil, err
	}
	some, err := list(ctx, patterns...)
	if err != nil {
		return nil, err
	}
	byPath := map[string]goPackage{}
	var names map[string]bool
	for _, p := range all {
		byPath[p.ImportPath] = p
		if p.ImportPath == hwtestPath {
			if names, err = given(p); err != nil {
				return nil, err
			}
		}
	}
	if names == nil {
		return nil, fmt.Errorf("%s is not to be found from this folder", hwtestPath)
	}
	// asks reports whether a package's own code asks, or what that imports.
	known := map[string]bool{hwtestPath: false}
	var asks func(path string) (bool, error)
	asks = func(path string) (bool, error) {
		if a, ok := known[path]; ok {
			return a, nil
		}
		known[path] = false // there are no cycles
		p, ours := byPath[path]
		if !ours {
			return false, nil
		}
		a, err := mentions(p.Dir, p.GoFiles, names)
		for _, i := range p.Imports {
			if err != nil || a {
				break
			}
			a, err = asks(i)
		}
		known[path] = a
		return a, err
	}
	var asking []goPackage
	for _, p := range some {
		if p.ImportPath == module+"/cmd/vm" {
			continue // it speaks of all of them, and makes guests itself
		}
		a, err := mentions(p.Dir, slices.Concat(p.TestGoFiles, p.XTestGoFiles), names)
		for _, i := range slices.Concat(p.TestImports, p.XTestImports) {
			if err != nil || a {
				break
			}
			a, err = asks(i)
		}
		if err != nil {
			return nil, err
		}
		if a || p.ImportPath == hwtestPath { // which looks whether all that was promised is there
			asking = append(asking, p)
		}
	}
	return asking, nil
}

func list(ctx context.Context, patterns ...string) (packages []goPackage, err error) {
	c := exec.CommandContext(ctx, "go", append([]string{"list", "-json=ImportPath,Dir,Name,GoFiles,TestGoFiles,XTestGoFiles,Imports,TestImports,XTestImports"}, patterns...)...)
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var p goPackage
		if err := d.Decode(&p); err != nil {
			return nil, err
		}
		packages = append(packages, p)
	}
	return packages, nil
}

// given finds what Go calls the capabilities that the guest gives. Those that
// nearly every machine has are left out.
func given(p goPackage) (map[string]bool, error) {
	values := map[string]bool{}
	for _, g := range gives {
		if g.everywhere {
			continue
		}
		values[strconv.Quote(string(g.Capability))] = true
	}
	names := map[string]bool{}
	err := parse(p.Dir, p.GoFiles, func(n ast.Node) {
		if v, ok := n.(*ast.ValueSpec); ok && len(v.Values) == 1 {
			if lit, ok := v.Values[0].(*ast.BasicLit); ok && values[lit.Value] {
				names[v.Names[0].Name] = true
			}
		}
	})
	return names, err
}

// mentions reports whether one of the files says hwtest.NAME.
func mentions(dir string, files []string, names map[string]bool) (found bool, err error) {
	err = parse(dir, files, func(n ast.Node) {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			x, ok := sel.X.(*ast.Ident)
			found = found || ok && x.Name == "hwtest" && names[sel.Sel.Name]
		}
	})
	return found, err
}

// parse shows every node of the files.
func parse(dir string, files []string, see func(ast.Node)) error {
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for n := range ast.Preorder(f) {
			see(n)
		}
	}
	return nil
}
