package hw

import (
	"encoding"
	"strings"
	"testing"
	"time"
)

func TestLimitValues(t *testing.T) {
	read := func(v encoding.TextUnmarshaler, text string) error { return v.UnmarshalText([]byte(text)) }
	for text, want := range map[string]Size{"1": 1, "1500": 1500, "4K": 4 << 10, "200M": 200 << 20, "200MiB": 200 << 20, "1 G": 1 << 30, "2T": 2 << 40} {
		var s Size
		if err := read(&s, text); err != nil || s != want {
			t.Errorf("Size(%q) = %d, %v; want %d", text, s, err, want)
		}
		var again Size
		if err := read(&again, s.String()); err != nil || again != s {
			t.Errorf("Size(%q) = %v, %v; want %v", s, again, err, s)
		}
	}
	for _, text := range []string{"", "M", "0", "-1M", "1.5G", "200MB", "200 megabytes", "9223372036854775807K", "99999999T", "0x10"} {
		var s Size
		if err := read(&s, text); err == nil || !strings.Contains(err.Error(), "is no size") {
			t.Errorf("Size(%q) = %v, %v; want an error", text, s, err)
		}
	}
	for text, want := range map[string]Memory{"16M": 16 << 20, "1G": 1 << 30} {
		var m Memory
		if err := read(&m, text); err != nil || m != want {
			t.Errorf("Memory(%q) = %v, %v; want %v", text, m, err, want)
		}
	}
	var m Memory
	if err := read(&m, "15M"); err == nil || !strings.Contains(err.Error(), "at least 16M") {
		t.Errorf("Memory(15M) = %v; want an error that names the least", err)
	}
	for text, want := range map[string]Share{"1%": 1, " 50 % ": 50, "200%": 200} {
		var s Share
		if err := read(&s, text); err != nil || s != want {
			t.Errorf("Share(%q) = %v, %v; want %v", text, s, err, want)
		}
	}
	for _, text := range []string{"", "%", "50", "0.5", "0%", "-5%", "102401%", "1e2%"} {
		var s Share
		if err := read(&s, text); err == nil {
			t.Errorf("Share(%q) = %v; want an error", text, s)
		}
	}
	for text, want := range map[string]Path{"/": "/", "/srv/images/": "/srv/images", "/a/../b": "/b"} {
		var p Path
		if err := read(&p, text); err != nil || p != want {
			t.Errorf("Path(%q) = %q, %v; want %q", text, p, err, want)
		}
	}
	for _, text := range []string{"", "srv", "./x", "~/x", "/a\x00b"} {
		var p Path
		if err := read(&p, text); err == nil {
			t.Errorf("Path(%q) = %q; want an error", text, p)
		}
	}
}

func TestLimitsString(t *testing.T) {
	l := Limits{Memory: 200 << 20, CPU: 50, CPUTime: 90 * time.Second, Processes: 8, OpenFiles: 64, FileSize: 1 << 10, NoNewPrivileges: true,
		Read: []Path{}, Write: []Path{"/srv", "/tmp"}}
	const want = "memory 200M, cpu 50%, cpu_time 1m30s, processes 8, open_files 64, file_size 1K, no_new_privileges true, read [], write [/srv /tmp]"
	if got := l.String(); got != want || !l.Files() {
		t.Errorf("String() = %q, Files() = %t; want %q, true", got, l.Files(), want)
	}
	if got := l.With([]string{"/a"}, []string{"/b"}).String(); !strings.HasSuffix(got, "read [/a], write [/srv /tmp /b]") || len(l.Write) != 2 {
		t.Errorf("With(a, b) = %s, and of what it was made %v; want both, and nothing changed", got, l.Write)
	}
	if got := (Limits{Memory: 1 << 30}).With([]string{"/a"}, nil); got.Files() || got.Memory != 1<<30 {
		t.Errorf("With(a) of limits without files = %v; want the same", got)
	}
	if none := new(Limits); none.String() != "" || none.Files() {
		t.Errorf("String() of none = %q, Files() = %t; want nothing", none, none.Files())
	}
}
