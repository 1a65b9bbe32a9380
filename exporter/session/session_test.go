package session

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/drivers/driver"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
)

func TestStatus(t *testing.T) {
	s := New(uuid.New(), nil, NewLogs(), NewOffers())
	available, ready := pb.ExporterStatus_EXPORTER_STATUS_AVAILABLE, pb.ExporterStatus_EXPORTER_STATUS_LEASE_READY
	if got, want := s.Status(), (Status{Now: available}); got != want {
		t.Errorf("Status() of a new session = %+v; want %+v", got, want)
	}
	s.SetStatus(ready, "Ready for commands")
	if got, want := s.Status(), (Status{ready, available, "Ready for commands", 1}); got != want {
		t.Errorf("Status() = %+v; want %+v", got, want)
	}
	s.SetStatus(ready, "\xff")
	if got := s.Status().Message; got != "\uFFFD" {
		t.Errorf("Status().Message = %q; want the replacement character", got)
	}
	s.SetStatus(ready, "") // the same again counts, too
	if got, want := s.Status(), (Status{ready, ready, "", 3}); got != want {
		t.Errorf("Status() = %+v; want %+v", got, want)
	}
}

func TestMOTD(t *testing.T) {
	s := New(uuid.New(), nil, NewLogs(), NewOffers())
	for i, test := range []struct{ set, add, want string }{
		{"", "", ""}, {"", "a", "a"}, {"", "", "a"}, {"x", "", "x\na"}, {"x", "b\nc", "x\na\nb\nc"}, {"y", "", "y\na\nb\nc"},
	} {
		s.SetMOTD(test.set)
		s.AddMOTD(test.add)
		if got := s.MOTD(); got != test.want {
			t.Errorf("%d: MOTD() = %q; want %q", i, got, test.want)
		}
	}
}

func TestReady(t *testing.T) {
	served := map[pb.ExporterStatus]bool{
		pb.ExporterStatus_EXPORTER_STATUS_LEASE_READY:       true,
		pb.ExporterStatus_EXPORTER_STATUS_BEFORE_LEASE_HOOK: true,
		pb.ExporterStatus_EXPORTER_STATUS_AFTER_LEASE_HOOK:  true,
	}
	s := New(uuid.New(), nil, NewLogs(), NewOffers())
	for n, name := range pb.ExporterStatus_name {
		now := pb.ExporterStatus(n)
		s.SetStatus(now, "")
		err := s.Ready()
		if served[now] != (err == nil) {
			t.Errorf("Ready() in %s = %v; want served %t", name, err, served[now])
		}
		if err != nil && (!errors.Is(err, driver.ErrNotReady) || !strings.Contains(err.Error(), Name(now))) {
			t.Errorf("Ready() in %s = %v; want ErrNotReady with the status", name, err)
		}
	}
}

func TestName(t *testing.T) {
	for s, want := range map[pb.ExporterStatus]string{
		pb.ExporterStatus_EXPORTER_STATUS_AVAILABLE: "AVAILABLE", 99: "99", 0: "UNSPECIFIED",
	} {
		if got := Name(s); got != want {
			t.Errorf("Name(%d) = %q; want %q", s, got, want)
		}
	}
}
