//go:build unix

package exporter

import "syscall"

func setUmask(m int) int { return syscall.Umask(m) }
