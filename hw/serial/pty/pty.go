// Package pty makes pseudo-terminals: serial lines whose far end is a program.
//
// A pseudo-terminal is a pair of files. The slave is the host's end, a device file like any other serial port's; the
// master is the device's end. A Read of the master gets what the host wrote and a Write goes to the host. There are no
// modem lines and there is no timing: the host may set a baud rate, which is kept and means nothing.
//
// The slave may be closed and its path opened again, by anybody, for as long as the master is open, and the settings last.
// While nobody has it open, a Read of the master fails with EIO, and what is written to the master piles up, some 20 KB
// of it, for the next one who opens the path. A device that should outlive its hosts keeps the slave open, or watches for
// that state. Closing the master hangs up whoever has the slave.
package pty

import (
	"fmt"
	"os"
)

// Open makes a pseudo-terminal. The path of the host's end is slave.Name(). Both files are in non-blocking mode and
// served by Go's poller, so that a Close or a deadline ends a Read that waits. The terminal is raw from birth, where the
// kernel's own would echo what the device says before a host has opened it, and HUPCL is on, as on a serial port. On a
// system that is not Linux, Open answers errors.ErrUnsupported.
func Open() (master, slave *os.File, err error) {
	master, slave, err = open()
	if err != nil {
		return nil, nil, fmt.Errorf("open a pseudo-terminal: %w", err)
	}
	return master, slave, nil
}
