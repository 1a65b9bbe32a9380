// Package localfs serves a directory of this machine as a folder of files: the
// service that OpenDAL calls fs.
//
// # Confinement
//
// Clients never leave the directory. Every path is resolved one component at a
// time from an open handle of the directory ([os.Root]), so that neither ".."
// nor a symbolic link, nor one that is put in place at the wrong moment, leads
// out; such a path is an error. Symbolic links that stay inside are followed
// where a file is read or written; where something is removed or renamed, it is
// the link. Links with an absolute target always count as leading out. A
// directory that is mounted inside belongs to it. Files that are no files
// (devices, FIFOs, sockets) are listed, and not opened.
//
// # Writing
//
// A file that is written gets its name when it is closed, and only if all that
// was to be written has come; until then, and if not, the old file is there. The
// content is then on the disk, not only in memory. A file that is still open at
// the end of the session is kept under its partial name, ".NAME.partial-XXXXXXXX",
// and the log says so; of one whose writing has failed nothing is kept.
//
// # Where this differs from OpenDAL
//
// Removing all of "d" leaves alone what merely begins with d. Removing "/" leaves
// the directory itself. Asking whether "file/x" exists is answered with no, where
// OpenDAL fails. A file that is opened for writing and closed without a write
// does not empty one that is there, but fails. Reading from a file that is open for writing fails, where it
// yields nothing. Entries come in alphabetical order.
package localfs

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"iter"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/storage"
	"github.com/jumplead/jumplead/hw/devfile"
)

// Config is upstream's.
type Config struct {
	Scheme               string            `yaml:"scheme" doc:"fs, a local directory; OpenDAL's other services are not served"`
	Kwargs               map[string]string `yaml:"kwargs" doc:"root: the directory, which is made if it is missing; a relative path is relative to the exporter's working directory"`
	RemoveCreatedOnClose bool              `yaml:"remove_created_on_close" default:"false" doc:"remove, when a session ends, what it has made or written"`
}

// Spec is upstream's driver.
var Spec = driver.Define(driver.Spec{
	Type:     "jumpstarter_driver_opendal.driver.Opendal",
	Contract: storage.OpendalContract,
	Doc:      "a directory of the exporter's machine",
}, open)

// services are those that OpenDAL's Python package is built with, other than fs.
var services = strings.Fields(`aliyun_drive alluxio azblob azdls azfile b2 cacache cos dashmap dropbox gcs gdrive ghac
	gridfs http huggingface ipfs ipmfs koofr memcached memory mini_moka moka mongodb mysql obs onedrive oss persy
	postgresql redb redis s3 seafile sftp sled sqlite swift upyun vercel_artifacts webdav webhdfs yandex_disk`)

// kwargs are the options of fs. OpenDAL writes in place unless it is given a
// directory for what is not whole yet; here that is never needed.
var kwargs = []string{"root", "atomic_write_dir"}

// Validate implements [driver.Validator].
func (c *Config) Validate() error {
	switch scheme := strings.ToLower(c.Scheme); {
	case slices.Contains(services, scheme):
		return driver.BadKey("scheme", "%s is a service of OpenDAL that is not served here; only fs is, a local directory", scheme)
	case scheme != "fs":
		return driver.BadKey("scheme", "%.40q is unknown; only fs is served, a local directory", c.Scheme)
	}
	var errs []error
	for _, k := range slices.Sorted(maps.Keys(c.Kwargs)) {
		if !slices.Contains(kwargs, k) {
			errs = append(errs, driver.BadKey("kwargs", "unknown key %q%s", k, driver.Hint(k, kwargs)))
		}
	}
	if c.Kwargs["root"] == "" {
		errs = append(errs, driver.BadKey("kwargs", "wants a root: the directory that is served"))
	}
	return errors.Join(errs...)
}

// Probe looks at the directory. One that is missing is made when a session begins,
// where that is possible.
func (c Config) Probe(context.Context, *driver.Env) (string, error) {
	dir, err := filepath.Abs(c.Kwargs["root"])
	if err != nil {
		return "", err
	}
	at, missing := dir, false
	for {
		info, err := os.Stat(at)
		switch {
		case err == nil && !info.IsDir():
			return "", &fs.PathError{Op: "open", Path: at, Err: syscall.ENOTDIR}
		case err == nil:
			if err := devfile.Usable(at); err != nil {
				return "", err
			}
			if missing {
				return dir + ", which a session will make in " + at, nil
			}
			return dir, nil
		case !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at):
			return "", err
		}
		at, missing = filepath.Dir(at), true
	}
}

func open(_ context.Context, env *driver.Env, c Config) (driver.Driver, error) {
	dir, err := filepath.Abs(c.Kwargs["root"])
	if err != nil {
		return driver.Driver{}, err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return driver.Driver{}, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return driver.Driver{}, err
	}
	f := &folder{root: root, log: env.Log, tidy: c.RemoveCreatedOnClose, safe: true,
		files: map[storage.FD]*file{}, created: map[string]string{}}
	return driver.Driver{Exports: storage.OpendalExports(env, f), Impl: f}, nil
}

// folder is the directory during a session.
type folder struct {
	root *os.Root
	log  *slog.Logger
	tidy bool // remove what was created
	safe bool // have what is written on the disk

	mu      sync.Mutex
	over    bool
	files   map[storage.FD]*file
	closed  []storage.FD      // of the files, in the order in which they were closed
	created map[string]string // by how it is reported: how it is reached
}

var _ storage.Opendal = (*folder)(nil)

// maxPath is the longest path that is looked at, in bytes: Linux's own limit.
const maxPath = 4096

// parse takes a client's path apart: the name that the root knows it by, "." for
// the root itself, and whether it says of itself that it is a directory.
func parse(arg, p string) (name string, dir bool, err error) {
	if len(p) > maxPath {
		return "", false, driver.BadArg(arg, "has %d bytes; a path has at most %d", len(p), maxPath)
	}
	if strings.ContainsRune(p, 0) {
		return "", false, driver.BadArg(arg, "%q: a path has no NUL in it", p)
	}
	p = strings.TrimSpace(p)
	var parts []string
	for part := range strings.SplitSeq(p, "/") {
		if part != "" && part != "." {
			parts = append(parts, part)
		}
	}
	if len(parts) == 0 {
		parts = []string{"."}
	}
	return strings.Join(parts, "/"), p == "" || strings.HasSuffix(p, "/"), nil
}

// parseFile is parse where a directory will not do.
func parseFile(arg, p string) (string, error) {
	name, dir, err := parse(arg, p)
	if err == nil && dir {
		err = fmt.Errorf("%s: %q is the path of a directory", arg, p)
	}
	return name, err
}

// split parts a name from the directory that it is in. Nothing is cleaned away:
// what ".." means depends on the links before it.
func split(name string) (dir, base string) {
	dir, base = path.Split(name)
	if dir == "" {
		return ".", base
	}
	return strings.TrimSuffix(dir, "/"), base
}

// plain gives errors their context, and the class that OpenDAL's have on the
// wire, where those of the system would count as a device's.
func plain(op string, err *error) {
	if *err == nil {
		return
	}
	*err = fmt.Errorf("%s: %w", op, *err)
	if driver.Classify(*err) == driver.Device {
		*err = errors.New((*err).Error())
	}
}

// nothing reports errors that say that there is nothing of that name.
func nothing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

func (f *folder) stat(p string) (name string, info fs.FileInfo, err error) {
	name, dir, err := parse("path", p)
	if err != nil {
		return "", nil, err
	}
	info, err = f.root.Stat(name)
	if err == nil && dir && !info.IsDir() {
		err = &fs.PathError{Op: "stat", Path: p, Err: fs.ErrNotExist}
	}
	return name, info, err
}

func (f *folder) Stat(_ context.Context, p string) (m storage.Metadata, err error) {
	defer plain("stat", &err)
	name, info, err := f.stat(p)
	if err != nil {
		return m, err
	}
	m.Mode = storage.EntryMode{IsFile: info.Mode().IsRegular(), IsDir: info.IsDir()}
	if name != "." { // as OpenDAL has it
		m.ContentLength = info.Size()
	}
	return m, nil
}

func (f *folder) Exists(_ context.Context, p string) (_ bool, err error) {
	defer plain("exists", &err)
	if _, _, err = f.stat(p); nothing(err) {
		return false, nil
	}
	return err == nil, err
}

func (f *folder) Hash(ctx context.Context, p string, algo storage.Algo) (_ string, err error) {
	defer plain("hash", &err)
	name, err := parseFile("path", p)
	if err != nil {
		return "", err
	}
	file, err := storage.OpenRegular(f.root, name)
	if err != nil {
		return "", err
	}
	defer file.Close()
	var h hash.Hash
	switch algo {
	case storage.MD5:
		h = md5.New()
	default:
		h = sha256.New()
	}
	if _, err := storage.SendFile(ctx, h, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// pair takes the paths of a copy or a renaming apart.
func pair(source, target string) (from, to string, err error) {
	if from, err = parseFile("source", source); err == nil {
		to, err = parseFile("target", target)
	}
	if err == nil && path.Clean(from) == path.Clean(to) {
		err = fmt.Errorf("source and target are both %s", from)
	}
	return from, to, err
}

func (f *folder) Copy(ctx context.Context, source, target string) (err error) {
	defer plain("copy", &err)
	from, to, err := pair(source, target)
	if err != nil {
		return err
	}
	src, err := storage.OpenRegular(f.root, from)
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	dst, err := storage.NewPartial(f.root, to)
	if err != nil {
		return err
	}
	defer dst.Discard()
	dst.Durable = f.safe
	if err := dst.Chmod(info.Mode().Perm()); err != nil {
		return err
	}
	if _, err := storage.SendFile(ctx, dst, src); err != nil {
		return err
	}
	if err := dst.Commit(ctx); err != nil {
		return err
	}
	f.add(to)
	return nil
}

func (f *folder) Rename(_ context.Context, source, target string) (err error) {
	defer plain("rename", &err)
	from, to, err := pair(source, target)
	if err != nil {
		return err
	}
	if _, err := f.root.Lstat(from); err != nil { // before directories are made for it
		return err
	}
	if dir, _ := split(to); dir != "." {
		if err := f.root.MkdirAll(dir, 0o777); err != nil {
			return err
		}
	}
	if err := f.root.Rename(from, to); err != nil {
		return err
	}
	f.drop(from)
	f.add(to)
	return nil
}

func (f *folder) RemoveAll(ctx context.Context, p string) (err error) {
	defer plain("remove_all", &err)
	name, dir, err := parse("path", p)
	if err != nil {
		return err
	}
	if name == "." {
		if !dir {
			return errors.New(`the root is emptied as "/"`)
		}
		entries, err := f.entries(".")
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := errors.Join(ctx.Err(), f.root.RemoveAll(e.Name())); err != nil {
				return err
			}
		}
		return nil
	}
	switch info, err := f.root.Lstat(name); {
	case nothing(err):
	case err != nil:
		return err
	case dir && info.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("%s is a symbolic link; without the slash at its end, the link is removed", name)
	case dir && !info.IsDir(): // there is no such directory
	default:
		if err := f.root.RemoveAll(name); err != nil {
			return err
		}
	}
	f.drop(name)
	return nil
}

func (f *folder) CreateDir(_ context.Context, p string) (err error) {
	defer plain("create_dir", &err)
	name, dir, err := parse("path", p)
	if err != nil {
		return err
	}
	if !dir {
		return fmt.Errorf("%q: the path of a directory ends with a slash", p)
	}
	if name != "." {
		if err := f.root.MkdirAll(name, 0o777); err != nil {
			return err
		}
	}
	f.add(name)
	return nil
}

func (f *folder) Delete(_ context.Context, p string) (err error) {
	defer plain("delete", &err)
	name, _, err := parse("path", p)
	if err != nil {
		return err
	}
	if name == "." {
		return errors.New("the root stays")
	}
	if err := f.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f.drop(name)
	return nil
}

func (f *folder) List(ctx context.Context, p string) iter.Seq2[string, error] {
	return f.list(ctx, "list", p, false)
}

func (f *folder) Scan(ctx context.Context, p string) iter.Seq2[string, error] {
	return f.list(ctx, "scan", p, true)
}

func (f *folder) list(ctx context.Context, op, p string, deep bool) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		name, dir, err := parse("path", p)
		begin := ""
		if err == nil && !dir {
			name, begin = split(name)
		}
		if err == nil {
			w := walk{ctx: ctx, f: f, deep: deep, yield: yield}
			at := ""
			if name != "." {
				at = name + "/"
			}
			self := ""
			if dir {
				if self = at; self == "" {
					self = "/"
				}
			}
			if err = w.list(name, at, begin, self); w.stopped || nothing(err) {
				return
			}
		}
		if plain(op, &err); err != nil {
			yield("", err)
		}
	}
}

// walk yields directories.
type walk struct {
	ctx     context.Context
	f       *folder
	deep    bool
	yield   func(string, error) bool
	stopped bool
}

// list yields the entries of a directory that begin in some way, with at before
// their names, and the directory itself as self. In a deep walk directories come
// behind what is in them.
func (w *walk) list(name, at, begin, self string) error {
	entries, err := w.f.entries(name)
	if err == nil {
		err = w.ctx.Err()
	}
	if err != nil {
		return err
	}
	if self != "" && !w.deep {
		w.say(self)
	}
	for _, e := range entries {
		switch {
		case w.stopped:
			return nil
		case !strings.HasPrefix(e.Name(), begin):
		case !e.IsDir():
			w.say(at + e.Name())
		case !w.deep:
			w.say(at + e.Name() + "/")
		default:
			err := w.list(name+"/"+e.Name(), at+e.Name()+"/", "", at+e.Name()+"/")
			if err != nil && !nothing(err) { // it may be gone meanwhile
				return err
			}
		}
	}
	if self != "" && w.deep {
		w.say(self)
	}
	return nil
}

func (w *walk) say(entry string) {
	w.stopped = w.stopped || !w.yield(entry, nil)
}

// entries are those of a directory, in order.
func (f *folder) entries(name string) ([]fs.DirEntry, error) {
	info, err := f.root.Stat(name)
	if err == nil && !info.IsDir() { // opening it might wait
		err = &fs.PathError{Op: "open", Path: name, Err: syscall.ENOTDIR}
	}
	if err != nil {
		return nil, err
	}
	d, err := f.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entries, err := d.ReadDir(-1)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, err
}

func (f *folder) PresignStat(context.Context, string, int) (storage.PresignedRequest, error) {
	return presign("presign_stat")
}

func (f *folder) PresignRead(context.Context, string, int) (storage.PresignedRequest, error) {
	return presign("presign_read")
}

func (f *folder) PresignWrite(context.Context, string, int) (storage.PresignedRequest, error) {
	return presign("presign_write")
}

func presign(op string) (r storage.PresignedRequest, err error) {
	return r, errors.New(op + ": a local directory has no requests: operation is not supported")
}

// Capability is what OpenDAL says of its fs. Clients look at it to choose what
// they call.
func (f *folder) Capability(context.Context) (storage.Capability, error) {
	return storage.Capability{
		Stat: true, Read: true,
		Write: true, WriteCanMulti: true, WriteCanEmpty: true, WriteCanAppend: true,
		CreateDir: true, Delete: true, Copy: true, Rename: true, List: true,
		Shared: true, Blocking: true,
	}, nil
}

// add counts a name among what was created, and drop takes it back.
func (f *folder) add(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.created[reported(name)] = name
}

func (f *folder) drop(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.created, reported(name))
}

// reported is a name without detours, and "" for the root.
func reported(name string) string {
	if name = strings.Trim(path.Clean(name), "/"); name == "." {
		return ""
	}
	return name
}

func (f *folder) CreatedResources(context.Context) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.created)), nil
}

func (f *folder) RegisterPath(_ context.Context, p string) error {
	name := reported(strings.ReplaceAll(p, `\`, "/"))
	f.add(name)
	return nil
}

// Close ends the session.
func (f *folder) Close() error {
	errs := []error{f.closeFiles()}
	if f.tidy {
		f.mu.Lock()
		created := maps.Clone(f.created)
		f.mu.Unlock()
		names := slices.Sorted(maps.Keys(created))
		slices.Reverse(names) // what is in a directory before the directory
		for _, n := range names {
			if !filepath.IsLocal(n) { // the root, or outside
				continue
			}
			if err := f.root.RemoveAll(created[n]); err != nil {
				errs = append(errs, fmt.Errorf("remove what was created: %w", err))
			}
		}
	}
	return errors.Join(append(errs, f.root.Close())...)
}
