package i2c_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/i2c"
)

func TestAbsent(t *testing.T) {
	_, err := i2c.Buses{}.OpenI2C(t.Context(), 9999)
	if !errors.Is(err, hw.ErrAbsent) || !strings.Contains(err.Error(), "no /dev/i2c-9999; there are ") {
		t.Errorf("OpenI2C(9999) = %v; want an error of kind %q that tells what there is", err, hw.ErrAbsent)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (i2c.Buses{}).OpenI2C(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("OpenI2C() in a context that is done = %v; want context.Canceled", err)
	}
	if _, err := (hw.Host{}).OpenI2C(t.Context(), 1); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("OpenI2C() on an empty host = %v; want errors.ErrUnsupported", err)
	}
}
