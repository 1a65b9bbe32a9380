package driver_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
)

// store is a driver with one file, and methods that take and give it badly.
type store struct {
	env  *driver.Env
	file []byte
}

var errRefused = errors.New("refused")

func openStore(t *testing.T, file string) (*store, driver.Caller, *drivertest.Offers) {
	t.Helper()
	drivertest.NoLeaks(t)
	s := &store{file: []byte(file)}
	spec := driver.Define(driver.Spec{Type: "test.Store", Contract: driver.Contract{Name: "store", Client: "test.Client", Kind: "test"}, Doc: "d"},
		func(_ context.Context, env *driver.Env, _ struct{}) (driver.Driver, error) {
			s.env = env
			return driver.Driver{Exports: []driver.Export{
				driver.Do1("take", s.take),
				driver.Do1("give", s.give),
				driver.Do1("ignore", func(context.Context, driver.Handle) error { return nil }),
				driver.Do1("refuse", func(context.Context, driver.Handle) error { return errRefused }),
				driver.Do1("break", func(ctx context.Context, h driver.Handle) error {
					return env.Give(ctx, h, func(w io.Writer) error {
						if _, err := io.WriteString(w, "half"); err != nil {
							return err
						}
						return errRefused
					})
				}),
				driver.Do1("wait", func(ctx context.Context, h driver.Handle) error {
					return env.Take(ctx, h, func(io.Reader) error { <-ctx.Done(); return ctx.Err() })
				}),
			}}, nil
		})
	o := &drivertest.Offers{}
	t.Cleanup(func() {
		if n := o.Held(); n != 0 {
			t.Errorf("%d streams are held; want none", n)
		}
	})
	return s, drivertest.Bench{Resources: o}.Open(t, "", spec), o
}

func (s *store) take(ctx context.Context, h driver.Handle) error {
	return s.env.Take(ctx, h, func(r io.Reader) error {
		var buf bytes.Buffer
		_, err := driver.Copy(ctx, &buf, r)
		s.file = buf.Bytes()
		return err
	})
}

func (s *store) give(ctx context.Context, h driver.Handle) error {
	return s.env.Give(ctx, h, func(w io.Writer) error {
		_, err := driver.Copy(ctx, w, bytes.NewReader(s.file))
		return err
	})
}

// method is a call of a method with a handle alone.
func method(c driver.Caller, name string) func(context.Context, driver.Handle) error {
	return func(ctx context.Context, h driver.Handle) error { return driver.Run(ctx, c, name, h) }
}

// limited fails after n bytes.
type limited struct {
	n   int
	err error
}

func (l *limited) Write(p []byte) (int, error) {
	if len(p) > l.n {
		n := l.n
		l.n = 0
		return n, l.err
	}
	l.n -= len(p)
	return len(p), nil
}

func TestUpload(t *testing.T) {
	for _, n := range []int{0, 1, 256<<10 - 1, 256 << 10, 256<<10 + 1, 3 << 20} {
		s, c, _ := openStore(t, "old")
		want := strings.Repeat("x", n)
		if err := driver.Upload(t.Context(), c, strings.NewReader(want), method(c, "take")); err != nil || string(s.file) != want {
			t.Errorf("Upload(%d bytes) = %v with %d bytes; want all", n, err, len(s.file))
		}
	}
}

func TestUploadFails(t *testing.T) {
	lost := errors.New("disk lost")
	half := func() io.Reader { return io.MultiReader(strings.NewReader("half"), iotest.ErrReader(lost)) }
	long := func() io.Reader { return strings.NewReader(strings.Repeat("x", 1<<20)) }
	tests := []struct {
		method string
		src    io.Reader
		want   error
		text   string
	}{
		{"take", half(), lost, "read after 4 bytes"},
		{"wait", iotest.ErrReader(lost), lost, "read after 0 bytes"},
		{"refuse", long(), errRefused, "refused"},
		{"none", long(), driver.ErrNoMethod, "none"},
		{"ignore", long(), nil, "ended before all was sent"},
	}
	for _, test := range tests {
		t.Run(test.method, func(t *testing.T) {
			_, c, _ := openStore(t, "")
			err := driver.Upload(t.Context(), c, test.src, method(c, test.method))
			if err == nil || test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("Upload() = %v; want %v with %q", err, test.want, test.text)
			}
		})
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// What failed at our end is the cause of what the call says.
func TestUploadCause(t *testing.T) {
	_, c, _ := openStore(t, "")
	lost := errors.New("disk lost")
	err := driver.Upload(t.Context(), c, iotest.ErrReader(lost), func(ctx context.Context, h driver.Handle) error {
		return errors.Join(errRefused, driver.Run(ctx, c, "take", h))
	})
	if !errors.Is(err, lost) || errors.Is(err, errRefused) {
		t.Errorf("Upload() = %v; want %v alone", err, lost)
	}
}

func TestUploadCancelled(t *testing.T) {
	_, c, o := openStore(t, "")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	why := errors.New("enough")
	go func() {
		drivertest.Until(t, "the call holds the stream", func() bool { return o.Held() == 1 })
		cancel(why)
	}()
	err := driver.Upload(ctx, c, readerFunc(func(p []byte) (int, error) { return len(p), nil }), method(c, "wait"))
	if err == nil {
		t.Error("Upload() = nil; want an error")
	}
	if err := driver.Upload(ctx, c, strings.NewReader("x"), method(c, "take")); !errors.Is(err, context.Canceled) {
		t.Errorf("Upload() = %v; want %v", err, context.Canceled)
	}
}

func TestDownload(t *testing.T) {
	for _, n := range []int{0, 1, 256<<10 + 1, 3 << 20} {
		want := strings.Repeat("x", n)
		_, c, _ := openStore(t, want)
		var got strings.Builder
		if err := driver.Download(t.Context(), c, &got, method(c, "give")); err != nil || got.String() != want {
			t.Errorf("Download() = %v with %d bytes; want %d", err, got.Len(), n)
		}
	}
}

func TestDownloadFails(t *testing.T) {
	full := errors.New("disk full")
	tests := []struct {
		method string
		dst    io.Writer
		want   error
		text   string
	}{
		{"give", &limited{10, full}, full, "write after 10 bytes"},
		{"give", &limited{10, nil}, io.ErrShortWrite, "write after 10 bytes"},
		{"break", io.Discard, errRefused, "refused"},
		{"ignore", io.Discard, context.DeadlineExceeded, ""}, // its stream never ends
		{"refuse", io.Discard, errRefused, "refused"},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%s %v", test.method, test.want), func(t *testing.T) {
			_, c, _ := openStore(t, strings.Repeat("x", 1<<20))
			ctx := t.Context()
			if test.method == "ignore" {
				var cancel func()
				ctx, cancel = context.WithTimeout(ctx, 1)
				defer cancel()
			}
			err := driver.Download(ctx, c, test.dst, method(c, test.method))
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("Download() = %v; want %v with %q", err, test.want, test.text)
			}
		})
	}
}

func TestOfferNeedsOfferer(t *testing.T) {
	c := driver.Local(driver.Driver{})
	if err := driver.Upload(t.Context(), c, strings.NewReader(""), method(c, "take")); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Upload() = %v; want %v", err, errors.ErrUnsupported)
	}
}

// The length of what is sent is told where it can be known.
func TestProgressTotal(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString("0123456789"); err != nil {
		t.Fatal(err)
	}
	if _, err := file.Seek(4, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	go func() { io.WriteString(pw, "456789"); pw.Close() }()
	for _, test := range []struct {
		name  string
		src   io.Reader
		total int64
	}{
		{"file", file, 6},
		{"pipe", pr, -1},
		{"buffer", bytes.NewBufferString("456789"), 6},
		{"section", io.NewSectionReader(strings.NewReader("0123456789"), 4, 6), 6},
		{"reader", struct{ io.Reader }{strings.NewReader("456789")}, -1},
		{"cannot seek", badSeeker{strings.NewReader("456789")}, -1},
	} {
		s, c, _ := openStore(t, "")
		var told []string
		tr := driver.Transfer{Progress: func(done, total int64) { told = append(told, fmt.Sprint(done, " ", total)) }}
		if err := tr.Upload(t.Context(), c, test.src, method(c, "take")); err != nil || string(s.file) != "456789" {
			t.Errorf("%s: Upload() = %v with %q; want 456789", test.name, err, s.file)
		}
		if want := fmt.Sprint(6, " ", test.total); len(told) == 0 || told[len(told)-1] != want {
			t.Errorf("%s: Progress() was told %q; want %s at last", test.name, told, want)
		}
	}
}

type badSeeker struct{ io.Reader }

func (badSeeker) Seek(int64, int) (int64, error) { return 0, errRefused }

// A request is passed on, and not a byte of data.
func TestPresignedRequest(t *testing.T) {
	var got any
	call := func(_ context.Context, h driver.Handle) error { got = h.Raw(); return nil }
	c := driver.Local(driver.Driver{}) // offers no streams
	for _, test := range []struct {
		method string
		move   func(driver.PresignedRequest) error
	}{
		{"GET", func(r driver.PresignedRequest) error { return driver.Upload(t.Context(), c, r, call) }},
		{"PUT", func(r driver.PresignedRequest) error { return driver.Download(t.Context(), c, r, call) }},
	} {
		for _, m := range []string{"", test.method} {
			got = nil
			err := test.move(driver.PresignedRequest{URL: "http://x/y", Method: m})
			want := map[string]any{"kind": "presigned_request", "url": "http://x/y", "method": test.method, "headers": map[string]string{}}
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s %q: handle = %v, %v; want %v", test.method, m, got, err, want)
			}
		}
		got = nil
		if err := test.move(driver.PresignedRequest{URL: "http://x/y", Method: "HEAD"}); err == nil || got != nil {
			t.Errorf("%s of a HEAD request = %v with handle %v; want an error, and no call", test.method, err, got)
		}
	}
	packed := driver.Transfer{Encoding: "gzip"}
	if err := packed.Upload(t.Context(), c, driver.PresignedRequest{URL: "http://x/y"}, call); !errors.Is(err, errors.ErrUnsupported) || got != nil {
		t.Errorf("Upload() of a request, packed = %v; want %v", err, errors.ErrUnsupported)
	}
	if _, err := io.ReadAll(driver.PresignedRequest{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Read() of a request = %v; want %v", err, errors.ErrUnsupported)
	}
	if _, err := driver.PresignedRequest.Write(driver.PresignedRequest{}, nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Write() to a request = %v; want %v", err, errors.ErrUnsupported)
	}
}

// An Offerer need not know how to pack.
func TestPackedNeedsOfferer(t *testing.T) {
	_, c, _ := openStore(t, "old")
	packed := driver.Transfer{Encoding: "gzip"}
	if err := packed.Upload(t.Context(), c, strings.NewReader("x"), method(c, "take")); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Upload() = %v; want %v", err, errors.ErrUnsupported)
	}
}

func TestHandleOnce(t *testing.T) {
	_, c, o := openStore(t, "file")
	r, h := o.Stream()
	if err := r.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := driver.Run(t.Context(), c, "take", h); err != nil {
		t.Errorf("take() = %v; want nil", err)
	}
	if err := driver.Run(t.Context(), c, "take", h); err == nil {
		t.Error("take() with a handle that was used = nil; want an error")
	}
	r.Close()
	r, h = o.Stream()
	r.Close()
	if err := driver.Run(t.Context(), c, "take", h); err == nil {
		t.Error("take() of a stream that was closed = nil; want an error")
	}
	r, h = o.Stream()
	defer r.Close()
	took := make(chan error, 1)
	go func() { took <- driver.Run(t.Context(), c, "take", h) }()
	if _, err := io.WriteString(r, "half"); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if err := <-took; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("take() of half a stream = %v; want %v", err, io.ErrUnexpectedEOF)
	}
}
