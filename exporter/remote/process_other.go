//go:build !linux

package remote

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
)

const killGrace = time.Second

type spawn struct {
	Log      func(slog.Level, string)
	User     string
	Env      []string
	Says     *os.File
	Limits   *driver.Limits
	Lifeline bool
}

// process cannot be here: the end of all that a program has started is only known
// on Linux.
type process struct {
	stdin  *os.File
	exited chan struct{}
}

func start(argv []string, s spawn) (*process, error) {
	if s.Says != nil {
		s.Says.Close()
	}
	return nil, fmt.Errorf("%s: programs are only run on Linux: %w", argv[0], errors.ErrUnsupported)
}

func give(string, string) error            { return nil }
func (p *process) end(time.Duration)       {}
func (p *process) kill()                   {}
func (p *process) wait(time.Duration) bool { return true }
func (p *process) why() error              { return errors.ErrUnsupported }
