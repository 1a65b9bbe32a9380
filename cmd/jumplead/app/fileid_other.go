//go:build !unix

package app

import "io/fs"

func fileID(fs.FileInfo) string { return "" }
