package rpc

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"google.golang.org/grpc/peer"
)

// What strangers can make the log say has a limit, and nobody is left out of it.
func TestRefusals(t *testing.T) {
	from := func(host string) context.Context {
		return peer.NewContext(t.Context(), &peer.Peer{Addr: &net.TCPAddr{IP: net.ParseIP(host), Port: 1234}})
	}
	synctest.Test(t, func(t *testing.T) {
		var log drivertest.Log
		r := refusals{log: textLog(&log), peers: map[string]int{}}
		told := 0 // bytes of the log that were looked at
		wait := func(d time.Duration) []string {
			time.Sleep(d)
			synctest.Wait()
			text := log.String()[told:]
			told += len(text)
			var got []string
			for line := range strings.Lines(text) {
				if _, attrs, ok := strings.Cut(line, fmt.Sprintf("msg=%q ", refusal)); ok {
					got = append(got, strings.TrimSuffix(attrs, "\n"))
				} else {
					t.Errorf("log says %q; want %q in it", line, refusal)
				}
			}
			return got
		}
		want := func(what string, got []string, want ...string) {
			t.Helper()
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("log says of %s %q; want %q", what, got, want)
			}
		}

		r.add(from("192.0.2.1"), "/x/y")
		want("the first refusal", wait(0), "peer=192.0.2.1 method=/x/y")
		for range 1000 {
			r.add(from("192.0.2.1"), "/x/y")
		}
		r.add(from("2001:db8::1"), "/"+strings.Repeat("x", 1<<20))
		want("a thousand more, and another address", wait(time.Second), "peer=2001:db8::1 method=/"+strings.Repeat("x", refusalName-1))
		want("their sum", wait(10*time.Second), "peer=192.0.2.1 times=1000 within=10s")
		r.add(from("192.0.2.1"), "/x/y")
		want("one that comes back", wait(0))
		want("its sum", wait(10*time.Second), "peer=192.0.2.1 times=1 within=10s")
		want("nobody", wait(time.Hour))
		r.add(from("192.0.2.1"), "/x/z")
		want("the first one after a while", wait(0), "peer=192.0.2.1 method=/x/z")
		wait(time.Hour)

		for i := range 250 {
			r.add(from(fmt.Sprintf("198.51.100.%d", i)), "/x/y")
			r.add(from(fmt.Sprintf("198.51.100.%d", i)), "/x/y")
		}
		got := wait(0)
		if len(got) != refusalPeers+1 || got[refusalPeers] != "peer=others method=/x/y" {
			t.Errorf("log says of 250 addresses %q; want it of %d and of the others", got, refusalPeers)
		}
		got = wait(refusalsEach)
		sum := 0
		for _, line := range got {
			var who string
			var n int
			if _, err := fmt.Sscanf(line, "peer=%s times=%d", &who, &n); err != nil {
				t.Errorf("sum = %q; want how often", line)
			}
			sum += n
		}
		if want := 2*250 - refusalPeers - 1; len(got) != refusalPeers+1 || sum != want {
			t.Errorf("the sums are %q, all in all %d; want %d in %d lines", got, sum, want, refusalPeers+1)
		}
		wait(time.Hour)
		if len(r.peers) != 0 {
			t.Errorf("after an hour it knows %v; want nothing", r.peers)
		}
	})
}

func TestRefusalAddress(t *testing.T) {
	for _, test := range []struct {
		peer *peer.Peer
		want string
	}{
		{&peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}}, "192.0.2.1"},
		{&peer.Peer{Addr: &net.UnixAddr{Name: "@", Net: "unix"}}, "unix"},
		{&peer.Peer{}, "unknown"},
	} {
		if got := address(peer.NewContext(t.Context(), test.peer)); got != test.want {
			t.Errorf("address(%v) = %q; want %q", test.peer, got, test.want)
		}
	}
}
