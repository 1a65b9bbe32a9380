package storagetest

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/storage"
)

// TestOpendal runs the suite of folders. Open makes a fresh, empty one and
// registers its cleanup.
func TestOpendal(t *testing.T, open func(t *testing.T) storage.Opendal) {
	transfers(t, func(t *testing.T) medium {
		f := folder{open(t)}
		return medium{Store{Whole: true, Keeps: true}, part(f.write, "image"), part(f.read, "image")}
	})
	for name, test := range map[string]func(*testing.T, folder){
		"open files": testFiles,
		"pieces":     testPieces,
		"replacing":  testReplacing,
		"listing":    testListing,
		"names":      testNames,
		"metadata":   testMetadata,
		"copy":       testCopy,
		"rename":     testRename,
		"removal":    testRemoval,
		"created":    testCreated,
	} {
		t.Run(name, func(t *testing.T) { test(t, folder{open(t)}) })
	}
}

type folder struct{ storage.Opendal }

// write writes a file as clients do.
func (f folder) write(ctx context.Context, src io.Reader, path string) error {
	fd, err := f.Open(ctx, path, storage.ForWriting)
	if err != nil {
		return err
	}
	if err := f.FileWrite(ctx, fd, src); err != nil {
		if cerr := f.FileClose(context.WithoutCancel(ctx), fd); cerr == nil {
			return errors.New("closing a file that was not written is no error")
		}
		return err
	}
	return f.FileClose(ctx, fd)
}

func (f folder) read(ctx context.Context, dst io.Writer, path string) error {
	fd, err := f.Open(ctx, path, storage.ForReading)
	if err != nil {
		return err
	}
	return errors.Join(f.FileRead(ctx, fd, dst), f.FileClose(context.WithoutCancel(ctx), fd))
}

// put writes files with their own paths as their contents.
func (f folder) put(t *testing.T, paths ...string) {
	t.Helper()
	for _, p := range paths {
		succeed(t, "write "+p, f.write(t.Context(), strings.NewReader(p), p))
	}
}

func (f folder) open(t *testing.T, path string, mode storage.Mode) storage.FD {
	t.Helper()
	fd, err := f.Open(t.Context(), path, mode)
	succeed(t, "Open "+path, err)
	return fd
}

// check compares the content of a file; no content is no file.
func (f folder) check(t *testing.T, path, want string) {
	t.Helper()
	var got strings.Builder
	if err := f.read(t.Context(), &got, path); err != nil {
		got.WriteString(" and error: " + err.Error())
	}
	if got.String() != want {
		t.Errorf("content of %s = %q; want %q", path, got.String(), want)
	}
}

func (f folder) exists(t *testing.T, path string, want bool) {
	t.Helper()
	if got, err := f.Exists(t.Context(), path); got != want || err != nil {
		t.Errorf("Exists(%q) = %t, %v; want %t", path, got, err, want)
	}
}

// fails checks that a call fails for a reason that is not the caller's grammar.
func fails(t *testing.T, what string, err error) {
	t.Helper()
	if c := driver.Classify(err); c != driver.Internal {
		t.Errorf("%s = %v (%v); want an error without a class of its own", what, err, c)
	}
}

func invalid(t *testing.T, what string, err error) {
	t.Helper()
	if c := driver.Classify(err); c != driver.Invalid {
		t.Errorf("%s = %v (%v); want an error that is %v", what, err, c, driver.Invalid)
	}
}

func (f folder) entries(t *testing.T, what string, seq iter.Seq2[string, error], want ...string) {
	t.Helper()
	var got []string
	for e, err := range seq {
		if err != nil {
			t.Errorf("%s = %v; want entries", what, err)
			return
		}
		got = append(got, e)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s = %q; want %q", what, got, want)
	}
}

func testFiles(t *testing.T, f folder) {
	ctx := t.Context()
	// questions are closed, readable, seekable, writable
	questions := func(fd storage.FD, want ...bool) {
		t.Helper()
		for i, q := range []func(context.Context, storage.FD) (bool, error){f.FileClosed, f.FileReadable, f.FileSeekable, f.FileWritable} {
			if got, err := q(ctx, fd); got != want[i] || err != nil {
				t.Errorf("question %d = %t, %v; want %t", i+1, got, err, want[i])
			}
		}
	}
	w := f.open(t, "hello", storage.ForWriting)
	questions(w, false, false, false, true)
	fails(t, "FileRead of what is written", f.FileRead(ctx, w, io.Discard))
	_, err := f.FileSeek(ctx, w, 0, 0)
	fails(t, "FileSeek of what is written", err)
	_, err = f.FileTell(ctx, w)
	fails(t, "FileTell of what is written", err)
	succeed(t, "FileWrite", f.FileWrite(ctx, w, strings.NewReader("hello")))
	for range 2 {
		succeed(t, "FileClose", f.FileClose(ctx, w))
		questions(w, true, false, false, false)
	}
	fails(t, "FileWrite of what is closed", f.FileWrite(ctx, w, strings.NewReader("x")))

	r := f.open(t, "hello", storage.ForReading)
	questions(r, false, true, true, false)
	fails(t, "FileWrite of what is read", f.FileWrite(ctx, r, strings.NewReader("x")))
	for _, step := range []struct {
		pos    int64
		whence int
		want   int64 // -1 for an error
		rest   string
	}{
		{2, io.SeekStart, 2, "llo"},
		{-3, io.SeekEnd, 2, "llo"},
		{1, io.SeekStart, 1, "ello"},
		{-1, io.SeekCurrent, 4, "o"}, // from the end, where reading left it
		{9, io.SeekStart, 9, ""},
		{-1, io.SeekStart, -1, ""},
		{-9, io.SeekEnd, -1, ""},
	} {
		at, err := f.FileSeek(ctx, r, step.pos, step.whence)
		if step.want < 0 {
			fails(t, "FileSeek before the start", err)
			continue
		}
		if at != step.want || err != nil {
			t.Errorf("FileSeek(%d, %d) = %d, %v; want %d", step.pos, step.whence, at, err, step.want)
		}
		if at, err := f.FileTell(ctx, r); at != step.want || err != nil {
			t.Errorf("FileTell() = %d, %v; want %d", at, err, step.want)
		}
		var got strings.Builder
		if err := f.FileRead(ctx, r, &got); err != nil || got.String() != step.rest {
			t.Errorf("FileRead() = %q, %v; want %q", got.String(), err, step.rest)
		}
	}
	_, err = f.FileSeek(ctx, r, 0, 3)
	invalid(t, "FileSeek with whence 3", err)
	succeed(t, "FileClose", f.FileClose(ctx, r))
	questions(r, true, false, false, false)
	fails(t, "FileRead of what is closed", f.FileRead(ctx, r, io.Discard))
	_, err = f.FileTell(ctx, r)
	fails(t, "FileTell of what is closed", err)

	nobody := uuid.New()
	fails(t, "FileClose of what was never open", f.FileClose(ctx, nobody))
	_, err = f.FileClosed(ctx, nobody)
	fails(t, "FileClosed of what was never open", err)
	_, err = f.Open(ctx, "nope", storage.ForReading)
	fails(t, "Open of what is not there", err)
	_, err = f.Open(ctx, "hello", "ab")
	invalid(t, "Open to append", err)
	_, err = f.Open(ctx, "hello/", storage.ForReading)
	fails(t, "Open of a path that ends with a slash", err)
	_, err = f.Open(ctx, "new/", storage.ForWriting)
	fails(t, "Open of a path that ends with a slash", err)
	_, err = f.Open(ctx, "hello/below", storage.ForWriting)
	fails(t, "Open of a file below a file", err)
	_, err = f.Open(ctx, "", storage.ForWriting)
	fails(t, "Open of the root", err)
}

func testPieces(t *testing.T, f folder) {
	ctx := t.Context()
	w := f.open(t, "deep/er/file", storage.ForWriting)
	for _, piece := range []string{"one, ", "", "two, ", "three"} {
		succeed(t, "FileWrite", f.FileWrite(ctx, w, strings.NewReader(piece)))
	}
	succeed(t, "FileClose", f.FileClose(ctx, w))
	f.check(t, "deep/er/file", "one, two, three")

	succeed(t, "FileClose", f.FileClose(ctx, f.open(t, "empty", storage.ForWriting)))
	f.check(t, "empty", "")

	// A client that fails before it writes does no harm.
	for range 2 {
		f.put(t, "full")
		if err := f.FileClose(ctx, f.open(t, "full", storage.ForWriting)); err == nil {
			t.Error("FileClose() of what nobody wrote, in place of a file = nil; want an error")
		}
		f.check(t, "full", "full")
	}
	succeed(t, "write", f.write(ctx, strings.NewReader(""), "full"))
	f.check(t, "full", "")
}

// What is written is not there before it is whole.
func testReplacing(t *testing.T, f folder) {
	ctx := t.Context()
	f.put(t, "file")
	w := f.open(t, "file", storage.ForWriting)
	fresh := f.open(t, "fresh", storage.ForWriting)
	succeed(t, "FileWrite", f.FileWrite(ctx, w, strings.NewReader("new content")))
	f.check(t, "file", "file")
	f.exists(t, "fresh", false)
	r := f.open(t, "file", storage.ForReading)
	succeed(t, "FileClose", f.FileClose(ctx, w))
	succeed(t, "FileClose", f.FileClose(ctx, fresh))
	f.check(t, "file", "new content")
	f.check(t, "fresh", "")
	var got strings.Builder
	if err := f.FileRead(ctx, r, &got); err != nil || got.String() != "file" {
		t.Errorf("FileRead() of a file that was replaced meanwhile = %q, %v; want the old content", got.String(), err)
	}
	succeed(t, "FileClose", f.FileClose(ctx, r))

	// A write that fails spoils the file, whatever follows.
	w = f.open(t, "file", storage.ForWriting)
	succeed(t, "FileWrite", f.FileWrite(ctx, w, strings.NewReader("a good piece")))
	if err := f.FileWrite(ctx, w, failing(100, 100)); !errors.Is(err, errTest) {
		t.Errorf("FileWrite() of what fails = %v; want %v", err, errTest)
	}
	if err := f.FileWrite(ctx, w, strings.NewReader("more")); err == nil {
		t.Error("FileWrite() after one that failed = nil; want an error")
	}
	if err := f.FileClose(ctx, w); err == nil {
		t.Error("FileClose() after a write that failed = nil; want an error")
	}
	f.check(t, "file", "new content")
	f.entries(t, "List(/)", f.List(ctx, "/"), "/", "file", "fresh")
}

func testListing(t *testing.T, f folder) {
	ctx := t.Context()
	f.entries(t, "List(/) of nothing", f.List(ctx, "/"), "/")
	f.entries(t, "Scan() of nothing", f.Scan(ctx, ""), "/")
	f.put(t, "d/x", "d/e/y", "dz", "a.txt")
	succeed(t, "CreateDir", f.CreateDir(ctx, "d/e/f/"))
	for path, want := range map[string]string{
		"":        "/ a.txt d/ dz",
		"/":       "/ a.txt d/ dz",
		"d/":      "d/ d/e/ d/x",
		"/d//":    "d/ d/e/ d/x",
		"./d/./":  "d/ d/e/ d/x",
		"d/e/f/":  "d/e/f/",
		"d":       "d/ dz",
		"d/e":     "d/e/",
		"a":       "a.txt",
		"a.txt":   "a.txt",
		"./":      "/ a.txt d/ dz",
		".":       "",
		"a.txt/":  "",
		"a.txt/x": "",
		"nope":    "",
		"nope/":   "",
	} {
		f.entries(t, "List("+path+")", f.List(ctx, path), strings.Fields(want)...)
	}
	for path, want := range map[string]string{
		"":       "/ a.txt d/ d/e/ d/e/f/ d/e/y d/x dz",
		"d/":     "d/ d/e/ d/e/f/ d/e/y d/x",
		"d":      "d/ d/e/ d/e/f/ d/e/y d/x dz",
		"d/e":    "d/e/ d/e/f/ d/e/y",
		"a.txt":  "a.txt",
		"a.txt/": "",
		"nope/":  "",
	} {
		f.entries(t, "Scan("+path+")", f.Scan(ctx, path), strings.Fields(want)...)
	}
	for range f.Scan(ctx, "") { // one is enough
		break
	}
}

func testNames(t *testing.T, f folder) {
	names := []string{`back\slash`, "with space", "täst", ".hidden", "a:b*?\"<>|", "-", "~", "%2e%2e", "...", strings.Repeat("x", 255), "x\ny"}
	f.put(t, names...)
	f.entries(t, "List(/)", f.List(t.Context(), "/"), append(names, "/")...)
	for _, n := range names {
		f.check(t, n, n)
		f.check(t, "//"+n+"  ", n)
	}
	for _, bad := range []string{"a\x00b", strings.Repeat("x/", 3000)} {
		_, err := f.Exists(t.Context(), bad)
		invalid(t, "Exists of a path that cannot be", err)
	}
	_, err := f.Open(t.Context(), strings.Repeat("x", 256), storage.ForWriting)
	fails(t, "Open with a name that is too long", err)
}

func testMetadata(t *testing.T, f folder) {
	ctx := t.Context()
	content := Image(100_000, 1)
	succeed(t, "write", f.write(ctx, bytes.NewReader(content), "d/file"))
	m, err := f.Stat(ctx, "d/file")
	if err != nil || m != (storage.Metadata{ContentLength: 100_000, Mode: storage.EntryMode{IsFile: true}}) {
		t.Errorf("Stat(d/file) = %+v, %v; want a file of 100000 bytes", m, err)
	}
	for _, dir := range []string{"d", "d/", "", "/", "."} {
		if m, err := f.Stat(ctx, dir); err != nil || m.Mode != (storage.EntryMode{IsDir: true}) {
			t.Errorf("Stat(%q) = %+v, %v; want a directory", dir, m, err)
		}
		f.exists(t, dir, true)
	}
	for _, none := range []string{"nope", "nope/", "d/file/", "d/file/x"} {
		_, err := f.Stat(ctx, none)
		fails(t, "Stat("+none+")", err)
		f.exists(t, none, false)
	}
	sum, sum5 := sha256.Sum256(content), md5.Sum(content)
	for algo, want := range map[storage.Algo][]byte{storage.SHA256: sum[:], storage.MD5: sum5[:]} {
		if got, err := f.Hash(ctx, "d/file", algo); got != hex.EncodeToString(want) || err != nil {
			t.Errorf("Hash(%s) = %s, %v; want %x", algo, got, err, want)
		}
	}
	_, err = f.Hash(ctx, "d", storage.SHA256)
	fails(t, "Hash of a directory", err)
	_, err = f.Hash(ctx, "nope", storage.SHA256)
	fails(t, "Hash of nothing", err)
	_, err = f.Hash(ctx, "d/file", "sha1")
	invalid(t, "Hash with sha1", err)
	if _, err := f.Capability(ctx); err != nil {
		t.Errorf("Capability() = %v; want nil", err)
	}
}

func testCopy(t *testing.T, f folder) {
	ctx := t.Context()
	f.put(t, "a", "b", "d/x")
	succeed(t, "Copy", f.Copy(ctx, "a", "new/dir/a"))
	f.check(t, "new/dir/a", "a")
	f.check(t, "a", "a")
	succeed(t, "Copy", f.Copy(ctx, "a", "b"))
	f.check(t, "b", "a")
	for _, pair := range [][2]string{{"a", "a"}, {"a", "/./a"}, {"nope", "b"}, {"d", "e"}, {"d/", "e/"}, {"a", "d"}, {"a", "e/"}, {"", ""}} {
		fails(t, "Copy"+pair[0]+" to "+pair[1], f.Copy(ctx, pair[0], pair[1]))
	}
	f.check(t, "a", "a")
	f.check(t, "b", "a")
	f.check(t, "d/x", "d/x")
}

func testRename(t *testing.T, f folder) {
	ctx := t.Context()
	f.put(t, "a", "b", "d/x")
	succeed(t, "Rename", f.Rename(ctx, "a", "new/dir/a"))
	f.check(t, "new/dir/a", "a")
	f.exists(t, "a", false)
	succeed(t, "Rename", f.Rename(ctx, "new/dir/a", "b"))
	f.check(t, "b", "a")
	succeed(t, "Rename", f.Rename(ctx, "d", "e"))
	f.check(t, "e/x", "d/x")
	f.exists(t, "d", false)
	for _, pair := range [][2]string{{"b", "b"}, {"nope", "b"}, {"nope", "made/for/it"}, {"e/", "d/"}, {"b", "e"}, {"", "x"}, {".", "x"}, {"e", "e/e"}} {
		fails(t, "Rename "+pair[0]+" to "+pair[1], f.Rename(ctx, pair[0], pair[1]))
	}
	f.check(t, "b", "a")
	f.check(t, "e/x", "d/x")
	f.exists(t, "made", false)
}

func testRemoval(t *testing.T, f folder) {
	ctx := t.Context()
	f.put(t, "a", "d/x", "d/e/y", "dz")
	fails(t, "Delete of a directory that is not empty", f.Delete(ctx, "d"))
	for _, root := range []string{"", "/", ".", "./"} {
		fails(t, "Delete of the root", f.Delete(ctx, root))
	}
	fails(t, "RemoveAll without a slash", f.RemoveAll(ctx, "."))
	for range 2 { // what is not there is no error
		succeed(t, "Delete", f.Delete(ctx, "a"))
		succeed(t, "Delete", f.Delete(ctx, "nope/"))
		succeed(t, "RemoveAll", f.RemoveAll(ctx, "d"))
		succeed(t, "RemoveAll", f.RemoveAll(ctx, "nope/x"))
	}
	succeed(t, "RemoveAll", f.RemoveAll(ctx, "dz/")) // which is no directory
	f.entries(t, "Scan(/)", f.Scan(ctx, "/"), "/", "dz")

	fails(t, "CreateDir without a slash", f.CreateDir(ctx, "n"))
	fails(t, "CreateDir without a slash", f.CreateDir(ctx, "."))
	for range 2 {
		succeed(t, "CreateDir", f.CreateDir(ctx, "n/m/"))
	}
	fails(t, "CreateDir in place of a file", f.CreateDir(ctx, "dz/"))
	fails(t, "CreateDir below a file", f.CreateDir(ctx, "dz/x/"))
	succeed(t, "CreateDir", f.CreateDir(ctx, "/"))
	succeed(t, "Delete", f.Delete(ctx, "n/m/"))
	f.entries(t, "Scan(/)", f.Scan(ctx, "/"), "/", "dz", "n/")
	succeed(t, "RemoveAll", f.RemoveAll(ctx, "/"))
	f.entries(t, "Scan(/)", f.Scan(ctx, "/"), "/")
	f.put(t, "still/works")
}

func testCreated(t *testing.T, f folder) {
	ctx := t.Context()
	created := func(want ...string) {
		t.Helper()
		got, err := f.CreatedResources(ctx)
		slices.Sort(got)
		if !slices.Equal(got, want) || err != nil {
			t.Errorf("CreatedResources() = %q, %v; want %q", got, err, want)
		}
	}
	created()
	succeed(t, "CreateDir", f.CreateDir(ctx, "/d//e/"))
	w := f.open(t, "a", storage.ForWriting)
	created("a", "d/e")
	succeed(t, "FileClose", f.FileClose(ctx, w))
	f.open(t, "a", storage.ForReading)
	succeed(t, "Copy", f.Copy(ctx, "a", "b/c"))
	succeed(t, "Rename", f.Rename(ctx, "b/c", "b/d"))
	created("a", "b/d", "d/e")
	succeed(t, "Delete", f.Delete(ctx, "a"))
	succeed(t, "RemoveAll", f.RemoveAll(ctx, "d/e/"))
	created("b/d")
	for _, p := range []string{`/q/./w/../e\f/`, "", ".", "/", "../../z"} {
		succeed(t, "RegisterPath", f.RegisterPath(ctx, p))
	}
	created("", "../../z", "b/d", "q/e/f")
	fails(t, "Copy of nothing", f.Copy(ctx, "nope", "copied"))
	created("", "../../z", "b/d", "q/e/f")
}
