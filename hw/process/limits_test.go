package process

import "testing"

func TestStarved(t *testing.T) {
	some, none := &Limits{Memory: 200 << 20}, &Limits{OpenFiles: 64}
	const want = "the memory limit of 200M was reached"
	for says, want := range map[string]string{
		"Traceback: MemoryError": want, "bash: xrealloc: cannot allocate 67108864 bytes": want, "fork: Cannot allocate memory": want,
		"terminate called after throwing 'std::bad_alloc'": want, "fatal error: runtime: out of memory": want, "": "", "it is gone": "",
	} {
		if got := Starved(some, says); got != want {
			t.Errorf("Starved(%q) = %q; want %q", says, got, want)
		}
		if got := Starved(none, says) + Starved(nil, says); got != "" {
			t.Errorf("Starved(%q) without a limit = %q; want nothing", says, got)
		}
	}
}
