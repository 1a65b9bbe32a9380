package stream

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
)

// FuzzPresigned makes requests to a server that redirects once, and sees what
// that server is told.
func FuzzPresigned(f *testing.F) {
	for _, url := range []string{"http://a/b?sig=1", "HTTPS://A:443/%2f%20?x=%2B#f", "http://u:p@a/", "http://[::1]:80/", "http://a:0/", "http:///x", "file:///etc/passwd", "//a/b", "a", "http://a\x00/", "http://a/ b", "http://a/\r\nX: y", "http://%41/"} {
		f.Add(false, url, "Authorization", "secret", 302, url)
		f.Add(true, url, "X-Amz-Key", "secret", 307, "http://other/x")
		f.Add(false, "http://a/b", "cookie", "secret", 308, url)
		f.Add(false, "http://a/b", "hOST", "secret", 301, url)
		f.Add(false, "http://a/b", "hosts", "secret", 301, url)
		f.Add(false, url, "a: b", "c\r\nd", 200, "")
	}
	f.Fuzz(func(t *testing.T, put bool, url, key, value string, code int, location string) {
		method := map[bool]string{true: http.MethodPut, false: http.MethodGet}[put]
		var seen []*http.Request
		p := Presigned{Method: method, URL: url, Header: map[string]string{key: value}, via: server(func(r *http.Request) (*http.Response, error) {
			seen = append(seen, r)
			if r.Body != nil {
				io.Copy(io.Discard, r.Body)
			}
			resp := &http.Response{ProtoMajor: 1, StatusCode: 200, Body: io.NopCloser(strings.NewReader("data")), ContentLength: 4}
			if len(seen) == 1 && location != "" {
				resp.StatusCode, resp.Header = code, http.Header{"Location": {location}}
			}
			return resp, nil
		})}
		r, err := p.Open(t.Context())
		if bad := (*driver.ArgError)(nil); errors.As(err, &bad) {
			if len(seen) != 0 {
				t.Errorf("%q: refused as %v after %d requests; want none", url, err, len(seen))
			}
			return
		}
		if err == nil {
			if put {
				_, err = r.Write([]byte("data"))
				err = errors.Join(err, r.CloseWrite())
			} else {
				_, err = io.ReadAll(r)
			}
			r.Close()
		}
		if err != nil && value == "secret" && strings.Contains(err.Error(), value) && !strings.Contains(url+location, value) {
			t.Errorf("%q: %v; want no headers in it", url, err)
		}
		for i, r := range seen {
			if r.Method != method || r.URL.Scheme != "http" && r.URL.Scheme != "https" || r.URL.Host == "" {
				t.Errorf("%q, redirected to %q: request %d is %s %s; want a %s by HTTP", url, location, i+1, r.Method, r.URL, method)
			}
			if i > 0 && (put || origin(r.URL) != origin(seen[0].URL)) && (strings.EqualFold(key, "host") || hasPrefix(strings.ToLower(key), sensitive)) {
				if got := r.Header.Get(key); got != "" && (r.URL.User == nil || !strings.EqualFold(key, "authorization")) || r.Host == value && value != "" {
					t.Errorf("%q, redirected to %q: the second server is told %s: %s, host %q; want nothing of it", url, location, key, got, r.Host)
				}
			}
		}
		if len(seen) > 2 || put && len(seen) > 1 {
			t.Errorf("%q, redirected to %q: %d requests; want fewer", url, location, len(seen))
		}
	})
}
