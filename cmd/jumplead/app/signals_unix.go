//go:build unix

package app

import (
	"os"
	"syscall"
)

// reloadSignals ask for a reload. HUP is none of them: it ends Jumpstarter's
// exporter.
var reloadSignals = []os.Signal{syscall.SIGUSR1}
