package dut

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// web is the device's web page. It owns its address for good and listens there only between Start and Stop.
type web struct {
	place *place
	log   *slog.Logger

	mu    sync.Mutex
	serve *serve // nil while stopped
	conns sync.WaitGroup
}

// serve is one time that the server runs.
type serve struct {
	http http.Server
	busy atomic.Int32
	done sync.WaitGroup

	mu   sync.Mutex
	cut  bool
	open map[*net.TCPConn]struct{}
}

func newWeb(addr string, log *slog.Logger) (*web, error) {
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("web page: %w", err)
	}
	if !a.IP.IsLoopback() {
		return nil, fmt.Errorf("web page: %s is not a loopback address: anybody on the network could load the device", addr)
	}
	p, err := reserve(a)
	if err != nil {
		return nil, fmt.Errorf("web page: %s: %w", addr, err)
	}
	return &web{place: p, log: log}, nil
}

// Addr is the server's host and port, whether or not it serves.
func (w *web) Addr() string { return w.place.addr.String() }

// Start starts the server. What it has to say about the device, it asks of status.
func (w *web) Start(status func() string) error {
	// Multipath TCP would only get in the way of resets.
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), "tcp", w.Addr())
	if err != nil {
		return err
	}
	s := &serve{open: map[*net.TCPConn]struct{}{}}
	s.http = http.Server{
		Handler:           s.handler(status),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(w.log.Handler(), slog.LevelDebug),
		ConnState: func(c net.Conn, state http.ConnState) {
			switch tcp := c.(*net.TCPConn); state {
			case http.StateNew:
				w.conns.Add(1)
				s.add(tcp)
			case http.StateClosed:
				s.remove(tcp)
				w.conns.Done()
			}
		},
	}
	s.done.Go(func() {
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			w.log.Error("web page", "error", err)
		}
	})
	w.mu.Lock()
	w.serve = s
	w.mu.Unlock()
	return nil
}

// Stop stops the server as a power cut does: what is connected is reset.
func (w *web) Stop() {
	w.mu.Lock()
	s := w.serve
	w.serve = nil
	w.mu.Unlock()
	if s == nil {
		return
	}
	s.reset()
	s.http.Close()
	s.done.Wait()
}

// Busy is the number of requests in progress.
func (w *web) Busy() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.serve == nil {
		return 0
	}
	return int(w.serve.busy.Load())
}

// Close gives the address back, after the last handler of a connection has noticed that it was cut.
func (w *web) Close() error {
	w.Stop()
	w.conns.Wait()
	return w.place.Close()
}

func (s *serve) add(c *net.TCPConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[c] = struct{}{}
	if s.cut { // accepted while the server is being closed
		c.SetLinger(0)
	}
}

func (s *serve) remove(c *net.TCPConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

// reset makes the coming close of every connection a reset. It has no such effect on one that has said farewell
// already.
func (s *serve) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = true
	for c := range s.open {
		c.SetLinger(0)
	}
}

// pattern is what GET /bytes sends, over and over.
var pattern = func() []byte {
	p := make([]byte, 256<<8)
	for i := range p {
		p[i] = byte(i)
	}
	return p
}()

func (s *serve) handler(status func() string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		io.WriteString(w, status())
	})
	mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
		// Otherwise net/http would swallow the rest of the body once the answer has begun.
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		if r.ContentLength >= 0 {
			w.Header().Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
		}
		io.Copy(w, r.Body)
	})
	mux.HandleFunc("GET /bytes", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.ParseInt(r.FormValue("n"), 10, 64)
		if err != nil || n < 0 {
			http.Error(w, fmt.Sprintf("n=%q: want a number of bytes", r.FormValue("n")), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		if r.Method == http.MethodHead { // net/http would take the bytes, and take its time
			return
		}
		for n > 0 && r.Context().Err() == nil {
			p := pattern[:min(n, int64(len(pattern)))]
			if _, err := w.Write(p); err != nil {
				return
			}
			n -= int64(len(p))
		}
	})
	mux.HandleFunc("POST /sink", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintln(w, n)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.busy.Add(1)
		defer s.busy.Add(-1)
		mux.ServeHTTP(w, r)
	})
}
