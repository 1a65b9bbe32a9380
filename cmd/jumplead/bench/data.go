package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/jumplead/jumplead/drivers/shell"
	"github.com/jumplead/jumplead/drivers/storage"
	"github.com/jumplead/jumplead/exporter/client"
	"github.com/jumplead/jumplead/exporter/stream/codec"
)

// images measures what people wait for: a file that goes to a flasher and comes
// back, in the chunks of 64 KiB in which the stock client reads and writes
// files. The flasher is upstream's mock, which keeps a temporary file, in memory
// here.
func (b *bench) images(ctx context.Context) error {
	const size = 128 << 20
	if !b.wanted("image") {
		return nil
	}
	config, err := b.write("image.yaml", `apiVersion: jumpstarter.dev/v1alpha1
kind: ExporterConfig
metadata: {namespace: default, name: image}
export:
  flasher: {type: jumpstarter_driver_opendal.driver.MockFlasher}
`)
	if err != nil {
		return err
	}
	us, it := b.ours(config), b.theirs(config)
	if dir, err := os.MkdirTemp("/dev/shm", "bench-"); err == nil { // not the disk's speed
		b.ends = append(b.ends, func() { os.RemoveAll(dir) })
		us.env, it.env = []string{"TMPDIR=" + dir}, []string{"TMPDIR=" + dir}
	}
	ours, err := b.launch(ctx, us)
	if err != nil {
		return err
	}
	theirs, err := b.launch(ctx, it)
	if err != nil {
		return err
	}
	image := filepath.Join(b.build, "image")
	if err := os.WriteFile(image, content(size), 0o644); err != nil {
		return err
	}
	b.ends = append(b.ends, func() { os.Remove(image) })
	for _, op := range []string{"flash", "dump"} {
		path := image
		if op == "dump" {
			path = filepath.Join(b.build, "image.back")
			b.ends = append(b.ends, func() { os.Remove(path) })
		}
		stock := func(e *exporter) func() (float64, error) {
			return func() (float64, error) {
				s, err := b.python.run(e.addr, op, map[string]any{"path": path})
				return size / s, err
			}
		}
		here := func(e *exporter) func() (float64, error) {
			return func() (float64, error) { return transfer(ctx, e.addr, op, path, size) }
		}
		m, err := b.interleave(stock(ours), stock(theirs), here(ours), here(theirs))
		if err != nil {
			return err
		}
		b.above(op+" of a file, stock client, against Python", m[0], m[1], 1.5, "B/s")
		b.above(op+" of a file, Go client, against Python", m[2], m[3], 1.5, "B/s")
	}
	return nil
}

// transfer flashes a file to an exporter or dumps one, and returns the rate.
func transfer(ctx context.Context, addr, op, path string, size int64) (rate float64, err error) {
	c, err := client.Dial(ctx, addr, client.Options{})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	node, err := c.Find("flasher")
	if err != nil {
		return 0, err
	}
	flasher := storage.NewFlasherClient(node)
	start := time.Now()
	var f *os.File
	if op == "flash" {
		if f, err = os.Open(path); err != nil {
			return 0, err
		}
		defer f.Close()
		// Only the methods of a reader, as what comes out of a program has them.
		err = flasher.Flash(ctx, struct{ io.Reader }{f}, "")
	} else {
		if f, err = os.Create(path); err != nil {
			return 0, err
		}
		err = errors.Join(flasher.Dump(ctx, struct{ io.Writer }{f}, ""), f.Close())
	}
	rate = float64(size) / time.Since(start).Seconds()
	if err != nil {
		return 0, err
	}
	if fi, err := os.Stat(path); err != nil || fi.Size() != size {
		return 0, fmt.Errorf("%s: %v bytes; want %d: %w", op, fi.Size(), size, err)
	}
	return rate, nil
}

// content is what images are made of, seen from far away: a third repeats, a
// third is text-like, and a third does not shrink.
func content(size int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	out := make([]byte, 0, size+1<<16)
	words := make([][]byte, 512)
	for i := range words {
		words[i] = make([]byte, 3+r.IntN(9))
		for j := range words[i] {
			words[i][j] = byte('a' + r.IntN(26))
		}
	}
	for len(out) < size {
		switch r.IntN(3) {
		case 0:
			out = append(out, make([]byte, 1+r.IntN(1<<16))...)
		case 1:
			for range r.IntN(1 << 13) {
				out = append(append(out, words[min(r.IntN(512), r.IntN(512))]...), ' ')
			}
		default:
			for range r.IntN(1 << 13) {
				v := r.Uint64()
				out = append(out, byte(v), byte(v>>8), byte(v>>16), byte(v>>24), byte(v>>32), byte(v>>40), byte(v>>48), byte(v>>56))
			}
		}
	}
	return out[:size]
}

// codecs measures packing and unpacking against the programs of the formats, on
// one thread each and at the level that packs about as well.
func (b *bench) codecs(ctx context.Context) error {
	data := content(32 << 20)
	for _, f := range []struct {
		encoding     string
		pack, unpack []string
	}{
		{codec.Zstd, []string{"zstd", "-q", "-3", "--single-thread", "-c"}, []string{"zstd", "-q", "-d", "-c"}},
		{codec.XZ, []string{"xz", "-0", "-T1", "-c"}, []string{"xz", "-d", "-T1", "-c"}},
	} {
		if !b.wanted("codec " + f.encoding) {
			continue
		}
		packed, _, err := pipe(ctx, f.pack, data)
		if err != nil {
			return err
		}
		program := func(argv []string, in []byte) func() (float64, error) {
			return func() (float64, error) {
				_, used, err := pipe(ctx, argv, in)
				return float64(len(data)) / used.Seconds(), err
			}
		}
		var own int
		m, err := b.interleave(
			func() (float64, error) {
				start := time.Now()
				var out bytes.Buffer
				w, err := codec.NewWriter(f.encoding, &out)
				if err != nil {
					return 0, err
				}
				_, err = w.Write(data)
				if err = errors.Join(err, w.Close()); err != nil {
					return 0, err
				}
				own = out.Len()
				return float64(len(data)) / time.Since(start).Seconds(), nil
			}, program(f.pack, data),
			func() (float64, error) {
				start := time.Now()
				r, err := codec.NewReader(f.encoding, bytes.NewReader(packed))
				if err != nil {
					return 0, err
				}
				n, err := io.Copy(io.Discard, r)
				if err == nil && n != int64(len(data)) {
					err = fmt.Errorf("%s: %d bytes; want %d", f.encoding, n, len(data))
				}
				return float64(len(data)) / time.Since(start).Seconds(), errors.Join(err, r.Close())
			}, program(f.unpack, packed),
		)
		if err != nil {
			return err
		}
		size := func(n int) string { return fmt.Sprintf("%.0f %%", 100*float64(n)/float64(len(data))) }
		b.above(fmt.Sprintf("pack %s to %s, against `%s %s` to %s", f.encoding, size(own), f.pack[0], level(f.pack), size(len(packed))), m[0], m[1], 0.6, "B/s")
		b.above(fmt.Sprintf("unpack %s, against `%s -d`", f.encoding, f.unpack[0]), m[2], m[3], 0.6, "B/s")
	}
	return nil
}

// level is the compression level among a program's arguments.
func level(argv []string) string {
	for _, a := range argv {
		if len(a) == 2 && a[0] == '-' && a[1] >= '0' && a[1] <= '9' {
			return a
		}
	}
	return ""
}

// pipe sends data through a program, and returns the time that the program
// itself computed: what the pipes cost is not counted against it.
func pipe(ctx context.Context, argv []string, in []byte) (out []byte, used time.Duration, err error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	out, err = cmd.Output()
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", argv[0], err)
	}
	return out, cmd.ProcessState.UserTime(), nil
}

// shell measures how fast a script's output arrives.
func (b *bench) shell(ctx context.Context) error {
	const size = 64 << 20
	if !b.wanted("shell output") {
		return nil
	}
	config, err := b.write("shell.yaml", fmt.Sprintf(`apiVersion: jumpstarter.dev/v1alpha1
kind: ExporterConfig
metadata: {namespace: default, name: shell}
export:
  shell:
    type: jumpstarter_driver_shell.driver.Shell
    config:
      methods: {log: "yes 'a line of the log of a device under test' | head -c %d"}
`, size))
	if err != nil {
		return err
	}
	e, err := b.launch(ctx, b.ours(config))
	if err != nil {
		return err
	}
	c, err := client.Dial(ctx, e.addr, client.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	node, err := c.Find("shell")
	if err != nil {
		return err
	}
	m, err := b.interleave(func() (float64, error) {
		var n count
		start := time.Now()
		code, err := shell.Run(ctx, shell.NewClient(node), &n, nil, "log", nil)
		if err == nil && (code != 0 || n != size) {
			err = fmt.Errorf("shell: exit status %d, %d bytes; want 0, %d", code, n, size)
		}
		return size / time.Since(start).Seconds(), err
	})
	if err != nil {
		return err
	}
	b.above("shell output, Go client, against 50 MB/s", m[0], 50e6, 1, "B/s")
	return nil
}

// count counts what is written to it.
type count int64

func (c *count) Write(p []byte) (int, error) {
	*c += count(len(p))
	return len(p), nil
}
