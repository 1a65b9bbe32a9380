package udp

// truncated marks a datagram of which only a part was received: MSG_TRUNC of
// Windows' sockets.
const truncated = 0x100
