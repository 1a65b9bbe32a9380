package localfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/storage"
)

const (
	canary   = "nobody may read or change this"
	landmark = "seen-by-nobody" // is listed outside
)

// jail makes a root with links out of it, beside a directory that is not to be
// reached.
func jail(t testing.TB) (base, root string) {
	t.Helper()
	base = t.TempDir()
	root = base + "/root"
	for _, dir := range []string{"outside/dir", "root/d/e"} {
		if err := os.MkdirAll(base+"/"+dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{"outside/secret": canary, "outside/" + landmark: "", "outside/dir/secret": canary, "root/a": "a", "root/d/x": "x"} {
		if err := os.WriteFile(base+"/"+name, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{
		"up": "..", "out": "../outside", "abs": base + "/outside", "file": "../outside/secret", "absfile": base + "/outside/secret",
		"in": "d", "d/in": "../a", "d/out": "../../outside", "chain": "in/out", "loop": "loop", "back": "../root/a", "fresh": "../outside/fresh",
	} {
		if err := os.Symlink(to, root+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	return base, root
}

// guard checks that what is around the root is as it was.
type guard struct {
	base string
	was  map[string]string
}

func watch(t testing.TB, base string) guard { return guard{base, tree(t, base+"/outside")} }

func (g guard) check(t testing.TB, what string) {
	t.Helper()
	if now := tree(t, g.base+"/outside"); !maps.Equal(now, g.was) {
		t.Fatalf("%s: outside = %v; want %v", what, now, g.was)
	}
	entries, err := os.ReadDir(g.base)
	if err != nil || len(entries) != 2 {
		t.Fatalf("%s: around the root = %v, %v; want root and outside", what, entries, err)
	}
}

// everything calls all that takes a path, and returns what was read and listed.
func everything(ctx context.Context, f storage.Opendal, path, other string) string {
	var got strings.Builder
	read := func(p string) {
		if fd, err := f.Open(ctx, p, storage.ForReading); err == nil {
			_ = f.FileRead(ctx, fd, &got)
			_ = f.FileClose(ctx, fd)
		}
	}
	list := func(seq iter.Seq2[string, error]) {
		for e := range seq {
			fmt.Fprintln(&got, e)
		}
	}
	read(path)
	list(f.List(ctx, path))
	list(f.Scan(ctx, path))
	_, _ = f.Stat(ctx, path)
	_, _ = f.Exists(ctx, path)
	_, _ = f.Hash(ctx, path, storage.MD5)
	if f.Copy(ctx, path, "copied") == nil {
		read("copied")
	}
	_ = f.Copy(ctx, "a", path)
	if fd, err := f.Open(ctx, path, storage.ForWriting); err == nil {
		_ = f.FileWrite(ctx, fd, strings.NewReader("changed"))
		_ = f.FileClose(ctx, fd)
	}
	_ = f.CreateDir(ctx, path+"/")
	_ = f.Rename(ctx, path, other)
	_ = f.Rename(ctx, "a", path)
	_ = f.Delete(ctx, path)
	_ = f.RegisterPath(ctx, path)
	_ = f.RemoveAll(ctx, path)
	return got.String()
}

var ways = []string{
	"../outside/secret", "/../outside/secret", "d/../../outside/secret", "out/secret", "out", "out/", "out/fresh", "abs/secret", "abs", "file", "absfile",
	"fresh", "up/outside/secret", "up", "up/", "..", "../", "../..", "d/out/secret", "chain/secret", "chain", "in/../../outside/secret", "d/in", "back",
	"loop", "loop/x", "./../outside", "a/../../outside/secret", "nope/../../outside/secret", " ../outside/secret", "//../outside/secret",
	"up/root/up/outside/secret", "out/../outside/secret", `..\outside\secret`, "d/e/../../../outside/fresh", "up/../outside/dir/", "out/dir/x",
}

func TestEscape(t *testing.T) {
	for _, path := range ways {
		for _, other := range []string{"x", "../outside/x", "out/x"} {
			base, root := jail(t)
			g := watch(t, base)
			f, _ := newFolder(t, root, true)
			if got := everything(t.Context(), f, path, other); strings.Contains(got, canary) || strings.Contains(got, landmark) {
				t.Errorf("%q shows %q; want nothing from outside", path, got)
			}
			_ = f.Close() // which removes what was created
			g.check(t, fmt.Sprintf("%q, %q", path, other))
		}
	}
}

// That a path leads out is said, and not taken for a path to nothing.
func TestEscapeIsAnError(t *testing.T) {
	_, root := jail(t)
	f, _ := newFolder(t, root, false)
	defer f.Close()
	for _, path := range []string{"../outside/secret", "out/secret", "abs/secret", "file", "absfile", "chain/secret"} {
		_, err := f.Exists(t.Context(), path)
		if err == nil || !strings.Contains(err.Error(), "escapes") {
			t.Errorf("Exists(%q) = %v; want an error that says that it escapes", path, err)
		}
		for _, mode := range []storage.Mode{storage.ForReading, storage.ForWriting} {
			if _, err := f.Open(t.Context(), path, mode); err == nil {
				t.Errorf("Open(%q, %s) = nil; want an error", path, mode)
			}
		}
	}
	if got, err := f.Exists(t.Context(), "in/x"); !got || err != nil {
		t.Errorf("Exists() through a link that stays inside = %t, %v; want true", got, err)
	}
}

// A directory that is swapped for a link while it is used leads nowhere.
func TestRace(t *testing.T) {
	base, root := jail(t)
	g := watch(t, base)
	f, _ := newFolder(t, root, true)
	if err := errors.Join(os.Mkdir(root+"/dir", 0o777), os.Symlink("../outside", root+"/link")); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			for _, name := range []string{"dir", "link"} {
				os.Mkdir(root+"/dir", 0o777)           // in case that it was removed
				os.Symlink("../outside", root+"/link") // the same
				os.Rename(root+"/"+name, root+"/swap") // fails when swap is a directory with files
				os.Rename(root+"/swap", root+"/"+name) // the same
				os.RemoveAll(root + "/swap")           // in case of both
				os.WriteFile(root+"/a", []byte("a"), 0o666)
			}
		}
	})
	for n, start := 0, time.Now(); n < 3 || time.Since(start) < time.Second; n++ {
		for _, path := range []string{"swap/secret", "swap/", "swap/dir/fresh", "swap/../swap/secret"} {
			if got := everything(t.Context(), f, path, "swap/fresh"); strings.Contains(got, canary) || strings.Contains(got, landmark) {
				t.Errorf("%q shows %q; want nothing from outside", path, got)
			}
		}
	}
	close(stop)
	wg.Wait()
	_ = f.Close()
	g.check(t, "race")
}

func FuzzPath(f *testing.F) {
	for _, w := range ways {
		f.Add(w, "x")
		f.Add("a", w)
	}
	f.Add(strings.Repeat("../", 300), strings.Repeat("d/../", 300)+"../outside")
	f.Add("d/in/../../a\x00", "\xff\xfe")
	f.Fuzz(func(t *testing.T, path, other string) {
		base, root := jail(t)
		g := watch(t, base)
		d, _ := newFolder(t, root, true)
		d.safe = false // for speed
		got := everything(t.Context(), d, path, other)
		got += everything(t.Context(), d, other, path)
		if strings.Contains(got, canary) || strings.Contains(got, landmark) && !strings.Contains(path+other, landmark) {
			t.Errorf("%q, %q show %q; want nothing from outside", path, other, got)
		}
		if err := d.Close(); err != nil && driver.Classify(err) == driver.OK {
			t.Error(err)
		}
		g.check(t, fmt.Sprintf("%q, %q", path, other))
	})
}

// Whatever the arguments, a row answers or refuses, and nothing gets out.
func FuzzArgs(f *testing.F) {
	base, root := jail(f)
	g := watch(f, base)
	o := &drivertest.Offers{}
	tree := drivertest.Bench{Resources: o}.Tree(f, config(root), Spec)
	d, err := tree.Root.Driver(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	caller := tree.Root.Caller()
	for i := range d.Exports {
		for _, seed := range []string{`[]`, `["a"]`, `["FD"]`, `["FD", "HANDLE"]`, `["a", "b"]`, `["../outside/x", "out/secret"]`, `["FD", "3", 1.0]`, `["FD", -1, 2]`,
			`["new", "wb"]`, `["a", "rb"]`, `["a", "md5"]`, `[null, null, null]`, `[1, true, "x"]`, `[{"kind": "x"}, []]`, `["a", 60]`} {
			f.Add(byte(i), seed)
		}
	}
	f.Fuzz(func(t *testing.T, i byte, text string) {
		var args []any
		if json.Unmarshal([]byte(text), &args) != nil {
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		os.WriteFile(root+"/a", []byte("a"), 0o666)
		mode := storage.ForReading
		if len(text)%2 == 0 {
			mode = storage.ForWriting
		}
		fd, err := caller.Call(ctx, "open", "a", mode)
		if err != nil {
			t.Fatalf("open(a, %s) = %v; want nil", mode, err)
		}
		r, h := o.Stream()
		go func() { // gives and takes
			io.WriteString(r, "content")
			r.CloseWrite()
		}()
		drained := make(chan struct{})
		go func() { defer close(drained); io.Copy(io.Discard, r) }()
		for j, a := range args {
			switch a {
			case "FD":
				args[j] = fd
			case "HANDLE":
				args[j] = h.Raw()
			}
		}
		e := d.Exports[int(i)%len(d.Exports)]
		var v any
		if e.Kind() == driver.KindFeed {
			var seq iter.Seq2[any, error]
			if seq, err = e.Feed(ctx, args); err == nil {
				for _, err = range seq {
				}
			}
		} else {
			v, err = e.Call(ctx, args)
		}
		switch c := driver.Classify(err); c {
		case driver.OK, driver.Internal, driver.Invalid:
		default:
			t.Errorf("%s with %s = %v (%v); want an answer, or an error that is %v or %v", e.Usage(), text, err, c, driver.Internal, driver.Invalid)
		}
		r.Close()
		<-drained
		if s, ok := v.(string); ok && e.Name() == "open" {
			_ = driver.Run(ctx, caller, "file_close", s)
		}
		if err := driver.Run(ctx, caller, "file_close", fd); err != nil && driver.Classify(err) != driver.Internal {
			t.Errorf("file_close() = %v; want nil, or why it was not written", err)
		}
		if n := o.Held(); n != 0 {
			t.Errorf("%d streams are held; want none", n)
		}
		g.check(t, e.Usage()+" with "+text)
	})
}
