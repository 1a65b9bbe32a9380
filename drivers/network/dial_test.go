package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
)

// names is a resolver that knows some names. The name "slow" takes for ever.
type names map[string][]netip.Addr

func (n names) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	if host == "slow" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if a := n[host]; a != nil {
		return a, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

var known = names{
	"dut":   {netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")},
	"dut6":  {netip.MustParseAddr("2001:db8::7")},
	"mixed": {netip.MustParseAddr("::ffff:192.0.2.7")},
	"empty": {},
}

func TestResolve(t *testing.T) {
	for host, want := range map[string]string{
		"127.0.0.1":    "127.0.0.1",
		"::1":          "::1",
		"2001:db8::1":  "2001:db8::1",
		"2001:DB8::1":  "2001:DB8::1", // as it was given
		"fe80::1%eth0": "fe80::1%eth0",
		"dut":          "192.0.2.7",
		"dut6":         "2001:db8::7",
		"mixed":        "192.0.2.7",
		"empty":        "empty",
		"unknown":      "unknown",
	} {
		if got, err := resolve(t.Context(), known, host); got != want || err != nil {
			t.Errorf("resolve(%q) = %q, %v; want %q", host, got, err, want)
		}
	}
}

func TestResolveSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if got, err := resolve(t.Context(), known, "slow"); got != "slow" || err != nil || time.Since(start) != lookupTimeout {
			t.Errorf("resolve(slow) = %q, %v after %v; want slow after %v", got, err, time.Since(start), lookupTimeout)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if got, err := resolve(ctx, known, "slow"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("resolve(slow) of an impatient caller = %q, %v; want its deadline", got, err)
		}
	})
}

func TestURL(t *testing.T) {
	for e, want := range map[Endpoint]string{
		{"127.0.0.1", 8080, true}:    "tcp://127.0.0.1:8080",
		{"2001:db8::1", 443, true}:   "tcp://[2001:db8::1]:443",
		{"fe80::1%eth0", 443, true}:  "tcp://[fe80::1%eth0]:443",
		{"localhost", 8080, true}:    "tcp://127.0.0.1:8080 or tcp://[::1]:8080",
		{"127.0.0.1", 8080, false}:   "",
		{"not a name", 8080, true}:   "tcp://not a name:8080", // never reaches a name server
		{"localhost.", 65535, false}: "",
	} {
		got, err := e.URL(t.Context(), "tcp")
		if want == "" {
			if driver.Classify(err) != driver.Invalid {
				t.Errorf("%+v.URL() = %q, %v; want an ArgError", e, got, err)
			}
			continue
		}
		if err != nil || !strings.Contains(want, got) {
			t.Errorf("%+v.URL() = %q, %v; want %s", e, got, err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := (Endpoint{"localhost", 1, true}).URL(ctx, "tcp"); !errors.Is(err, context.Canceled) {
		t.Errorf("URL() with a context that is done = %q, %v; want context.Canceled", got, err)
	}
}

// A peer that cannot be reached is not the exporter's fault, whatever the
// reason; a path that cannot be one is.
func TestDialClass(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]driver.Class{
		"unix " + dir + "/absent":    driver.Unavailable,
		"unix " + dir + "/file":      driver.Unavailable, // refuses
		"unix " + dir + "/file/sock": driver.Device,
		"tcp not a name:22":          driver.Unavailable,
		"tcp 255.255.255.255:22":     driver.Unavailable, // no route
	} {
		network, address, _ := strings.Cut(address, " ")
		c, err := Dial(t.Context(), network, address)
		if err == nil {
			c.Close()
			t.Errorf("Dial(%s, %s) = %v, nil; want an error", network, address, c.RemoteAddr())
			continue
		}
		if got := driver.Classify(err); got != want || !strings.HasPrefix(err.Error(), "connect to "+address+": ") {
			t.Errorf("Dial(%s, %s) = %v (%v); want an error that names it (%v)", network, address, err, got, want)
		}
	}
}
