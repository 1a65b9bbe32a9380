package localfs

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/storage"
	"github.com/jumplead/jumplead/drivers/storage/storagetest"
)

// config is the config for a root.
func config(root string) string { return "{scheme: fs, kwargs: {root: '" + root + "'}}" }

// bench opens the driver on a root, and checks that calls give back their
// streams.
func bench(t testing.TB, config string) (driver.Caller, *drivertest.Offers, *drivertest.Log) {
	t.Helper()
	drivertest.NoLeaks(t)
	o, log := &drivertest.Offers{}, &drivertest.Log{}
	t.Cleanup(func() {
		if n := o.Held(); n != 0 {
			t.Errorf("%d streams are held; want none", n)
		}
	})
	return drivertest.Bench{Resources: o, Log: log}.Open(t, config, Spec), o, log
}

func TestSpec(t *testing.T) {
	c := config(t.TempDir())
	drivertest.Spec(t, Spec, c)
	drivertest.Bench{Resources: &drivertest.Offers{}}.Lifecycle(t, c, Spec)
}

func TestConformance(t *testing.T) {
	storagetest.TestOpendal(t, func(t *testing.T) storage.Opendal {
		c, _, _ := bench(t, config(t.TempDir()))
		return storage.NewOpendalClient(c)
	})
}

func TestConfig(t *testing.T) {
	tests := []struct{ config, want string }{ // an error; "" for none
		{"{scheme: fs, kwargs: {root: /srv}}", ""},
		{"{scheme: FS, kwargs: {root: srv, atomic_write_dir: /tmp}, remove_created_on_close: true}", ""},
		{"{scheme: s3, kwargs: {bucket: b}}", "scheme: s3 is a service of OpenDAL that is not served here"},
		{"{scheme: http, kwargs: {endpoint: 'http://x'}}", "scheme: http is a service"},
		{"{scheme: memory, kwargs: {}}", "scheme: memory is a service"},
		{"{scheme: tape, kwargs: {root: /srv}}", `scheme: "tape" is unknown; only fs is served`},
		{"{scheme: fs, kwargs: {}}", "kwargs: wants a root"},
		{"{scheme: fs, kwargs: {root: ''}}", "kwargs: wants a root"},
		{"{scheme: fs}", `key "kwargs" is missing`},
		{"{kwargs: {root: /srv}}", `key "scheme" is missing`},
		{"{scheme: fs, kwargs: {rot: /srv}}", `unknown key "rot"; did you mean "root"?`},
		{"{scheme: fs, kwargs: {root: /srv}, colour: red}", `unknown key "colour"`},
	}
	for _, test := range tests {
		_, problems := drivertest.Bench{}.Plan(t, test.config, Spec)
		got := ""
		if err := problems.Err(); err != nil {
			got = err.Error()
		}
		if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("Plan(%s) = %q; want %q", test.config, got, test.want)
		}
	}
}

// The root is made when it is missing, and a relative one is where the exporter
// was started.
func TestRoot(t *testing.T) {
	t.Chdir(t.TempDir())
	c, _, _ := bench(t, config("made/for/it"))
	if err := storage.NewOpendalClient(c).WriteFile(t.Context(), "x", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("made/for/it/x"); err != nil {
		t.Errorf("Stat() = %v; want the file", err)
	}
	tree, problems := drivertest.Bench{}.Plan(t, config("made/for/it/x"), Spec)
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if err := tree.Open(t.Context()); err != nil {
		t.Errorf("Open() with a root that is a file = %v; want a node that is absent", err)
	}
	if _, err := tree.Root.Caller().Call(t.Context(), "capability"); driver.Classify(err) != driver.Device {
		t.Errorf("a call with a root that is a file = %v; want the system's error", err)
	}
}

// newFolder opens a folder without a tree around it.
func newFolder(t testing.TB, root string, tidy bool) (*folder, *drivertest.Log) {
	t.Helper()
	log := &drivertest.Log{}
	d, err := open(t.Context(), &driver.Env{Log: slog.New(slog.NewTextHandler(log, nil))},
		Config{Scheme: "fs", Kwargs: map[string]string{"root": root}, RemoveCreatedOnClose: tidy})
	if err != nil {
		t.Fatal(err)
	}
	return d.Impl.(*folder), log
}

func write(t testing.TB, f *folder, path, content string) storage.FD {
	t.Helper()
	fd, err := f.Open(t.Context(), path, storage.ForWriting)
	if err == nil {
		err = f.FileWrite(t.Context(), fd, strings.NewReader(content))
	}
	if err != nil {
		t.Fatalf("write(%s) = %v; want nil", path, err)
	}
	return fd
}

// tree is what is below a directory, with the contents of files.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		switch {
		case d.IsDir():
			all[rel] = "directory"
		case d.Type()&fs.ModeSymlink != 0:
			to, _ := os.Readlink(path)
			all[rel] = "-> " + to
		case d.Type().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			all[rel] = string(b)
		default:
			all[rel] = d.Type().String()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A client that never closes its file gets it under a name that says so.
func TestNeverClosed(t *testing.T) {
	drivertest.NoLeaks(t)
	root := t.TempDir()
	if err := os.WriteFile(root+"/old", []byte("old content"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, log := newFolder(t, root, false)
	write(t, f, "old", "new")
	write(t, f, "hole", "x"+strings.Repeat("\x00", 10))
	fd := write(t, f, "broken", "")
	if err := f.FileWrite(t.Context(), fd, iotest.ErrReader(errors.New("gone"))); err == nil {
		t.Error("FileWrite() of what cannot be read = nil; want an error")
	}
	if _, err := f.Open(t.Context(), "old", storage.ForReading); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Errorf("Close() = %v; want nil", err)
	}
	got := tree(t, root)
	if got["old"] != "old content" {
		t.Errorf("old = %q; want its old content", got["old"])
	}
	delete(got, "old")
	delete(got, ".")
	for name, content := range got {
		if m, _ := regexp.MatchString(`^\.(old|hole)\.partial-[0-9a-f]{8}$`, name); !m || content != "new" && content != "x"+strings.Repeat("\x00", 10) {
			t.Errorf("%s = %q is left; want partial files only", name, content)
		}
		if !strings.Contains(log.String(), name) {
			t.Errorf("log = %s; want %s in it", log, name)
		}
	}
	if len(got) != 2 {
		t.Errorf("%d files are left; want old and hole as partials: %v", len(got), got)
	}
}

func TestRemoveCreatedOnClose(t *testing.T) {
	drivertest.NoLeaks(t)
	base := t.TempDir()
	root := base + "/root"
	for name, content := range map[string]string{"root/kept": "kept", "root/d/kept": "kept", "outside": "outside", "root/link/dir/kept": "kept"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(base+"/"+name), 0o777), os.WriteFile(base+"/"+name, []byte(content), 0o666)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("link/dir", root+"/far"); err != nil {
		t.Fatal(err)
	}
	want := tree(t, base)
	f, _ := newFolder(t, root, true)
	ctx := t.Context()
	do := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	do(f.FileClose(ctx, write(t, f, "new", "x")))
	do(f.CreateDir(ctx, "n/"), f.CreateDir(ctx, "n/m/"), f.FileClose(ctx, write(t, f, "n/m/x", "x")))
	do(f.Copy(ctx, "kept", "d/copy"), f.Rename(ctx, "d/copy", "d/renamed"))
	do(f.FileClose(ctx, write(t, f, "far/../x", "x"))) // which is link/x, not x
	do(f.RegisterPath(ctx, "/"), f.RegisterPath(ctx, "../outside"), f.RegisterPath(ctx, "nope"), f.RegisterPath(ctx, "d/../../outside"))
	write(t, f, "open", "x")
	do(os.WriteFile(root+"/registered", nil, 0o666), f.RegisterPath(ctx, "registered"))
	do(os.WriteFile(root+"/x", nil, 0o666))
	want["root/x"] = ""
	if err := f.Close(); err != nil {
		t.Errorf("Close() = %v; want nil", err)
	}
	if got := tree(t, base); !maps.Equal(got, want) {
		t.Errorf("left = %v; want %v", got, want)
	}
}

// The limits hold, and what is closed makes room.
func TestLimits(t *testing.T) {
	drivertest.NoLeaks(t)
	f, _ := newFolder(t, t.TempDir(), false)
	defer f.Close()
	ctx := t.Context()
	first := write(t, f, "file", "x")
	if err := f.FileClose(ctx, first); err != nil {
		t.Fatal(err)
	}
	var fds []storage.FD
	for range maxOpen {
		fd, err := f.Open(ctx, "file", storage.ForReading)
		if err != nil {
			t.Fatalf("Open() = %v with %d open; want nil", err, len(fds))
		}
		fds = append(fds, fd)
	}
	for _, mode := range []storage.Mode{storage.ForReading, storage.ForWriting} {
		if _, err := f.Open(ctx, "file", mode); err == nil || !strings.Contains(err.Error(), "256 files are open") {
			t.Errorf("Open(%s) = %v with %d open; want an error that says so", mode, err, len(fds))
		}
	}
	for i := range maxClosed {
		if err := f.FileClose(ctx, fds[i%maxOpen]); err != nil {
			t.Fatal(err)
		}
		var err error
		if fds[i%maxOpen], err = f.Open(ctx, "file", storage.ForReading); err != nil {
			t.Fatalf("Open() = %v after a close; want nil", err)
		}
	}
	if _, err := f.FileClosed(ctx, first); err == nil {
		t.Errorf("FileClosed() of a file that was closed %d files ago = nil; want an error", maxClosed)
	}
	if len(f.closed) != maxClosed {
		t.Errorf("%d closed files are known; want %d", len(f.closed), maxClosed)
	}
}

// A call that is cancelled has done nothing, and can be made again.
func TestCancelledClose(t *testing.T) {
	root := t.TempDir()
	f, _ := newFolder(t, root, false)
	defer f.Close()
	fd := write(t, f, "file", "content")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.FileClose(ctx, fd); driver.Classify(err) != driver.Canceled {
		t.Errorf("FileClose() = %v; want %v", err, context.Canceled)
	}
	if closed, err := f.FileClosed(t.Context(), fd); closed || err != nil {
		t.Errorf("FileClosed() = %t, %v; want an open file", closed, err)
	}
	if err := f.FileWrite(t.Context(), fd, strings.NewReader(" and more")); err != nil {
		t.Fatal(err)
	}
	if err := f.FileClose(t.Context(), fd); err != nil {
		t.Errorf("FileClose() = %v; want nil", err)
	}
	if got := tree(t, root)["file"]; got != "content and more" {
		t.Errorf("file = %q; want all of it", got)
	}
}

// While a call moves a file others wait for it; questions do not.
func TestOneAtATime(t *testing.T) {
	drivertest.NoLeaks(t)
	root := t.TempDir()
	if err := os.WriteFile(root+"/file", []byte("content"), 0o666); err != nil {
		t.Fatal(err)
	}
	f, _ := newFolder(t, root, false)
	ctx := t.Context()
	fd, err := f.Open(ctx, "file", storage.ForReading)
	if err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	read := make(chan error, 1)
	go func() { read <- f.FileRead(ctx, fd, w) }()
	if _, err := r.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if at, err := f.FileTell(ctx, fd); at != 7 || err != nil {
		t.Errorf("FileTell() = %d, %v; want 7", at, err)
	}
	if closed, err := f.FileClosed(ctx, fd); closed || err != nil {
		t.Errorf("FileClosed() = %t, %v; want false", closed, err)
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if _, err := f.FileSeek(short, fd, 0, 0); driver.Classify(err) != driver.Timeout {
		t.Errorf("FileSeek() while the file is read = %v; want a time-out", err)
	}
	closed := make(chan error, 1)
	go func() { closed <- f.FileClose(ctx, fd) }()
	if _, err := io.ReadAll(io.LimitReader(r, 6)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(<-read, <-closed); err != nil {
		t.Errorf("FileRead(), FileClose() = %v; want nil", err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// What the exporter's user may do, and what was there, stays as it was.
func TestPermissions(t *testing.T) {
	root := t.TempDir()
	f, _ := newFolder(t, root, false)
	defer f.Close()
	ctx := t.Context()
	mode := func(path string) fs.FileMode {
		t.Helper()
		info, err := os.Lstat(root + "/" + path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode()
	}
	if err := errors.Join(os.WriteFile(root+"/file", nil, 0o600), os.Chmod(root+"/file", 0o606), os.Symlink("file", root+"/link"), os.Symlink("d/fresh", root+"/dangling"), os.Mkdir(root+"/d", 0o777)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"file", "link", "dangling"} {
		if err := f.FileClose(ctx, write(t, f, path, path)); err != nil {
			t.Fatal(err)
		}
	}
	got := tree(t, root)
	for path, want := range map[string]string{"file": "link", "link": "-> file", "dangling": "-> d/fresh", "d/fresh": "dangling"} {
		if got[path] != want {
			t.Errorf("%s = %q; want %q", path, got[path], want)
		}
	}
	if m := mode("file"); m != 0o606 {
		t.Errorf("mode of what was replaced = %v; want -rw----rw-", m)
	}
	if err := f.Copy(ctx, "file", "copy"); err != nil || mode("copy") != 0o606 {
		t.Errorf("Copy() = %v with mode %v; want the source's", err, mode("copy"))
	}
}

// Arguments are taken as upstream's validation takes them.
func TestLaxArguments(t *testing.T) {
	c, _, _ := bench(t, config(t.TempDir()))
	ctx := t.Context()
	if err := storage.NewOpendalClient(c).WriteFile(ctx, "file", strings.NewReader("content")); err != nil {
		t.Fatal(err)
	}
	fd, err := c.Call(ctx, "open", "file", "rb")
	if err != nil {
		t.Fatal(err)
	}
	id := fd.(string)
	tests := []struct {
		method string
		args   []any
		want   any // a result or a class
	}{
		{"file_seek", []any{id, "3"}, 3.0},
		{"file_seek", []any{id, 3.0, "1"}, 6.0},
		{"file_seek", []any{id, "3.0"}, 3.0},
		{"file_seek", []any{id, true}, 1.0},
		{"file_tell", []any{strings.ToUpper(id)}, 1.0},
		{"file_tell", []any{"{" + id + "}"}, 1.0},
		{"file_tell", []any{strings.ReplaceAll(id, "-", "")}, 1.0},
		{"file_tell", []any{"urn:uuid:" + id}, 1.0},
		{"file_tell", []any{"zz"}, driver.Invalid},
		{"file_tell", []any{uuid.Nil.String()}, driver.Internal},
		{"file_seek", []any{id, 3.5}, driver.Invalid},
		{"file_seek", []any{id, 1e300}, driver.Invalid},
		{"file_seek", []any{id, 0, 7}, driver.Invalid},
		{"file_seek", []any{id, -1}, driver.Internal},
		{"file_seek", []any{id}, driver.Invalid},
		{"file_seek", []any{id, 0, 0, 0}, driver.Invalid},
		{"open", []any{"file", "ab"}, driver.Invalid},
		{"open", []any{"file"}, driver.Invalid},
		{"open", []any{5, "rb"}, driver.Invalid},
		{"exists", []any{true}, driver.Invalid},
		{"exists", []any{nil}, driver.Invalid},
		{"hash", []any{"file", "sha1"}, driver.Invalid},
		{"hash", []any{"file", "md5"}, "9a0364b9e99bb480dd25e1f0284c8555"},
		{"hash", []any{"nope"}, driver.Internal},
		{"stat", []any{"file/x"}, driver.Internal},
		{"file_read", []any{id, nil}, driver.Invalid},
		{"file_write", []any{id, "stream"}, driver.Invalid},
		{"presign_read", []any{"file", "60"}, driver.Internal},
		{"presign_stat", []any{"file", 1.5}, driver.Invalid},
		{"presign_write", []any{"file"}, driver.Invalid},
		{"register_path", []any{5}, driver.Invalid},
		{"close", nil, driver.NoMethod},
		{"copy_exporter_file", []any{"a", "b"}, driver.NoMethod},
	}
	for _, test := range tests {
		got, err := c.Call(ctx, test.method, test.args...)
		if class, ok := test.want.(driver.Class); ok {
			if driver.Classify(err) != class {
				t.Errorf("%s%v = %v, %v (%v); want %v", test.method, test.args, got, err, driver.Classify(err), class)
			}
		} else if got != test.want || err != nil {
			t.Errorf("%s%v = %v, %v; want %v", test.method, test.args, got, err, test.want)
		}
	}
}

// What OpenDAL 0.45.20 answers for its fs service.
func TestCapability(t *testing.T) {
	c, _, _ := bench(t, config(t.TempDir()))
	got, err := c.Call(t.Context(), "capability")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"write_multi_max_size": nil, "write_multi_min_size": nil, "write_total_max_size": nil}
	for _, yes := range strings.Fields("blocking copy create_dir delete list read rename shared stat write write_can_append write_can_empty write_can_multi") {
		want[yes] = true
	}
	for _, no := range strings.Fields(`list_with_limit list_with_recursive list_with_start_after presign presign_read presign_stat
		presign_write read_with_if_match read_with_if_none_match read_with_override_cache_control
		read_with_override_content_disposition read_with_override_content_type stat_with_if_match stat_with_if_none_match
		write_with_cache_control write_with_content_disposition write_with_content_type`) {
		want[no] = false
	}
	if !reflect.DeepEqual(got, want) || len(want) != 33 {
		t.Errorf("capability() = %v; want %v", got, want)
	}
}

// A stream that breaks off is an error on the wire that says how much came.
func TestBrokenStream(t *testing.T) {
	root := t.TempDir()
	c, o, _ := bench(t, config(root))
	fd, err := c.Call(t.Context(), "open", "file", "wb")
	if err != nil {
		t.Fatal(err)
	}
	r, h := o.Stream()
	wrote := make(chan error, 1)
	go func() { wrote <- driver.Run(t.Context(), c, "file_write", fd, h) }()
	if _, err := r.Write(make([]byte, 1234)); err != nil {
		t.Fatal(err)
	}
	r.Close()
	err = <-wrote
	if want := "read after 1234 bytes: the other side broke it off: unexpected EOF; file will not be replaced"; !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), want) {
		t.Errorf("file_write() = %v; want %s", err, want)
	}
	if err := driver.Run(t.Context(), c, "file_close", fd); err == nil || !strings.Contains(err.Error(), "1234 bytes") {
		t.Errorf("file_close() = %v; want to hear of the write again", err)
	}
	if got := tree(t, root); len(got) != 1 {
		t.Errorf("%v are left; want nothing", got)
	}

	// The same goes for a stream that cannot be opened.
	if fd, err = c.Call(t.Context(), "open", "file", "wb"); err != nil {
		t.Fatal(err)
	}
	if err := driver.Run(t.Context(), c, "file_write", fd, h); err == nil || !strings.Contains(err.Error(), "no open stream") {
		t.Errorf("file_write() with a handle that was used = %v; want an error", err)
	}
	if err := driver.Run(t.Context(), c, "file_close", fd); err == nil || !strings.Contains(err.Error(), "no open stream") {
		t.Errorf("file_close() = %v; want to hear of the write again", err)
	}
	if got := tree(t, root); len(got) != 1 {
		t.Errorf("%v are left; want nothing", got)
	}
}
