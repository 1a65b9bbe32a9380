// Package guest is the inside of the test machine: its first process, and what
// it says to the host.
//
// The machine has no disk, no shell and no init of its own. The kernel starts
// [Main] from the initramfs, as process 1. It loads the modules that came along,
// puts the host's file system under an overlay in memory, so that every file of
// the host is there at its own path and what is written vanishes with the
// machine, and then runs one [Job] after another.
//
// Host and guest speak over one virtio port, which carries bytes both ways as a
// socket does. A frame is a [Kind], a length of four bytes and so many bytes.
package guest

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// Port is the name of the virtio port that the host offers.
const Port = "jumplead.vm"

// Kind says what a frame is.
type Kind byte

// What the host sends.
const (
	Run    Kind = 'r' // a Job as JSON: run it
	Stdin  Kind = 'i' // bytes for its standard input, after the first only upon Taken; none is the end of it
	Signal Kind = 's' // one byte: a signal for it
)

// What the guest sends.
const (
	Hello  Kind = 'h' // a Greeting as JSON: ready for a job
	Beat   Kind = 'b' // nothing, every second: the guest lives
	Stdout Kind = 'o' // bytes that the job wrote
	Stderr Kind = 'e'
	Taken  Kind = 't' // nothing: the job's standard input has room again
	File   Kind = 'f' // a Written as JSON: a file that the host wants to keep
	Exit   Kind = 'x' // an Exited as JSON: the job is over, and so are all its processes
)

// Greeting is what the host learns of a guest.
type Greeting struct {
	Failed []string // modules that did not load, and why
	Error  string   // why the guest cannot run anything; "" if it can
}

// Job is a program to run.
type Job struct {
	Path string
	Args []string // the first is the program's name
	Env  []string
	Dir  string
	Keep []string // files that the host wants when it is over
}

// Written is a file of the guest.
type Written struct {
	Path string
	Data []byte
}

// Exited says how a job ended: Status as from a shell, or Error if it did not
// begin.
type Exited struct {
	Status int
	Error  string
}

// largest bounds what is taken for a frame.
const largest = 1 << 28

// Conn is one end of the wire. Send may be called from several goroutines.
type Conn struct {
	rw io.ReadWriter
	mu sync.Mutex // held while a frame is written
}

// NewConn speaks frames over rw.
func NewConn(rw io.ReadWriter) *Conn { return &Conn{rw: rw} }

// Send sends one frame.
func (c *Conn) Send(k Kind, b []byte) error {
	frame := append(binary.BigEndian.AppendUint32([]byte{byte(k)}, uint32(len(b))), b...)
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.rw.Write(frame)
	return err
}

// SendJSON sends a frame with v in it.
func (c *Conn) SendJSON(k Kind, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.Send(k, b)
}

// Receive waits for a frame.
func (c *Conn) Receive() (Kind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(c.rw, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > largest {
		return 0, nil, fmt.Errorf("a frame of %d bytes: this is not the other end of the wire", n)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(c.rw, b)
	return Kind(head[0]), b, err
}

// Writer is a writer whose bytes go out as frames of kind k.
func (c *Conn) Writer(k Kind) io.Writer { return writer{c, k} }

type writer struct {
	c *Conn
	k Kind
}

func (w writer) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil // an empty frame would be the end
	}
	if err := w.c.Send(w.k, b); err != nil {
		return 0, err
	}
	return len(b), nil
}
