package pyenv

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jumplead/jumplead/hw/hwtest"
)

// patience is how long making an environment may take.
const patience = 8 * time.Minute

var (
	once        = sync.OnceValues(func() (*Env, error) { return timely(Open) })
	onceDrivers = sync.OnceValues(func() (*Env, error) { return timely(OpenDrivers) })
)

func timely(open func(context.Context) (*Env, error)) (*Env, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return open(ctx)
}

// Once is [Open], of which a process needs the answer once.
func Once() (*Env, error) { return once() }

// Need returns the environment of [Open] for a test, which is skipped without it.
func Need(t testing.TB) *Env {
	t.Helper()
	return need(t, once)
}

// NeedDrivers is Need for the environment of [OpenDrivers].
func NeedDrivers(t testing.TB) *Env {
	t.Helper()
	return need(t, onceDrivers)
}

func need(t testing.TB, open func() (*Env, error)) (env *Env) {
	t.Helper()
	hwtest.NeedFunc(t, hwtest.Python, func() (err error) {
		env, err = open()
		return err
	})
	return env
}
