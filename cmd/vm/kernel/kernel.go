// Package kernel provides the kernel of the test machine and its modules.
//
// Debian's kernel for amd64 has as modules what a distribution for servers would
// leave out: simulated GPIO chips, virtual CAN buses, USB devices that are
// programs. The one of trixie-backports is the oldest that has all of them. It
// is fetched once, from a Debian mirror, also on other distributions, and is
// kept. What is fetched is checked: the archive's signature covers the Release
// file, which has the sums of the lists of packages, which have those of the
// packages. That Release may be an old one; an old kernel in a machine that lives for
// minutes does no harm.
package kernel

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Kernel is a kernel to boot.
type Kernel struct {
	Image   string // its bzImage
	Modules string // the folder of its modules, as /lib/modules/VERSION

	files map[string]string // where each module is
}

// Module is a module to load, and with what parameters.
type Module struct{ Name, Params string }

// Loadable is a module that can be loaded once those before it are.
type Loadable struct {
	Module
	Code []byte // an ELF file
}

// Open looks at a kernel that is there.
func Open(image, modules string) (*Kernel, error) {
	if _, err := os.Stat(image); err != nil {
		return nil, err
	}
	k := &Kernel{Image: image, Modules: modules, files: map[string]string{}}
	err := filepath.WalkDir(modules, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if stem, _, ok := strings.Cut(d.Name(), ".ko"); ok && !d.IsDir() {
			k.files[canonical(stem)] = path
		}
		return nil
	})
	if err == nil && len(k.files) == 0 {
		err = fmt.Errorf("no modules in %s", modules)
	}
	return k, err
}

// canonical is a module's name as the kernel has it: files have dashes in places.
func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

// Load reads modules and those that they depend on, in the order in which they
// are to be loaded. Names that the kernel does not have as modules are missing:
// it may have them built in, or not at all.
func (k *Kernel) Load(modules []Module) (load []Loadable, missing []string, err error) {
	done := map[string]bool{}
	var add func(Module) error
	add = func(m Module) error {
		m.Name = canonical(m.Name)
		if done[m.Name] {
			return nil
		}
		done[m.Name] = true
		path, ok := k.files[m.Name]
		if !ok {
			missing = append(missing, m.Name)
			return nil
		}
		code, err := read(path)
		if err != nil {
			return err
		}
		needs, err := depends(code)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for _, n := range needs {
			if err := add(Module{Name: n}); err != nil {
				return err
			}
		}
		load = append(load, Loadable{m, code})
		return nil
	}
	for _, m := range modules {
		if err := add(m); err != nil {
			return nil, nil, err
		}
	}
	return load, missing, nil
}

// depends reads from a module's own description which modules it needs.
func depends(code []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(code))
	if err != nil {
		return nil, err
	}
	s := f.Section(".modinfo")
	if s == nil {
		return nil, errors.New("not a kernel module: it has no section .modinfo")
	}
	info, err := s.Data()
	if err != nil {
		return nil, err
	}
	for field := range strings.SplitSeq(string(info), "\x00") {
		if list, ok := strings.CutPrefix(field, "depends="); ok && list != "" {
			return strings.Split(list, ","), nil
		}
	}
	return nil, nil
}

// read reads a file, and unpacks it if its name says that it is packed.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := unpacked(f, filepath.Ext(path))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	b, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// unpacked unpacks r by what the name's end says.
func unpacked(r io.Reader, ext string) (io.ReadCloser, error) {
	switch ext {
	case ".gz":
		return gzip.NewReader(r)
	case ".zst":
		z, err := zstd.NewReader(r)
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case ".xz":
		return unxz(r)
	}
	return io.NopCloser(r), nil
}

// unxz runs the program xz, which is on every Debian and Ubuntu, and spares the
// module a library.
func unxz(r io.Reader) (io.ReadCloser, error) {
	c := exec.Command("xz", "-dc", "-T0")
	c.Stdin = r
	said := &bytes.Buffer{}
	c.Stderr = said
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		return nil, err
	}
	return &program{out, c, said}, nil
}

// program is the output of a program that runs.
type program struct {
	io.Reader
	cmd  *exec.Cmd
	said *bytes.Buffer
}

// Close reads what is left, so that the program can end, and waits for it.
func (p *program) Close() error {
	_, err := io.Copy(io.Discard, p.Reader)
	if werr := p.cmd.Wait(); werr != nil {
		return fmt.Errorf("%s: %w: %s", p.cmd.Path, werr, bytes.TrimSpace(p.said.Bytes()))
	}
	return err
}
