package session

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/drivers/driver"
)

// FuzzHandle opens whatever a client may pass for a handle. ID in it stands for
// the stream that is offered, which is given out for nothing else.
func FuzzHandle(f *testing.F) {
	for _, seed := range []string{
		`null`, `[]`, `{}`, `"ID"`, `{"kind": "client_stream", "uuid": "ID", "x_jmp_content_encoding": null}`,
		`{"kind": "client_stream", "uuid": "{ID}", "x_jmp_content_encoding": "gzip"}`, `{"kind": "client_stream", "uuid": "urn:uuid:ID", "x_jmp_content_encoding": ""}`,
		`{"kind": "client_stream", "uuid": "ID", "x_jmp_content_encoding": "lz4"}`, `{"kind": "client_stream", "uuid": "ID", "x_jmp_content_encoding": 1}`,
		`{"kind": "client_stream", "uuid": ["ID"]}`, `{"kind": ["client_stream"], "uuid": "ID"}`, `{"kind": "client_stream", "uuid": "ID", "uuid": "x"}`,
		`{"kind": "presigned_request", "method": "GET", "url": "http://127.0.0.1/x?SECRET", "headers": {}}`,
		`{"kind": "presigned_request", "method": "PUT", "url": "https://me:SECRET@[::1]:8/%2F", "headers": {"a": "b", "authorization": "SECRET"}}`,
		`{"kind": "presigned_request", "method": "GET", "url": "http://127.0.0.1/` + strings.Repeat("\ufffd", 1000) + `", "headers": {}}`,
		`{"kind": "presigned_request", "method": "?SECRET", "url": "http://127.0.0.1/x?SECRET", "headers": {}}`,
		`{"kind": "presigned_request", "method": "GET", "url": "file:///etc/passwd", "headers": {"a\nb": "c"}}`,
		`{"kind": "presigned_request", "method": "GET", "url": "http://%/?SECRET", "headers": null, "x_jmp_content_encoding": "xz"}`,
	} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, text string, own bool) {
		o := NewOffers()
		defer o.Close()
		node, other := uuid.New(), uuid.New()
		s := new(offered)
		id, err := o.Add(node, s)
		if err != nil {
			t.Fatal(err)
		}
		var raw any
		if json.Unmarshal([]byte(strings.ReplaceAll(text, "ID", id.String())), &raw) != nil {
			return
		}
		caller := node
		if !own {
			caller = other
		}
		// requests are not made when the context is done
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		r, err := o.OpenHandle(ctx, caller, driver.NewHandle(raw))
		given := o.Len() == 0
		if given && (!own || !strings.Contains(text, "ID")) {
			t.Errorf("OpenHandle(%s) takes the stream of another", text)
		}
		if err == nil {
			r.Close()
			return
		}
		if given {
			t.Errorf("OpenHandle(%s) = %v, and the stream is gone; want it kept", text, err)
		}
		switch c := driver.Classify(err); c {
		case driver.Invalid, driver.Internal, driver.Unsupported, driver.Canceled:
		default:
			t.Errorf("OpenHandle(%s) = %v of class %v; want another class", text, err, c)
		}
		if len(err.Error()) > 2000 {
			t.Errorf("OpenHandle(%.100s) = an error of %d bytes; want a short one", text, len(err.Error()))
		}
		if m, ok := raw.(map[string]any); ok && m["kind"] == "presigned_request" {
			url, _ := m["url"].(string)
			method, _ := m["method"].(string) // a wrong one is shown
			if strings.Contains(url, "?SECRET") && strings.Contains(strings.Replace(err.Error(), method, "", 1), "?SECRET") {
				t.Errorf("OpenHandle(%s) = %v; want no query in it", text, err)
			}
		}
	})
}
