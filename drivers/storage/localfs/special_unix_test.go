//go:build unix

package localfs

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/jumplead/jumplead/drivers/storage"
)

// What is no file is listed and left alone; nothing waits for its other end.
func TestSpecialFiles(t *testing.T) {
	root := t.TempDir()
	if err := syscall.Mkfifo(root+"/fifo", 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("fifo", root+"/link"); err != nil {
		t.Fatal(err)
	}
	f, _ := newFolder(t, root, false)
	defer f.Close()
	for _, path := range []string{"fifo", "link"} {
		for _, mode := range []storage.Mode{storage.ForReading, storage.ForWriting} {
			if _, err := f.Open(t.Context(), path, mode); err == nil || !strings.Contains(err.Error(), "not a file") {
				t.Errorf("Open(%s, %s) = %v; want an error that says that it is not a file", path, mode, err)
			}
		}
		if err := f.Copy(t.Context(), path, "copy"); err == nil {
			t.Errorf("Copy(%s) = nil; want an error", path)
		}
		m, err := f.Stat(t.Context(), path)
		if m.Mode != (storage.EntryMode{}) || err != nil {
			t.Errorf("Stat(%s) = %+v, %v; want neither file nor directory", path, m, err)
		}
	}
	for range f.List(t.Context(), "fifo/") {
		t.Error("List(fifo/) yields; want nothing")
	}
}
