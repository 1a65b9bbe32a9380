package serial

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/serial/serialtest"
)

// An open that hangs in the kernel does not hold up its caller, and what it yields in the end is not left open.
func TestOpenLeavesAHangingKernelBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus, uart := &serialtest.Bus{}, &serialtest.UART{}
		bus.Plug("slow", uart)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := openContext(ctx, "slow", func() (hw.SerialPort, error) {
			time.Sleep(30 * time.Second) // in the bubble's time
			return bus.OpenSerial(context.Background(), "slow", hw.SerialOptions{Baud: 9600})
		})
		if took := time.Since(start); took != time.Second || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("open = %v after %v; want %v after 1s", err, took, context.DeadlineExceeded)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := uart.Open(); n != 0 || len(uart.Edges()) == 0 {
			t.Errorf("%d ports open after %v; want none open, after one was", n, uart.Edges())
		}
	})
}
