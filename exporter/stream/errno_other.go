//go:build !unix

package stream

func notConnected(error) bool { return false }
