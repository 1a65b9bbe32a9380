package interop

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// largeSize is the size of TestLarge's image in GiB, 1 without it. Three, which
// no signed 32-bit number counts, take three times as long.
const largeSize = "JUMPLEAD_LARGE_GIB"

// memoryLimit is by how much a transfer may let the exporter grow, in KiB.
const memoryLimit = 32 << 10

// TestLarge flashes and dumps an image with the stock client, and looks at the
// memory that the exporter has had meanwhile. The exporter is built without the
// race detector, which has several times as much of its own.
func TestLarge(t *testing.T) {
	env := needPython(t)
	size := int64(1)
	if s := os.Getenv(largeSize); s != "" {
		n, err := strconv.ParseUint(s, 10, 8)
		if err != nil || n == 0 {
			t.Fatalf("%s=%s: wants a number of GiB from 1 to 255", largeSize, s)
		}
		size = int64(n)
	}
	program, err := build("jumplead-plain")
	if err != nil {
		t.Fatal(err)
	}
	f := flavour{name: "jumplead", program: program, ours: true}
	dir, err := os.MkdirTemp(scratch, "large-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir) // much room on the disk, which others may need
	image := filepath.Join(dir, "image")
	want, err := sparse(image, size<<30)
	if err != nil {
		t.Fatal(err)
	}
	for _, codec := range []string{"", "zstd"} {
		t.Run("codec "+codec, func(t *testing.T) {
			temp := t.TempDir()
			config := filepath.Join(temp, "config.yaml")
			if err := os.WriteFile(config, []byte(largeConfig), 0o644); err != nil {
				t.Fatal(err)
			}
			address, err := freePort()
			if err != nil {
				t.Fatal(err)
			}
			cmd := f.run("--exporter-config", config, "--tls-grpc-listener", address, "--tls-grpc-insecure")
			cmd.Env = append(cmd.Env, "TMPDIR="+temp)
			p, err := start(cmd)
			if err != nil {
				t.Fatal(err)
			}
			defer p.kill()
			if err := p.ready(t.Context(), way{target: address}); err != nil {
				t.Fatal(err)
			}
			before, err := p.peak()
			if err != nil {
				t.Fatal(err)
			}

			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			args := []string{"testdata/large.py", address, image, filepath.Join(temp, "dump")}
			if codec != "" {
				args = append(args, codec)
			}
			script := exec.CommandContext(ctx, env.Bin("python"), args...)
			var said bytes.Buffer
			script.Env, script.Stderr = environment(), &said
			out, err := script.Output()
			if err != nil {
				t.Fatalf("large.py: %v: %s\n%s", err, &said, p.stderr.tail())
			}
			var got struct {
				Sum         string
				Flash, Dump float64
			}
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatalf("large.py: %v: %s", err, out)
			}

			after, err := p.peak()
			if err != nil {
				t.Fatal(err)
			}
			if grown := after - before; grown > memoryLimit {
				t.Errorf("the exporter grew by %d KiB, from %d; want at most %d", grown, before, memoryLimit)
			}
			if got.Sum != want {
				t.Errorf("the sum of the dump = %s; want %s", got.Sum, want)
			}
			kept, err := filepath.Glob(filepath.Join(temp, "*", "default"))
			if err != nil || len(kept) != 1 {
				t.Fatalf("the exporter's files are %q, %v; want one", kept, err)
			}
			if sum, err := sumOf(kept[0]); err != nil || sum != want {
				t.Errorf("the sum of the exporter's file = %s, %v; want %s", sum, err, want)
			}
			mib := float64(size << 10)
			t.Logf("%d GiB: flashed in %.1f s, %.0f MiB/s; dumped in %.1f s, %.0f MiB/s; %d KiB of memory before, %d more meanwhile",
				size, got.Flash, mib/got.Flash, got.Dump, mib/got.Dump, before, after-before)
			if err := p.stop(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
		})
	}
}

const largeConfig = `apiVersion: jumpstarter.dev/v1alpha1
kind: ExporterConfig
metadata:
  namespace: default
  name: large
export:
  flasher:
    type: jumpstarter_driver_opendal.driver.MockFlasher
`

// sparse makes a file with a piece of noise in every 64 MiB, and at the end, and
// returns its sum.
func sparse(path string, size int64) (string, error) {
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	noise := make([]byte, 100_000)
	source := rand.NewChaCha8([32]byte{})
	for at := int64(0); ; at = min(at+64<<20, size-int64(len(noise))) {
		source.Read(noise)
		if _, err := f.WriteAt(noise, at); err != nil {
			return "", err
		}
		if at+int64(len(noise)) == size {
			break
		}
	}
	return sumOf(path)
}

// sumOf returns a file's SHA-256.
func sumOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// peak returns the most memory that the process has had at once, in KiB.
func (p *process) peak() (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			return strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
		}
	}
	return 0, errors.New("the process has no VmHWM: it has ended")
}
