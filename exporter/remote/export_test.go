package remote

// Forget makes the pauses after failures start anew, so that a test may fail often.
func Forget(h *Hosts) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.children {
		c.forget.Store(true)
	}
}

// Processes is how many there are, or are to be again.
func Processes(h *Hosts) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.children)
}

// LimitsText tells limits from others.
var LimitsText = limitsText
