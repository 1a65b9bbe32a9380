package process

import "github.com/jumplead/jumplead/hw"

// Limits are what a program may take of the machine, and Path is a file among them.
type (
	Limits = hw.Limits
	Path   = hw.Path
)
