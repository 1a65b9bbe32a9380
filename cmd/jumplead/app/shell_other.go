//go:build !unix

package app

// foreground reports whether what is typed at the terminal reaches this process
// and its children alike.
func foreground() bool { return true }
