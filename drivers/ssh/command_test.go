package ssh

import (
	"slices"
	"strings"
	"testing"
)

func TestSplit(t *testing.T) {
	for line, want := range map[string][]string{
		"ssh":                       {"ssh"},
		"  ssh\t-o  X=y ":           {"ssh", "-o", "X=y"},
		`ssh -o 'a b' "c d"`:        {"ssh", "-o", "a b", "c d"},
		`ssh a'b c'"d e"f`:          {"ssh", "ab cd ef"},
		`ssh '' ""`:                 {"ssh", "", ""},
		`ssh a\ b \'x`:              {"ssh", "a b", "'x"},
		`ssh "a\"b\\c\d" 'e\f' g#h`: {"ssh", `a"b\c\d`, `e\f`, "g#h"},
		"ssh 'a":                    nil,
		`ssh "a`:                    nil,
		`ssh \`:                     nil,
		" ":                         nil,
	} {
		got, err := split(line)
		if !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("split(%s) = %q, %v; want %q", line, got, err, want)
		}
	}
}

func TestArguments(t *testing.T) {
	for _, test := range []struct {
		key, user string
		port      int
		args      string
		want      string
	}{
		{"", "", 22, "", "ssh h"},
		{"k", "root", 1022, "", "ssh -i k -p 1022 -l root h"},
		{"", "root", 22, "uname -a", "ssh -l root h uname -a"},
		{"", "root", 22, "-v -t top -d 1", "ssh -l root -v -t h top -d 1"},
		{"", "root", 22, "-l me ls -l", "ssh -l me h ls -l"},
		{"", "root", 22, "ls -l x", "ssh -l root h ls -l x"},
		{"", "root", 22, "-o A=b -L 1:h:2 -N", "ssh -l root -o A=b -L 1:h:2 -N h"},
		{"", "root", 22, "-o -v ls", "ssh -l root -o -v h ls"}, // without a value, which ssh tells
		{"", "root", 22, "--unknown ls", "ssh -l root h --unknown ls"},
		{"", "root", 22, "-vv ls", "ssh -l root h -vv ls"},
		{"", "root", 22, "-l", "ssh -l root -l h"},
	} {
		got := strings.Join(arguments([]string{"ssh"}, test.key, test.user, "h", test.port, strings.Fields(test.args)), " ")
		if got != test.want {
			t.Errorf("arguments(%s) = %s; want %s", test.args, got, test.want)
		}
	}
}
