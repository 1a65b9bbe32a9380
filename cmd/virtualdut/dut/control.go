package dut

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	requestMax    = 256             // bytes of a request, its line end included
	answerTimeout = 5 * time.Second // for a client to take an answer
)

// switches are what a control socket works.
type switches interface {
	On()
	Off()
	Turn(card Side)
	Unplug(d time.Duration) // the console, for d if that is not 0
	Plug() error
	State() State
}

// control serves the control socket.
type control struct {
	listener net.Listener
	switches switches
	log      *slog.Logger
	done     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]struct{}
}

func newControl(l net.Listener, s switches, log *slog.Logger) *control {
	c := &control{listener: l, switches: s, log: log, conns: map[net.Conn]struct{}{}}
	c.done.Go(c.accept)
	return c
}

// Close ends every conversation.
func (c *control) Close() error {
	err := c.listener.Close()
	c.mu.Lock()
	c.closed = true
	for conn := range c.conns {
		conn.Close()
	}
	c.mu.Unlock()
	c.done.Wait()
	return err
}

func (c *control) accept() {
	for {
		conn, err := c.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // out of files, for instance
			c.log.Error("control socket", "error", err)
			time.Sleep(50 * time.Millisecond)
		case c.add(conn):
			c.done.Go(func() {
				defer c.remove(conn)
				if err := converse(client{conn}, c.switches); err != nil {
					c.log.Debug("control socket", "error", err)
				}
			})
		}
	}
}

func (c *control) add(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		conn.Close()
		return false
	}
	c.conns[conn] = struct{}{}
	return true
}

func (c *control) remove(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, conn)
	conn.Close()
}

// client is a connection that must take what is written to it.
type client struct{ net.Conn }

func (c client) Write(p []byte) (int, error) {
	c.SetWriteDeadline(time.Now().Add(answerTimeout))
	return c.Conn.Write(p)
}

// converse answers requests until there are no more. Its error is that of the connection.
func converse(rw io.ReadWriter, s switches) error {
	requests := bufio.NewReaderSize(rw, requestMax)
	answers := json.NewEncoder(rw)
	for {
		line, err := requests.ReadSlice('\n')
		var answer any
		switch {
		case err == nil:
			answer = do(s, line)
		case errors.Is(err, bufio.ErrBufferFull):
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = requests.ReadSlice('\n')
			}
			answer = refusal{fmt.Sprintf("request of more than %d bytes", requestMax)}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := answers.Encode(answer); err != nil {
			return err
		}
	}
}

// refusal is the answer to what is not a request.
type refusal struct {
	Error string `json:"error"`
}

func do(s switches, line []byte) any {
	var err error
	switch word := strings.Fields(string(line)); {
	case slices.Equal(word, []string{"on"}):
		s.On()
	case slices.Equal(word, []string{"off"}):
		s.Off()
	case slices.Equal(word, []string{"read"}):
	case len(word) == 2 && word[0] == "card" && slices.Contains([]Side{SideDUT, SideHost, SideOff}, Side(word[1])):
		s.Turn(Side(word[1]))
	case slices.Equal(word, []string{"plug", "uart"}):
		err = s.Plug()
	case slices.Equal(word, []string{"unplug", "uart"}):
		s.Unplug(0)
	case len(word) == 3 && word[0] == "unplug" && word[1] == "uart":
		seconds, bad := strconv.ParseFloat(word[2], 64)
		if bad != nil || !(1e-3 <= seconds && seconds <= 86400) {
			return refusal{fmt.Sprintf("unplug uart %q: want 0.001 to 86400 seconds", word[2])}
		}
		s.Unplug(time.Duration(seconds * float64(time.Second)))
	default:
		return refusal{fmt.Sprintf("unknown request %q: want %s", bytes.TrimSpace(line), requests)}
	}
	if err != nil {
		return refusal{err.Error()}
	}
	return s.State()
}

// requests are what a control socket understands.
const requests = "on, off, read, card dut|host|off, unplug uart [SECONDS] or plug uart"
