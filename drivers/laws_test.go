package drivers_test

import (
	"path/filepath"
	"testing"

	"github.com/jumplead/jumplead/hw/hwtest/lawtest"
)

// TestLaws is the law of this floor:
//
//	drivers/driver               may lean on  hw
//	drivers/cli                               drivers/driver
//	drivers/CONTRACT                          drivers/driver, drivers/cli
//	drivers/ssh, tmt, vnc                     drivers/network, too
//	drivers/CONTRACT/BACKEND                  any contract, drivers/driver, hw/...
//	drivers/CONTRACT/...test                  the same: suites that backends are held against
//	drivers/all                               all of these
func TestLaws(t *testing.T) {
	suites, err := filepath.Glob("*/*test")
	if err != nil || len(suites) == 0 {
		t.Fatalf("Glob() = %v, %v; want the suites", suites, err)
	}
	for i, s := range suites {
		suites[i] = "./drivers/" + filepath.ToSlash(s)
	}
	throughNetwork := []string{"./drivers/ssh", "./drivers/tmt", "./drivers/vnc"}
	lawtest.Check(t,
		lawtest.Ban{
			From:    []string{"./drivers/driver"},
			Imports: []string{"./..."},
			Allow:   []string{"./hw"},
			Why:     "the kernel is beneath every driver, and knows of the board only that there is one",
		},
		lawtest.Ban{
			From:    []string{"./drivers/*"},
			Except:  append([]string{"./drivers/driver", "./drivers/all"}, throughNetwork...),
			Imports: []string{"./..."},
			Allow:   []string{"./drivers/driver", "./drivers/cli"},
			Why:     "a contract says what a harness can do, not with what; a client of it needs no hardware",
		},
		lawtest.Ban{
			From:    throughNetwork,
			Imports: []string{"./..."},
			Allow:   []string{"./drivers/driver", "./drivers/cli", "./drivers/network"},
			Why:     "their commands forward the network service that is their child, and need no other contract",
		},
		lawtest.Ban{
			From:    []string{"./drivers/*/*/..."},
			Except:  suites,
			Imports: []string{"./..."},
			Allow:   []string{"./drivers/*", "./hw/..."},
			Own:     3,
			Why:     "a backend is one device: it may use any contract, but no other device, and nothing that uses it",
		},
		lawtest.Ban{
			From:    suites,
			Imports: []string{"./..."},
			Allow:   []string{"./drivers/*", "./drivers/driver/drivertest", "./hw/..."},
			Why:     "a suite serves every backend of its contract, so that it must know none",
		},
		lawtest.Ban{
			From:    []string{"./drivers/..."},
			Except:  suites,
			Imports: append(suites, "testing", "./hw/hwtest/..."),
			Deps:    true,
			Why:     "suites are for test files: no program should carry them",
		},
		lawtest.Ban{
			From:    []string{"./drivers/..."},
			Imports: []string{"./drivers/all"},
			Why:     "the list of all drivers is for programs; whoever is on it cannot know it",
		},
		lawtest.Ban{
			From:    []string{"./drivers/..."},
			Imports: []string{"./exporter/...", "./proto/...", "./board/...", "./image/...", "./cmd/..."},
			Deps:    true,
			Why:     "a driver does not know over which wire it is used, by whom, or on which board",
		},
		lawtest.Ban{
			From:    []string{"./drivers/..."},
			Imports: []string{"google.golang.org/grpc/...", "google.golang.org/protobuf/..."},
			Deps:    true,
			Why:     "a driver is called in process as well as over the wire; only exporter/rpc knows both",
		},
		lawtest.Ban{
			From:    []string{"./drivers/..."},
			Imports: []string{"./hw/usb/libusb", "github.com/google/gousb/..."},
			Deps:    true,
			Why:     "the C library comes with the host that a driver is given, where the build has it",
		},
	)
}
