//go:build !linux || ppc64 || ppc64le

package dut

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
)

var errSystem = fmt.Errorf("a virtual DUT on %s/%s: %w", runtime.GOOS, runtime.GOARCH, errors.ErrUnsupported)

func lock(string) (*os.File, error) { return nil, errSystem }

type place struct{ addr *net.TCPAddr }

func reserve(*net.TCPAddr) (*place, error) { return nil, errSystem }
func (*place) Close() error                { return nil }

type terminal struct{ path string }

func openTerminal() (*terminal, error)     { return nil, errSystem }
func (*terminal) Close() error             { return nil }
func (*terminal) Read([]byte) (int, error) { return 0, errSystem }
func (*terminal) Send([]byte)              {}
