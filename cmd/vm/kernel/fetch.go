package kernel

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	suite = "trixie-backports"
	arch  = "amd64"
	// fallback is the mirror where apt knows none.
	fallback = "http://deb.debian.org/debian"
)

// Keyrings are where the package debian-archive-keyring puts the archive's keys.
var Keyrings = []string{"/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"}

// Fetcher fetches a kernel.
type Fetcher struct {
	Mirror  string    // "" is the one that apt uses, or the fallback
	Keyring string    // "" is the first of Keyrings that is there
	Log     io.Writer // where it says what it does

	verify func(ctx context.Context, signed []byte) ([]byte, error) // for tests, which have no key; nil is verified
}

// Fetch fetches the newest kernel into a new folder below dir, and returns the
// folder. A kernel that is there already is not fetched again.
func (f Fetcher) Fetch(ctx context.Context, dir string) (string, error) {
	if f.Mirror == "" {
		f.Mirror = aptMirror(ctx)
	}
	if f.Keyring == "" {
		i := slices.IndexFunc(Keyrings, func(p string) bool { _, err := os.Stat(p); return err == nil })
		if i < 0 {
			return "", fmt.Errorf("fetch a kernel: none of %s is here to check it with; install debian-archive-keyring", strings.Join(Keyrings, ", "))
		}
		f.Keyring = Keyrings[i]
	}
	packages, err := f.packages(ctx)
	if err != nil {
		return "", fmt.Errorf("fetch a kernel: %w", err)
	}
	version, wanted, err := choose(packages)
	if err != nil {
		return "", fmt.Errorf("fetch a kernel: %s: %w", f.Mirror, err)
	}
	target := filepath.Join(dir, version)
	if _, err := os.Stat(target); err == nil {
		return target, nil
	}
	part, err := os.MkdirTemp(dir, "part-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(part)
	for _, p := range wanted {
		fmt.Fprintf(f.Log, "fetching %s (%s MB) from %s\n", p["Package"], megabytes(p["Size"]), f.Mirror)
		deb, err := f.get(ctx, p["Filename"], p["SHA256"])
		if err == nil {
			err = unpackDeb(deb, part, version)
		}
		if err != nil {
			return "", fmt.Errorf("fetch %s: %w", p["Package"], err)
		}
	}
	return target, os.Rename(part, target)
}

func megabytes(size string) string {
	n, _ := strconv.Atoi(size)
	return strconv.Itoa((n + 999999) / 1000000)
}

// Opened opens a kernel that Fetch fetched.
func Opened(dir string) (*Kernel, error) { return Open(filepath.Join(dir, "vmlinuz"), dir) }

// aptMirror is the Debian mirror that apt is set up with, or the fallback.
func aptMirror(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian", "Label: Debian").Output()
	if err != nil {
		return fallback
	}
	for line := range strings.Lines(string(out)) {
		if uri := strings.TrimRight(strings.TrimSpace(line), "/"); strings.HasPrefix(uri, "http") {
			return uri
		}
	}
	return fallback
}

// get fetches a file whose sum is known; "" is not known.
func (f Fetcher) get(ctx context.Context, name, sum string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.Mirror+"/"+name, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", req.URL, resp.Status)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", req.URL, err)
	}
	if got := sha256.Sum256(b); sum != "" && hex.EncodeToString(got[:]) != sum {
		return nil, fmt.Errorf("%s: its SHA-256 is %x, and %s was announced", req.URL, got, sum)
	}
	return b, nil
}

// paragraph is an entry of a list of packages.
type paragraph map[string]string

// packages fetches the list of packages.
func (f Fetcher) packages(ctx context.Context) (map[string]paragraph, error) {
	signed, err := f.get(ctx, "dists/"+suite+"/InRelease", "")
	if err != nil {
		return nil, err
	}
	verify := f.verify
	if verify == nil {
		verify = f.verified
	}
	release, err := verify(ctx, signed)
	if err != nil {
		return nil, fmt.Errorf("%s/dists/%s/InRelease: %w", f.Mirror, suite, err)
	}
	const name = "main/binary-" + arch + "/Packages.xz"
	sum, err := sumOf(release, name)
	if err != nil {
		return nil, err
	}
	// By its sum, and not by its name, so that it fits also while a mirror changes.
	packed, err := f.get(ctx, "dists/"+suite+"/"+path.Dir(name)+"/by-hash/SHA256/"+sum, sum)
	if err != nil {
		return nil, err
	}
	r, err := unxz(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	all := map[string]paragraph{}
	p := paragraph{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if line == "" {
			all[p["Package"]] = p
			p = paragraph{}
		}
		if key, value, ok := strings.Cut(line, ": "); ok && !strings.HasPrefix(line, " ") {
			p[key] = value
		}
	}
	all[p["Package"]] = p
	return all, errors.Join(lines.Err(), r.Close())
}

// verified returns what was signed, if one of the archive's keys signed it.
// Other signatures may be by keys that this machine does not know yet.
func (f Fetcher) verified(ctx context.Context, signed []byte) ([]byte, error) {
	dir, err := os.MkdirTemp("", "vm-release")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	in, out := filepath.Join(dir, "InRelease"), filepath.Join(dir, "Release")
	if err := os.WriteFile(in, signed, 0o600); err != nil {
		return nil, err
	}
	c := exec.CommandContext(ctx, "gpgv", "--status-fd", "1", "--keyring", f.Keyring, "--output", out, in)
	said := &bytes.Buffer{}
	c.Stderr = said
	status, err := c.Output()
	if ran := new(exec.ExitError); err != nil && !errors.As(err, &ran) {
		return nil, err
	}
	if !bytes.Contains(status, []byte("[GNUPG:] VALIDSIG ")) || bytes.Contains(status, []byte("[GNUPG:] BADSIG ")) {
		return nil, fmt.Errorf("not signed by a key of %s: %s", f.Keyring, bytes.TrimSpace(said.Bytes()))
	}
	return os.ReadFile(out)
}

// sumOf finds a file's SHA-256 in a Release file.
func sumOf(release []byte, name string) (string, error) {
	in := false
	for line := range strings.Lines(string(release)) {
		if !strings.HasPrefix(line, " ") {
			in = strings.TrimSpace(line) == "SHA256:"
			continue
		}
		if w := strings.Fields(line); in && len(w) == 3 && w[2] == name {
			return w[0], nil
		}
	}
	return "", fmt.Errorf("the Release file has no SHA-256 of %s", name)
}

// choose finds the newest kernel: the one that linux-image-amd64 depends on.
// What it consists of changed with 7.2.
func choose(packages map[string]paragraph) (version string, wanted []paragraph, err error) {
	const prefix, suffix = "linux-image-", "-" + arch
	for dep := range strings.SplitSeq(packages[prefix+arch]["Depends"], ",") {
		name, _, _ := strings.Cut(strings.TrimSpace(dep), " ")
		if v, ok := strings.CutPrefix(name, prefix); ok && strings.HasSuffix(v, suffix) {
			version = v
		}
	}
	if version == "" {
		return "", nil, fmt.Errorf("%s has no kernel that %s%s depends on", suite, prefix, arch)
	}
	for _, names := range [][]string{
		{"linux-binary-" + version, "linux-modules-" + version},
		{"linux-binary-unsigned-" + version, "linux-modules-" + version},
		{prefix + version},
	} {
		wanted = wanted[:0]
		for _, n := range names {
			if p, ok := packages[n]; ok {
				wanted = append(wanted, p)
			}
		}
		if len(wanted) == len(names) {
			return version, wanted, nil
		}
	}
	return "", nil, fmt.Errorf("%s has no packages of kernel %s", suite, version)
}

// unpackDeb puts the kernel and the modules of a package into dir: the image as
// vmlinuz, and what is below lib/modules/VERSION.
func unpackDeb(deb []byte, dir, version string) error {
	data, ext, err := dataOf(deb)
	if err != nil {
		return err
	}
	r, err := unpacked(bytes.NewReader(data), ext)
	if err != nil {
		return err
	}
	defer r.Close()
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Clean("/" + h.Name) // nothing leads out of dir
		_, module, ok := strings.Cut(name, "/lib/modules/"+version+"/kernel/")
		switch {
		case h.Typeflag != tar.TypeReg:
			continue
		case strings.HasPrefix(path.Base(name), "vmlinuz"):
			name = "vmlinuz"
		case ok:
			name = "kernel/" + module
		default:
			continue
		}
		if err := write(filepath.Join(dir, name), t); err != nil {
			return err
		}
	}
}

func write(name string, r io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// dataOf finds the files of a Debian package, a packed tar within an ar archive
// (deb(5)), and how it is packed.
func dataOf(deb []byte) (data []byte, ext string, err error) {
	const magic, head = "!<arch>\n", 60
	bad := errors.New("not a Debian package")
	if !bytes.HasPrefix(deb, []byte(magic)) {
		return nil, "", bad
	}
	for rest := deb[len(magic):]; len(rest) >= head; {
		name := strings.TrimRight(string(rest[:16]), " /")
		size, err := strconv.Atoi(strings.TrimSpace(string(rest[48:58])))
		if err != nil || size < 0 || size > len(rest)-head {
			return nil, "", bad
		}
		if ext, ok := strings.CutPrefix(name, "data.tar"); ok {
			return rest[head : head+size], ext, nil
		}
		rest = rest[min(head+size+size%2, len(rest)):]
	}
	return nil, "", bad
}
