package websocket

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jumplead/jumplead/cmd/jumplead/interop/pyenv"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/network"
	"github.com/jumplead/jumplead/drivers/network/networktest"
	"github.com/jumplead/jumplead/hw/hwtest"
	"golang.org/x/net/websocket"
)

// open opens the driver for a URL.
func open(t *testing.T, url string) *network.Client {
	t.Helper()
	return network.NewClient(drivertest.Open(t, fmt.Sprintf("{url: %q}", url), Network))
}

// serve starts a web server and returns its address as that of a WebSocket.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	t.Cleanup(s.Close)
	return "ws" + strings.TrimPrefix(s.URL, "http")
}

// echo is a WebSocket server that is not of our making.
var echo = websocket.Server{Handler: func(c *websocket.Conn) {
	for {
		var m []byte
		if websocket.Message.Receive(c, &m) != nil || websocket.Message.Send(c, m) != nil {
			return
		}
	}
}}

// takeover accepts a WebSocket and leaves the connection to handle.
func takeover(handle func(net.Conn)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: keep-alive, upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Accept: %s\r\n\r\n", answer(r))
		handle(conn)
	})
}

// answer is the proof that a server has understood.
func answer(r *http.Request) string {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func TestConformance(t *testing.T) {
	networktest.Test(t, func(t *testing.T) networktest.Service {
		gone := networktest.Listen(t, "tcp", "127.0.0.1:0")
		gone.Close()
		return networktest.Service{
			Interface: open(t, serve(t, echo)),
			Packets:   true,
			Largest:   MaxMessage,
			Absent:    open(t, "ws://"+gone.Addr().String()),
			Resetting: open(t, serve(t, takeover(networktest.Reset))),
		}
	})
}

func TestSpec(t *testing.T) {
	const config = "{url: ws://192.0.2.1/x}"
	drivertest.Spec(t, Network, config)
	drivertest.Bench{}.Lifecycle(t, config, Network)
	for config, want := range map[string]string{
		"":                                `key "url" is missing`,
		"{url: http://192.0.2.1/}":        `url: has the scheme "http": wants ws or wss`,
		"{url: 192.0.2.1}":                `url: has the scheme "": wants ws or wss`,
		"{url: ws:///x}":                  "url: names no host",
		"{url: 'ws://:80/x'}":             "url: names no host",
		`{url: "ws://u:topsecret@h\x7f"}`: "url: is no URL: net/url: invalid control character in URL",
		"{url: 'ws://h/x#y'}":             "url: has a fragment (#y)",
		"{url: 'ws://h', host: h}":        `unknown key "host"`,
	} {
		_, problems := drivertest.Bench{}.Plan(t, config, Network)
		if err := problems.Err(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "topsecret") {
			t.Errorf("Plan(%s) = %v; want %s", config, err, want)
		}
	}
}

func TestAddress(t *testing.T) {
	const url = "wss://user:secret@192.0.2.1:8443/a/b?token=x"
	if got, err := open(t, url).Address(t.Context()); got != url || err != nil {
		t.Errorf("Address() = %q, %v; want %q", got, err, url)
	}
	got, err := network.NewClient(drivertest.Open(t, "{url: ws://192.0.2.1, enable_address: false}", Network)).Address(t.Context())
	if driver.Classify(err) != driver.Invalid || !strings.Contains(fmt.Sprint(err), "enable_address mode is not true in the exporter configuration") {
		t.Errorf("Address() when it is disabled = %q, %v; want an ArgError that names enable_address", got, err)
	}
}

func TestPacketReader(t *testing.T) {
	c, err := open(t, serve(t, echo)).Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r, ok := c.(driver.PacketReader)
	if !ok {
		t.Fatalf("Connect() = %T; want a driver.PacketReader", c)
	}
	if _, half := c.(interface{ CloseWrite() error }); half {
		t.Error("Connect() has CloseWrite; want none, WebSockets cannot be half-closed")
	}
	for _, want := range []string{"a", "", strings.Repeat("x", 200_000)} {
		if _, err := io.WriteString(c, want); err != nil {
			t.Fatal(err)
		}
		if got, err := r.ReadPacket(); string(got) != want || err != nil {
			t.Errorf("ReadPacket() = %d bytes, %v; want the %d that were sent", len(got), err, len(want))
		}
	}
}

// The request is the one that the URL asks for, and what follows the answer at
// once is not lost.
func TestHandshake(t *testing.T) {
	requests := make(chan *http.Request, 1)
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests <- r
		takeover(func(c net.Conn) { io.WriteString(c, sent(last|opText, "hi")+bye(1000, "")) }).ServeHTTP(w, r)
	}))
	c, err := open(t, strings.Replace(url, "ws://", "ws://user:pass%20word@", 1)+"/a%2Fb?x=y%20z").Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := <-requests
	if user, password, _ := r.BasicAuth(); r.RequestURI != "/a%2Fb?x=y%20z" || user != "user" || password != "pass word" {
		t.Errorf("request of %s by %s:%s; want /a%%2Fb?x=y%%20z by user:pass word", r.RequestURI, user, password)
	}
	for name, want := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Version": "13", "Sec-Websocket-Extensions": "", "Origin": ""} {
		if got := r.Header.Get(name); got != want {
			t.Errorf("%s: %q; want %q", name, got, want)
		}
	}
	if key, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-Websocket-Key")); len(key) != 16 || err != nil {
		t.Errorf("Sec-Websocket-Key is %x, %v; want 16 bytes", key, err)
	}
	if got, err := io.ReadAll(c); string(got) != "hi" || err != nil {
		t.Errorf("ReadAll() = %q, %v; want hi", got, err)
	}
}

func TestRefused(t *testing.T) {
	respond := func(text string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
				defer conn.Close()
				io.WriteString(conn, strings.ReplaceAll(text, "KEY", answer(r)))
			}
		})
	}
	const (
		good   = "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
		accept = "Sec-WebSocket-Accept: KEY\r\n"
	)
	for _, test := range []struct {
		name string
		h    http.Handler
		want string // behind the URL
		kind driver.Class
	}{
		{"not found", http.NotFoundHandler(), "the server answers 404 Not Found; a WebSocket begins with 101", driver.Internal},
		{"bad gateway", respond("HTTP/1.1 502 Bad Gateway\r\n\r\n"), "the server answers 502 Bad Gateway: unavailable", driver.Unavailable},
		{"a page", respond("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), "the server answers 200 OK; a WebSocket begins with 101", driver.Internal},
		{"another protocol", respond("HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n" + accept + "\r\n"), `the server switches to "h2c" instead of websocket`, driver.Internal},
		{"no connection", respond("HTTP/1.1 101 S\r\nConnection: close\r\nUpgrade: websocket\r\n" + accept + "\r\n"), "the server's Connection header does not say Upgrade", driver.Internal},
		{"no accept", respond(good + "\r\n"), "the server's Sec-WebSocket-Accept is not the answer to our key", driver.Internal},
		{"another accept", respond(good + "Sec-WebSocket-Accept: xKEY\r\n\r\n"), "the server's Sec-WebSocket-Accept is not the answer to our key", driver.Internal},
		{"extension", respond(good + accept + "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
			`the server chooses the extension "permessage-deflate" and the protocol "", and none was offered`, driver.Internal},
		{"protocol", respond(good + accept + "Sec-WebSocket-Protocol: chat\r\n\r\n"),
			`the server chooses the extension "" and the protocol "chat", and none was offered`, driver.Internal},
		{"no answer", respond(""), "the server hangs up instead of answering: unavailable", driver.Unavailable},
		{"redirects", http.RedirectHandler("/again", http.StatusFound), "the server redirects more than 10 times", driver.Internal},
	} {
		t.Run(test.name, func(t *testing.T) {
			drivertest.NoLeaks(t)
			url := serve(t, test.h)
			c, err := open(t, strings.Replace(url, "ws://", "ws://user:topsecret@", 1)+"/p?token=topsecret").Connect(t.Context())
			if err == nil {
				c.Close()
			}
			if want := url + "/p: " + test.want; fmt.Sprint(err) != want || driver.Classify(err) != test.kind {
				t.Errorf("Connect() = %v (%v); want %s (%v)", err, driver.Classify(err), want, test.kind)
			}
		})
	}
}

func TestRedirect(t *testing.T) {
	there := serve(t, echo)
	for _, location := range []string{there, strings.Replace(there, "ws", "http", 1)} {
		c, err := open(t, serve(t, http.RedirectHandler(location, http.StatusTemporaryRedirect))).Connect(t.Context())
		if err != nil {
			t.Errorf("Connect() by way of a redirect to %s = %v; want a stream", location, err)
			continue
		}
		if got := drivertest.Exchange(t, c, "hello"); got != "hello" {
			t.Errorf("Exchange(hello) = %q; want hello", got)
		}
		c.Close()
	}
}

// secure starts a server with TLS, and a service that trusts it.
func secure(t *testing.T, h http.Handler) *service {
	t.Helper()
	s := httptest.NewTLSServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return &service{cfg: Config{URL: "wss" + strings.TrimPrefix(s.URL, "https")}, log: slog.New(slog.DiscardHandler),
		limit: 20 * time.Second, tls: &tls.Config{RootCAs: roots}}
}

// With TLS a stream is the same, and so are its ends.
func TestTLS(t *testing.T) {
	c, err := secure(t, echo).Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 64 << 10, MaxMessage} {
		want := strings.Repeat("x", n)
		wrote := make(chan error, 1)
		go func() { _, err := io.WriteString(c, want); wrote <- err }()
		if got, err := c.(driver.PacketReader).ReadPacket(); string(got) != want || err != nil {
			t.Errorf("echo of %d bytes = %d bytes, %v; want the same", n, len(got), err)
		}
		if err := <-wrote; err != nil {
			t.Errorf("Write(%d bytes) = %v; want nil", n, err)
		}
	}
	if err := c.Close(); err != nil {
		t.Errorf("Close() = %v; want nil", err)
	}
	c, err = secure(t, takeover(func(c net.Conn) { io.WriteString(c, sent(last|opBinary, "abc")[:4]) })).Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := io.ReadAll(c); len(got) > 0 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("ReadAll() of a message that is cut short = %q, %v; want an error", got, err)
	}
}

func TestTLSRefused(t *testing.T) {
	s := secure(t, http.RedirectHandler(serve(t, echo), http.StatusFound))
	if c, err := s.Connect(t.Context()); err == nil || !strings.Contains(err.Error(), "without TLS") {
		t.Errorf("Connect() by way of a redirect that leaves TLS = %v, %v; want an error", c, err)
	}
	s = secure(t, echo)
	s.tls = nil
	if c, err := s.Connect(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("Connect() to a server that nobody vouches for = %v, %v; want an error", c, err)
	}
}

// A server that takes the connection and says nothing does not keep its caller.
func TestNoAnswer(t *testing.T) {
	drivertest.NoLeaks(t)
	ln := networktest.Listen(t, "tcp", "127.0.0.1:0")
	networktest.Serve(t, ln, func(c net.Conn) { io.Copy(io.Discard, c) })
	url := "ws://" + ln.Addr().String()
	s := &service{cfg: Config{URL: url}, log: slog.New(slog.DiscardHandler), limit: 50 * time.Millisecond}
	if _, err := s.Connect(t.Context()); driver.Classify(err) != driver.Timeout || !strings.HasPrefix(err.Error(), url+": no answer within 50ms: ") {
		t.Errorf("Connect() = %v (%v); want no answer within 50ms (%v)", err, driver.Classify(err), driver.Timeout)
	}
	s.limit = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := s.Connect(ctx); driver.Classify(err) != driver.Canceled {
		t.Errorf("Connect() that is cancelled = %v (%v); want %v", err, driver.Classify(err), driver.Canceled)
	}
}

func TestSecretsAreNotLogged(t *testing.T) {
	log := &drivertest.Log{}
	url := strings.Replace(serve(t, echo), "ws://", "ws://user:topsecret@", 1) + "/?token=topsecret"
	c, err := network.NewClient(drivertest.Bench{Log: log}.Open(t, fmt.Sprintf("{log_level: DEBUG, url: %q}", url), Network)).Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if got := log.String(); !strings.Contains(got, "address=ws://127.0.0.1:") || strings.Contains(got, "topsecret") {
		t.Errorf("log = %s; want the address without its secrets", got)
	}
}

// peer is what upstream's exporter would talk with: the same library, at the
// other end. The path says what it does.
const peer = `
import asyncio, websockets
async def handle(c):
    match c.request.path:
        case "/echo":
            async for m in c: await c.send(m)
        case "/text": await c.send("gr\u00fcn")
        case "/fragments": await c.send([b"ab", b"", b"cd" * 50000])
        case "/ping":
            await (await c.ping(b"x"))
            await c.send(b"ponged")
        case "/away": await c.close(1001, "restart")
        case "/large": await c.send(b"x" * (4 * 1024 * 1024))
        case "/farewell":
            try: await c.recv()
            except websockets.ConnectionClosed as e: print("closed", e.rcvd.code, flush=True)
async def main():
    async with websockets.serve(handle, "127.0.0.1", 0, max_size=None) as s:
        print(s.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().create_future()
asyncio.run(main())
`

// TestPython talks with the WebSocket library of the stock release.
func TestPython(t *testing.T) {
	var env *pyenv.Env
	hwtest.NeedFunc(t, hwtest.Python, func() (err error) {
		env, err = pyenv.Open(t.Context())
		return err
	})
	cmd := exec.Command(env.Bin("python"), "-c", peer)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatalf("the server says nothing: %v", lines.Err())
	}
	connect := func(path string) driver.PacketReader {
		c, err := open(t, "ws://127.0.0.1:"+lines.Text()+path).Connect(t.Context())
		if err != nil {
			t.Fatalf("Connect(%s) = %v; want a stream", path, err)
		}
		t.Cleanup(func() { c.Close() })
		return c.(driver.PacketReader)
	}

	c := connect("/echo")
	for _, n := range []int{0, 1, 125, 126, 65535, 65536, 65537, 1 << 20, MaxMessage} {
		want := bytes.Repeat([]byte("0123456789abcdef"), n/16+1)[:n]
		wrote := make(chan error, 1)
		go func() { _, err := c.Write(want); wrote <- err }()
		if got, err := c.ReadPacket(); !bytes.Equal(got, want) || err != nil {
			t.Errorf("echo of %d bytes = %d bytes, %v; want the same", n, len(got), err)
		}
		if err := <-wrote; err != nil {
			t.Errorf("Write(%d bytes) = %v; want nil", n, err)
		}
	}
	for path, want := range map[string]string{
		"/text":      "grün",
		"/fragments": "ab" + strings.Repeat("cd", 50000),
		"/ping":      "ponged",
	} {
		c := connect(path)
		if got, err := c.ReadPacket(); string(got) != want || err != nil {
			t.Errorf("%s: ReadPacket() = %d bytes, %v; want %d", path, len(got), err, len(want))
		}
		if got, err := c.ReadPacket(); got != nil || err != io.EOF {
			t.Errorf("%s: ReadPacket() = %q, %v; want EOF", path, got, err)
		}
	}
	for path, want := range map[string]string{
		"/away":  `read: the peer closed with status 1001 "restart"`,
		"/large": "read: a message of 4194304 bytes: at most 4194288 can be passed on",
	} {
		if got, err := connect(path).ReadPacket(); fmt.Sprint(err) != want {
			t.Errorf("%s: ReadPacket() = %d bytes, %v; want %s", path, len(got), err, want)
		}
	}
	connect("/farewell").Close()
	if !lines.Scan() || lines.Text() != "closed 1000" {
		t.Errorf("after Close() the server says %q; want closed 1000", lines.Text())
	}
}
