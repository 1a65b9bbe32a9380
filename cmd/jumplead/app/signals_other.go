//go:build !unix

package app

import "os"

var reloadSignals []os.Signal
