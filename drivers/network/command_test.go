package network

import "testing"

func TestParseAddress(t *testing.T) {
	for s, want := range map[string][3]string{
		"tcp://127.0.0.1:8080":   {"127.0.0.1:8080", "127.0.0.1", "8080"},
		"udp://[::1]:8080":       {"[::1]:8080", "::1", "8080"},
		"[fe80::1%eth0]:22":      {"[fe80::1%eth0]:22", "", ""},
		"dut.local:22":           {"dut.local:22", "dut.local", "22"},
		"ws://host:80/path?x=y":  {"host:80", "host", "80"},
		"tcp://host":             {"host", "host", ""},
		"":                       {"", "", ""},
		"tcp://[not an address]": {"tcp://[not an address]", "", ""},
	} {
		a := parseAddress(s)
		if got := [3]string{a.text, a.Host, a.Port}; got != want {
			t.Errorf("parseAddress(%s) = %q; want %q", s, got, want)
		}
	}
}
