package process

import (
	"fmt"
	"strings"

	"github.com/jumplead/jumplead/hw"
)

// Limits are what a program may take of the machine, and Path is a file among them.
type (
	Limits = hw.Limits
	Path   = hw.Path
)

// starving is what programs say that get no more memory.
var starving = []string{"MemoryError", "annot allocate", "Unable to allocate", "out of memory", "bad_alloc"}

// Starved tells which limit a program has run into that says this, or "". Where each
// process has a limit of memory by itself, an allocation fails, and only the program
// knows.
func Starved(l *Limits, says string) string {
	if l == nil || l.Memory == 0 {
		return ""
	}
	for _, sign := range starving {
		if strings.Contains(says, sign) {
			return memoryReached(l)
		}
	}
	return ""
}

func memoryReached(l *Limits) string {
	return fmt.Sprintf("the memory limit of %v was reached", l.Memory)
}
