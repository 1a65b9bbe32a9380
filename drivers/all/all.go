// Package all is the list of the drivers that jumplead comes with.
package all

import (
	"github.com/jumplead/jumplead/drivers/composite"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/power/fakepower"
)

// Specs lists every driver, one a line.
func Specs() []driver.Spec {
	return []driver.Spec{
		composite.Composite,
		composite.Proxy,
		fakepower.Mock,
		fakepower.SyncMock,
	}
}
