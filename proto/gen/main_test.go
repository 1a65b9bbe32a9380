package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const source = `syntax = "proto3";

package a;

import "google/protobuf/empty.proto";

option go_package = "example.org/a";

message M {
  string text = 1;
}

service S {
  rpc Call(M) returns (google.protobuf.Empty);
}
`

func TestRun(t *testing.T) {
	root := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "a"), 0o777); err != nil {
		t.Fatal(err)
	}
	put("a/a.proto", source)
	put("a/gone.pb.go", "package a\n")

	check := func(stale ...string) {
		t.Helper()
		before := list(t, root)
		var diff bytes.Buffer
		err := run(t.Context(), root, true, &diff)
		if (err == nil) != (len(stale) == 0) {
			t.Fatalf("run(check) = %v; want an error that names %q", err, stale)
		}
		for _, name := range stale {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("run(check) = %v; want an error that names %q", err, stale)
			}
			if !strings.Contains(diff.String(), "+++ b/"+name) {
				t.Errorf("run(check) prints\n%s\nwant a diff of %s", &diff, name)
			}
		}
		if after := list(t, root); !slices.Equal(after, before) {
			t.Errorf("files after run(check) = %q; want %q, as before", after, before)
		}
	}
	update := func() {
		t.Helper()
		if err := run(t.Context(), root, false, nil); err != nil {
			t.Fatalf("run() = %v", err)
		}
	}

	check("a/a.pb.go", "a/a_grpc.pb.go", "a/gone.pb.go")
	update()
	check()
	if got, want := list(t, root), []string{"a/a.pb.go", "a/a.proto", "a/a_grpc.pb.go"}; !slices.Equal(got, want) {
		t.Errorf("files after run() = %q; want %q", got, want)
	}

	put("a/a.proto", strings.Replace(source, "text = 1", "text = 2", 1))
	check("a/a.pb.go")
	update()
	check()

	put("a/a.proto", strings.Replace(source, "string text", "strong text", 1))
	if err := run(t.Context(), root, false, nil); err == nil || !strings.Contains(err.Error(), "a/a.proto:10:3") {
		t.Errorf("run() of a field of no known type = %v; want an error at a/a.proto:10:3", err)
	}
}

// list names all files below root.
func list(t *testing.T, root string) []string {
	t.Helper()
	var names []string
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
