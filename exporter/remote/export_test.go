package remote

// Forget makes the pauses after failures start anew, so that a test may fail often.
func Forget(h *Hosts) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.children {
		c.forget.Store(true)
	}
}
