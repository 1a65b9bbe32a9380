package pyserial_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/serial/serialtest"
	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/hwtest"
	hwserial "github.com/jumplead/jumplead/hw/serial"
	"github.com/jumplead/jumplead/hw/usbtest"
)

// Ports that hear themselves, on a bench.
func TestBenchLoop(t *testing.T) {
	for _, l := range hwtest.SerialLoops(t) {
		t.Run(filepath.Base(l.Port), func(t *testing.T) {
			bench := drivertest.Bench{Host: hw.Host{Serial: hwserial.Bus{}}}
			serialtest.Test(t, func(t *testing.T) serialtest.Line {
				return serialtest.Line{
					Interface: open(t, bench, fmt.Sprintf("{url: %s, baudrate: %d}", l.Port, l.Baud)),
					Bulk:      l.Bulk,
				}
			})
		})
	}
}

// echo is an adapter whose TX and RX are joined.
type echo struct{ *usbtest.ACM }

func (e echo) Out(ctx context.Context, endpoint uint8, data []byte) error {
	if err := e.ACM.Out(ctx, endpoint, data); err != nil {
		return err
	}
	_, err := e.ACM.Write(data)
	return err
}

// The kernel's own driver with a simulated adapter as a bench.
func TestUSBBench(t *testing.T) {
	hwtest.Need(t, hwtest.USB)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	port, err := usbtest.Plug(echo{&usbtest.ACM{Serial: "loop"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { port.Unplug() })
	at, err := port.Await(ctx, "*/tty/ttyACM*")
	if err != nil {
		t.Fatal(err)
	}
	path := "/dev/" + filepath.Base(at)
	drivertest.Until(t, path+" is there", func() bool { _, err := os.Stat(path); return err == nil })
	file := filepath.Join(t.TempDir(), "bench.yaml")
	if err := os.WriteFile(file, []byte("serial:\n  - {port: "+path+", bulk: 100000}\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	t.Setenv(hwtest.BenchFile, file)
	TestBenchLoop(t)
}
