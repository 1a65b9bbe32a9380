// Package proto holds the protocol: .proto files, and beside each the Go code
// that is generated from it. The messages are those of Jumpstarter, name for
// name and number for number, so that its clients, controllers and routers
// understand us; the comments in the .proto files say what each one means.
//
// # The exporter
//
// An exporter has a tree of drivers, and serves it with two gRPC services on
// one connection. ExporterService is for calls: GetReport lists the tree, with
// a UUID for each driver and the name of the Python class that a client uses
// for it; DriverCall and StreamingDriverCall call a method by that UUID and
// the method's name, with JSON-like values for arguments and results;
// LogStream and GetStatus tell how things go; EndSession says that the client
// is done.
//
// RouterService is for bytes: a serial console, a TCP connection into the
// device under test, an image to be flashed. Stream carries frames both ways:
// DATA is a chunk, and GOAWAY means that its sender is done writing while the
// other direction goes on. Which driver's stream it is stands in the metadata
// "request", as JSON. A transfer that belongs to a call is a stream too (a
// "resource"): the client opens it, learns a handle from the initial metadata,
// and passes the handle as an argument of the call.
//
// A client that can reach an exporter directly needs no more than that.
//
// # The controller and the router
//
// A shared exporter sits behind a firewall and lets itself be found instead. It
// dials a controller and calls ControllerService: Register with its tree, then
// Status, a stream that says when somebody leases it. Clients get their lease
// from the same controller, by ClientService.
//
// Under a lease the exporter calls Listen. For each connection that the client
// wants, the client calls Dial, and both are given the address of a router and
// a token each. Both call Stream there, and the router passes on frames between
// the two tokens that belong together. What flows in these frames is a whole
// gRPC connection, as bytes: inside it the client meets the exporter's two
// services again, RouterService included. Frames within frames are normal.
//
// The exporter reports each step of a lease (hooks before and after it, ready,
// free again) with ReportStatus, and leaves with Unregister.
//
// TelemetryService is an optional place to send logs to, at an address that
// the controller tells.
package proto
