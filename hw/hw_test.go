package hw_test

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/jumplead/jumplead/hw"
)

func TestMark(t *testing.T) {
	cause := &fs.PathError{Op: "open", Path: "/dev/x", Err: fs.ErrNotExist}
	err := hw.Mark(hw.ErrAbsent, cause)
	if err.Error() != cause.Error() {
		t.Errorf("Mark(ErrAbsent, %v) reads %q; want the text of its cause", cause, err)
	}
	for _, kind := range []error{hw.ErrAbsent, fs.ErrNotExist} {
		if !errors.Is(err, kind) {
			t.Errorf("errors.Is(%v, %v) = false; want true", err, kind)
		}
	}
	if errors.Is(err, hw.ErrBusy) {
		t.Errorf("errors.Is(%v, ErrBusy) = true; want false", err)
	}
	if got := hw.Mark(hw.ErrAbsent, nil); got != nil {
		t.Errorf("Mark(ErrAbsent, nil) = %v; want nil", got)
	}
}

func TestHostWithoutSerial(t *testing.T) {
	_, err := hw.Host{}.OpenSerial(t.Context(), "/dev/ttyUSB0", hw.SerialOptions{Baud: 9600})
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("OpenSerial on an empty host = %v; want an error of kind %q", err, errors.ErrUnsupported)
	}
}
