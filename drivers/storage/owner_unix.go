//go:build unix

package storage

import (
	"io/fs"
	"os"
	"syscall"
)

// lendOwner gives a file the owner of another, if we may.
func lendOwner(f *os.File, of fs.FileInfo) {
	if st, ok := of.Sys().(*syscall.Stat_t); ok {
		_ = f.Chown(int(st.Uid), int(st.Gid))
	}
}
