// Package devices lets the stock Jumpstarter client drive real kernel devices through jumplead.
//
// The tests run where the kernel has simulated GPIO chips and a USB host controller whose devices are models: in the
// machine of cmd/vm. There they make a chip, plug in a serial adapter and an I2C adapter with power meters, start an
// exporter on them, and let the cases of testdata/judge.py use the stock client's classes, adapters and programs, and see
// on the far side of each wire what came of it. As in package interop, every case runs against the stock exporter, too,
// in the same machine, and where that is wrong the case names the defect. It has no driver for power meters.
//
// The package holds no code, only tests. The benchmark tells what the wire adds to a system call:
//
//	go test -exec $PWD/.build/bin/vm -run '^$' -bench Wire ./cmd/jumplead/interop/devices
package devices
