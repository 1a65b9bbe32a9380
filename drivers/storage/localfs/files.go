package localfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/storage"
)

// maxOpen is how many files a session can have open, and maxClosed of how many
// closed ones it knows that they were.
const (
	maxOpen   = 256
	maxClosed = 1024
)

// file is one that a client has opened: r to be read or w to be written.
type file struct {
	name string
	turn chan struct{} // full while a call moves or closes it
	r    *os.File
	w    *storage.Partial
	done bool // closed

	written bool  // a FileWrite has begun; guarded by the folder's mutex, as the next
	lost    error // why w will never be whole
}

func (f *folder) Open(_ context.Context, p string, mode storage.Mode) (_ storage.FD, err error) {
	defer plain("open", &err)
	name, err := parseFile("path", p)
	if err != nil {
		return storage.FD{}, err
	}
	fd, err := uuid.NewRandom()
	if err != nil {
		return fd, err
	}
	o := &file{name: name, turn: make(chan struct{}, 1)}
	if mode == storage.ForReading {
		o.r, err = storage.OpenRegular(f.root, name)
	} else if o.w, err = storage.NewPartial(f.root, name); err == nil {
		o.w.Durable = f.safe
	}
	if err != nil {
		return fd, err
	}
	if err := f.keep(fd, o); err != nil {
		return fd, errors.Join(err, o.drop())
	}
	return fd, nil
}

// keep enters an open file.
func (f *folder) keep(fd storage.FD, o *file) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over || len(f.files) >= maxOpen {
		return fmt.Errorf("%d files are open, which is as many as can be: close some", len(f.files))
	}
	f.files[fd] = o
	if o.w != nil {
		f.created[reported(o.name)] = o.name
	}
	return nil
}

// drop closes a file, of which nothing stays if it was being written.
func (o *file) drop() error {
	o.done = true
	if o.r != nil {
		return o.r.Close()
	}
	return o.w.Discard()
}

// find finds an open file; it is nil when the file was closed.
func (f *folder) find(fd storage.FD) (*file, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if o := f.files[fd]; o != nil {
		return o, nil
	}
	for _, c := range f.closed {
		if c == fd {
			return nil, nil
		}
	}
	return nil, fmt.Errorf("no file was opened as %s", fd)
}

var errClosed = errors.New("the file is closed")

// use finds an open file and waits for the call that has it.
func (f *folder) use(ctx context.Context, fd storage.FD, do func(*file) error) error {
	o, err := f.find(fd)
	if err != nil {
		return err
	}
	if o == nil {
		return errClosed
	}
	select {
	case o.turn <- struct{}{}:
	default:
		select {
		case o.turn <- struct{}{}:
		case <-ctx.Done():
			return fmt.Errorf("another call has the file: %w", context.Cause(ctx))
		}
	}
	defer func() { <-o.turn }()
	if o.done {
		return errClosed
	}
	return do(o)
}

var (
	errNotReading = errors.New("the file is open for writing")
	errNotWriting = errors.New("the file is open for reading")
)

func (f *folder) FileRead(ctx context.Context, fd storage.FD, dst io.Writer) (err error) {
	defer plain("file_read", &err)
	return f.use(ctx, fd, func(o *file) error {
		if o.r == nil {
			return errNotReading
		}
		_, err := storage.SendFile(ctx, dst, o.r)
		return err
	})
}

func (f *folder) FileWrite(ctx context.Context, fd storage.FD, src io.Reader) (err error) {
	defer plain("file_write", &err)
	err = f.use(ctx, fd, func(o *file) error {
		if o.w == nil {
			return errNotWriting
		}
		if _, lost := f.state(o); lost != nil {
			return fmt.Errorf("an earlier write has failed: %w", lost)
		}
		_, err := driver.Copy(ctx, o.w, src)
		return err
	})
	// Also of a call that did not get its turn, a piece is missing.
	if o, ferr := f.find(fd); ferr == nil && o != nil && o.w != nil {
		f.note(o, err)
		if err != nil {
			err = fmt.Errorf("%w; %s will not be replaced", err, o.name)
		}
	}
	return err
}

// note remembers that a file was written, and how the first time failed.
func (f *folder) note(o *file, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o.written = true
	if o.lost == nil {
		o.lost = err
	}
}

func (f *folder) state(o *file) (written bool, lost error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return o.written, o.lost
}

func (f *folder) FileSeek(ctx context.Context, fd storage.FD, pos int64, whence int) (at int64, err error) {
	defer plain("file_seek", &err)
	if whence < io.SeekStart || whence > io.SeekEnd {
		return 0, driver.BadArg("whence", "%d is none of 0, 1, 2", whence)
	}
	err = f.use(ctx, fd, func(o *file) error {
		if o.r == nil {
			return errNotReading
		}
		at, err = o.r.Seek(pos, whence)
		return err
	})
	return at, err
}

// FileTell does not wait for a call that moves the file.
func (f *folder) FileTell(_ context.Context, fd storage.FD) (at int64, err error) {
	defer plain("file_tell", &err)
	o, err := f.find(fd)
	switch {
	case err != nil:
		return 0, err
	case o == nil:
		return 0, errClosed
	case o.r == nil:
		return 0, errNotReading
	}
	return o.r.Seek(0, io.SeekCurrent)
}

func (f *folder) FileClosed(_ context.Context, fd storage.FD) (bool, error) {
	return f.ask("file_closed", fd, func(o *file) bool { return o == nil })
}

func (f *folder) FileReadable(_ context.Context, fd storage.FD) (bool, error) {
	return f.ask("file_readable", fd, func(o *file) bool { return o != nil && o.r != nil })
}

func (f *folder) FileSeekable(_ context.Context, fd storage.FD) (bool, error) {
	return f.ask("file_seekable", fd, func(o *file) bool { return o != nil && o.r != nil })
}

func (f *folder) FileWritable(_ context.Context, fd storage.FD) (bool, error) {
	return f.ask("file_writable", fd, func(o *file) bool { return o != nil && o.w != nil })
}

func (f *folder) ask(op string, fd storage.FD, question func(*file) bool) (_ bool, err error) {
	defer plain(op, &err)
	o, err := f.find(fd)
	return err == nil && question(o), err
}

func (f *folder) FileClose(ctx context.Context, fd storage.FD) (err error) {
	defer plain("file_close", &err)
	err = f.use(ctx, fd, func(o *file) error {
		err := f.finish(ctx, o)
		if o.done {
			f.forget(fd)
		}
		return err
	})
	if err == errClosed {
		return nil
	}
	return err
}

// finish closes a file. It stays open when the context is done before.
func (f *folder) finish(ctx context.Context, o *file) error {
	if o.r != nil {
		return o.drop()
	}
	written, err := f.state(o)
	if err == nil && !written {
		// Between opening and writing clients fail, and then close.
		if info, serr := f.root.Stat(o.name); serr == nil && info.Size() > 0 {
			err = errors.New("nothing was written; to empty a file, write nothing to it")
		}
	}
	if err == nil {
		if err = o.w.Commit(ctx); err == nil {
			o.done = true
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
	}
	return errors.Join(fmt.Errorf("%s is not replaced: %w", o.name, err), o.drop())
}

func (f *folder) forget(fd storage.FD) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.files, fd)
	if f.closed = append(f.closed, fd); len(f.closed) > maxClosed {
		f.closed = f.closed[1:]
	}
}

// closeGrace is how long the end of the session waits for calls that still move
// files. Their contexts are done by then.
const closeGrace = 2 * time.Second

func (f *folder) closeFiles() error {
	f.mu.Lock()
	f.over = true
	files := f.files
	f.files = map[storage.FD]*file{}
	f.mu.Unlock()
	grace, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	var errs []error
	for _, o := range files {
		select {
		case o.turn <- struct{}{}:
		case <-grace.Done():
			errs = append(errs, fmt.Errorf("%s: a call that moves it does not end", o.name))
			continue
		}
		if err := f.leave(o); err != nil {
			errs = append(errs, err)
		}
		<-o.turn
	}
	return errors.Join(errs...)
}

// leave closes a file that its client has left open.
func (f *folder) leave(o *file) error {
	if o.done {
		return nil
	}
	if _, lost := f.state(o); o.r != nil || lost != nil || f.tidy {
		return o.drop()
	}
	o.done = true
	name, err := o.w.Keep()
	f.log.Warn("a file was never closed: it is kept under a partial name, and the old one is in place",
		"file", o.name, "partial", name, "bytes", o.w.Size())
	return err
}
