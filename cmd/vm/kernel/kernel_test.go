package kernel

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/hw/hwtest"
	"github.com/klauspost/compress/gzip"
)

const version = "9.9.9+deb13-amd64"

// deb makes a Debian package of files.
func deb(t *testing.T, files map[string]string) []byte {
	t.Helper()
	data := &bytes.Buffer{}
	z := gzip.NewWriter(data)
	w := tar.NewWriter(z)
	for name, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(text)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, text)
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	b := []byte("!<arch>\n")
	for _, m := range []struct {
		name string
		data []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar.gz", []byte("odd")}, {"data.tar.gz", data.Bytes()}} {
		b = fmt.Appendf(b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.name, 0, 0, 0, "100644", len(m.data))
		b = append(b, m.data...)
		if len(m.data)%2 == 1 {
			b = append(b, '\n')
		}
	}
	return b
}

// module makes an ELF file whose section .modinfo names what it depends on.
func module(depends string) string {
	names := "\x00.modinfo\x00.shstrtab\x00"
	info := "license=GPL\x00depends=" + depends + "\x00name=x\x00"
	const head, section = 64, 64
	b := make([]byte, head+3*section)
	copy(b, "\x7fELF\x02\x01\x01")
	le := func(at, size, v int) {
		for i := range size {
			b[at+i] = byte(v >> (8 * i))
		}
	}
	le(16, 2, 1)  // relocatable
	le(18, 2, 62) // amd64
	le(20, 4, 1)
	le(40, 8, head)
	le(52, 2, head)
	le(58, 2, section)
	le(60, 2, 3)
	le(62, 2, 2)
	for i, s := range []struct{ name, kind, at, size int }{{1, 1, len(b), len(info)}, {10, 3, len(b) + len(info), len(names)}} {
		at := head + (i+1)*section
		le(at, 4, s.name)
		le(at+4, 4, s.kind)
		le(at+24, 8, s.at)
		le(at+32, 8, s.size)
	}
	return string(b) + info + names
}

// mirror is a Debian mirror with one kernel. Spoil changes a file on its way.
func mirror(t *testing.T, spoil func(path string, b []byte) []byte) string {
	t.Helper()
	modules := "./usr/lib/modules/" + version + "/"
	debs := map[string][]byte{
		"linux-binary-" + version: deb(t, map[string]string{modules + "vmlinuz": "the image", "./usr/share/doc/vm": "no"}),
		"linux-modules-" + version: deb(t, map[string]string{
			modules + "kernel/a/gpio-sim.ko":                module("configfs,irq_sim"),
			modules + "kernel/b/irq_sim.ko":                 module(""),
			modules + "kernel/c/configfs.ko":                module(""),
			modules + "kernel/../../../../../../escaped.ko": "no",
		}),
	}
	files := map[string][]byte{}
	packages := "Package: linux-image-amd64\nDepends: linux-base (= 1), linux-image-" + version + " (= 9.9.9-1)\n\nPackage: other\nDescription: x\n Package: y\n"
	for name, b := range debs {
		files["/pool/"+name+".deb"] = b
		packages += fmt.Sprintf("\nPackage: %s\nSize: %d\nFilename: pool/%s.deb\nSHA256: %x\n", name, len(b), name, sha256.Sum256(b))
	}
	c := exec.Command("xz", "-c")
	c.Stdin = strings.NewReader(packages)
	packed, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(packed))
	const dists = "/dists/trixie-backports/"
	files[dists+"main/binary-amd64/by-hash/SHA256/"+sum] = packed
	files[dists+"InRelease"] = []byte("Suite: x\nMD5Sum:\n 0 0 main/binary-amd64/Packages.xz\nSHA256:\n " + sum + " 1 main/binary-amd64/Packages.xz\n")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Write(spoil(r.URL.Path, slices.Clone(b)))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func needXZ(t *testing.T) {
	t.Helper()
	hwtest.NeedFunc(t, hwtest.Packers, func() error { _, err := exec.LookPath("xz"); return err })
}

func signed(_ context.Context, b []byte) ([]byte, error) { return b, nil }

func TestFetch(t *testing.T) {
	needXZ(t)
	asked := 0
	url := mirror(t, func(path string, b []byte) []byte {
		if strings.HasSuffix(path, ".deb") {
			asked++
		}
		return b
	})
	cache := t.TempDir()
	f := Fetcher{Mirror: url, Keyring: "none", Log: io.Discard, verify: signed}
	dir, err := f.Fetch(t.Context(), cache)
	if err != nil || dir != filepath.Join(cache, version) {
		t.Fatalf("Fetch() = %q, %v; want the folder %s, nil", dir, err, version)
	}
	if _, err := f.Fetch(t.Context(), cache); err != nil || asked != 2 {
		t.Errorf("Fetch() again = %v after %d packages; want nil, and the 2 of the first time", err, asked)
	}
	var got []string
	filepath.WalkDir(cache, func(path string, d fs.DirEntry, err error) error {
		if rel, _ := filepath.Rel(dir, path); !d.IsDir() {
			got = append(got, rel)
		}
		return err
	})
	if want := []string{"kernel/a/gpio-sim.ko", "kernel/b/irq_sim.ko", "kernel/c/configfs.ko", "vmlinuz"}; !slices.Equal(got, want) {
		t.Errorf("Fetch() made %q; want %q", got, want)
	}

	k, err := Opened(dir)
	if err != nil {
		t.Fatal(err)
	}
	load, missing, err := k.Load([]Module{{"gpio_sim", "x=1"}, {"configfs", ""}, {"built-in", ""}})
	got = nil
	for _, l := range load {
		got = append(got, l.Name+l.Params)
	}
	if want := []string{"configfs", "irq_sim", "gpio_simx=1"}; err != nil || !slices.Equal(got, want) || !slices.Equal(missing, []string{"built_in"}) {
		t.Errorf("Load() = %q, %q, %v; want %q, [built_in], nil", got, missing, err, want)
	}
}

// What is not what the archive announced is refused, and nothing of it is kept.
func TestFetchOfSomethingElse(t *testing.T) {
	needXZ(t)
	for _, part := range []string{"InRelease", "by-hash", "linux-binary", "linux-modules"} {
		url := mirror(t, func(path string, b []byte) []byte {
			if strings.Contains(path, part) {
				b[len(b)/2] ^= 1
			}
			return b
		})
		cache := t.TempDir()
		_, err := Fetcher{Mirror: url, Keyring: "none", Log: io.Discard, verify: signed}.Fetch(t.Context(), cache)
		if err == nil {
			t.Errorf("Fetch() with a spoilt %s = nil; want an error", part)
		}
		if left, _ := os.ReadDir(cache); len(left) > 0 {
			t.Errorf("Fetch() with a spoilt %s left %v; want nothing", part, left)
		}
	}
}

// Without a signature nothing is fetched, whether or not gpgv is here to say so.
func TestFetchOfUnsigned(t *testing.T) {
	asked := 0
	url := unsigned(t, func(path string) { asked++ })
	_, err := Fetcher{Mirror: url, Keyring: os.DevNull, Log: io.Discard}.Fetch(t.Context(), t.TempDir())
	if err == nil || asked != 1 {
		t.Errorf("Fetch() of an unsigned Release = %v after %d requests; want an error after 1", err, asked)
	}
}

// unsigned is a mirror whose Release file nobody signed.
func unsigned(t *testing.T, asked func(path string)) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked(r.URL.Path)
		io.WriteString(w, "SHA256:\n 00 1 main/binary-amd64/Packages.xz\n")
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestDataOf(t *testing.T) {
	good := deb(t, nil)
	for _, b := range [][]byte{nil, []byte("!<arch>\n"), good[:len(good)-2], good[:100], bytes.Replace(good, []byte("data.tar"), []byte("dada.tar"), 1),
		bytes.Replace(good, []byte("4         `"), []byte("-9        `"), 1)} {
		if _, _, err := dataOf(b); err == nil {
			t.Errorf("dataOf(%d bytes) = nil; want an error", len(b))
		}
	}
	if _, ext, err := dataOf(good); ext != ".gz" || err != nil {
		t.Errorf("dataOf(good) = %q, %v; want .gz, nil", ext, err)
	}
}
