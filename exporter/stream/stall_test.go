package stream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// server answers requests without a network, so that a test's clock can run.
type server func(*http.Request) (*http.Response, error)

func (s server) RoundTrip(r *http.Request) (*http.Response, error) { return s(r) }

// never is a body that sends some bytes and then nothing.
func never(ctx context.Context, some string) io.ReadCloser {
	return io.NopCloser(io.MultiReader(strings.NewReader(some), readerFunc(func([]byte) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	})))
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestPresignedStalls(t *testing.T) {
	stall := func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	sent := func(r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if trace := httptrace.ContextClientTrace(r.Context()); trace != nil {
			trace.WroteRequest(httptrace.WroteRequestInfo{})
		}
	}
	tests := []struct {
		name, method string
		server       server
		limit        time.Duration // asked for
		after        time.Duration // it ends; 0: it does not fail
		text         string
	}{
		{"no body", "GET", func(r *http.Request) (*http.Response, error) {
			return &http.Response{ProtoMajor: 1, StatusCode: 200, ContentLength: 10, Body: never(r.Context(), "some")}, nil
		}, 0, time.Minute, "broke off after 4 bytes: no byte moved for 1m0s"},
		{"a limit", "GET", func(r *http.Request) (*http.Response, error) {
			return &http.Response{ProtoMajor: 1, StatusCode: 200, ContentLength: 10, Body: never(r.Context(), "")}, nil
		}, time.Second, time.Second, "no byte moved for 1s"},
		{"takes nothing", "PUT", stall, 0, time.Minute, "broke off after 0 bytes: no byte moved for 1m0s"},
		{"takes some", "PUT", func(r *http.Request) (*http.Response, error) {
			io.ReadFull(r.Body, make([]byte, 10))
			return stall(r)
		}, 0, time.Minute, "broke off after 10 bytes: no byte moved for 1m0s"},
		{"takes little at a time", "PUT", func(r *http.Request) (*http.Response, error) {
			for b := make([]byte, 10); ; {
				if _, err := r.Body.Read(b); err != nil {
					return &http.Response{ProtoMajor: 1, StatusCode: 201, Body: http.NoBody}, nil
				}
				time.Sleep(50 * time.Second)
			}
		}, 0, 0, ""},
		{"the end does not go out", "PUT", func(r *http.Request) (*http.Response, error) {
			io.Copy(io.Discard, r.Body)
			return stall(r)
		}, 0, time.Minute, "no byte moved for 1m0s"},
		{"thinks", "PUT", func(r *http.Request) (*http.Response, error) {
			sent(r)
			time.Sleep(4 * time.Minute)
			return &http.Response{ProtoMajor: 1, StatusCode: 201, Body: http.NoBody}, nil
		}, 0, 0, ""},
		{"says nothing for hours", "PUT", func(r *http.Request) (*http.Response, error) {
			sent(r)
			return stall(r)
		}, 0, 2 * time.Hour, "not done after 2h0m0s"}, // the real transport gives up before
	}
	for _, test := range tests {
		t.Run(test.method+" "+test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, err := Presigned{Method: test.method, URL: "http://x/y?secret", Stall: test.limit, via: test.server}.Open(t.Context())
				if err != nil {
					t.Fatalf("Open() = %v; want nil", err)
				}
				start := time.Now()
				if test.method == "GET" {
					_, err = io.ReadAll(r)
				} else if _, err = r.Write(bytes.Repeat([]byte("x"), 100)); err == nil {
					err = r.CloseWrite()
				}
				took := time.Since(start)
				r.Close()
				if test.after == 0 {
					if err != nil {
						t.Errorf("the transfer = %v after %v; want nil", err, took)
					}
					return
				}
				if took != test.after || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), test.text) || strings.Contains(err.Error(), "secret") {
					t.Errorf("the transfer = %v after %v; want %q after %v", err, took, test.text, test.after)
				}
			})
		})
	}
}

// Who is named in a URL is told to the server of that URL alone.
func TestPresignedUserInfo(t *testing.T) {
	var got []string
	hops := map[string]string{
		"http://me:pa%40ss@x/1": "http://x/2",
		"http://x/2":            "http://other/3",
		"http://other/3":        "http://you@other/4",
		"http://you@other/4":    "https://other/5",
	}
	p := Presigned{Method: "GET", URL: "http://me:pa%40ss@x/1", via: server(func(r *http.Request) (*http.Response, error) {
		user, password, _ := r.BasicAuth()
		got = append(got, r.URL.Path+" "+user+" "+password)
		if to := hops[r.URL.String()]; to != "" {
			return &http.Response{ProtoMajor: 1, StatusCode: 302, Header: http.Header{"Location": {to}}, Body: http.NoBody}, nil
		}
		return &http.Response{ProtoMajor: 1, StatusCode: 200, Body: http.NoBody}, nil
	})}
	r, err := p.Open(t.Context())
	if err != nil {
		t.Fatalf("Open() = %v; want nil", err)
	}
	r.Close()
	if text, want := strings.Join(got, ", "), "/1 me pa@ss, /2  , /3  , /4 you , /5  "; text != want {
		t.Errorf("credentials = %q; want %q", text, want)
	}
	p.URL, p.Header = "http://me@x/9", map[string]string{"Authorization": "Bearer z"}
	p.via = server(func(r *http.Request) (*http.Response, error) {
		if a := r.Header.Get("Authorization"); a != "Bearer z" {
			t.Errorf("Authorization = %q; want the header of the handle", a)
		}
		return &http.Response{ProtoMajor: 1, StatusCode: 200, Body: http.NoBody}, nil
	})
	if r, err = p.Open(t.Context()); err != nil {
		t.Fatalf("Open() = %v; want nil", err)
	}
	r.Close()
}
