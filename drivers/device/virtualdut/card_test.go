package virtualdut_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/cmd/virtualdut/dut"
	"github.com/jumplead/jumplead/drivers/device/virtualdut"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/storage"
	"github.com/jumplead/jumplead/drivers/storage/storagetest"
)

// openCard opens the mux of a device whose card knows no delays.
func openCard(t *testing.T, socket string) *storage.MuxClient {
	t.Helper()
	o := &drivertest.Offers{}
	t.Cleanup(func() {
		if n := o.Held(); n != 0 {
			t.Errorf("%d streams are held; want none", n)
		}
	})
	config := fmt.Sprintf("{socket: %q, speed: 0}", socket)
	return storage.NewMuxClient(drivertest.Bench{Resources: o}.Open(t, config, virtualdut.Storage))
}

func TestStorageConformance(t *testing.T) {
	drivertest.NoLeaks(t)
	storagetest.TestMux(t, func(t *testing.T) storagetest.Mux {
		d := device(t, folder(t))
		d.Turn(dut.SideHost)
		return storagetest.Mux{
			Mux:     openCard(t, d.Control()),
			Store:   storagetest.Store{Whole: true, Keeps: true},
			Guarded: true,
		}
	})
}

func TestStorageSpec(t *testing.T) {
	const config = "{socket: /run/dut/control.sock, speed: 12.5}"
	drivertest.Spec(t, virtualdut.Storage, config)
	d, err := drivertest.Bench{}.Tree(t, config, virtualdut.Storage).Root.Driver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	drivertest.Rows(t, d)
	for config, want := range map[string]string{
		"{speed: 1}":               `key "socket" is missing`,
		"{socket: a, speed: -1}":   "speed",
		"{socket: a, speed: .nan}": "speed",
	} {
		_, problems := drivertest.Bench{}.Plan(t, config, virtualdut.Storage)
		if err := problems.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Plan(%q) = %v; want %s", config, err, want)
		}
	}
}

// One card has one node; the rail of the same device is another thing.
func TestStorageClaims(t *testing.T) {
	socket := drivertest.YAML(t, "{socket: dut/control.sock}")
	_, problems := driver.Plan(driver.Decl{Children: []driver.Decl{
		{Name: "power", Type: virtualdut.Power.Type, Config: socket},
		{Name: "a", Type: virtualdut.Storage.Type, Config: socket},
		{Name: "b", Type: virtualdut.Storage.Type, Config: socket},
	}}, driver.Options{Specs: []driver.Spec{virtualdut.Power, virtualdut.Storage, group}})
	if got := fmt.Sprint(problems); !strings.Contains(got, "virtual card dut/control.sock") || strings.Contains(got, "virtual supply") {
		t.Errorf("Plan() of two nodes with one card = %v; want the contested card only", got)
	}
}

// What is flashed is on the card that the device boots, and nothing else is left beside it.
func TestCard(t *testing.T) {
	dir := folder(t)
	d := device(t, dir)
	c := openCard(t, d.Control())
	if err := (storage.MuxFlasher{Mux: c}).Flash(t.Context(), strings.NewReader("an image"), ""); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(d.Card()); err != nil || string(b) != "an image" || d.State().Card != dut.SideDUT {
		t.Errorf("after Flash the card has %q, %v, and is at %s; want the image, at the DUT", b, err, d.State().Card)
	}
	if left, _ := filepath.Glob(dir + "/.*partial*"); len(left) != 0 {
		t.Errorf("%v are left; want nothing", left)
	}
}

// The mux minds its side, and somebody else may turn it.
func TestSides(t *testing.T) {
	d := device(t, folder(t))
	c := openCard(t, d.Control())
	for _, side := range []struct {
		dut.Side
		name string
	}{{dut.SideDUT, "the DUT's side"}, {dut.SideOff, "neither side"}} {
		d.Turn(side.Side)
		for what, err := range map[string]error{
			"write": c.Write(t.Context(), strings.NewReader("x")),
			"read":  c.Read(t.Context(), io.Discard),
		} {
			if want := what + ": the card is on " + side.name + ": call host first"; err == nil || !strings.HasSuffix(err.Error(), want) {
				t.Errorf("%s() with the card at %s = %v; want %s", what, side, err, want)
			}
		}
	}
	d.Turn(dut.SideHost)
	if err := c.Write(t.Context(), strings.NewReader("old")); err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	wrote := make(chan error, 1)
	go func() { wrote <- c.Write(t.Context(), r) }()
	if _, err := w.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	d.Turn(dut.SideDUT) // under the transfer
	w.Close()
	if err := <-wrote; err == nil || !strings.Contains(err.Error(), "on the DUT's side") {
		t.Errorf("Write() while the card is taken away = %v; want that it was", err)
	}
	d.Turn(dut.SideHost)
	var got bytes.Buffer
	if err := c.Read(t.Context(), &got); err != nil || got.String() != "old" {
		t.Errorf("Read() = %q, %v; want the old content", &got, err)
	}
}

// Without a device there is no card.
func TestCardAbsent(t *testing.T) {
	socket := filepath.Join(folder(t), "gone", "control.sock")
	c := openCard(t, socket)
	for what, err := range map[string]error{
		"Host":  c.Host(t.Context()),
		"Write": c.Write(t.Context(), strings.NewReader("x")),
		"Read":  c.Read(t.Context(), io.Discard),
	} {
		if driver.Classify(err) != driver.Unavailable || !strings.Contains(fmt.Sprint(err), "virtualdut --dir "+filepath.Dir(socket)) {
			t.Errorf("%s() = %v; want unavailable, and the command that makes it", what, err)
		}
	}
}
