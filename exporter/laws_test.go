package exporter_test

import (
	"testing"

	"github.com/jumplead/jumplead/hw/hwtest/lawtest"
)

func TestLaws(t *testing.T) {
	lawtest.Check(t,
		lawtest.Ban{
			From:    []string{"./exporter/..."},
			Except:  []string{"./exporter/hook", "./exporter/remote"},
			Imports: []string{"./..."},
			Allow:   []string{"./exporter/...", "./drivers/driver", "./proto/..."},
			Why:     "the exporter serves whatever harness it is given: it knows the kernel of the drivers and the wire",
		},
		lawtest.Ban{
			From:    []string{"./exporter/hook"},
			Imports: []string{"./..."},
			Allow:   []string{"./hw/process"},
			Why:     "hooks are processes of the exporter's machine, not of its harness",
		},
		lawtest.Ban{
			From:    []string{"./exporter/remote"},
			Imports: []string{"./..."},
			Allow:   []string{"./exporter/...", "./drivers/driver", "./proto/...", "./hw/process"},
			Why:     "what hosts drivers are processes of the exporter's machine; whatever they host, it is nobody's business here",
		},
		lawtest.Ban{
			From:    []string{"./exporter/..."},
			Imports: []string{"./drivers/*/..."},
			Allow:   []string{"./drivers/driver"},
			Deps:    true,
			Why:     "a program chooses its drivers; a client of the exporter carries none",
		},
		lawtest.Ban{
			From:    []string{"./exporter/..."},
			Imports: []string{"testing", "./hw/hwtest/..."},
			Deps:    true,
			Why:     "no program should carry what only tests need",
		},
		lawtest.Ban{
			From:    []string{"./exporter/config"},
			Imports: []string{"google.golang.org/grpc/...", "google.golang.org/protobuf/...", "./proto/..."},
			Deps:    true,
			Why:     "a file can be read and checked where nothing is served",
		},
		lawtest.Ban{
			From:    []string{"./exporter/client"},
			Imports: []string{"./exporter/config", "./exporter"},
			Deps:    true,
			Why:     "a client has no harness of its own",
		},
	)
}
