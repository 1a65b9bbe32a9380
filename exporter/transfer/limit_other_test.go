//go:build !unix

package transfer_test

import "errors"

// limitFiles cannot be had here.
func limitFiles(uint64) error { return errors.ErrUnsupported }
