//go:build unix

package udp

import "syscall"

// truncated marks a datagram of which only a part was received.
const truncated = syscall.MSG_TRUNC
