package app

import (
	"os"

	"github.com/jumplead/jumplead/board"
	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/gpio/cdev"
	"github.com/jumplead/jumplead/hw/i2c"
	"github.com/jumplead/jumplead/hw/serial"
)

// thisBoard is what the machine offers to drivers. Nothing of it is touched, but that
// a machine with a device tree is asked for its name.
func thisBoard() hw.Host {
	compatible, _ := os.ReadFile(board.CompatibleFile) // most machines have none
	return hw.Host{
		Serial: serial.Bus{},
		GPIO:   cdev.Bus(),
		I2C:    i2c.Buses{},
		Names:  names(board.Detect(string(compatible))),
	}
}

// names are a board's, for drivers.
func names(b board.Board) hw.Names {
	n := hw.Names{Chips: b.Chips, Lines: map[string]hw.LineRef{}, Pins: b.Pins, I2C: b.I2C}
	if b.Name != board.Generic {
		n.Board = b.Name
	}
	for name, l := range b.Lines {
		n.Lines[name] = hw.LineRef{Chip: l.Chip, Offset: l.Offset}
	}
	return n
}
