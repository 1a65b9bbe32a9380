package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
)

// Presigned is an HTTP request that a client prepared and the exporter makes, so
// that an image goes straight from its store to the device: GET for what is
// written to the device, PUT for what is read from it.
type Presigned struct {
	Method string // GET or PUT, as they are spelled
	URL    string // http or https; its percent-encoding is covered by the signature and left alone
	Header map[string]string

	// Stall is how long the transfer may stand still; 0 is a minute.
	Stall time.Duration

	// Log is told what a user should know though the transfer goes on.
	Log func(text string)

	via http.RoundTripper // of tests; nil: transport
}

func (p Presigned) roundTrip(req *http.Request) (*http.Response, error) {
	if u := req.URL.User; u != nil && req.Header.Get("Authorization") == "" {
		password, _ := u.Password()
		req.SetBasicAuth(u.Username(), password)
	}
	via := p.via
	if via == nil {
		via = transport
	}
	resp, err := via.RoundTrip(req)
	if err == nil && resp.ProtoMajor != 1 { // where a body ends in another one is not known
		resp.Body.Close()
		return nil, fmt.Errorf("the server answered in %.20s, which is not spoken here", resp.Proto)
	}
	return resp, err
}

// Limits of presigned requests.
const (
	presignedLimit = 2 * time.Hour    // for the whole transfer, as upstream has it
	stallLimit     = 60 * time.Second // without a byte, in either direction, if nothing else is said
	maxRedirects   = 10
)

// transport keeps no connection: one carries one image, and nothing is left open
// behind it. It asks for no compression: what the store holds is what is written.
var transport = &http.Transport{
	Proxy:                 http.ProxyFromEnvironment,
	DialContext:           (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
	TLSHandshakeTimeout:   30 * time.Second,
	ResponseHeaderTimeout: 5 * time.Minute, // a store may put an object together first
	DisableKeepAlives:     true,
	DisableCompression:    true,
}

// Check reports what is wrong with the request before anything is sent.
func (p Presigned) Check() error {
	if p.Method != http.MethodGet && p.Method != http.MethodPut {
		return driver.BadArg("handle.method", "%q is none of GET, PUT", clip(p.Method))
	}
	if _, err := parse(p.URL); err != nil {
		return driver.BadArg("handle.url", "%v", err)
	}
	for k, v := range p.Header {
		if strings.ContainsAny(k, "\r\n :") || k == "" || strings.ContainsAny(v, "\r\n") {
			return driver.BadArg("handle.headers", "%q is no header", clip(k))
		}
	}
	return nil
}

// parse reads an absolute http or https URL. Its errors do not hold the query,
// where the signature is.
func parse(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s is no URL", redact(text)) // the cause quotes parts of it
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%s is no absolute http or https URL", redact(text))
	}
	return u, nil
}

// redact leaves out what must not be in a log, the query and the password, and
// what would drive the cause out of a message: the rest of a long path.
func redact(text string) string {
	before, _, has := strings.Cut(text, "?")
	u, err := url.Parse(before)
	if err != nil { // the password cannot be found, so nothing is shown
		scheme, _, _ := strings.Cut(before, "://")
		return clip(scheme) + "://[REDACTED]"
	}
	before = clip(u.Redacted())
	if has {
		before += "?[REDACTED]"
	}
	return before
}

func clip(s string) string {
	if len(s) > 200 {
		return strings.ToValidUTF8(s[:200], "") + "..."
	}
	return s
}

// Open makes the request. A GET is answered when Open returns; a PUT sends what
// is written to it, and its answer is waited for by CloseWrite.
func (p Presigned) Open(ctx context.Context) (driver.Resource, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, presignedLimit,
		fmt.Errorf("not done after %v: %w", presignedLimit, context.DeadlineExceeded))
	ctx, end := context.WithCancelCause(ctx)
	t := transfer{p: p, watch: p.newWatch(end), cancel: cancel, cause: func() error { return context.Cause(ctx) }}
	if p.Method == http.MethodPut {
		return t.put(ctx), nil
	}
	resp, err := p.get(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	return &getBody{transfer: t, body: resp.Body}, nil
}

func (p Presigned) errorf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	var bad *url.Error
	if errors.As(err, &bad) { // its text holds the whole URL
		err = bad.Err
	}
	return fmt.Errorf("presigned %s %s: %w", p.Method, redact(p.URL), err)
}

// sensitive are the beginnings of header names that are not shown to another
// origin than the one they were signed for.
var sensitive = []string{"authorization", "cookie", "proxy-authorization", "x-amz-", "x-ms-", "x-goog-"}

func (p Presigned) get(ctx context.Context) (*http.Response, error) {
	at, err := parse(p.URL)
	if err != nil {
		return nil, err
	}
	header := http.Header{"Accept-Encoding": {"identity"}}
	for k, v := range p.Header {
		header.Set(k, v)
	}
	for range maxRedirects + 1 {
		req := (&http.Request{Method: http.MethodGet, URL: at, Header: header.Clone(), Host: header.Get("Host")}).WithContext(ctx)
		resp, err := p.roundTrip(req)
		if err != nil {
			return nil, p.errorf(ctx, err)
		}
		switch resp.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
			http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
			resp.Body.Close()
			location := resp.Header.Get("Location")
			if location == "" {
				return nil, p.errorf(ctx, fmt.Errorf("redirect %d: missing Location header", resp.StatusCode))
			}
			// As it stands: a store signs the very bytes of it.
			next, err := parse(location)
			if err != nil {
				return nil, p.errorf(ctx, fmt.Errorf("redirect %d: %w", resp.StatusCode, err))
			}
			if origin(next) != origin(at) {
				for k := range header {
					if hasPrefix(strings.ToLower(k), sensitive) {
						header.Del(k)
					}
				}
				header.Del("Host")
			}
			at = next
			continue
		case http.StatusOK:
			p.remark(resp)
			return resp, nil
		}
		resp.Body.Close()
		return nil, p.errorf(ctx, fmt.Errorf("the server answered %s", resp.Status))
	}
	return nil, p.errorf(ctx, fmt.Errorf("Too many redirects (%d)", maxRedirects))
}

func hasPrefix(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

// origin is scheme, host and port.
func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}

// remark says what is doubtful about an answer.
func (p Presigned) remark(resp *http.Response) {
	if e := resp.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		// The store was asked for the object as it is; this one is kept
		// compressed, and that is what it holds.
		p.say("the object is stored with content encoding " + clip(e) + " and is written as stored")
	}
	if resp.ContentLength < 0 && !resp.Uncompressed && len(resp.TransferEncoding) == 0 {
		p.say("the server does not tell the length of " + redact(p.URL) + ": a transfer that is cut short cannot be noticed")
	}
}

func (p Presigned) say(text string) {
	if p.Log != nil {
		p.Log(text)
	}
}

// transfer is what both kinds have.
type transfer struct {
	p      Presigned
	watch  *watch
	cancel func()
	cause  func() error // why the transfer was ended, or nil
	n      int64        // bytes so far
}

// broke is the error of a transfer that err has ended.
func (t *transfer) broke(err error) error {
	if cause := t.cause(); cause != nil {
		err = cause
	}
	return fmt.Errorf("presigned %s %s: broke off after %d bytes: %w", t.p.Method, redact(t.p.URL), t.n, err)
}

// watch ends a transfer that does not move.
type watch struct {
	limit time.Duration
	timer *time.Timer

	mu sync.Mutex
	on bool
}

func (p Presigned) newWatch(end func(error)) *watch {
	w := &watch{limit: cmp.Or(p.Stall, stallLimit)}
	w.timer = time.AfterFunc(w.limit, func() {
		end(fmt.Errorf("no byte moved for %v: %w", w.limit, context.DeadlineExceeded))
	})
	w.timer.Stop()
	return w
}

func (w *watch) start() { w.set(true) }
func (w *watch) stop()  { w.set(false) }

func (w *watch) set(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.on = on; on {
		w.timer.Reset(w.limit)
	} else {
		w.timer.Stop()
	}
}

// moved puts the end off, between start and stop.
func (w *watch) moved() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.on {
		w.timer.Reset(w.limit)
	}
}

// getBody is the body of a GET.
type getBody struct {
	transfer
	body io.ReadCloser
}

func (b *getBody) Read(buf []byte) (int, error) {
	b.watch.start()
	n, err := b.body.Read(buf)
	b.watch.stop()
	b.n += int64(n)
	if err != nil && err != io.EOF {
		err = b.broke(err)
	}
	return n, err
}

func (b *getBody) Write([]byte) (int, error) {
	return 0, fmt.Errorf("presigned GET: it cannot be written to: %w", errors.ErrUnsupported)
}

func (b *getBody) CloseWrite() error { return nil }

func (b *getBody) Close() error {
	b.cancel()
	return b.body.Close()
}

// put sends what is written. The length is not known before, so it travels in
// chunks.
func (t transfer) put(ctx context.Context) driver.Resource {
	r, w := io.Pipe()
	b := &putBody{transfer: t, w: w, done: make(chan struct{})}
	// The end of the body is under watch until it has gone out; the transport
	// limits the wait for the answer.
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest: func(httptrace.WroteRequestInfo) { b.watch.stop() },
	})
	go func() {
		defer close(b.done)
		b.err = t.p.send(ctx, r, b.watch)
		// A Write that is under way must end, and a later one fail.
		r.CloseWithError(fmt.Errorf("the server has ended it: %w", errOr(b.err, io.ErrClosedPipe)))
	}()
	return b
}

func errOr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

func (p Presigned) send(ctx context.Context, body io.ReadCloser, w *watch) error {
	at, err := parse(p.URL)
	if err != nil {
		return err
	}
	header := http.Header{}
	for k, v := range p.Header {
		header.Set(k, v)
	}
	whole := &untilEnd{ReadCloser: body, watch: w}
	req := (&http.Request{Method: http.MethodPut, URL: at, Header: header, Host: header.Get("Host"),
		Body: whole, ContentLength: -1}).WithContext(ctx)
	resp, err := p.roundTrip(req)
	if err != nil {
		return p.errorf(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return p.errorf(ctx, fmt.Errorf("the server answered %s", resp.Status))
	}
	if !whole.ended.Load() {
		return p.errorf(ctx, fmt.Errorf("the server answered %s before it had all", resp.Status))
	}
	return nil
}

// untilEnd notes that a body was read to its end. Who asks for more has sent what
// it had.
type untilEnd struct {
	io.ReadCloser
	watch *watch
	ended atomic.Bool
}

func (u *untilEnd) Read(p []byte) (int, error) {
	u.watch.moved()
	n, err := u.ReadCloser.Read(p)
	if err == io.EOF {
		u.ended.Store(true)
	}
	return n, err
}

// putBody is the body of a PUT.
type putBody struct {
	transfer
	w     *io.PipeWriter
	ended bool
	done  chan struct{}
	err   error // of the request; read after done
}

func (b *putBody) Read([]byte) (int, error) {
	return 0, fmt.Errorf("presigned PUT: it cannot be read from: %w", errors.ErrUnsupported)
}

func (b *putBody) Write(buf []byte) (int, error) {
	if b.ended {
		return 0, fmt.Errorf("presigned PUT: write after its end: %w", io.ErrClosedPipe)
	}
	b.watch.start()
	n, err := b.w.Write(buf)
	b.watch.stop()
	b.n += int64(n)
	if err != nil {
		err = b.broke(err)
	}
	return n, err
}

// CloseWrite ends the body and waits for the server's answer: only it says that
// the object is there.
func (b *putBody) CloseWrite() error {
	if !b.ended {
		b.ended = true
		b.watch.start()
		b.w.Close()
	}
	<-b.done // the request heeds its context
	b.watch.stop()
	return b.err
}

// Close gives up on a body that was not ended: the server sees a request that
// broke off, and stores nothing.
func (b *putBody) Close() error {
	if !b.ended {
		b.ended = true
		b.cancel() // before the pipe: a clean end would make it a whole object
		b.w.CloseWithError(context.Canceled)
	}
	b.cancel()
	<-b.done
	return nil
}
