// Package session is one lease's view of a harness: the tree of drivers, the
// exporter's status as the client polls it, the log as the client follows it,
// and the byte streams that a client offers beside its calls.
//
// # Status
//
// A status has a version that grows with every update, also with one that
// repeats the status before, so that a client which polls sees how many it
// missed. Driver calls are served while the lease is ready and while a hook
// runs, because hooks drive the harness too; at any other time they are refused
// with [driver.ErrNotReady].
package session

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/drivers/driver"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
)

// Session is what one lease, or one standalone exporter, serves. Its methods
// may be called concurrently.
type Session struct {
	UUID   uuid.UUID
	Labels map[string]string
	Logs   *Logs
	Offers *Offers

	// End is called when the client says that it is done. It must not block.
	End func() (ok bool, message string)

	tree   atomic.Pointer[driver.Tree]
	mu     sync.Mutex
	status Status
	motd   string // the exporter's own
	added  string // what hooks had to add
}

// Status is a snapshot of what the exporter says of itself.
type Status struct {
	Now     pb.ExporterStatus
	Before  pb.ExporterStatus // unspecified until the first update
	Message string
	Version uint64
}

// New makes a session in the state that every session starts in: available,
// version 0.
func New(id uuid.UUID, tree *driver.Tree, logs *Logs, offers *Offers) *Session {
	s := &Session{
		UUID: id, Logs: logs, Offers: offers,
		status: Status{Now: pb.ExporterStatus_EXPORTER_STATUS_AVAILABLE},
	}
	s.tree.Store(tree)
	return s
}

// Tree is the tree that is served.
func (s *Session) Tree() *driver.Tree { return s.tree.Load() }

// SetTree serves another tree from now on, after a reload.
func (s *Session) SetTree(t *driver.Tree) { s.tree.Store(t) }

// Status is the present status.
func (s *Session) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// SetStatus updates the status.
func (s *Session) SetStatus(now pb.ExporterStatus, message string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	message = strings.ToValidUTF8(message, "\uFFFD") // it may be the word of a hook
	s.status = Status{Now: now, Before: s.status.Now, Message: message, Version: s.status.Version + 1}
}

// AddMOTD adds lines to what every client is told.
func (s *Session) AddMOTD(lines string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.added = join(s.added, lines)
}

// SetMOTD sets what every client is told in front of what hooks add.
func (s *Session) SetMOTD(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.motd = text
}

// MOTD is what clients are told.
func (s *Session) MOTD() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return join(s.motd, s.added)
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "\n" + b
}

// Ready reports whether driver calls are served now; the error says why not.
func (s *Session) Ready() error {
	now := s.Status().Now
	switch now {
	case pb.ExporterStatus_EXPORTER_STATUS_LEASE_READY,
		pb.ExporterStatus_EXPORTER_STATUS_BEFORE_LEASE_HOOK,
		pb.ExporterStatus_EXPORTER_STATUS_AFTER_LEASE_HOOK:
		return nil
	}
	return fmt.Errorf("exporter is not ready for driver calls (status: %s): %w", Name(now), driver.ErrNotReady)
}

// Name is a status without the prefix that enum values carry on the wire.
func Name(s pb.ExporterStatus) string {
	const prefix = len("EXPORTER_STATUS_")
	if n := s.String(); len(n) > prefix {
		return n[prefix:]
	}
	return s.String()
}

// Node finds a node by the UUID that a request carries, in any spelling that
// Python's uuid module reads.
func (s *Session) Node(id string) (*driver.Node, error) {
	u, err := uuid.Parse(id)
	if err != nil {
		return nil, fmt.Errorf("driver uuid %q: %w", clip(id), err)
	}
	n, ok := s.Tree().Node(u)
	if !ok {
		return nil, fmt.Errorf("no driver has the uuid %s: the session may be a new one, read the report again", u)
	}
	return n, nil
}

// Close ends the session: handles first, so that no transfer is left waiting,
// then the drivers.
func (s *Session) Close(context.Context) error {
	s.Offers.Close()
	return s.Tree().Close()
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}
