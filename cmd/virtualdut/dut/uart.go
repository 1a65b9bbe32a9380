package dut

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"
)

// uart is the console's connector, and the cable that leads from it to the terminal at link.
type uart struct {
	link    string
	receive func([]byte) // what the host sends; must not wait
	log     *slog.Logger

	mu       sync.Mutex
	terminal *terminal // nil while the cable is unplugged
	back     *time.Timer
	closed   bool
	readers  sync.WaitGroup // of terminals
	timers   sync.WaitGroup
}

// Send is the board's.
func (u *uart) Send(p []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.terminal != nil {
		u.terminal.Send(p)
	}
}

// State is the cable.
func (u *uart) State() Cable {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.terminal == nil {
		return Unplugged
	}
	return Plugged
}

// Plug makes the terminal, if there is none.
func (u *uart) Plug() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.forget()
	return u.plug()
}

func (u *uart) plug() error {
	switch {
	case u.closed:
		return fmt.Errorf("plug uart: %w", net.ErrClosed)
	case u.terminal != nil:
		return nil
	}
	if err := vacate(u.link, fs.ModeSymlink); err != nil {
		return err
	}
	t, err := openTerminal()
	if err != nil {
		return err
	}
	if err := os.Symlink(t.path, u.link); err != nil {
		return errors.Join(err, t.Close())
	}
	u.terminal = t
	u.readers.Go(func() { u.listen(t) })
	u.log.Info("console plugged in")
	return nil
}

// listen passes on what the host sends.
func (u *uart) listen(t *terminal) {
	buf := make([]byte, 4096)
	for {
		n, err := t.Read(buf)
		if err != nil {
			return
		}
		u.receive(buf[:n])
	}
}

// Unplug takes the terminal away from whoever has it open, for d if that is not 0.
func (u *uart) Unplug(d time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return
	}
	u.forget()
	if err := u.unplug(); err != nil {
		u.log.Error("unplug the console", "error", err)
	}
	if d == 0 {
		return
	}
	u.timers.Add(1)
	var t *time.Timer
	t = time.AfterFunc(d, func() {
		defer u.timers.Done()
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.back != t { // somebody was faster
			return
		}
		u.back = nil
		if err := u.plug(); err != nil {
			u.log.Error("plug in the console", "error", err)
		}
	})
	u.back = t
}

func (u *uart) unplug() error {
	if u.terminal == nil {
		return nil
	}
	// The link first: who is hung up and tries again finds nothing.
	err := vacate(u.link, fs.ModeSymlink)
	err = errors.Join(err, u.terminal.Close())
	u.terminal = nil
	u.log.Info("console unplugged")
	return err
}

// forget gives up what a timer was to do.
func (u *uart) forget() {
	if u.back != nil && u.back.Stop() {
		u.timers.Done()
	}
	u.back = nil
}

// Close unplugs for good. When it returns, nothing of the uart runs any more.
func (u *uart) Close() error {
	u.mu.Lock()
	u.closed = true
	u.forget()
	err := u.unplug()
	u.mu.Unlock()
	u.timers.Wait()
	u.readers.Wait()
	return err
}
