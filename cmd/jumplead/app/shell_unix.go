//go:build unix

package app

import (
	"os"

	"golang.org/x/sys/unix"
)

// foreground reports whether what is typed at the terminal reaches this process
// and its children alike.
func foreground() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
