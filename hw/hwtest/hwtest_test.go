package hwtest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/serial/serialtest"
)

// verdict is a testing.TB that notes how the test on it ended.
type verdict struct {
	testing.TB
	said string
}

func (v *verdict) Helper()                   {}
func (v *verdict) Skipf(f string, a ...any)  { v.end("skip: ", f, a) }
func (v *verdict) Fatalf(f string, a ...any) { v.end("fail: ", f, a) }
func (v *verdict) end(how, f string, a []any) {
	v.said = how + fmt.Sprintf(f, a...)
	runtime.Goexit()
}

func TestNeed(t *testing.T) {
	missing := func() error { return errors.New("no snake here") }
	there := func() error { return nil }
	for _, c := range []struct {
		name, promised string
		need           func(testing.TB)
		want           string // a part of what is said; "run" is that the test goes on
	}{
		{"there", "", func(t testing.TB) { NeedFunc(t, Python, there) }, "run"},
		{"there as promised", "python", func(t testing.TB) { NeedFunc(t, Python, there) }, "run"},
		{"missing", "", func(t testing.TB) { NeedFunc(t, Python, missing) },
			"skip: needs capability python, which is missing: no snake here"},
		{"missing, another promised", "pty", func(t testing.TB) { NeedFunc(t, Python, missing) }, "skip: "},
		{"missing but promised", "pty, python", func(t testing.TB) { NeedFunc(t, Python, missing) },
			"fail: capability python was promised but is missing: no snake here"},
		{"misspelt promise", "pyton", func(t testing.TB) { NeedFunc(t, Python, there) },
			`fail: JUMPLEAD_PROMISED promises unknown capability "pyton"`},
		{"unknown capability", "", func(t testing.TB) { NeedFunc(t, "snake", there) }, `fail: unknown capability "snake"`},
		{"unknown capability without a probe", "", func(t testing.TB) { Need(t, "snake") }, `fail: unknown capability "snake"`},
		{"no probe here", "", func(t testing.TB) { Need(t, Python) }, "fail: "},
	} {
		t.Setenv(Promises, c.promised)
		v := &verdict{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.need(v)
			v.said = "run"
		}()
		<-done
		if !strings.HasPrefix(v.said, c.want) {
			t.Errorf("%s: Need says %q; want %q", c.name, v.said, c.want)
		}
	}
}

// TestProbes looks for everything that can be looked for here. On a machine that promises it, the probe must find it.
func TestProbes(t *testing.T) {
	for c, probe := range probes {
		if probe != nil {
			t.Run(string(c), func(t *testing.T) { Need(t, c) })
		}
	}
}

func TestNeedUART(t *testing.T) {
	t.Setenv("JUMPLEAD_UART", "")
	if err := probeUART(); err == nil {
		t.Error("probeUART() without a port = nil; want an error")
	}
	t.Setenv("JUMPLEAD_UART", "/dev/ttyS9")
	if err := probeUART(); err != nil || UARTPath() != "/dev/ttyS9" {
		t.Errorf("probeUART() = %v, UARTPath() = %q; want nil, %q", err, UARTPath(), "/dev/ttyS9")
	}
}

func TestHost(t *testing.T) {
	host, board := Host()
	_, err := host.OpenSerial(context.Background(), "/dev/ttyUSB0", hw.SerialOptions{Baud: 9600})
	if !errors.Is(err, hw.ErrAbsent) {
		t.Errorf("OpenSerial on an empty board = %v; want an error of kind %q", err, hw.ErrAbsent)
	}
	board.Serial.Plug("/dev/ttyUSB0", &serialtest.UART{})
	p, err := host.OpenSerial(context.Background(), "/dev/ttyUSB0", hw.SerialOptions{Baud: 9600})
	if err != nil {
		t.Fatalf("OpenSerial of what is plugged in = %v; want nil", err)
	}
	p.Close()
}
