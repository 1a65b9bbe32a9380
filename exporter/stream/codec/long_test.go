package codec

import (
	"bytes"
	"io"
	"testing"
)

// Content that is longer than the window of the packer, and repeats itself up to
// the window's very end.
func TestLong(t *testing.T) {
	each(t, func(t *testing.T, e string) {
		data := bytes.Repeat(sample(100_000), map[string]int{Gzip: 10, Bzip2: 10, XZ: 30, Zstd: 50}[e])
		r, err := NewReader(e, bytes.NewReader(pack(t, e, data)))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: ReadAll() = %d bytes, %v; want the %d that were packed", e, len(got), err, len(data))
		}
	})
}
