package cmd_test

import (
	"testing"

	"github.com/jumplead/jumplead/hw/hwtest/lawtest"
)

// This is the room that may know everybody. Its laws are few.
func TestLaws(t *testing.T) {
	lawtest.Check(t,
		lawtest.Ban{
			From:    []string{"./..."},
			Except:  []string{"./cmd/..."},
			Imports: []string{"./cmd/..."},
			Why:     "what others can use belongs on a floor below the programs",
		},
		lawtest.Ban{
			From:    []string{"./cmd/jumplead/app"},
			Imports: []string{"./drivers/*/..."},
			Allow:   []string{"./drivers/driver", "./drivers/cli"},
			Deps:    true,
			Why:     "a lab builds a program of its own from app and the drivers that it names",
		},
		lawtest.Ban{
			From:    []string{"./cmd/jumplead", "./cmd/jumplead/app", "./cmd/virtualdut/..."},
			Imports: []string{"testing", "./hw/hwtest/..."},
			Deps:    true,
			Why:     "no program should carry what only tests need",
		},
		lawtest.Ban{
			From:    []string{"./cmd/virtualdut/..."},
			Imports: []string{"./drivers/...", "./exporter/...", "./proto/..."},
			Deps:    true,
			Why:     "the device under test stands at the other end of the wires: it knows nothing of who tests it",
		},
	)
}
