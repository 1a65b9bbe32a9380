package hw_test

import (
	"testing"

	"github.com/jumplead/jumplead/hw/hwtest/lawtest"
)

func TestLaws(t *testing.T) {
	lawtest.Check(t,
		lawtest.Ban{
			From:    []string{"./hw/..."},
			Imports: []string{"./..."},
			Allow:   []string{"./hw/..."},
			Why:     "hw is the ground floor: what a board has, whoever uses it",
		},
		lawtest.Ban{
			From:    []string{"./..."},
			Except:  []string{"./hw/usb/libusb"},
			Imports: []string{"github.com/google/gousb/...", "C"},
			Why:     "one C library, bound in hw/usb/libusb: all else builds without a C compiler",
		},
		lawtest.Ban{
			From:    []string{"./hw/..."},
			Except:  []string{"./hw/usb/libusb"},
			Imports: []string{"github.com/google/gousb/..."},
			Deps:    true,
			Why:     "hw/usb and the rest see libusb through an interface, which cmd fills where the build has it",
		},
		lawtest.Ban{
			From:    []string{"./hw/..."},
			Imports: []string{"google.golang.org/grpc/...", "google.golang.org/protobuf/..."},
			Deps:    true,
			Why:     "hardware knows nothing of the wire that its callers sit behind",
		},
		lawtest.Ban{
			From:    []string{"./..."},
			Imports: []string{"./hw/hwtest/lawtest"},
			Why:     "it runs the go command; only test files may import it",
		},
	)
}
