//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd)

package scratch

import (
	"errors"
	"io/fs"
	"os"
)

// Lock fails with [errors.ErrUnsupported]: this system has no such locks. What a
// process has left stays there.
func Lock(*os.File) error { return errors.ErrUnsupported }

func openFile(string) (*os.File, error)   { return nil, errors.ErrUnsupported }
func openFolder(string) (*os.File, error) { return nil, errors.ErrUnsupported }
func private(fs.FileInfo) bool            { return false }
func inherit(*os.File)                    {}
