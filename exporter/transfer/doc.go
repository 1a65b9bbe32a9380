// Package transfer has no code: it holds the tests of what moves data between
// clients, exporters and the files behind them, with all of it in place: gRPC on
// a socket, the storage drivers on a disk, HTTP servers that misbehave, and a
// network that does.
//
// The rule that they check is that what is written is what was sent, or somebody
// is told: a transfer that succeeds has moved every byte, and one that fails
// leaves the old content, or the whole of the new, and never a part of it under
// the name of the whole.
package transfer
