package cdev_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/gpio"
	"github.com/jumplead/jumplead/hw/gpio/cdev"
	"github.com/jumplead/jumplead/hw/gpio/gpiotest"
	"github.com/jumplead/jumplead/hw/hwtest"
)

// The same suite that the model passes, on the kernel's own simulated chips.
func TestSim(t *testing.T) {
	hwtest.Need(t, hwtest.GPIOSim)
	gpiotest.Test(t, func(t *testing.T) gpiotest.World { return gpiotest.NewSim(t, cdev.Bus()) })
}

// A reader of edges, at 1000 of them a second, misses none of what the kernel has counted.
func TestSimRate(t *testing.T) {
	hwtest.Need(t, hwtest.GPIOSim)
	w := gpiotest.NewSim(t, cdev.Bus())
	x := gpio.NewInput(hw.Host{GPIO: w.Bus()}, hw.LineRef{Chip: w.Device(), Offset: 6}, hw.LineOptions{}, nil)
	defer x.Close()
	const edges = 2000
	stop := make(chan struct{})
	n, lost := 0, 0
	var last uint32
	var driving sync.WaitGroup
	driving.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				w.Drive(t, 6, !w.Level(t, 6))
			case <-stop:
				return
			}
		}
	})
	defer driving.Wait() // before the chip goes
	defer close(stop)
	for e, err := range x.Edges(t.Context()) {
		if err != nil {
			t.Fatalf("Edges() = %v after %d; want edges", err, n)
		}
		if lost += e.Lost; e.Seqno > 0 && e.Seqno != last+1 {
			t.Errorf("edge %d follows edge %d", e.Seqno, last)
		}
		last = e.Seqno
		if n++; n > edges {
			break
		}
	}
	if lost != 0 {
		t.Errorf("%d of %d edges are lost; want none", lost, edges)
	}
}

func TestOpen(t *testing.T) {
	for path, want := range map[string]error{
		"/dev/gpiochip999": fs.ErrNotExist,
		"/dev/null":        unix.ENOTTY,
		t.TempDir():        unix.EISDIR,
	} {
		if c, err := (cdev.Kernel{}).Open(path); !errors.Is(err, want) {
			t.Errorf("Open(%s) = %v, %v; want %v", path, c, err, want)
		}
	}
}

func TestList(t *testing.T) {
	got, err := cdev.Kernel{}.List()
	if err != nil {
		t.Fatalf("List() = %v; want names", err)
	}
	for _, name := range got {
		info, err := os.Lstat(filepath.Join("/dev", name))
		if err != nil || info.Mode()&fs.ModeCharDevice == 0 || !strings.HasPrefix(name, "gpiochip") {
			t.Errorf("List() has %q, which is %v (%v); want devices of chips", name, info, err)
		}
	}
}
