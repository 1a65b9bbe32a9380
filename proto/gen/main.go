// Gen compiles the .proto files beside it to Go, without protoc: its version
// would end up in the generated files, and those would then depend on the
// machine. The compiler is a Go library, the two generators are Go programs,
// and this module's go.mod and go.sum pin all three.
//
//	go -C proto/gen run .           write the generated files
//	go -C proto/gen run . -check    change nothing; fail with a diff if they are stale
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/pluginpb"
)

func main() {
	check := flag.Bool("check", false, "compare instead of writing; exit 1 and print a diff if a file is stale")
	flag.Parse()
	if err := run(context.Background(), "..", *check, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "proto/gen:", err)
		os.Exit(1)
	}
}

// run compiles all .proto files below root, where their import paths start.
// Each generated file belongs beside its source.
func run(ctx context.Context, root string, check bool, out io.Writer) error {
	sources, err := find(root, ".proto")
	if err != nil {
		return err
	}
	req, err := compile(ctx, root, sources)
	if err != nil {
		return err
	}
	want := map[string]string{}
	for _, tool := range []string{"protoc-gen-go", "protoc-gen-go-grpc"} {
		if err := generate(ctx, tool, req, want); err != nil {
			return err
		}
	}
	have, err := find(root, ".pb.go")
	if err != nil {
		return err
	}
	if check {
		return compare(root, have, want, out)
	}
	return write(root, have, want)
}

// find lists the files below root with the given suffix, by import path.
func find(root, suffix string) ([]string, error) {
	var names []string
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(name, suffix) {
			names = append(names, name)
		}
		return err
	})
	return names, err
}

// compile makes what protoc would hand to a generator: the sources and all
// they import, dependencies first.
func compile(ctx context.Context, root string, sources []string) (*pluginpb.CodeGeneratorRequest, error) {
	c := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{root}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := c.Compile(ctx, sources...)
	if err != nil {
		return nil, fmt.Errorf("compile: %w", err)
	}
	req := &pluginpb.CodeGeneratorRequest{
		FileToGenerate: sources,
		Parameter:      proto.String("paths=source_relative"),
	}
	seen := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		req.ProtoFile = append(req.ProtoFile, protoutil.ProtoFromFileDescriptor(f))
	}
	for _, f := range files {
		add(f)
	}
	return req, nil
}

// generate runs one generator and adds its files, by import path.
func generate(ctx context.Context, tool string, req *pluginpb.CodeGeneratorRequest, files map[string]string) error {
	in, err := proto.Marshal(req)
	if err != nil {
		return fmt.Errorf("%s: %w", tool, err)
	}
	cmd := exec.CommandContext(ctx, "go", "tool", tool)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", tool, err)
	}
	var resp pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(out, &resp); err != nil {
		return fmt.Errorf("%s: read its answer: %w", tool, err)
	}
	if resp.Error != nil {
		return fmt.Errorf("%s: %s", tool, resp.GetError())
	}
	for _, f := range resp.File {
		files[f.GetName()] = f.GetContent()
	}
	return nil
}

// write brings the generated files on disk up to date and removes those whose
// source is gone.
func write(root string, have []string, want map[string]string) error {
	for name, text := range want {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o666); err != nil {
			return err
		}
	}
	for _, name := range have {
		if _, ok := want[name]; ok {
			continue
		}
		if err := os.Remove(filepath.Join(root, name)); err != nil {
			return err
		}
	}
	return nil
}

// compare fails, after writing a diff to out, unless the files on disk are
// just what would be written.
func compare(root string, have []string, want map[string]string, out io.Writer) error {
	dir, err := os.MkdirTemp("", "proto-gen-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	names := slices.Clone(have)
	for name := range want {
		names = append(names, name)
	}
	slices.Sort(names)
	var stale []string
	for _, name := range slices.Compact(names) {
		old, err := os.ReadFile(filepath.Join(root, name))
		if err != nil && !os.IsNotExist(err) {
			return err
		}
		if text, ok := want[name]; ok && err == nil && text == string(old) {
			continue
		}
		stale = append(stale, name)
		now := filepath.Join(dir, "now")
		if err := os.WriteFile(now, []byte(want[name]), 0o666); err != nil {
			return err
		}
		diff := exec.Command("diff", "-uN", "--label", "a/"+name, "--label", "b/"+name, filepath.Join(root, name), now)
		diff.Stdout, diff.Stderr = out, os.Stderr
		// A status other than 0 is no error here: the files differ, and diff says so.
		if err := diff.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
			return err
		}
	}
	if len(stale) > 0 {
		return fmt.Errorf("stale: %s; run go generate ./proto", strings.Join(stale, ", "))
	}
	return nil
}
