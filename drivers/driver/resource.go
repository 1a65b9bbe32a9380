package driver

import (
	"context"
	"fmt"
	"io"

	"github.com/google/uuid"
)

// Resource is a byte stream that a caller offers to a call: what it wants
// written to the device, or where it wants the device's content to go. Neither
// direction ever looks complete when it is not.
type Resource interface {
	// Read yields what the caller sends, decompressed. io.EOF means that all of
	// it has come; any other end is an error.
	io.Reader

	// Write sends to the caller, compressed when the caller asked for it.
	io.Writer

	// CloseWrite says that everything was written, and returns when it is on
	// its way. Without it, Close breaks the stream off and the caller sees an
	// error, not a short file.
	CloseWrite() error

	// Close gives the stream back. It must follow every Open.
	io.Closer
}

// Opener finds the stream that a handle names. The node is the one that the
// handle was passed to: handles of other nodes are not opened. The context is
// that of the call: the transfer ends with it.
type Opener interface {
	OpenHandle(ctx context.Context, node uuid.UUID, h Handle) (Resource, error)
}

// Open opens the stream that a caller's handle names, for the length of the
// call. The caller of Open closes it, also when the transfer failed.
func (e *Env) Open(ctx context.Context, h Handle) (Resource, error) {
	if e.tree == nil || e.tree.opt.Resources == nil {
		return nil, fmt.Errorf("resource: nobody offers streams here")
	}
	return e.tree.opt.Resources.OpenHandle(ctx, e.node.UUID, h)
}
