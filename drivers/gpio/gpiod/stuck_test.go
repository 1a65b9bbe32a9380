package gpiod_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/gpio/gpiod"
	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/hwtest"
)

// hung is a kernel that answers requests when it is let.
type hung struct {
	hw.GPIO
	let   chan struct{} // closed to let it
	asked atomic.Int32
}

func (h *hung) RequestLine(ctx context.Context, at hw.LineRef, o hw.LineOptions) (hw.Line, error) {
	h.asked.Add(1)
	<-h.let
	return h.GPIO.RequestLine(ctx, at, o)
}

// A kernel that does not answer keeps no session from beginning, is asked once
// however many try, and the node works as soon as it has answered.
func TestKernelStuck(t *testing.T) {
	for _, spec := range []driver.Spec{gpiod.Output, gpiod.Input, gpiod.Switch} {
		synctest.Test(t, func(t *testing.T) {
			host, board := hwtest.Host()
			board.GPIO.Add("gpiochip0", "model", 4)
			kernel := &hung{GPIO: host.GPIO, let: make(chan struct{})}
			host.GPIO = kernel
			tree := drivertest.Bench{Host: host, Log: &drivertest.Log{}}.Tree(t, "line: 3", spec)
			defer tree.Close()
			read := func() error {
				_, err := tree.Root.Caller().Call(t.Context(), "read_pin")
				return err
			}
			for range 3 {
				if err := read(); driver.Classify(err) != driver.Unavailable || !strings.Contains(err.Error(), "request line 3: the kernel does not answer") {
					t.Errorf("%s: read_pin() = %v; want unavailable, as the kernel does not answer", spec.Type, err)
				}
			}
			if n := kernel.asked.Load(); n != 1 {
				t.Errorf("%s: the kernel was asked %d times; want once", spec.Type, n)
			}
			close(kernel.let)
			synctest.Wait()
			if err := read(); err != nil {
				t.Errorf("%s: read_pin() after the kernel's answer = %v; want nil", spec.Type, err)
			}
		})
	}
}
