package serial

import "testing"

// The end may come in pieces, and two ctrl-Bs are no end.
func TestEscape(t *testing.T) {
	for _, test := range []struct {
		typed []string
		sent  string
		end   bool
	}{
		{[]string{"abc"}, "abc", false},
		{[]string{"\x02\x02a\x02"}, "\x02\x02a\x02", false},
		{[]string{"a\x02\x02\x02b"}, "a\x02\x02", true},
		{[]string{"a\x02", "\x02", "\x02"}, "a\x02\x02", true},
		{[]string{"\x02\x02", "x", "\x02\x02"}, "\x02\x02x\x02\x02", false},
	} {
		var e escape
		sent, ended := "", false
		for _, p := range test.typed {
			send, end := e.pass([]byte(p))
			sent, ended = sent+string(send), ended || end
		}
		if sent != test.sent || ended != test.end {
			t.Errorf("escape of %q sends %q, end %v; want %q, %v", test.typed, sent, ended, test.sent, test.end)
		}
	}
}
