package storage

import (
	"context"
	"fmt"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
)

// Turn lets one at a time use a mux: a transfer, or whoever switches it.
type Turn struct{ taken chan struct{} }

// NewTurn makes a Turn that nobody has.
func NewTurn() Turn { return Turn{make(chan struct{}, 1)} }

// Patience is how long the mux is waited for while a transfer has it. One that
// was cancelled is over sooner, so that the client which cancelled it can have
// the mux switched.
const Patience = 10 * time.Second

// Hold waits for the mux; it is busy when that takes too long. Letting go must
// follow.
func (t Turn) Hold(ctx context.Context) (letGo func(), err error) {
	timer := time.NewTimer(Patience)
	defer timer.Stop()
	select {
	case t.taken <- struct{}{}:
		return func() { <-t.taken }, nil
	case <-timer.C:
		return nil, fmt.Errorf("mux: a transfer is going on: %w", driver.ErrBusy)
	case <-ctx.Done():
		return nil, fmt.Errorf("mux: a transfer is going on: %w", context.Cause(ctx))
	}
}
