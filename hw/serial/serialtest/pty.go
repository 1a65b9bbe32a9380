package serialtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/jumplead/jumplead/hw/serial/pty"
)

// PTY is the device at the far end of a serial line that is a real terminal of the kernel, so that any program can open
// it by its path. Read gets what the host sends, Write sends to the host; as on a UART with flow control, Write waits
// while the host does not read. A PTY records nothing; io.Copy it to a [Recorder] for that.
//
// The kernel's pseudo-terminals lack modem lines and timing: the baud rate is kept but bytes pass at once.
type PTY struct {
	path string

	mu     sync.Mutex
	master *os.File // nil while unplugged
	// The model holds the host's side open too, so that the terminal is raw and lives between two opens by the host. A
	// Read of a master whose slave nobody has open would fail.
	slave *os.File
}

// Settings is what the host has asked of the terminal.
type Settings struct {
	Baud  int
	HUPCL bool
}

// OpenPTY makes a pseudo-terminal and a symbolic link at path that leads to it: the "device file" of the host. The link
// must not exist yet.
func OpenPTY(path string) (*PTY, error) {
	p := &PTY{path: path}
	if err := p.Replug(); err != nil {
		return nil, err
	}
	return p, nil
}

// Path is the device file for the host to open.
func (p *PTY) Path() string { return p.path }

// Read reads what the host sent. It fails with os.ErrClosed when the device is unplugged.
func (p *PTY) Read(b []byte) (int, error) {
	m, err := p.end("read")
	if err != nil {
		return 0, err
	}
	return m.Read(b)
}

// Write sends to the host. It fails with os.ErrClosed when the device is unplugged.
func (p *PTY) Write(b []byte) (int, error) {
	m, err := p.end("write")
	if err != nil {
		return 0, err
	}
	return m.Write(b)
}

func (p *PTY) end(op string) (*os.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.master == nil {
		return nil, &fs.PathError{Op: op, Path: p.path, Err: os.ErrClosed}
	}
	return p.master, nil
}

// Settings reads the terminal's settings as the host left them.
func (p *PTY) Settings() (Settings, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.slave == nil {
		return Settings{}, &fs.PathError{Op: "settings", Path: p.path, Err: os.ErrClosed}
	}
	return settings(p.slave)
}

// Unplug takes the device away as pulling its cable does: the path is gone, and whoever has it open is hung up.
func (p *PTY) Unplug() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.master == nil {
		return &fs.PathError{Op: "unplug", Path: p.path, Err: os.ErrClosed}
	}
	err := errors.Join(os.Remove(p.path), p.master.Close(), p.slave.Close())
	p.master, p.slave = nil, nil
	return err
}

// Replug brings an unplugged device back at the same path. To the kernel it is a new terminal.
func (p *PTY) Replug() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.master != nil {
		return fmt.Errorf("replug %s: it is plugged in", p.path)
	}
	master, slave, err := pty.Open()
	if err != nil {
		return err
	}
	if err := os.Symlink(slave.Name(), p.path); err != nil {
		return errors.Join(err, master.Close(), slave.Close())
	}
	p.master, p.slave = master, slave
	return nil
}

// Close unplugs the device if it is plugged in.
func (p *PTY) Close() error {
	if err := p.Unplug(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
