//go:build !ppc64 && !ppc64le

package dut

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/hw/hwtest"
)

func TestMainUsage(t *testing.T) {
	live := filepath.Dir(start(t, Options{}).Control())
	for _, test := range []struct {
		args   []string
		status int
		want   string // in standard error
	}{
		{nil, 2, "want --dir"},
		{[]string{"vd"}, 2, "Usage of vd"},
		{[]string{"vd", "-h"}, 0, "switch the rail on at once"},
		{[]string{"vd", "--frob"}, 2, "-frob"},
		{[]string{"vd", "--dir", t.TempDir(), "more"}, 2, "no arguments"},
		{[]string{"vd", "--dir", t.TempDir(), "--boot-time", "soon"}, 2, "invalid value"},
		{[]string{"vd", "--dir", t.TempDir(), "--boot-time", "-1s"}, 1, "must not be negative"},
		{[]string{"vd", "--dir", t.TempDir(), "--tcp", "0.0.0.0:0"}, 1, "not a loopback address"},
		{[]string{"vd", "--dir", live}, 1, "another virtual DUT is running there"},
		{[]string{"vd", "--dir", live, "ask"}, 2, "or ask REQUEST"},
		{[]string{"vd", "--dir", live, "ask", "fly"}, 1, `vd: fly: unknown request "fly": want on, off`},
		{[]string{"vd", "--dir", t.TempDir(), "ask", "read"}, 1, "is a virtual DUT running in"},
	} {
		var stdout, stderr bytes.Buffer
		got := Main(t.Context(), Proc{Args: test.args, Stdout: &stdout, Stderr: &stderr})
		if got != test.status || !strings.Contains(stderr.String(), test.want) || stdout.Len() > 0 {
			t.Errorf("Main(%q) = %d, stdout %q, stderr %q; want %d, nothing, %q in it",
				test.args, got, &stdout, &stderr, test.status, test.want)
		}
	}
}

func TestMainAsks(t *testing.T) {
	d := start(t, Options{})
	var stdout, stderr bytes.Buffer
	args := []string{"vd", "--dir", filepath.Dir(d.Control()), "ask", "unplug", "uart"}
	got := Main(t.Context(), Proc{Args: args, Stdout: &stdout, Stderr: &stderr})
	want := `{"rail":"off","phase":"off","voltage":0,"current":0,"card":"dut","uart":"unplugged"}` + "\n"
	if got != 0 || stdout.String() != want || d.State().UART != Unplugged {
		t.Errorf("Main(%q) = %d, stdout %q, stderr %q; want 0 and %q", args, got, &stdout, &stderr, want)
	}
}

func TestAskHangsUp(t *testing.T) {
	drivertest.NoLeaks(t)
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, controlName))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for hangUp := true; ; hangUp = false {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			bufio.NewReader(conn).ReadString('\n')
			if !hangUp {
				cancel()
				io.Copy(io.Discard, conn)
			}
			conn.Close()
		}
	}()
	if _, err := Ask(ctx, dir, "read"); !errors.Is(err, io.EOF) {
		t.Errorf("Ask() of who hangs up = %v; want %v", err, io.EOF)
	}
	if _, err := Ask(ctx, dir, "read"); !errors.Is(err, context.Canceled) {
		t.Errorf("Ask() of who is silent = %v; want %v", err, context.Canceled)
	}
	l.Close()
	<-done
}

func TestMainServes(t *testing.T) {
	hwtest.Need(t, hwtest.PTY)
	drivertest.NoLeaks(t)
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	status := make(chan int)
	go func() {
		status <- Main(ctx, Proc{
			Args:   []string{"vd", "--dir", dir, "--boot-time", "0", "--on"},
			Stdout: in,
			Stderr: io.Discard,
		})
	}()
	r := readReady(t, out)
	if s, err := dial(t, r.Control).do("read"); err != nil || s.Rail != "on" || r.UART != filepath.Join(dir, "uart") {
		t.Errorf("ready %+v, read = %+v, %v; want the uart in %s and the rail on", r, s, err, dir)
	}
	cancel()
	if got := <-status; got != 0 {
		t.Errorf("Main() = %d; want 0", got)
	}
}

func readReady(t *testing.T, r io.Reader) (got ready) {
	t.Helper()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	object, ok := strings.CutPrefix(line, "ready ")
	if err := json.Unmarshal([]byte(object), &got); err != nil || !ok {
		t.Fatalf("standard output has %q, %v; want a ready line", line, err)
	}
	return got
}

func TestMainCannotTell(t *testing.T) {
	hwtest.Need(t, hwtest.PTY)
	drivertest.NoLeaks(t)
	var stderr bytes.Buffer
	got := Main(t.Context(), Proc{Args: []string{"vd", "--dir", t.TempDir()}, Stdout: broken{}, Stderr: &stderr})
	if got != 1 || !strings.Contains(stderr.String(), "vd: broken") {
		t.Errorf("Main() = %d, %q; want 1 and what is broken", got, &stderr)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("broken") }
