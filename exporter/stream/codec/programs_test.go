package codec

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/hw/hwtest"
)

// needProgram skips the test unless there is a program of that name.
func needProgram(t testing.TB, name string) {
	t.Helper()
	hwtest.NeedFunc(t, hwtest.Packers, func() error {
		_, err := exec.LookPath(name)
		return err
	})
}

// program runs a program with data as its input, and returns what it prints.
func program(t *testing.T, line string, data []byte) []byte {
	t.Helper()
	out, err := tryProgram(t, line, data)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return out
}

func tryProgram(t *testing.T, line string, data []byte) ([]byte, error) {
	t.Helper()
	args := strings.Fields(line)
	needProgram(t, args[0])
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = bytes.NewReader(data)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if complaint.Len() > 0 {
		t.Logf("%s says: %s", line, complaint.String())
	}
	return out, err
}

// What programs make is read. Their input is a file, since some of them do
// otherwise what they are known for only then.
func TestReadsPrograms(t *testing.T) {
	// These make something else of what is large: blocks, members, frames, and windows that go round.
	large := map[string]bool{"gzip -c": true, "pigz -p4 -c": true, "bzip2 -9 -c": true, "pbzip2 -p4 -b1 -c": true, "xz -0 -c": true,
		"xz -1 -T2 -c": true, "zstd -3 -c": true, "zstd -T2 -1 -c": true, "pzstd -p4 -c": true}
	for _, c := range []struct{ encoding, lines string }{
		{Gzip, "gzip -1 -c, gzip -c, gzip -9 -c, gzip --rsyncable -c, pigz -1 -p4 -b128 -c, pigz -p4 -c, pigz -i -p4 -c, pigz -11 -c"},
		{Bzip2, "bzip2 -1 -c, bzip2 -9 -c, pbzip2 -p4 -b1 -c, pbzip2 -p4 -9 -c"},
		{XZ, "xz -T1 -c, xz -0 -c, xz -1 -T2 -c, xz -2 -T2 -c, xz -3 -c, xz -4 -c, xz -5 -c, xz -6 -T2 --block-size=300KiB -c, xz -7 -c, xz -8 -c, xz -9 -c, " +
			"xz -9e -c, xz --check=none -c, xz --check=crc32 -c, xz --check=crc64 -c, xz --check=sha256 -T2 --block-size=100KiB -c, xz --block-list=1000,50000,7 -c, " +
			"xz --lzma2=lc=0,lp=4,pb=0 -c, xz --lzma2=lc=4,lp=0,pb=4 -c, xz --lzma2=lc=1,lp=3,pb=1,dict=4KiB -c, xz --lzma2=dict=4KiB,mf=hc3,nice=273 -c, " +
			"xz --lzma2=preset=9e,dict=48KiB -c, xz -0 --flush-timeout=1 -c"},
		{Zstd, "zstd -1 -c, zstd -3 -c, zstd -7 -T2 -c, zstd -19 -c, zstd --fast=5 -c, zstd -9 --long=26 -c, zstd --no-check -c, zstd -T2 -1 -c, " +
			"zstd --ultra -20 -c, zstd --rsyncable -c, zstd --no-content-size -c, zstd -B64KiB -T2 -c, pzstd -p4 -c, pzstd -1 -p2 -c"},
	} {
		for line := range strings.SplitSeq(c.lines, ", ") {
			t.Run(strings.ReplaceAll(strings.TrimSuffix(line, " -c"), " ", ""), func(t *testing.T) {
				t.Parallel()
				args := strings.Fields(line)
				needProgram(t, args[0])
				in := filepath.Join(t.TempDir(), "in")
				few := []int{0, 1, 64<<10 + 1}
				if large[line] {
					few = append(few, largeSizes()...)
				}
				for _, n := range few {
					data := sample(n)
					if err := os.WriteFile(in, data, 0o600); err != nil {
						t.Fatal(err)
					}
					packed, err := exec.Command(args[0], append(args[1:], in)...).Output()
					if err != nil {
						t.Fatalf("%s %d bytes: %v", line, n, err)
					}
					if got, err := unpack(t, c.encoding, packed); err != nil || !bytes.Equal(got, data) {
						t.Errorf("%s of %d bytes: got %d bytes, %v; want the same, nil", line, n, len(got), err)
					}
					// From a pipe: sizes are not known in advance.
					if n == few[2] && args[0] != "pzstd" {
						packed := program(t, line, data)
						if got, err := unpack(t, c.encoding, packed); err != nil || !bytes.Equal(got, data) {
							t.Errorf("%s of a pipe of %d bytes: got %d bytes, %v; want the same, nil", line, n, len(got), err)
						}
					}
				}
			})
		}
	}
}

// What is written here, programs read, and find nothing to complain of.
func TestReadByPrograms(t *testing.T) {
	for _, c := range []struct{ encoding, line string }{
		{Gzip, "gzip -dc"},
		{Gzip, "pigz -dc"},
		{Bzip2, "bzip2 -dc"},
		{Bzip2, "pbzip2 -dc"},
		{XZ, "xz -dc"},
		{XZ, "xz -dc -T2"},
		{Zstd, "zstd -dc"},
		{Zstd, "pzstd -dc"},
	} {
		t.Run(strings.ReplaceAll(c.line, " ", ""), func(t *testing.T) {
			t.Parallel()
			for _, n := range sizes() {
				data := sample(n)
				packed := packedSample(t, c.encoding, n)
				if got := program(t, c.line, packed); !bytes.Equal(got, data) {
					t.Errorf("%s of %d bytes: got %d bytes; want the same", c.line, n, len(got))
				}
				if got := program(t, c.line, append(packed, packed...)); len(got) != 2*n {
					t.Errorf("%s of %d bytes, twice: got %d bytes; want %d", c.line, n, len(got), 2*n)
				}
			}
		})
	}
}

// Where the programs are lax, the reader is not; where they are not, neither.
func TestStricterThanPrograms(t *testing.T) {
	for _, c := range []struct {
		encoding, line string
		input          string // behind what is packed, or "-" for nothing at all
		fails          bool   // the program does
	}{
		{Gzip, "gzip -dc", "-", true},
		{Bzip2, "bzip2 -dc", "-", true},
		{XZ, "xz -dc", "-", true},
		{Zstd, "zstd -dc", "-", true},
		{Gzip, "gzip -dc", "\x00\x00\x00\x00", false},
		{Bzip2, "bzip2 -dc", "\x00\x00\x00\x00", false},
		{Bzip2, "bzip2 -dc", "garbage", false},
		{XZ, "xz -dc", "\x00\x00\x00", true},
		{Zstd, "zstd -dc", "\x00\x00\x00\x00", true},
	} {
		packed := append(pack(t, c.encoding, []byte("data")), c.input...)
		if c.input == "-" {
			packed = nil
		}
		if _, err := tryProgram(t, c.line, packed); (err != nil) != c.fails {
			t.Errorf("%s with %q behind = %v; want an error: %v", c.line, c.input, err, c.fails)
		}
		if _, err := unpack(t, c.encoding, packed); err == nil {
			t.Errorf("%s with %q behind = nil; want an error", c.encoding, c.input)
		}
	}
}

// A file of pzstd that ends between two frames is known to be cut.
func TestTruncatedPzstd(t *testing.T) {
	packed := program(t, "pzstd -p2 -1 -c", sample(3<<20))
	skippable := []byte("\x50\x2a\x4d\x18\x04\x00\x00\x00")
	if !bytes.HasPrefix(packed, skippable) {
		t.Fatalf("what pzstd makes begins with %x; want %x", packed[:8], skippable)
	}
	second := bytes.Index(packed[1:], skippable) + 1
	if second == 0 {
		t.Skip("pzstd made a single frame")
	}
	if _, err := unpack(t, Zstd, packed[:second+12]); !isOf(err, ErrTruncated, int64(second+12)) {
		t.Errorf("cut behind what announces the second frame: %v; want ErrTruncated at byte %d", err, second+12)
	}
}

// Above the limit the error says what it takes.
func TestWindowOfPrograms(t *testing.T) {
	for _, c := range []struct {
		encoding, line string
		size           int
		wants          string // "" if it is read
	}{
		{XZ, "xz -0 --lzma2=dict=64MiB", 10, ""},
		{XZ, "xz -0 --lzma2=dict=65MiB", 10, "a window of 96 MiB"}, // the next size that can be said
		{XZ, "xz -0 --lzma2=dict=1GiB", 10, "a window of 1024 MiB"},
		{Zstd, "zstd -1 --long=26", 10, ""},
		{Zstd, "zstd -1 --long=27", 10, "a window of 128 MiB"},
	} {
		data := sample(c.size)
		got, err := unpack(t, c.encoding, program(t, c.line+" -c", data))
		switch {
		case c.wants == "" && (err != nil || !bytes.Equal(got, data)):
			t.Errorf("%s = %v; want nil", c.line, err)
		case c.wants != "" && (!isOf(err, ErrTooLarge, -1) || !strings.Contains(err.Error(), c.wants) || !strings.Contains(err.Error(), "limit is 64 MiB")):
			t.Errorf("%s = %v; want ErrTooLarge that says %q", c.line, err, c.wants)
		}
	}
}

// What a sender has flushed is there, before anything else is.
func TestFlushed(t *testing.T) {
	needProgram(t, "xz")
	data := sample(100_000)
	cmd := exec.Command("xz", "-c", "--flush-timeout=50")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	r, err := NewReader(XZ, out)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for range 3 {
		if _, err := in.Write(data); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(data))
		if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("what xz flushed: %v; want what it was given", err)
		}
	}
}

// Damage to what programs make, in as many blocks, members and frames as they
// like, is told as it is of what is written here.
func TestDamagedPrograms(t *testing.T) {
	var data []byte
	for n := range 2 {
		data = append(data, sample(1000+n)...)
		data = append(data, make([]byte, 110<<10)...)
	}
	for _, c := range []struct{ encoding, line string }{
		{Gzip, "gzip -c"},
		{Gzip, "pigz -p2 -b128 -c"},
		{Bzip2, "bzip2 -1 -c"},
		{Bzip2, "pbzip2 -p2 -1 -b1 -c"},
		{XZ, "xz -T2 --block-size=64KiB -c"},
		{XZ, "xz --check=sha256 -c"},
		{Zstd, "zstd -c"},
		{Zstd, "zstd -T2 --rsyncable -c"},
		{Zstd, "pzstd -p2 -c"},
	} {
		t.Run(strings.ReplaceAll(strings.TrimSuffix(c.line, " -c"), " ", ""), func(t *testing.T) {
			t.Parallel()
			in := filepath.Join(t.TempDir(), "in")
			if err := os.WriteFile(in, data, 0o600); err != nil {
				t.Fatal(err)
			}
			args := strings.Fields(c.line)
			needProgram(t, args[0])
			packed, err := exec.Command(args[0], append(args[1:], in)...).Output()
			if err != nil {
				t.Fatal(err)
			}
			got, err := unpack(t, c.encoding, packed)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%s: got %d bytes, %v; want %d, nil", c.line, len(got), err, len(data))
			}
			const ends = 30 // bytes that are all looked at; and some of what is in between
			for i := 0; i < len(packed); {
				checkCut(t, c.encoding, packed, data, i)
				bad := bytes.Clone(packed)
				bad[i] ^= 1 << (i % 8)
				if got, err := unpack(t, c.encoding, bad); err == nil && !bytes.Equal(got, data) {
					t.Errorf("%s: byte %d of %d changed: other bytes and no error", c.line, i, len(packed))
				}
				if i < ends || i >= len(packed)-ends {
					i++
				} else {
					i = min(i+1+len(packed)/50, len(packed)-ends)
				}
			}
			for _, garbage := range []string{"\x00", "x", "garbage", string(packed[1:])} {
				_, err := unpack(t, c.encoding, append(bytes.Clone(packed), garbage...))
				if e, ok := err.(*Error); !ok || e.Offset < int64(len(packed)) {
					t.Errorf("%s with %.10q behind: %v; want an *Error behind byte %d", c.line, garbage, err, len(packed))
				}
			}
			if got, err := unpack(t, c.encoding, append(bytes.Clone(packed), packed...)); err != nil || len(got) != 2*len(data) {
				t.Errorf("%s, twice: got %d bytes, %v; want %d, nil", c.line, len(got), err, 2*len(data))
			}
		})
	}
}
