package localfs

import (
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/storage"
	"github.com/jumplead/jumplead/drivers/storage/storagetest"
)

// config is the config for a root.
func config(root string) string { return "{scheme: fs, kwargs: {root: '" + root + "'}}" }

// bench opens the driver on a root, and checks that calls give back their
// streams.
func bench(t testing.TB, config string) (driver.Caller, *drivertest.Offers, *drivertest.Log) {
	t.Helper()
	drivertest.NoLeaks(t)
	o, log := &drivertest.Offers{}, &drivertest.Log{}
	t.Cleanup(func() {
		if n := o.Held(); n != 0 {
			t.Errorf("%d streams are held; want none", n)
		}
	})
	return drivertest.Bench{Resources: o, Log: log}.Open(t, config, Spec), o, log
}

func TestSpec(t *testing.T) {
	c := config(t.TempDir())
	drivertest.Spec(t, Spec, c)
	drivertest.Bench{Resources: &drivertest.Offers{}}.Lifecycle(t, c, Spec)
}

func TestConformance(t *testing.T) {
	storagetest.TestOpendal(t, func(t *testing.T) storage.Opendal {
		c, _, _ := bench(t, config(t.TempDir()))
		return storage.NewOpendalClient(c)
	})
}
