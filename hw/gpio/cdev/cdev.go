// Package cdev is the kernel's GPIO character device, /dev/gpiochipN, as a backend of hw/gpio.
//
// It speaks version 2 of the interface (Linux 5.10 and newer), through the definitions and ioctls of go-gpiocdev's
// package uapi. That library's own lines are not used, for how they end: its goroutine that waits for edges goes on
// waiting when the chip is gone, in a loop that takes a whole processor, and one system call an edge is not enough for
// bursts. Here the file of a line is served by Go's poller, up to 64 edges a system call, and a removed chip ends a Read.
//
// # Permission
//
// The device files are root's at first. Raspberry Pi OS gives them to the group gpio; elsewhere a udev rule does:
//
//	SUBSYSTEM=="gpio", KERNEL=="gpiochip*", GROUP="gpio", MODE="0660"
package cdev

import "github.com/jumplead/jumplead/hw/gpio"

// Bus is the GPIO lines of this machine.
func Bus() gpio.Bus { return gpio.Bus{Chips: Kernel{}} }

// Kernel lists and opens the kernel's chips. Errors are the kernel's, and [errors.ErrUnsupported] on other systems than
// Linux.
type Kernel struct{}

var _ gpio.Chips = Kernel{}
