package storage

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// Of lseek(2).
const (
	seekData = 3
	seekHole = 4
)

// content is what is read of a file from its offset on. The holes of a sparse one
// are made up: to read them costs as much as to read data, and fills the page
// cache with zeros.
func content(f *os.File, info fs.FileInfo, at int64) io.Reader {
	if s, ok := info.Sys().(*syscall.Stat_t); !ok || s.Blocks*512 >= info.Size() {
		return f
	}
	return &sparse{f: f, at: at, data: at, hole: at}
}

// sparse reads a file. Where data comes next is data, and its end hole; the
// file's offset is kept where the reading is.
type sparse struct {
	f              *os.File
	at, data, hole int64
}

func (s *sparse) Read(p []byte) (n int, err error) {
	if s.at >= s.hole {
		if err := s.find(); err != nil {
			return 0, err
		}
	}
	if s.at >= s.data {
		n, err = s.f.Read(p[:min(int64(len(p)), s.hole-s.at)])
		s.at += int64(n)
		return n, err
	}
	info, err := s.f.Stat() // it may be cut meanwhile
	if err != nil {
		return 0, err
	}
	left := min(s.data, info.Size()) - s.at
	if left <= 0 {
		return 0, io.EOF
	}
	n = int(min(int64(len(p)), left))
	clear(p[:n])
	s.at += int64(n)
	_, err = s.f.Seek(s.at, io.SeekStart)
	return n, err
}

// find looks for the next data. At the end of the file, both are there.
func (s *sparse) find() (err error) {
	s.data, err = s.f.Seek(s.at, seekData)
	switch {
	case err == nil:
		s.hole, err = s.f.Seek(s.data, seekHole)
	case errors.Is(err, syscall.ENXIO): // none
		s.data, err = s.f.Seek(0, io.SeekEnd)
		s.hole = s.data
	}
	if _, serr := s.f.Seek(s.at, io.SeekStart); err == nil {
		err = serr
	}
	if err == nil && s.at >= s.hole {
		err = io.EOF
	}
	return err
}
