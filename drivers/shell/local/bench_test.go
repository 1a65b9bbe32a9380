//go:build unix

package local_test

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/jumplead/jumplead/drivers/shell"
)

// BenchmarkOutput moves a script's output to a Go client.
func BenchmarkOutput(b *testing.B) {
	const config = `{methods: {zero: 'head -c "$1" /dev/zero', lines: 'yes "a line of a log, as long as most of them are" | head -c "$1"'}}`
	const size = 64 << 20
	for _, method := range []string{"zero", "lines"} {
		for name, open := range map[string]func(testing.TB, string) *shell.Client{"in process": open, "over the wire": wire} {
			b.Run(fmt.Sprintf("%s/%s", method, name), func(b *testing.B) {
				s := open(b, config)
				b.SetBytes(size)
				b.ReportAllocs()
				pieces := 0
				for b.Loop() {
					got := 0
					for o, err := range s.Call(b.Context(), method, nil, strconv.Itoa(size)) {
						if err != nil {
							b.Fatalf("Call() = %v; want output", err)
						}
						got += len(o.Stdout)
						pieces++
					}
					if got != size {
						b.Fatalf("Call() = %d bytes; want %d", got, size)
					}
				}
				b.ReportMetric(float64(pieces)/float64(b.N), "pieces/op")
			})
		}
	}
}

// BenchmarkCall is the time that a call takes of which the script does nothing.
func BenchmarkCall(b *testing.B) {
	s := open(b, "{methods: {nothing: 'exit 0'}}")
	for b.Loop() {
		if code, err := shell.Run(b.Context(), s, nil, nil, "nothing", nil); code != 0 || err != nil {
			b.Fatalf("Run() = %d, %v; want 0, nil", code, err)
		}
	}
}
