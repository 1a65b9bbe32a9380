//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "vm: it takes Linux, whose files the virtual machine shares")
	os.Exit(1)
}
