package serial

import (
	"errors"
	"io"
	"math"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// arrivals notes when how many bytes came. Late is by how much time every write
// takes longer than it should.
type arrivals struct {
	began time.Time
	at    []time.Duration // of each byte
	sizes []int           // of each write
	late  time.Duration
	fail  error // of the next write
}

func (a *arrivals) Write(p []byte) (int, error) {
	if a.fail != nil {
		return 0, a.fail
	}
	for range p {
		a.at = append(a.at, time.Since(a.began))
	}
	a.sizes = append(a.sizes, len(p))
	time.Sleep(a.late)
	return len(p), nil
}

func TestPacedByByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &arrivals{began: time.Now()}
		w := Paced(a, 5, nil)
		// The rate holds over the border of two writes, and an idle line takes
		// the next byte at once.
		for _, text := range []string{"hello", "", " world"} {
			if n, err := io.WriteString(w, text); n != len(text) || err != nil {
				t.Fatalf("Write(%q) = %d, %v; want %d, nil", text, n, err, len(text))
			}
		}
		for i, got := range a.at {
			if want := time.Duration(i) * 200 * time.Millisecond; got != want {
				t.Errorf("byte %d came after %v; want %v", i, got, want)
			}
		}
		time.Sleep(time.Minute)
		idle := time.Since(a.began)
		io.WriteString(w, "ab")
		if got := a.at[len(a.at)-2:]; got[0] != idle || got[1] != idle+200*time.Millisecond {
			t.Errorf("two bytes after %v came at %v; want the first at once and the other 200 ms later", idle, got)
		}
	})
}

// Above what timers can do, bytes come in batches, and the average is right also
// when every timer is late.
func TestPacedAverage(t *testing.T) {
	for _, late := range []time.Duration{0, 300 * time.Microsecond, time.Millisecond} {
		for _, cps := range []float64{400, 999, 1000, 1500, 11520, 1e5} {
			synctest.Test(t, func(t *testing.T) {
				a := &arrivals{began: time.Now(), late: late}
				n := int(2 * cps) // for two seconds
				if m, err := Paced(a, cps, nil).Write(make([]byte, n)); m != n || err != nil {
					t.Fatalf("Write(%d bytes) = %d, %v; want all, nil", n, m, err)
				}
				got, want := time.Since(a.began), time.Duration(float64(n)/cps*float64(time.Second))
				if d := got - want; d < -2*tick || d > 2*tick {
					t.Errorf("at cps %v, late by %v: %d bytes took %v; want %v", cps, late, n, got, want)
				}
				for i, size := range a.sizes {
					if limit := max(1, int(cps*tick.Seconds())); size > limit {
						t.Fatalf("at cps %v: write %d had %d bytes; want at most %d", cps, i, size, limit)
					}
				}
				// At no moment may the device have had more than its rate allows,
				// but for what a late timer has to make up.
				for i, at := range a.at {
					if limit := (at+2*tick).Seconds()*cps + 1; float64(i) > limit {
						t.Fatalf("at cps %v, late by %v: byte %d came after %v; want %.0f at most by then", cps, late, i, at, limit)
					}
				}
			})
		}
	}
}

func TestPacedEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, done := &arrivals{began: time.Now()}, make(chan struct{})
		w := Paced(a, 0.5, done)
		time.AfterFunc(3*time.Second, func() { close(done) })
		n, err := io.WriteString(w, "hello")
		if got := time.Since(a.began); n != 2 || !errors.Is(err, net.ErrClosed) || got != 3*time.Second {
			t.Errorf("Write() = %d, %v after %v; want 2, %v after 3s", n, err, got, net.ErrClosed)
		}
		time.Sleep(time.Minute)
		if n, err := io.WriteString(w, "x"); n != 0 || !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write() after the end = %d, %v; want 0, %v", n, err, net.ErrClosed)
		}
	})
}

func TestPacedError(t *testing.T) {
	a := &arrivals{fail: io.ErrShortWrite}
	if n, err := io.WriteString(Paced(a, 1000, nil), "x"); n != 0 || err != io.ErrShortWrite {
		t.Errorf("Write() = %d, %v; want 0, %v", n, err, io.ErrShortWrite)
	}
}

func TestPacedExtremes(t *testing.T) {
	var b strings.Builder
	for _, cps := range []float64{0, -1, math.NaN(), math.Inf(-1)} {
		if w := Paced(&b, cps, nil); w != io.Writer(&b) {
			t.Errorf("Paced(cps %v) = %T; want the writer itself", cps, w)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		for _, cps := range []float64{math.Inf(1), math.MaxFloat64} {
			if n, err := Paced(io.Discard, cps, nil).Write(make([]byte, 4<<20)); n != 4<<20 || err != nil || time.Since(began) != 0 {
				t.Errorf("Write() at cps %v = %d, %v after %v; want all at once", cps, n, err, time.Since(began))
			}
		}
		done := make(chan struct{})
		time.AfterFunc(24*time.Hour, func() { close(done) })
		a := &arrivals{began: began}
		if n, err := Paced(a, math.SmallestNonzeroFloat64, done).Write(make([]byte, 2)); n != 1 || err == nil {
			t.Errorf("Write() at the least rate = %d, %v; want the first byte only", n, err)
		}
	})
}
