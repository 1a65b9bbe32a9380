package storage

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A file is sent with its holes, from any offset, and keeps its offset where the
// sending is.
func TestSendFileHoles(t *testing.T) {
	const hole = 1 << 20 // more than a block of any file system
	data := strings.Repeat("data", 4<<10)
	zeros := strings.Repeat("\x00", hole)
	for name, want := range map[string]string{
		"empty":        "",
		"data":         data,
		"hole":         zeros,
		"hole, data":   zeros + data,
		"data, hole":   data + zeros,
		"three":        data + zeros + data + zeros + data,
		"odd":          "x" + zeros + "y",
		"at both ends": zeros + "y" + zeros,
	} {
		f, err := os.Create(filepath.Join(t.TempDir(), "file"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for at := 0; at < len(want); { // only the data is written
			if strings.HasPrefix(want[at:], zeros) {
				at += len(zeros)
				continue
			}
			n := strings.Index(want[at:], zeros)
			if n < 0 {
				n = len(want) - at
			}
			if _, err := f.WriteAt([]byte(want[at:at+n]), int64(at)); err != nil {
				t.Fatal(err)
			}
			at += n
		}
		if err := f.Truncate(int64(len(want))); err != nil {
			t.Fatal(err)
		}
		for _, from := range []int{0, 1, hole / 2, hole, hole + 1, len(want) - 1, len(want), len(want) + 1} {
			if from < 0 {
				continue
			}
			if _, err := f.Seek(int64(from), io.SeekStart); err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			n, err := SendFile(t.Context(), &got, f)
			if rest := want[min(from, len(want)):]; got.String() != rest || n != int64(len(rest)) || err != nil {
				t.Errorf("%s: SendFile() from %d = %d, %v with %d bytes, equal %t; want %d", name, from, n, err, got.Len(), got.String() == rest, len(rest))
			}
			if at, err := f.Seek(0, io.SeekCurrent); at != int64(max(from, len(want))) || err != nil {
				t.Errorf("%s: after SendFile() from %d the offset is %d, %v; want %d", name, from, at, err, max(from, len(want)))
			}
		}
	}
}

// Also in a hole, a file that gets shorter is noticed.
func TestSendFileCutHole(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(100 << 20); err != nil {
		t.Fatal(err)
	}
	n, err := SendFile(t.Context(), writerFunc(func(b []byte) (int, error) {
		return len(b), f.Truncate(50 << 20)
	}), f)
	if n != 50<<20 || err == nil || !strings.Contains(err.Error(), "the file was cut meanwhile") {
		t.Errorf("SendFile() = %d, %v; want %d, and that it was cut", n, err, 50<<20)
	}
}
