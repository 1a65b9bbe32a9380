package storage

import (
	"context"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/drivers/driver"
)

// OpendalContract is the contract of a folder of files.
var OpendalContract = driver.Contract{
	Name:   "storage",
	Client: "jumpstarter_driver_opendal.client.OpendalClient",
	Kind:   "other",

	Exports: func() []driver.Export { return OpendalExports(nil, (*OpendalClient)(nil)) },
}

// Opendal is a folder of files.
//
// Paths are relative to the folder, whether or not they begin with a slash, and
// cannot leave it. White space around a path does not count, doubled slashes
// count once, and a backslash is part of a name. A path that ends with a slash
// is that of a directory. In what is listed all directories end with one, and
// the folder itself is "/".
//
// Files are opened for reading or for writing, and moved in streams. An FD names
// an open one until the session ends; after its file was closed it still answers
// the four questions about it.
type Opendal interface {
	// Open opens a file for reading, or one that is to be written anew, with
	// the directories that are missing above it. What is written has a name that
	// says partial until FileClose.
	Open(ctx context.Context, path string, mode Mode) (FD, error)
	// FileRead writes to dst what is between the file's offset and its end.
	FileRead(ctx context.Context, fd FD, dst io.Writer) error
	// FileWrite appends what src yields, up to io.EOF. When it fails the file is
	// lost: FileClose leaves the old one in place.
	FileWrite(ctx context.Context, fd FD, src io.Reader) error
	// FileSeek sets the offset of a file that is read, and returns it. Whence is
	// that of [io.Seeker].
	FileSeek(ctx context.Context, fd FD, pos int64, whence int) (int64, error)
	// FileTell returns the offset of a file that is read.
	FileTell(ctx context.Context, fd FD) (int64, error)
	// FileClose closes a file. One that was written takes its name now, if every
	// FileWrite has succeeded; if not, the error says so again. One into which
	// nobody wrote is an empty file, but does not take the place of one with
	// content. A file that is closed already is no error.
	FileClose(ctx context.Context, fd FD) error
	FileClosed(ctx context.Context, fd FD) (bool, error)
	FileReadable(ctx context.Context, fd FD) (bool, error)
	FileSeekable(ctx context.Context, fd FD) (bool, error)
	FileWritable(ctx context.Context, fd FD) (bool, error)

	Stat(ctx context.Context, path string) (Metadata, error)
	// Hash returns the digest of a file in hexadecimal digits.
	Hash(ctx context.Context, path string, algo Algo) (string, error)
	// Copy and Rename replace a target that is there, and make the directories
	// that are missing above it. Copy takes files only.
	Copy(ctx context.Context, source, target string) error
	Rename(ctx context.Context, source, target string) error
	// RemoveAll removes a file, or a directory with all that is in it. What is
	// not there is no error. The folder itself is emptied, and stays.
	RemoveAll(ctx context.Context, path string) error
	// CreateDir makes a directory, and those that are missing above it. Its path
	// ends with a slash. One that is there is no error.
	CreateDir(ctx context.Context, path string) error
	// Delete removes a file or an empty directory. What is not there is no error.
	Delete(ctx context.Context, path string) error
	Exists(ctx context.Context, path string) (bool, error)

	// List yields the entries of a directory, the directory itself included. A
	// path without a slash at its end is the beginning of a name, and yields the
	// entries that begin so. What is not there has no entries.
	List(ctx context.Context, path string) iter.Seq2[string, error]
	// Scan is List with the entries of all directories below, each before the
	// directory that it is in.
	Scan(ctx context.Context, path string) iter.Seq2[string, error]

	// Presign requests name a file for others to fetch or to fill, where the
	// storage can do that. They are good for so many seconds.
	PresignStat(ctx context.Context, path string, seconds int) (PresignedRequest, error)
	PresignRead(ctx context.Context, path string, seconds int) (PresignedRequest, error)
	PresignWrite(ctx context.Context, path string, seconds int) (PresignedRequest, error)
	Capability(context.Context) (Capability, error)

	// CreatedResources lists, without slashes around them, the paths that this
	// session has opened for writing, copied or renamed to, made or registered,
	// and not removed again.
	CreatedResources(context.Context) ([]string, error)
	// RegisterPath adds a path that was made by other means. Backslashes in it
	// count as slashes.
	RegisterPath(ctx context.Context, path string) error
}

// FD names an open file.
type FD = uuid.UUID

// Mode says what a file is opened for.
type Mode string

const (
	ForReading Mode = "rb"
	ForWriting Mode = "wb"
)

// UnmarshalText implements [encoding.TextUnmarshaler].
func (m *Mode) UnmarshalText(text []byte) error {
	if *m = Mode(text); *m != ForReading && *m != ForWriting {
		return fmt.Errorf("wants %q or %q, got %q", ForReading, ForWriting, clip(text))
	}
	return nil
}

// Algo is a hash function.
type Algo string

const (
	MD5    Algo = "md5"
	SHA256 Algo = "sha256"
)

// UnmarshalText implements [encoding.TextUnmarshaler].
func (a *Algo) UnmarshalText(text []byte) error {
	if *a = Algo(text); *a != MD5 && *a != SHA256 {
		return fmt.Errorf("wants %q or %q, got %q", MD5, SHA256, clip(text))
	}
	return nil
}

func clip(text []byte) string { return string(text[:min(len(text), 40)]) }

// Metadata is what is known of a file or a directory.
type Metadata struct {
	ContentDisposition *string   `json:"content_disposition"`
	ContentLength      int64     `json:"content_length"` // bytes
	ContentMD5         *string   `json:"content_md5"`
	ContentType        *string   `json:"content_type"`
	ETag               *string   `json:"etag"`
	Mode               EntryMode `json:"mode"`
}

// EntryMode says what an entry is. A device or a socket is neither.
type EntryMode struct {
	IsFile bool `json:"entry_is_file"`
	IsDir  bool `json:"entry_is_dir"`
}

// PresignedRequest is an HTTP request that needs no other credentials.
type PresignedRequest = driver.PresignedRequest

// Capability says what a storage can do.
type Capability struct {
	Stat                 bool `json:"stat"`
	StatWithIfMatch      bool `json:"stat_with_if_match"`
	StatWithIfNoneMatch  bool `json:"stat_with_if_none_match"`
	Read                 bool `json:"read"`
	ReadWithIfMatch      bool `json:"read_with_if_match"`
	ReadWithIfNoneMatch  bool `json:"read_with_if_none_match"`
	ReadWithCacheControl bool `json:"read_with_override_cache_control"`
	ReadWithDisposition  bool `json:"read_with_override_content_disposition"`
	ReadWithContentType  bool `json:"read_with_override_content_type"`

	Write                 bool `json:"write"`
	WriteCanMulti         bool `json:"write_can_multi"`
	WriteCanEmpty         bool `json:"write_can_empty"`
	WriteCanAppend        bool `json:"write_can_append"`
	WriteWithContentType  bool `json:"write_with_content_type"`
	WriteWithDisposition  bool `json:"write_with_content_disposition"`
	WriteWithCacheControl bool `json:"write_with_cache_control"`
	WriteMultiMaxSize     *int `json:"write_multi_max_size"` // bytes, as the next two
	WriteMultiMinSize     *int `json:"write_multi_min_size"`
	WriteTotalMaxSize     *int `json:"write_total_max_size"`

	CreateDir bool `json:"create_dir"`
	Delete    bool `json:"delete"`
	Copy      bool `json:"copy"`
	Rename    bool `json:"rename"`

	List               bool `json:"list"`
	ListWithLimit      bool `json:"list_with_limit"`
	ListWithStartAfter bool `json:"list_with_start_after"`
	ListWithRecursive  bool `json:"list_with_recursive"`

	Presign      bool `json:"presign"`
	PresignRead  bool `json:"presign_read"`
	PresignStat  bool `json:"presign_stat"`
	PresignWrite bool `json:"presign_write"`

	Shared   bool `json:"shared"`
	Blocking bool `json:"blocking"`
}

// OpendalExports is the contract of a folder on the wire.
func OpendalExports(env *driver.Env, o Opendal) []driver.Export {
	rows := []driver.Export{
		driver.Call2("open", o.Open).Args("path", "mode").Help("Open a file"),
		driver.Do2("file_read", func(ctx context.Context, fd FD, h driver.Handle) error {
			return env.Give(ctx, h, func(w io.Writer) error { return o.FileRead(ctx, fd, w) })
		}).Args("fd", "dst").Help("Read an open file to its end"),
		driver.Do2("file_write", func(ctx context.Context, fd FD, h driver.Handle) error {
			taken := false
			err := env.Take(ctx, h, func(r io.Reader) error {
				taken = true
				return o.FileWrite(ctx, fd, r)
			})
			if !taken { // which the file has to know
				err = o.FileWrite(ctx, fd, failed{err})
			}
			return err
		}).Args("fd", "src").Help("Append to an open file"),
		driver.Call3("file_seek", o.FileSeek).Args("fd", "pos", "whence=0").Help("Set the offset of an open file"),
		driver.Call1("file_tell", o.FileTell).Args("fd").Help("Get the offset of an open file"),
		driver.Do1("file_close", o.FileClose).Args("fd").Help("Close a file"),
		driver.Call1("file_closed", o.FileClosed).Args("fd").Help("Ask whether a file was closed"),
		driver.Call1("file_readable", o.FileReadable).Args("fd").Help("Ask whether a file can be read"),
		driver.Call1("file_seekable", o.FileSeekable).Args("fd").Help("Ask whether a file has an offset"),
		driver.Call1("file_writable", o.FileWritable).Args("fd").Help("Ask whether a file can be written"),
		driver.Call1("stat", o.Stat).Args("path").Help("Tell size and kind"),
		driver.Call2("hash", o.Hash).Args("path", "algo=sha256").Help("Compute a file's digest"),
		driver.Do2("copy", o.Copy).Args("source", "target").Help("Copy a file"),
		driver.Do2("rename", o.Rename).Args("source", "target").Help("Rename a file or a directory"),
		driver.Do1("remove_all", o.RemoveAll).Args("path").Help("Remove a file, or a directory and all below it"),
		driver.Do1("create_dir", o.CreateDir).Args("path").Help("Make a directory"),
		driver.Do1("delete", o.Delete).Args("path").Help("Remove a file or an empty directory"),
		driver.Call1("exists", o.Exists).Args("path").Help("Ask whether there is something"),
		driver.Feed1("list", o.List).Args("path").Help("List a directory"),
		driver.Feed1("scan", o.Scan).Args("path").Help("List a directory and all below it"),
		driver.Call2("presign_stat", o.PresignStat).Args("path", "expire_second").Help("Presign a HEAD request"),
		driver.Call2("presign_read", o.PresignRead).Args("path", "expire_second").Help("Presign a GET request"),
		driver.Call2("presign_write", o.PresignWrite).Args("path", "expire_second").Help("Presign a PUT request"),
		driver.Call("capability", o.Capability).Help("Tell what the storage can do"),
		driver.Call("get_created_resources", o.CreatedResources).Help("List what this session has made"),
		driver.Do1("register_path", o.RegisterPath).Args("path").Help("Count a path among what this session has made"),
	}
	for i := range rows {
		rows[i] = rows[i].Lax()
	}
	return rows
}

// failed is a stream that could not be opened.
type failed struct{ err error }

func (f failed) Read([]byte) (int, error) { return 0, f.err }

// OpendalClient is a folder behind a [driver.Offerer].
type OpendalClient struct {
	Transfer driver.Transfer // how FileRead and FileWrite move data

	c driver.Caller
}

var _ Opendal = (*OpendalClient)(nil)

// giveUp is how long an exporter may take to hear that a file is given up. It
// finds out by itself when the session ends; whoever has cancelled a transfer,
// perhaps because the network stands still, is not kept waiting.
const giveUp = 3 * time.Second

// NewOpendalClient makes a client of an opendal node.
func NewOpendalClient(c driver.Caller) *OpendalClient { return &OpendalClient{c: c} }

// WriteFile puts what src yields, up to io.EOF, into a file.
func (c *OpendalClient) WriteFile(ctx context.Context, path string, src io.Reader) error {
	return c.with(ctx, path, ForWriting, func(fd FD) error { return c.FileWrite(ctx, fd, src) })
}

// ReadFile writes the content of a file to dst.
func (c *OpendalClient) ReadFile(ctx context.Context, path string, dst io.Writer) error {
	return c.with(ctx, path, ForReading, func(fd FD) error { return c.FileRead(ctx, fd, dst) })
}

// with opens a file for f, and closes it whatever comes. That f failed is said
// once, though closing a file that was not written says it again.
func (c *OpendalClient) with(ctx context.Context, path string, mode Mode, f func(FD) error) error {
	fd, err := c.Open(ctx, path, mode)
	if err != nil {
		return err
	}
	if err := f(fd); err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveUp)
		defer cancel()
		_ = c.FileClose(ctx, fd)
		return err
	}
	return c.FileClose(ctx, fd)
}

func (c *OpendalClient) Open(ctx context.Context, path string, mode Mode) (FD, error) {
	return driver.Invoke[FD](ctx, c.c, "open", path, mode)
}

func (c *OpendalClient) FileRead(ctx context.Context, fd FD, dst io.Writer) error {
	return download(ctx, c.c, c.Transfer, dst, "file_read", func(h driver.Handle) []any { return []any{fd, h} })
}

func (c *OpendalClient) FileWrite(ctx context.Context, fd FD, src io.Reader) error {
	err := upload(ctx, c.c, c.Transfer, src, "file_write", func(h driver.Handle) []any { return []any{fd, h} })
	if err != nil {
		// The call may have ended before the other side saw it, which then knows
		// of no missing piece. A call that cannot succeed tells it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveUp)
		defer cancel()
		_ = driver.Run(ctx, c.c, "file_write", fd, noStream)
	}
	return err
}

// noStream is a handle that nobody has given out.
var noStream = driver.NewHandle(map[string]any{"kind": "client_stream", "uuid": uuid.Nil.String(), "x_jmp_content_encoding": nil})

func (c *OpendalClient) FileSeek(ctx context.Context, fd FD, pos int64, whence int) (int64, error) {
	return driver.Invoke[int64](ctx, c.c, "file_seek", fd, pos, whence)
}

func (c *OpendalClient) FileTell(ctx context.Context, fd FD) (int64, error) {
	return driver.Invoke[int64](ctx, c.c, "file_tell", fd)
}

func (c *OpendalClient) FileClose(ctx context.Context, fd FD) error {
	return driver.Run(ctx, c.c, "file_close", fd)
}

func (c *OpendalClient) FileClosed(ctx context.Context, fd FD) (bool, error) {
	return driver.Invoke[bool](ctx, c.c, "file_closed", fd)
}

func (c *OpendalClient) FileReadable(ctx context.Context, fd FD) (bool, error) {
	return driver.Invoke[bool](ctx, c.c, "file_readable", fd)
}

func (c *OpendalClient) FileSeekable(ctx context.Context, fd FD) (bool, error) {
	return driver.Invoke[bool](ctx, c.c, "file_seekable", fd)
}

func (c *OpendalClient) FileWritable(ctx context.Context, fd FD) (bool, error) {
	return driver.Invoke[bool](ctx, c.c, "file_writable", fd)
}

func (c *OpendalClient) Stat(ctx context.Context, path string) (Metadata, error) {
	return driver.Invoke[Metadata](ctx, c.c, "stat", path)
}

func (c *OpendalClient) Hash(ctx context.Context, path string, algo Algo) (string, error) {
	return driver.Invoke[string](ctx, c.c, "hash", path, algo)
}

func (c *OpendalClient) Copy(ctx context.Context, source, target string) error {
	return driver.Run(ctx, c.c, "copy", source, target)
}

func (c *OpendalClient) Rename(ctx context.Context, source, target string) error {
	return driver.Run(ctx, c.c, "rename", source, target)
}

func (c *OpendalClient) RemoveAll(ctx context.Context, path string) error {
	return driver.Run(ctx, c.c, "remove_all", path)
}

func (c *OpendalClient) CreateDir(ctx context.Context, path string) error {
	return driver.Run(ctx, c.c, "create_dir", path)
}

func (c *OpendalClient) Delete(ctx context.Context, path string) error {
	return driver.Run(ctx, c.c, "delete", path)
}

func (c *OpendalClient) Exists(ctx context.Context, path string) (bool, error) {
	return driver.Invoke[bool](ctx, c.c, "exists", path)
}

func (c *OpendalClient) List(ctx context.Context, path string) iter.Seq2[string, error] {
	return driver.Iterate[string](ctx, c.c, "list", path)
}

func (c *OpendalClient) Scan(ctx context.Context, path string) iter.Seq2[string, error] {
	return driver.Iterate[string](ctx, c.c, "scan", path)
}

func (c *OpendalClient) PresignStat(ctx context.Context, path string, seconds int) (PresignedRequest, error) {
	return driver.Invoke[PresignedRequest](ctx, c.c, "presign_stat", path, seconds)
}

func (c *OpendalClient) PresignRead(ctx context.Context, path string, seconds int) (PresignedRequest, error) {
	return driver.Invoke[PresignedRequest](ctx, c.c, "presign_read", path, seconds)
}

func (c *OpendalClient) PresignWrite(ctx context.Context, path string, seconds int) (PresignedRequest, error) {
	return driver.Invoke[PresignedRequest](ctx, c.c, "presign_write", path, seconds)
}

func (c *OpendalClient) Capability(ctx context.Context) (Capability, error) {
	return driver.Invoke[Capability](ctx, c.c, "capability")
}

func (c *OpendalClient) CreatedResources(ctx context.Context) ([]string, error) {
	return driver.Invoke[[]string](ctx, c.c, "get_created_resources")
}

func (c *OpendalClient) RegisterPath(ctx context.Context, path string) error {
	return driver.Run(ctx, c.c, "register_path", path)
}
