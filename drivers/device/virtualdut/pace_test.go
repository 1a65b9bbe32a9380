package virtualdut

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// TestPace moves data in both directions.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := make([]byte, 2_500_000)
		begin := time.Now()
		n, err := io.Copy(io.Discard, &paced{ctx: t.Context(), rate: 1e6, r: bytes.NewReader(data)})
		if took := time.Since(begin); err != nil || n != int64(len(data)) || took.Round(time.Microsecond) != 2500*time.Millisecond {
			t.Errorf("reading %d bytes = %d, %v after %v; want all after 2.5s", len(data), n, err, took)
		}
		begin = time.Now()
		w := &paced{ctx: t.Context(), rate: 1e6, w: io.Discard}
		for range 100 {
			if _, err := w.Write(data[:100]); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begin).Round(time.Microsecond); took != 10*time.Millisecond {
			t.Errorf("writing 10 kB took %v; want 10ms", took)
		}
		time.Sleep(time.Minute) // which is not made up for
		begin = time.Now()
		if _, err := w.Write(data[:1e6]); err != nil || time.Since(begin).Round(time.Millisecond) != time.Second {
			t.Errorf("Write(1 MB) after a minute = %v after %v; want 1s", err, time.Since(begin))
		}
		begin = time.Now()
		if _, err := (&paced{ctx: t.Context(), w: io.Discard}).Write(data); err != nil || time.Since(begin) != 0 {
			t.Errorf("Write() without a limit = %v after %v; want nil at once", err, time.Since(begin))
		}
	})
}

// TestPaceCancel goes away in the middle.
func TestPaceCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for _, rate := range []float64{1e6, 1e-300} {
			begin := time.Now()
			r := &paced{ctx: ctx, rate: rate, r: bytes.NewReader(make([]byte, 1e8))}
			if _, err := io.Copy(io.Discard, r); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > time.Second {
				t.Errorf("reading at %g bytes/s = %v after %v; want a deadline after a second", rate, err, time.Since(begin))
			}
			if _, err := (&paced{ctx: ctx, rate: rate, w: io.Discard}).Write(make([]byte, 1e7)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("writing at %g bytes/s = %v; want a deadline", rate, err)
			}
		}
	})
}
