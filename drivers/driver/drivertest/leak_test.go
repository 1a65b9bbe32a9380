package drivertest

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// recorder stands in for a test that may fail.
type recorder struct {
	testing.TB
	failures []string
	cleanups []func()
}

func (r *recorder) Helper()          {}
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}
func (r *recorder) end() {
	for i := len(r.cleanups) - 1; i >= 0; i-- {
		r.cleanups[i]()
	}
}

func TestNoLeaks(t *testing.T) {
	stop := make(chan struct{})
	var file *os.File
	t.Cleanup(func() {
		close(stop)
		if file != nil {
			file.Close()
		}
	})
	tests := []struct {
		name string
		do   func(r *recorder)
		want string // in the one failure; "" for none
	}{
		{"nothing", func(*recorder) {}, ""},
		{"cleaned up", func(r *recorder) {
			end := make(chan struct{})
			go func() { <-end }()
			r.Cleanup(func() { close(end) })
		}, ""},
		{"goroutine", func(*recorder) { go leaker(stop) }, "drivertest.leaker"},
		{"file", func(*recorder) {
			f, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			file = f
		}, os.DevNull},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.name == "file" && openFiles() == nil {
				t.Skip("needs /proc/self/fd")
			}
			r := &recorder{TB: t}
			limit := patience
			if test.want != "" {
				limit = 50 * time.Millisecond
			}
			noLeaks(r, limit)
			test.do(r)
			r.end()
			switch got := strings.Join(r.failures, "\n"); {
			case test.want == "" && got != "":
				t.Errorf("NoLeaks() = %s; want no failure", got)
			case !strings.Contains(got, test.want):
				t.Errorf("NoLeaks() = %q; want a failure with %q", got, test.want)
			}
		})
	}
}

func leaker(stop chan struct{}) { <-stop }

func TestPoll(t *testing.T) {
	n := 0
	if got := poll(patience, func() bool { n++; return n == 3 }); !got || n != 3 {
		t.Errorf("poll(third time) = %t after %d; want true after 3", got, n)
	}
	if got := poll(time.Millisecond, func() bool { return false }); got {
		t.Errorf("poll(never) = %t; want false", got)
	}
}
