// Package scratch makes folders for what lasts no longer than a process, such as
// its sockets, and removes those of processes that were killed.
//
// Who has a folder holds a lock on it, flock(2) on the folder itself. The kernel
// ends that lock however its holder ends, so that a folder that nobody holds is
// one that was left, and there is no record in it that could be out of date: the
// number of a process says little when it may be another's by now.
package scratch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// ErrHeld says that somebody else holds a lock.
var ErrHeld = errors.New("somebody else holds it")

// LockFile locks a file for what must not be done twice at a time, and makes it if
// it is not there. It waits for another holder, but not longer than a while: then it
// fails with [ErrHeld]. Unlock removes the file. One that a crash has left means
// nothing, as nobody holds it.
func LockFile(path string, wait time.Duration) (unlock func(), err error) {
	for late := time.Now().Add(wait); ; time.Sleep(time.Millisecond) {
		f, err := openFile(path)
		if err != nil {
			return nil, err
		}
		if err = Lock(f); err == nil && same(f, path) { // and not one that its holder has removed meanwhile
			return func() {
				_ = os.Remove(path)
				f.Close()
			}, nil
		}
		f.Close()
		if err != nil && !errors.Is(err, ErrHeld) {
			return nil, err
		}
		if time.Now().After(late) {
			return nil, fmt.Errorf("lock %s: %w", path, ErrHeld)
		}
	}
}

// longest is how long the path of a folder's place may be: the name of a socket
// has 107 bytes, of which the folder and the socket need some.
const longest = 80

// attempts is how often a folder is made anew when others tidy up that very moment.
const attempts = 10

// Folder is a folder of this process, for its user only.
type Folder struct {
	Path string
	lock *os.File // nil where the file system has no locks: nobody takes the folder for one that was left
}

// Make makes a folder in the first of the places that will have it; "" and places
// whose path is too long for sockets are passed over, and after them the system's
// place for temporary files and /tmp are tried. Folders of the same name that are
// left there are removed. A name is made of letters and dashes.
func Make(name string, places ...string) (*Folder, error) {
	err := errors.New("there is no place for it")
	for _, place := range append(places[:len(places):len(places)], os.TempDir(), "/tmp") {
		if place == "" || len(place) > longest {
			continue
		}
		var f *Folder
		if f, err = claim(place, name); err == nil {
			sweep(place, name)
			return f, nil
		}
	}
	return nil, fmt.Errorf("make a folder %s-*: %w", name, err)
}

func claim(place, name string) (*Folder, error) {
	for range attempts {
		path, err := os.MkdirTemp(place, name+"-") // for its owner only
		if err != nil {
			return nil, err
		}
		f := &Folder{Path: path}
		f.lock, err = hold(path)
		if errors.Is(err, errLeft) { // somebody has just found it, not locked yet
			continue
		}
		return f, nil // also where there are no locks
	}
	return nil, errors.New("others remove it at once")
}

// Inherit makes the programs that are started from now on hold the folder, too, so
// that it is not taken from those that outlive this process.
func (f *Folder) Inherit() {
	if f.lock != nil {
		inherit(f.lock)
	}
}

// Remove removes the folder with all that is in it.
func (f *Folder) Remove() error {
	err := os.RemoveAll(f.Path)
	if f.lock != nil {
		f.lock.Close()
	}
	return err
}

// errLeft says that a folder is there no more, or about to go.
var errLeft = errors.New("the folder is being removed")

// hold takes the lock of a folder, which is still there then.
func hold(path string) (*os.File, error) {
	f, err := openFolder(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errLeft
	}
	if err != nil {
		return nil, err
	}
	err = Lock(f)
	if errors.Is(err, ErrHeld) || err == nil && !same(f, path) {
		err = errLeft
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// same reports whether a path is that of an open file.
func same(f *os.File, path string) bool {
	is, err := f.Stat()
	if err != nil {
		return false
	}
	now, err := os.Lstat(path)
	return err == nil && os.SameFile(is, now)
}

// sweep removes the folders of a name that nobody holds. They are our own user's:
// nobody else can have put anything into them, or put them in the place of others.
func sweep(place, name string) {
	entries, err := os.ReadDir(place)
	if err != nil {
		return
	}
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), name+"-")
		if !ok || number == "" || strings.Trim(number, "0123456789") != "" || !e.IsDir() {
			continue
		}
		path := filepath.Join(place, e.Name())
		if fi, err := os.Lstat(path); err != nil || !private(fi) {
			continue
		}
		f, err := hold(path)
		if err != nil {
			continue
		}
		if fi, err := f.Stat(); err == nil && private(fi) {
			_ = os.RemoveAll(path) // the next one may have more luck
		}
		f.Close()
	}
}
