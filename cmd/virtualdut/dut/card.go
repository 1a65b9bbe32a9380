package dut

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unicode"
)

// card is the SD card, a file. Like a real one it keeps what was written to it.
type card struct{ path string }

// newCard puts a card in place, an empty one if there is none. What somebody was about to write when he was killed goes.
func newCard(path string) (card, error) {
	c := card{path}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return c, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is in the way: not a file", path)
	}
	if err != nil {
		return c, err
	}
	dir, name := filepath.Dir(path), filepath.Base(path)
	return c, removeMatches(dir, "."+name+".partial-")
}

func removeMatches(dir, prefix string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) && e.Type().IsRegular() {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// Close removes an empty card.
func (c card) Close() error {
	info, err := os.Lstat(c.path)
	if err == nil && info.Mode().IsRegular() && info.Size() == 0 {
		err = os.Remove(c.path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// image is what is on a card. The zero image is the firmware that the factory put into the device.
type image struct {
	name string // its first line, "" if that is no text
	size int64
	sum  [sha256.Size]byte
}

func (i image) String() string {
	if (i == image{}) {
		return "factory firmware 1.0"
	}
	name := "image"
	if i.name != "" {
		name = fmt.Sprintf("image %q", i.name)
	}
	return fmt.Sprintf("%s, %d bytes, sha256 %x", name, i.size, i.sum[:6])
}

// nameMax is how long the first line of an image may be to be its name.
const nameMax = 60

// load reads the card. An image of some gigabytes takes seconds, in which the power may be cut.
func (c card) load(ctx context.Context) (image, error) {
	f, err := os.Open(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return image{}, errors.New("the card is gone")
	}
	if err != nil {
		return image{}, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 256<<10)
	head, err := r.Peek(nameMax + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return image{}, err
	}
	if len(head) == 0 {
		return image{}, nil
	}
	img := image{name: name(head)}
	h := sha256.New()
	for {
		n, err := io.CopyN(h, r, 4<<20)
		img.size += n
		switch {
		case ctx.Err() != nil:
			return image{}, ctx.Err()
		case errors.Is(err, io.EOF):
			h.Sum(img.sum[:0])
			return img, nil
		case err != nil:
			return image{}, err
		}
	}
}

// name is the first line of an image that begins with text.
func name(head []byte) string {
	line, _, whole := strings.Cut(string(head), "\n")
	line = strings.TrimSuffix(line, "\r")
	if !whole && len(head) > nameMax || !strings.ContainsFunc(line, unicode.IsLetter) {
		return ""
	}
	for _, c := range line {
		if c == unicode.ReplacementChar || !unicode.IsPrint(c) {
			return ""
		}
	}
	return strings.TrimSpace(line)
}
