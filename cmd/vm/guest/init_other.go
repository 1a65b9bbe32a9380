//go:build !linux

package guest

// Main is for Linux.
func Main() { panic("process 1 of a guest, on a system that is not Linux") }
