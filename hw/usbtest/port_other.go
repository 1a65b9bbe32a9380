//go:build !linux

package usbtest

import (
	"context"
	"errors"
)

// Port is a port of the virtual hub, which only Linux has.
type Port struct{}

func Plug(Model) (*Port, error)                             { return nil, errors.ErrUnsupported }
func (*Port) Dir() string                                   { return "" }
func (*Port) Replug() error                                 { return errors.ErrUnsupported }
func (*Port) Unplug() error                                 { return errors.ErrUnsupported }
func (*Port) Await(context.Context, string) (string, error) { return "", errors.ErrUnsupported }
func (*Port) Fail(uint8, Fault, int)                        {}
