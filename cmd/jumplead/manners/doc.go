// Package manners tests the whole program on the kernel's own drivers: that a look
// at the hardware moves nothing, and what becomes of lines when an exporter ends,
// by a signal that it can answer or by one that it cannot.
//
// The package holds no code, only tests.
package manners
