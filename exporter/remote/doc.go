// Package remote lets nodes of a harness be elsewhere: in a Python process that
// runs the stock driver, or in another exporter.
//
// # One tree
//
// What is mounted appears in the tree as if it were built in. Its identities
// derive from the names that lead to it, so that they outlive the process or the
// connection behind it. Calls, sequences and streams are forwarded as they are,
// see [github.com/jumplead/jumplead/exporter/rpc.Forwarder]. When the other side
// is gone, its nodes answer UNAVAILABLE and say why, what was known of them stays
// in the report, and the rest of the harness goes on.
//
// # Hosted drivers
//
// A type that this program has no driver for, and that Python can import, is run by
// the stock jumpstarter package in a process of its own: one for all nodes that
// have the same interpreter and user. The process serves its drivers with the
// package's own session, on a Unix socket; RPCs travel there in a form that Python
// reads and answers faster than gRPC's. What it has to be told, and what it
// tells of itself, are lines of JSON on its standard input and on a pipe. What
// drivers print goes into the log. The end of its standard input is the end of the
// process, and its death that of all processes that its drivers have started.
//
// See [Hosts]. It works on Linux.
package remote
