package serialtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jumplead/jumplead/hw"
)

var _ hw.SerialProber = (*Bus)(nil)

// Forbid takes away the right to open what is at path, or gives it back.
func (b *Bus) Forbid(path string, forbidden bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.forbidden == nil {
		b.forbidden = map[string]bool{}
	}
	b.forbidden[path] = forbidden
}

// Put puts something that is no serial port at path.
func (b *Bus) Put(path string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.others == nil {
		b.others = map[string]bool{}
	}
	b.others[path] = true
}

// ProbeSerial tells of the device at path without touching it.
func (b *Bus) ProbeSerial(ctx context.Context, path string) (hw.SerialInfo, error) {
	if err := ctx.Err(); err != nil {
		return hw.SerialInfo{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	u, err := b.find(path)
	if err != nil {
		return hw.SerialInfo{}, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	info := hw.SerialInfo{Name: filepath.Base(path), Driver: "model"}
	if u.Open() > 0 {
		return info, &fs.PathError{Op: "open", Path: path, Err: errTaken}
	}
	return info, nil
}

var errTaken = hw.Mark(hw.ErrBusy, errors.New("another program or session has the port open"))

// find finds the device at path. b.mu is held.
func (b *Bus) find(path string) (*UART, error) {
	u := b.devices[path]
	switch {
	case b.others[path]:
		return nil, hw.Mark(hw.ErrWrong, errors.New("not a serial port"))
	case u == nil:
		there := "there are no serial ports"
		if len(b.devices) > 0 {
			there = "there are " + strings.Join(slices.Sorted(maps.Keys(b.devices)), ", ")
		}
		return nil, hw.Mark(hw.ErrAbsent, fmt.Errorf("%w: is the device plugged in? %s", fs.ErrNotExist, there))
	case b.forbidden[path]:
		return nil, fmt.Errorf("%w: the user needs the group that owns the device", fs.ErrPermission)
	}
	return u, nil
}
