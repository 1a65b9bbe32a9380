//go:build !linux

package cdev

import (
	"errors"
	"io/fs"

	"github.com/jumplead/jumplead/hw/gpio"
)

// List lists nothing.
func (Kernel) List() ([]string, error) { return nil, nil }

// Open opens nothing.
func (Kernel) Open(path string) (gpio.Chip, error) {
	return nil, &fs.PathError{Op: "open", Path: path, Err: errors.ErrUnsupported}
}
