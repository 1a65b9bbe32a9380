package app

import (
	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/serial"
)

// board is what the machine offers to drivers.
func board() hw.Host { return hw.Host{Serial: serial.Bus{}} }
