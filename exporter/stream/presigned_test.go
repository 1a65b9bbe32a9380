package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/stream"
)

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// fetch reads all of a presigned GET.
func fetch(t *testing.T, p stream.Presigned) ([]byte, error) {
	t.Helper()
	r, err := p.Open(t.Context())
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func TestPresignedGet(t *testing.T) {
	image := bytes.Repeat([]byte("0123456789abcdef"), 70_000)
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.RequestURI; got != "/a%2Fb%40c?sig=x%2By" {
			t.Errorf("RequestURI = %q; want the URL as it was signed", got)
		}
		if got := r.Header.Get("Accept-Encoding"); got != "identity" {
			t.Errorf("Accept-Encoding = %q; want identity", got)
		}
		if got := r.Header.Get("X-Amz-Key"); got != "k" {
			t.Errorf("X-Amz-Key = %q; want the header of the handle", got)
		}
		w.Write(image)
	})
	got, err := fetch(t, stream.Presigned{Method: "GET", URL: url + "/a%2Fb%40c?sig=x%2By", Header: map[string]string{"x-amz-key": "k"}})
	if err != nil || !bytes.Equal(got, image) {
		t.Errorf("GET = %d bytes, %v; want %d, nil", len(got), err, len(image))
	}
}

func TestPresignedRedirects(t *testing.T) {
	other := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for _, k := range []string{"Authorization", "Cookie", "X-Amz-Key", "X-Goog-Key", "X-Ms-Key", "Proxy-Authorization"} {
			if v := r.Header.Get(k); v != "" {
				t.Errorf("after a redirect to another origin %s = %q; want none", k, v)
			}
		}
		if r.Header.Get("X-Trace") != "1" {
			t.Error("X-Trace is gone; want harmless headers kept")
		}
		io.WriteString(w, "moved")
	})
	hops := 0
	var url string
	url = serve(t, func(w http.ResponseWriter, r *http.Request) {
		if hops++; hops < 4 {
			if r.Header.Get("Authorization") == "" {
				t.Error("Authorization is gone on the same origin; want it kept")
			}
			w.Header().Set("Location", url+fmt.Sprintf("/%d%%2F", hops))
			w.WriteHeader([]int{301, 302, 303, 307, 308}[hops])
			return
		}
		w.Header().Set("Location", other+"/x")
		w.WriteHeader(308)
	})
	got, err := fetch(t, stream.Presigned{Method: "GET", URL: url, Header: map[string]string{
		"Authorization": "a", "Cookie": "c", "X-Amz-Key": "k", "X-Goog-Key": "g", "X-Ms-Key": "m", "Proxy-Authorization": "p", "X-Trace": "1",
	}})
	if err != nil || string(got) != "moved" {
		t.Errorf("GET = %q, %v; want moved, nil", got, err)
	}
}

func TestPresignedRefusals(t *testing.T) {
	var requests atomic.Int32
	var url string
	url = serve(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		switch r.URL.Path {
		case "/loop":
			w.Header().Set("Location", url+"/loop")
			w.WriteHeader(302)
		case "/nowhere":
			w.WriteHeader(302)
		case "/relative":
			w.Header().Set("Location", "/x")
			w.WriteHeader(302)
		case "/missing":
			w.WriteHeader(404)
		case "/partial":
			w.WriteHeader(206)
		case "/short":
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, "only this")
		case "/cut":
			w.(http.Flusher).Flush()
			io.WriteString(w, "only this")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
	})
	for _, test := range []struct {
		path, want string
		requests   int32
	}{
		{"/loop", "Too many redirects", 11},
		{"/nowhere", "missing Location header", 1},
		{"/relative", "no absolute http or https URL", 1},
		{"/missing", "404", 1},
		{"/partial", "206", 1},
		{"/short", "broke off after 9 bytes", 1},
		{"/cut", "broke off after 9 bytes", 1},
	} {
		requests.Store(0)
		_, err := fetch(t, stream.Presigned{Method: "GET", URL: url + test.path + "?sig=secret"})
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("GET %s = %v; want %q and no query", test.path, err, test.want)
		}
		if got := requests.Load(); got != test.requests {
			t.Errorf("GET %s made %d requests; want %d", test.path, got, test.requests)
		}
	}
	for _, p := range []stream.Presigned{
		{Method: "get", URL: url},
		{Method: "DELETE", URL: url},
		{Method: "GET", URL: "ftp://x/y"},
		{Method: "GET", URL: "/only/a/path"},
		{Method: "GET", URL: "http://[::1"},
		{Method: "PUT", URL: url, Header: map[string]string{"a\r\nb": "c"}},
		{Method: "PUT", URL: url, Header: map[string]string{"a": "b\r\nc: d"}},
	} {
		_, err := p.Open(t.Context())
		var bad *driver.ArgError
		if !errors.As(err, &bad) {
			t.Errorf("Open(%v) = %v; want an ArgError", p, err)
		}
	}
}

func TestPresignedPut(t *testing.T) {
	type stored struct {
		n   int
		err error
	}
	var answer atomic.Int32
	got := make(chan stored, 1)
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if a := int(answer.Load()); a >= 400 {
			w.WriteHeader(a)
			return
		}
		b, err := io.ReadAll(r.Body)
		got <- stored{len(b), err}
	})
	put := stream.Presigned{Method: "PUT", URL: url}

	for _, size := range []int{0, 1, 3 << 20} {
		w, err := put.Open(t.Context())
		if err != nil {
			t.Fatalf("Open() = %v; want nil", err)
		}
		if size > 0 {
			if n, err := w.Write(make([]byte, size)); n != size || err != nil {
				t.Errorf("Write() = %d, %v; want %d, nil", n, err, size)
			}
		}
		if err := w.CloseWrite(); err != nil {
			t.Errorf("CloseWrite() = %v; want nil", err)
		}
		if s := <-got; s != (stored{size, nil}) {
			t.Errorf("server got %v; want %d bytes, whole", s, size)
		}
		w.Close()
	}

	w, err := put.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if s := <-got; s.err == nil {
		t.Errorf("server got %d bytes of a broken PUT as a whole; want an error", s.n)
	}

	answer.Store(403)
	w, err = put.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for err == nil { // the server answers without reading
		_, err = w.Write(make([]byte, 1<<20))
	}
	if werr := w.CloseWrite(); werr == nil || !strings.Contains(werr.Error(), "403") {
		t.Errorf("CloseWrite() after a refusal = %v; want 403", werr)
	}
	w.Close()
}

func TestPresignedContext(t *testing.T) {
	started := make(chan struct{})
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		close(started)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	r, err := stream.Presigned{Method: "GET", URL: url}.Open(ctx)
	if err != nil {
		t.Fatalf("Open() = %v; want nil", err)
	}
	defer r.Close()
	<-started
	cancel()
	if _, err := io.ReadAll(r); !errors.Is(err, context.Canceled) {
		t.Errorf("Read() = %v; want context.Canceled", err)
	}
}
