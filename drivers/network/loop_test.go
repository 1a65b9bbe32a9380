package network_test

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/jumplead/jumplead/drivers/network"
)

// A loop holds 32 packets or a mebibyte, whichever is less, and always one.
func TestLoopHolds(t *testing.T) {
	for _, test := range []struct {
		size, want int
	}{
		{0, 32}, {1, 32}, {32 << 10, 32}, {64 << 10, 16}, {1 << 20, 1}, {3 << 20, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := network.NewLoop()
			wrote := 0
			go func() {
				for {
					if _, err := l.Write(make([]byte, test.size)); err != nil {
						return
					}
					wrote++
				}
			}()
			synctest.Wait()
			if wrote != test.want {
				t.Errorf("packets of %d bytes under way = %d; want %d", test.size, wrote, test.want)
			}
			if p, err := l.ReadPacket(); len(p) != test.size || err != nil {
				t.Errorf("ReadPacket() = %d bytes, %v; want %d, nil", len(p), err, test.size)
			}
			synctest.Wait()
			if wrote != test.want+1 {
				t.Errorf("packets of %d bytes after one was read = %d; want %d", test.size, wrote, test.want+1)
			}
			l.Close()
		})
	}
}

func TestLoopParts(t *testing.T) {
	l := network.NewLoop()
	for _, s := range []string{"hello", "", "world"} {
		if _, err := io.WriteString(l, s); err != nil {
			t.Fatalf("Write(%q) = %v; want nil", s, err)
		}
	}
	l.CloseWrite()
	var got []string
	buf := make([]byte, 3)
	for {
		n, err := l.Read(buf)
		if err == io.EOF {
			break
		}
		got = append(got, string(buf[:n]))
	}
	if text := strings.Join(got, "|"); text != "hel|lo||wor|ld" {
		t.Errorf("Read() = %q; want hel|lo||wor|ld", text)
	}
}
