package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jumplead/jumplead/cmd/vm/guest"
)

func TestFlagsOfATestBinary(t *testing.T) {
	args := []string{"x.test", "-test.timeout=2m0s", "--test.cpuprofile=cpu", "-test.coverprofile=/tmp/c", "-test.trace=t", "-profile=no"}
	if got, want := limit(args), 3*time.Minute; got != want {
		t.Errorf("limit(%q) = %v; want %v", args, got, want)
	}
	for _, args := range [][]string{{"x"}, {"x", "-test.timeout=0"}, {"x", "-test.timeout=soon"}} {
		if got := limit(args); got != 0 {
			t.Errorf("limit(%q) = %v; want none", args, got)
		}
	}
	if got, want := profiles(args), []string{"cpu", "/tmp/c", "t"}; !slices.Equal(got, want) {
		t.Errorf("profiles(%q) = %q; want %q", args, got, want)
	}
}

// The packages that ask are found by themselves, by their helpers, and not by
// asking for what every machine has.
func TestAskers(t *testing.T) {
	asking, err := askers(t.Context(), []string{"github.com/jumplead/jumplead/..."})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range asking {
		got = append(got, strings.TrimPrefix(p.ImportPath, "github.com/jumplead/jumplead/"))
	}
	for path, want := range map[string]bool{"hw/usbtest": true, "drivers/network/vsock": true, "hw/hwtest": true,
		"cmd/jumplead/interop/devices": true, "cmd/jumplead/interop": false,
		"hw/serial/pty": false, "drivers/network/dbus": false, "cmd/vm": false} {
		if slices.Contains(got, path) != want {
			t.Errorf("askers() = %q; want %s in it: %v", got, path, want)
		}
	}
}

func TestArchive(t *testing.T) {
	a := &archive{}
	a.addConsole()
	a.add("init", modeFile, []byte("12345"))
	b := a.close()
	if len(b)%4 != 0 {
		t.Errorf("the archive has %d bytes; want a multiple of 4", len(b))
	}
	// The kernel's documentation of the format: magic, 13 numbers of 8 digits, a name with its zero.
	console := "070701" + "00000000" + "00002180" + "00000000" + "00000000" + "00000001" + "00000000" + "00000000" +
		"00000000" + "00000000" + "00000005" + "00000001" + "0000000c" + "00000000" + "dev/console\x00"
	if !bytes.Contains(b, []byte(console)) {
		t.Errorf("the archive is %q; want %q in it", b, console)
	}
	if !bytes.Contains(b, []byte("00000005"+"00000000"+"00000000"+"00000000"+"00000000"+"00000005"+"00000000"+"init\x00\x0012345\x00\x00\x00")) {
		t.Errorf("the archive is %q; want init with 5 bytes in it", b)
	}
}

func TestWire(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	go func() {
		c := guest.NewConn(a)
		c.Writer(guest.Stdout).Write([]byte("said"))
		c.SendJSON(guest.Exit, guest.Exited{Status: 3})
		a.Write([]byte{'o', 0xff, 0xff, 0xff, 0xff})
	}()
	c := guest.NewConn(b)
	if k, data, err := c.Receive(); k != guest.Stdout || string(data) != "said" || err != nil {
		t.Errorf("Receive() = %q, %q, %v; want %q, said, nil", k, data, err, guest.Stdout)
	}
	k, data, err := c.Receive()
	var x guest.Exited
	if k != guest.Exit || err != nil || json.Unmarshal(data, &x) != nil || x.Status != 3 {
		t.Errorf("Receive() = %q, %q, %v; want %q and status 3", k, data, err, guest.Exit)
	}
	if _, _, err := c.Receive(); err == nil {
		t.Error("Receive() of a frame of 4 GB = nil; want an error")
	}
}

func TestTail(t *testing.T) {
	w := &tail{panicked: make(chan struct{})}
	if got := w.String(); got != "(nothing)" {
		t.Errorf("String() of an empty tail = %q", got)
	}
	for range 5000 {
		w.Write([]byte("0123456789"))
	}
	select {
	case <-w.panicked:
		t.Error("the tail sees a panic in digits")
	default:
	}
	for _, s := range []string{"Kernel pa", "nic - not syncing: x\r\n", "Kernel panic - not syncing: y\r\n"} {
		w.Write([]byte(s))
	}
	<-w.panicked
	w.Write([]byte("the end\r\n"))
	if got := w.String(); len(got) > 16<<10 || !strings.HasSuffix(got, "y\r\nthe end") {
		t.Errorf("String() has %d bytes and ends with %q; want at most 16 KiB, and the end", len(got), got[max(0, len(got)-20):])
	}
}

// A guest is not taken for one that hangs while its reader takes its time.
func TestSlowReader(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	go io.Copy(io.Discard, theirs)
	qemu := exec.Command("sleep", "1000")
	if err := qemu.Start(); err != nil {
		t.Fatal(err)
	}
	m := &machine{conn: guest.NewConn(ours), cmd: qemu, console: &tail{}, silence: 200 * time.Millisecond,
		frames: make(chan frame), ended: make(chan struct{})}
	go func() {
		qemu.Wait()
		close(m.ended)
	}()
	defer m.close()
	go func() {
		frames := slices.Repeat([]frame{{guest.Stdout, []byte("line\n")}}, 12)
		for _, f := range append(frames, frame{guest.Exit, []byte("{}")}) {
			select {
			case m.frames <- f:
			case <-m.ended:
				return
			}
		}
	}()
	slow := began{func() { <-time.After(m.silence * 5 / 4) }}
	if _, err := m.run(t.Context(), guest.Job{}, streams{Out: slow}, 0); err != nil {
		t.Errorf("run() with a slow reader = %v; want nil", err)
	}
}
