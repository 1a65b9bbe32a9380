// Package rough treats a harness roughly, and looks on from the other end of the
// wire: chips, adapters and buses are pulled out and put back hundreds of times
// while calls and streams use them, lines change faster than a reader reads.
//
// An exporter runs in the test's process on the kernel's own drivers, and a Go
// client calls it over gRPC. What must hold: a call succeeds or says which device
// is not there, a stream ends with an error and not never, everything works again
// soon after its device is back, nothing is lost without a word, and at the end
// there are as many goroutines and open files as at the beginning.
//
// The package holds no code, only tests.
package rough
