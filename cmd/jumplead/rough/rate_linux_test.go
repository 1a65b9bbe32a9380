package rough_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/gpio"
	"github.com/jumplead/jumplead/drivers/gpio/gpiod"
	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/gpio/cdev"
	"github.com/jumplead/jumplead/hw/gpio/gpiotest"
	"github.com/jumplead/jumplead/hw/hwtest"
	"golang.org/x/sys/unix"
)

// A thousand edges a second come through the wire: all that the kernel has
// counted, in order and with its times. What gpio-sim itself takes for one edge
// has no number and cannot be missed.
func TestEdgeRate(t *testing.T) {
	hwtest.Need(t, hwtest.GPIOSim)
	drivertest.NoLeaks(t)
	w := gpiotest.NewSim(t, cdev.Bus())
	c := serve(t, hw.Host{GPIO: cdev.Bus()}, node{"in", gpiod.Input, "{line: 6, device: " + w.Label() + "}"})
	in := gpio.NewInput(find(t, c, "in"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const rate, seconds = 1000, 4
	var told atomic.Pointer[gpio.Edge] // the last
	begun, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		var last gpio.Edge
		for e, err := range in.Edges(ctx) {
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				t.Errorf("Edges() = %v after %d; want edges", err, last.Seqno)
				return
			case e.Seqno == 0:
				close(begun)
				last = e
				continue
			case e.Lost != 0 || e.Seqno != last.Seqno+1 || e.Timestamp < last.Timestamp:
				t.Errorf("edge %+v follows %+v; want the next one, later, with none lost", e, last)
			}
			last = e
			told.Store(&e)
		}
	}()
	select {
	case <-begun:
	case <-ended:
		t.FailNow()
	}
	tick := time.NewTicker(time.Second / rate)
	defer tick.Stop()
	start := time.Now()
	for i := range rate * seconds {
		// A machine that was late catches up.
		for due := start.Add(time.Duration(i) * time.Second / rate); time.Now().Before(due); {
			<-tick.C
		}
		w.Drive(t, 6, i%2 == 0)
	}
	took := time.Since(start)
	// All edges have come when one comes that is later than any of them.
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	w.Drive(t, 6, true) // it ended low
	if _, err := until("one more edge", func() bool {
		last := told.Load()
		return last != nil && last.Timestamp >= float64(now.Nano())/1e9 && last.Active
	}); err != nil {
		t.Fatal(err)
	}
	counted := told.Load().Seqno - 1
	if counted < rate*seconds/20 {
		t.Errorf("of %d changes the kernel counted %d; want a good part of them", rate*seconds, counted)
	}
	t.Logf("%d changes in %v, %.0f a second; the kernel counted %d edges, and all came", rate*seconds, took, rate*seconds/took.Seconds(), counted)
	cancel()
	<-ended
}
