//go:build !linux

package devfile

import "context"

// Usable reports whether this process may read and write a file, where that can be told.
func Usable(string) error { return nil }

func remedy(string, string) string { return general }

// Holders finds the processes that have a device open or locked, where that can be told.
func Holders(context.Context, string) []Holder { return nil }
