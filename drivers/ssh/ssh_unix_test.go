//go:build unix

package ssh_test

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestIdentityFileProblems(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		fifo:                     "it is no regular file",
		t.TempDir():              "it is no regular file",
		save(t, "topsecret\xff"): "it is not text (UTF-8)",
		save(t, strings.Repeat("topsecret", 2e5)): "more than 1048576 bytes are no key",
	} {
		got, err := open(t, "{ssh_identity_file: "+quote(name)+"}").Identity(t.Context())
		if want := "Failed to read ssh_identity_file '" + name + "': " + want; err == nil || err.Error() != want {
			t.Errorf("Identity() = %q, %v; want %s", got, err, want)
		}
	}
}
