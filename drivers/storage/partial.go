package storage

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/jumplead/jumplead/drivers/driver"
)

// Partial is a file that is being written. Until it is whole it stands beside
// the one that it is to replace, as ".NAME.partial-XXXXXXXX", so that neither a
// program that reads NAME nor a power cut ever meets half of it.
//
// The file that is replaced lends it its permissions and, if we may, its owner.
// Long runs of zeros become holes where the file system has them.
type Partial struct {
	// Durable makes Commit return only when the file is on the disk, and the new
	// name cannot be there after a power cut without the whole content.
	Durable bool

	root *os.Root // the directory that it is in, wherever that is moved
	dir  string   // as NewPartial found that directory: "" or "images/"
	name string   // it will get
	tmp  string   // it has
	f    *os.File
	size int64 // written, holes included
	end  int64 // of what was written as it is
	done bool
}

// NewPartial begins a file, and makes the directories that are missing above it.
// A symbolic link is followed: the file that it leads to is replaced. What is
// there already has to be a regular file that we may write.
func NewPartial(root *os.Root, name string) (*Partial, error) {
	name, err := follow(root, name)
	if err != nil {
		return nil, err
	}
	old, err := writable(root, name)
	if err != nil {
		return nil, err
	}
	p := &Partial{}
	p.dir, p.name = path.Split(name)
	dir := "."
	if p.dir != "" {
		dir = strings.TrimSuffix(p.dir, "/")
		if err := root.MkdirAll(dir, 0o777); err != nil {
			return nil, err
		}
	}
	if p.root, err = root.OpenRoot(dir); err != nil {
		return nil, err
	}
	for p.f == nil {
		var id [4]byte
		_, _ = rand.Read(id[:]) // never fails
		p.tmp = partialName(p.name, hex.EncodeToString(id[:]))
		p.f, err = p.root.OpenFile(p.tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			p.root.Close()
			return nil, err
		}
	}
	if old != nil {
		// File systems without owners or permissions refuse both.
		lendOwner(p.f, old)
		_ = p.f.Chmod(old.Mode().Perm())
	}
	return p, nil
}

// maxName is how long the name of a file can be on Linux, in bytes.
const maxName = 255

func partialName(name, id string) string {
	suffix := ".partial-" + id
	return "." + name[:min(len(name), maxName-1-len(suffix))] + suffix
}

// maxLinks is how many symbolic links in a row are followed, as by the kernel.
const maxLinks = 40

// follow finds out which file a path leads to in the end.
func follow(root *os.Root, name string) (string, error) {
	for range maxLinks {
		info, err := root.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return name, nil
		}
		if err != nil {
			return "", err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			return name, nil
		}
		to, err := root.Readlink(name)
		if err != nil {
			return "", err
		}
		if path.IsAbs(to) {
			return "", &fs.PathError{Op: "open", Path: name, Err: errors.New("is a symbolic link that leads out of the root")}
		}
		// Not cleaned: what ".." means depends on the links before it.
		dir, _ := path.Split(name)
		name = dir + to
	}
	return "", &fs.PathError{Op: "open", Path: name, Err: syscall.ELOOP}
}

// writable checks that a file may be replaced by one that is written: that it
// could be written in place. It returns nil when there is none.
func writable(root *os.Root, name string) (fs.FileInfo, error) {
	f, err := openRegular(root, name, os.O_WRONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Stat()
}

// OpenRegular opens a file for reading. Devices, FIFOs and sockets are refused
// without being touched, as opening one can have effects.
func OpenRegular(root *os.Root, name string) (*os.File, error) {
	return openRegular(root, name, os.O_RDONLY)
}

func openRegular(root *os.Root, name string, flag int) (*os.File, error) {
	regular := func(info fs.FileInfo, err error) error {
		if err == nil && !info.Mode().IsRegular() {
			what := "a device or a socket"
			if info.IsDir() {
				what = "a directory"
			}
			err = &fs.PathError{Op: "open", Path: name, Err: fmt.Errorf("is %s, not a file", what)}
		}
		return err
	}
	if err := regular(root.Stat(name)); err != nil {
		return nil, err
	}
	f, err := root.OpenFile(name, flag|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := regular(f.Stat()); err != nil { // it was swapped
		f.Close()
		return nil, err
	}
	return f, nil
}

// leastHole is what is worth a hole: a block of most file systems.
const leastHole = 4096

var zeros [64 << 10]byte

func zero(b []byte) bool {
	for len(b) > len(zeros) {
		if !bytes.Equal(b[:len(zeros)], zeros[:]) {
			return false
		}
		b = b[len(zeros):]
	}
	return bytes.Equal(b, zeros[:len(b)])
}

// Write appends to the file.
func (p *Partial) Write(b []byte) (int, error) {
	if len(b) >= leastHole && zero(b) {
		p.size += int64(len(b))
		return len(b), nil
	}
	n, err := p.f.WriteAt(b, p.size)
	p.size += int64(n)
	p.end = p.size
	return n, err
}

// Size is how many bytes were written.
func (p *Partial) Size() int64 { return p.size }

// Chmod sets the permissions of the file.
func (p *Partial) Chmod(mode fs.FileMode) error { return p.f.Chmod(mode) }

// fill makes a hole at the end as long as it should be.
func (p *Partial) fill() error {
	if p.end == p.size {
		return nil
	}
	p.end = p.size
	return p.f.Truncate(p.size)
}

// Commit gives the file its name. It fails when the context is done before; it
// may then be called again, or Discard. After any other failure only Discard
// remains.
func (p *Partial) Commit(ctx context.Context) error {
	if p.done {
		return fmt.Errorf("commit %s: %w", p.name, fs.ErrClosed)
	}
	if err := p.fill(); err != nil {
		return err
	}
	if p.Durable {
		if err := p.f.Sync(); err != nil {
			return err
		}
	}
	if ctx.Err() != nil { // nobody waits for it any more
		return context.Cause(ctx)
	}
	if err := p.f.Close(); err != nil {
		return err
	}
	if err := p.root.Rename(p.tmp, p.name); err != nil {
		return err
	}
	p.done = true
	if p.Durable {
		// Some file systems cannot, and keep names in order by themselves.
		if d, err := p.root.Open("."); err == nil {
			_ = d.Sync()
			d.Close()
		}
	}
	return p.root.Close()
}

// Discard removes the file, if it was not committed.
func (p *Partial) Discard() error {
	if p.done {
		return nil
	}
	p.done = true
	p.f.Close()
	return errors.Join(p.root.Remove(p.tmp), p.root.Close())
}

// Keep closes the file, if it was not committed, and leaves it what it is: a
// part. It returns the name that says so.
func (p *Partial) Keep() (string, error) {
	if p.done {
		return "", nil
	}
	p.done = true
	return p.dir + p.tmp, errors.Join(p.fill(), p.f.Close(), p.root.Close())
}

// Replace writes what src yields, up to io.EOF, into a file. When it fails, the
// old file is untouched. It returns how many bytes came.
func Replace(ctx context.Context, root *os.Root, name string, src io.Reader) (int64, error) {
	p, err := NewPartial(root, name)
	if err != nil {
		return 0, err
	}
	defer p.Discard()
	n, err := driver.Copy(ctx, p, src)
	if err != nil {
		return n, err
	}
	return n, p.Commit(ctx)
}

// SendFile writes to dst what is between a file's offset and its end. A file
// that got shorter meanwhile is an error.
func SendFile(ctx context.Context, dst io.Writer, f *os.File) (int64, error) {
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	n, err := driver.Copy(ctx, dst, content(f, info, at))
	if want := info.Size() - at; err == nil && n < want {
		err = fmt.Errorf("read %d bytes where there were %d: the file was cut meanwhile", n, want)
	}
	return n, err
}
