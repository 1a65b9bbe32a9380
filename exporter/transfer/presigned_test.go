package transfer_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/exporter/stream/codec"
)

// exchange is one request that a server has read the head of.
type exchange struct {
	*net.TCPConn
	r   *bufio.Reader
	req *http.Request
	url string // of the server

	over <-chan struct{} // closed at the end of the test
}

func (x *exchange) say(format string, args ...any) { fmt.Fprintf(x, format, args...) }

// ok begins an answer with a length.
func (x *exchange) ok(length int) {
	x.say("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", length)
}

func (x *exchange) chunked() { x.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n") }

func (x *exchange) chunk(b []byte) { x.say("%x\r\n%s\r\n", len(b), b) }

func (x *exchange) reset() { x.SetLinger(0) }

// stay waits until the other side goes.
func (x *exchange) stay() { io.Copy(io.Discard, x.r) }

// hold waits without a look at what comes.
func (x *exchange) hold() { <-x.over }

// web is a server whose answers are made by hand.
type web struct {
	t    *testing.T
	url  string
	mu   sync.Mutex
	path map[string]func(*exchange)
}

func newWeb(t *testing.T) *web {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &web{t: t, url: "http://" + ln.Addr().String(), path: map[string]func(*exchange){}}
	var work sync.WaitGroup
	over := make(chan struct{})
	work.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer c.Close()
				x := &exchange{TCPConn: c.(*net.TCPConn), r: bufio.NewReader(c), url: w.url, over: over}
				if x.req, err = http.ReadRequest(x.r); err != nil {
					return
				}
				w.mu.Lock()
				f := w.path[x.req.URL.Path]
				w.mu.Unlock()
				if f == nil {
					x.say("HTTP/1.1 404 Not Found\r\n\r\n")
					return
				}
				f(x)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		close(over)
		work.Wait()
	})
	return w
}

// at makes the server answer at a path of its own.
func (w *web) at(f func(*exchange)) (url string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	path := fmt.Sprint("/", len(w.path))
	w.path[path] = f
	return w.url + path
}

// soon is a context for an exporter that would wait longer.
func soon(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, 2*stall)
}

// TestDamagedGet is a matrix of servers that an image is fetched from.
func TestDamagedGet(t *testing.T) {
	drivertest.NoLeaks(t)
	b := openBench(t)
	c := dial(t, b.listen(t), nil)
	g := newGrid(t, b)
	web, other := newWeb(t), newWeb(t)
	content := random(g.rand, 100<<10)
	fetch := func(kind kind, name, url string) {
		g.write(kind, name, same(c), content, func(ctx context.Context, p place) error {
			if kind.classes[0] == driver.Timeout || kind.classes[0] == driver.Canceled {
				var cancel func()
				ctx, cancel = soon(ctx)
				defer cancel()
			}
			return p.write(ctx, driver.Transfer{}, driver.PresignedRequest{URL: url, Headers: map[string]string{"X-Amz-Key": "k", "Authorization": "a"}})
		})
	}
	get := func(kind kind, name string, f func(*exchange)) { fetch(kind, name, web.at(f)) }

	short := kind{"short", false, append(broken, gone...)}
	half := g.rand.IntN(len(content))
	for name, end := range map[string]func(*exchange){"ends": func(*exchange) {}, "is reset": (*exchange).reset} {
		for _, at := range []int{0, 1, half, len(content) - 1} {
			get(short, fmt.Sprintf("a body that %s at %d of %d", name, at, len(content)), func(x *exchange) {
				x.ok(len(content))
				x.Write(content[:at])
				end(x)
			})
			get(short, fmt.Sprintf("chunks that %s at %d of %d", name, at, len(content)), func(x *exchange) {
				x.chunked()
				if at > 0 {
					x.chunk(content[:at])
				}
				end(x)
			})
			get(short, fmt.Sprintf("a chunk that %s at %d of %d", name, at, len(content)), func(x *exchange) {
				x.chunked()
				x.say("%x\r\n%s", len(content), content[:at])
				end(x)
			})
		}
		get(short, "all chunks but not the last, and "+name, func(x *exchange) {
			x.chunked()
			x.chunk(content)
			end(x)
		})
		get(short, "no answer that "+name, end)
		get(short, "half an answer's head that "+name, func(x *exchange) { x.say("HTTP/1.1 200 OK\r\nContent-Le"); end(x) })
	}
	get(short, "a length that is too large", func(x *exchange) { x.ok(len(content) + 1); x.Write(content) })

	stalled := kind{"stands still", false, late}
	for _, at := range []int{0, half, len(content) - 1} {
		get(stalled, fmt.Sprintf("a body at %d", at), func(x *exchange) { x.ok(len(content)); x.Write(content[:at]); x.stay() })
		get(stalled, fmt.Sprintf("chunks at %d", at), func(x *exchange) { x.chunked(); x.chunk(content[:at+1]); x.stay() })
	}
	get(stalled, "before an answer", (*exchange).stay)
	get(stalled, "in an answer's head", func(x *exchange) { x.say("HTTP/1.1 200 OK\r\n"); x.stay() })
	get(stalled, "after an interim answer", func(x *exchange) { x.say("HTTP/1.1 103 Early Hints\r\n\r\n"); x.stay() })

	wrong := kind{"wrong", false, append(broken, gone...)}
	for _, head := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nmany\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcde\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n5\r\nabc",
		"HTTP/1.1 200 OK\r\n no header\r\n\r\n",
		"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 11<<20) + "\r\n\r\n",
		"HTTP/1.1 abc\r\n\r\n",
		"HTTP/9.9 200 OK\r\n\r\n",
		"SSH-2.0-OpenSSH\r\n",
		"\x16\x03\x01\x02\x00\x01",
		"\r\n\r\n\r\n",
		string(content),
	} {
		get(wrong, fmt.Sprintf("%.70q", head), func(x *exchange) { io.WriteString(x, head) })
	}

	refused := kind{"refused", false, broken}
	for _, code := range []int{201, 202, 203, 204, 205, 206, 226, 300, 304, 305, 306, 400, 401, 403, 404, 407, 410, 416, 418, 429, 500, 501, 502, 503, 504, 507, 599, 999} {
		get(refused, fmt.Sprint(code), func(x *exchange) {
			x.say("HTTP/1.1 %d Something\r\nContent-Length: %d\r\nLocation: %s\r\n\r\n", code, len(content), x.url)
			x.Write(content)
		})
	}

	redirected := kind{"redirected", false, []driver.Class{driver.Internal, driver.Unavailable, driver.Device}}
	redirect := func(name string, code int, to string) {
		get(redirected, fmt.Sprintf("%d %s", code, name), func(x *exchange) {
			if to == "" {
				x.say("HTTP/1.1 %d Moved\r\nContent-Length: 0\r\n\r\n", code)
				return
			}
			x.say("HTTP/1.1 %d Moved\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n", code, strings.ReplaceAll(to, "SELF", x.url+x.req.URL.Path))
		})
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, content, 0o600); err != nil {
		t.Fatal(err)
	}
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	for i, to := range []string{"", "SELF", "/relative", "relative", "//127.0.0.1/x", "file://" + secret, "file:" + secret, "FILE://" + secret, "ftp://127.0.0.1/x", "data:text/plain,x", "javascript:x", "unix:///x", "http:///x", "http://", "https://" + strings.TrimPrefix(other.url, "http://") + "/x", "http://" + dead.Addr().String(), "http://[::1", "http://127.0.0.1:99999/", "http://%zz/", other.url + "/none"} {
		redirect(to, []int{301, 302, 303, 307, 308}[i%5], to)
	}
	fetch(redirected, "a certificate that nobody has signed", strings.Replace(selfSigned(t), "127.0.0.1", "localhost", 1))

	get(kind{"the client gives up", false, []driver.Class{driver.Timeout}}, "a slow body", func(x *exchange) {
		x.ok(len(content))
		for _, b := range content { // for longer than anybody waits, and never still
			if _, err := x.Write([]byte{b}); err != nil {
				return
			}
			<-time.After(stall / 10)
		}
	})
	g.all()

	// What is no damage.
	p := flasherPlace(b, c, "whole")
	for name, f := range map[string]func(*exchange){
		"a length":        func(x *exchange) { x.ok(len(content)); x.Write(content) },
		"chunks":          func(x *exchange) { x.chunked(); x.chunk(content); x.say("0\r\nX-Trailer: x\r\n\r\n") },
		"an interim word": func(x *exchange) { x.say("HTTP/1.1 103 Early Hints\r\n\r\n"); x.ok(len(content)); x.Write(content) },
		"another host": func(x *exchange) {
			to := other.at(func(x *exchange) {
				if k, a := x.req.Header.Get("X-Amz-Key"), x.req.Header.Get("Authorization"); k+a != "" {
					t.Errorf("another host is told %q and %q; want nothing", k, a)
				}
				x.ok(len(content))
				x.Write(content)
			})
			x.say("HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n", to)
		},
		// HTTP tells where a body ends. What a server sends behind it is none of it.
		"more than its length": func(x *exchange) { x.ok(len(content)); x.Write(content); x.say("more") },
	} {
		if err := p.write(t.Context(), driver.Transfer{}, driver.PresignedRequest{URL: web.at(f), Headers: map[string]string{"X-Amz-Key": "k", "Authorization": "a"}}); err != nil {
			t.Errorf("%s: flash() = %v; want nil", name, err)
		}
		if got, err := p.content(t.Context()); !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(content))
		}
	}
	// What cannot be told from what is whole is told of.
	for name, test := range map[string]struct {
		say  string
		want []byte
		head string
	}{
		"no length": {"a transfer that is cut short cannot be noticed", content, "HTTP/1.0 200 OK\r\n\r\n"},
		"encoded":   {"content encoding gzip and is written as stored", pack(t, codec.Gzip, content), "HTTP/1.0 200 OK\r\nContent-Encoding: gzip\r\n\r\n"},
	} {
		url := web.at(func(x *exchange) { x.say("%s%s", test.head, test.want) })
		if err := p.write(t.Context(), driver.Transfer{}, driver.PresignedRequest{URL: url}); err != nil {
			t.Errorf("%s: flash() = %v; want nil", name, err)
		}
		if got, err := p.content(t.Context()); !bytes.Equal(got, test.want) || !b.log.has(test.say) {
			t.Errorf("%s: %d bytes, %v, and in the log %q = %t; want %d and true", name, len(got), err, test.say, b.log.has(test.say), len(test.want))
		}
	}
}

// selfSigned is the URL of a server whose certificate is its own.
func selfSigned(t *testing.T) string {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL
}

// stored is what a server has made of a PUT.
type stored struct {
	mu    sync.Mutex
	data  []byte
	whole bool
}

// take reads a body to its end.
func (s *stored) take(x *exchange) (whole bool) {
	data, err := io.ReadAll(x.req.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data, s.whole = data, err == nil
	return s.whole
}

// TestDamagedPut is a matrix of servers that an image is sent to.
func TestDamagedPut(t *testing.T) {
	drivertest.NoLeaks(t)
	b := openBench(t)
	c := dial(t, b.listen(t), nil)
	g := newGrid(t, b)
	web := newWeb(t)
	small, large := random(g.rand, 100<<10), bytes.Repeat(random(g.rand, 64<<10), 128)
	put := func(k kind, name string, content []byte, f func(*exchange, *stored)) {
		g.add(k, name, func(w *worker, cell *cell) {
			p := g.place(w, c)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			fail := func(what string, err error) { t.Errorf("%s, %s, %s: %s: %v", k.name, name, p.name, what, err) }
			if err := w.fill(ctx, p, content); err != nil {
				fail("the write before", err)
				return
			}
			var s stored
			url := web.at(func(x *exchange) { f(x, &s) })
			call, end := ctx, context.CancelFunc(func() {})
			if k.classes[0] == driver.Timeout {
				call, end = soon(ctx)
			}
			err := p.read(call, driver.Transfer{}, driver.PresignedRequest{URL: url})
			end()
			if ctx.Err() != nil {
				fail("the transfer does not end", err)
				return
			}
			s.mu.Lock()
			whole := s.whole && bytes.Equal(s.data, content)
			if s.whole && !whole {
				g.silent.Add(1)
				fail("what the server has", fmt.Errorf("%d of %d bytes, and thinks that it is all", len(s.data), len(content)))
			}
			s.mu.Unlock()
			g.judge(cell, p, err, whole)
			var again bytes.Buffer
			if err := p.read(ctx, driver.Transfer{}, &again); err != nil || !bytes.Equal(again.Bytes(), content) {
				fail(fmt.Sprintf("the next read has %d of %d bytes", again.Len(), len(content)), err)
			}
		})
	}
	answer := func(x *exchange, code int) {
		x.say("HTTP/1.1 %d Something\r\nLocation: %s/x\r\nContent-Length: 0\r\n\r\n", code, x.url)
	}
	refused := kind{"refused", false, append(broken, gone...)}
	for _, code := range []int{300, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 409, 411, 413, 429, 500, 501, 503, 507, 999} {
		put(refused, fmt.Sprint(code), small, func(x *exchange, s *stored) { s.take(x); answer(x, code) })
	}
	for _, code := range []int{307, 403, 413, 507} {
		put(refused, fmt.Sprint(code, " before it has all"), large, func(x *exchange, s *stored) { answer(x, code) })
	}
	put(refused, "200 before it has all", large, func(x *exchange, s *stored) { answer(x, 200); x.hold() })
	ends := kind{"ends", false, append(broken, gone...)}
	for name, end := range map[string]func(*exchange){"ends": func(*exchange) {}, "is reset": (*exchange).reset} {
		for _, at := range []int{0, 1, g.rand.IntN(len(small))} {
			put(ends, fmt.Sprintf("%s after %d", name, at), small, func(x *exchange, s *stored) {
				io.ReadFull(x.req.Body, make([]byte, at))
				end(x)
			})
		}
		put(ends, name+" after all", small, func(x *exchange, s *stored) { s.take(x); end(x) })
		put(ends, name+" in its answer", small, func(x *exchange, s *stored) { s.take(x); x.say("HTTP/1.1 200 O"); end(x) })
		put(ends, name+" after an interim answer", small, func(x *exchange, s *stored) { s.take(x); x.say("HTTP/1.1 103 Early Hints\r\n\r\n"); end(x) })
	}
	for _, text := range []string{"SSH-2.0-OpenSSH\r\n", "HTTP/1.1 abc\r\n\r\n", "\r\n\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"} {
		put(ends, fmt.Sprintf("%q", text), small, func(x *exchange, s *stored) { s.take(x); x.say("%s", text) })
	}
	stalled := kind{"stands still", false, late}
	put(stalled, "at once", large, func(x *exchange, s *stored) { x.hold() })
	put(stalled, "after some", large, func(x *exchange, s *stored) { io.ReadFull(x.req.Body, make([]byte, 1<<20)); x.hold() })
	put(stalled, "after all", small, func(x *exchange, s *stored) { s.take(x); x.stay() })
	put(stalled, "in its answer", small, func(x *exchange, s *stored) { s.take(x); x.say("HTTP/1.1 200 OK\r\n"); x.stay() })

	// The exporter's own side breaks: the file gets shorter while it is sent.
	g.add(kind{"the source is cut", false, broken}, "to half", func(w *worker, cell *cell) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		p := flasherPlace(b, c, "cell-cut")
		if err := w.fill(ctx, p, large); err != nil {
			t.Error(err)
			return
		}
		var s stored
		err := p.read(ctx, driver.Transfer{}, driver.PresignedRequest{URL: web.at(func(x *exchange) {
			io.ReadFull(x.req.Body, make([]byte, 1000))
			if err := os.Truncate(glob(t, p.disk)[0], int64(len(large)*3/4)); err != nil {
				t.Error(err)
			}
			s.take(x)
			answer(x, 200)
		})})
		s.mu.Lock()
		defer s.mu.Unlock()
		g.judge(cell, p, err, false)
		if s.whole {
			t.Errorf("the server thinks that %d of %d bytes are all", len(s.data), len(large))
		}
	})
	g.all()
}
