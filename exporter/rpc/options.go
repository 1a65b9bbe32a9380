package rpc

import (
	"time"

	"github.com/jumplead/jumplead/exporter/stream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// Sizes of the transport's windows and buffers. gRPC's own 64 KiB windows make
// a sender wait for an acknowledgement in the middle of every chunk of a tunnel;
// a window of a few chunks keeps the pipe full. A stream whose driver takes
// nothing makes the exporter hold one window of it, and up to twice that with
// the buffers around it. Other streams of its connection go on: gRPC gives the
// connection's window back as data arrives, whether or not it is read. Reading
// 256 KiB at a time takes in a large chunk by a few calls; it is the one buffer
// that an idle connection keeps. A chunk of 64 KiB, as most programs read and write
// files, is written at once with its headers: for a few bytes more its receiver
// would be woken twice.
const (
	streamWindow = 512 << 10
	connWindow   = 1 << 20
	readBuffer   = 256 << 10
	writeBuffer  = 66 << 10
)

// workers answer calls on stacks that have grown already: growing a fresh one
// costs a sixth of a call. When all are busy, or stuck, a call gets a goroutine
// of its own.
const workers = 4

// ServerOptions are those of every server that clients connect to.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(stream.Codec{}),
		grpc.NumStreamWorkers(workers),
		grpc.InitialWindowSize(streamWindow),
		grpc.InitialConnWindowSize(connWindow),
		grpc.ReadBufferSize(readBuffer),
		grpc.WriteBufferSize(writeBuffer),
		// clients ping every 20 s also when idle, as upstream's do
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		// a client that vanished without a word is noticed, and its streams end
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 60 * time.Second, Timeout: 20 * time.Second}),
	}
}

// DialOptions are those of every client connection.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(stream.Codec{})),
		grpc.WithInitialWindowSize(streamWindow),
		grpc.WithInitialConnWindowSize(connWindow),
		grpc.WithReadBufferSize(readBuffer),
		grpc.WithWriteBufferSize(writeBuffer),
	}
}
