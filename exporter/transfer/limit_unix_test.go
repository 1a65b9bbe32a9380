//go:build unix

package transfer_test

import (
	"os/signal"
	"syscall"
)

// limitFiles sets how many bytes a file of this process may have.
func limitFiles(n uint64) error {
	signal.Ignore(syscall.SIGXFSZ) // a write fails instead
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: n, Max: n})
}
