//go:build !ppc64 && !ppc64le

package serialtest

import (
	"os"

	"golang.org/x/sys/unix"
)

func settings(slave *os.File) (Settings, error) {
	var s Settings
	err := control(slave, func(fd int) error {
		t, err := unix.IoctlGetTermios(fd, unix.TCGETS2)
		if err == nil {
			s = Settings{Baud: int(t.Ospeed), HUPCL: t.Cflag&unix.HUPCL != 0}
		}
		return err
	})
	return s, err
}

func control(f *os.File, do func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var doErr error
	if err := conn.Control(func(fd uintptr) { doErr = do(int(fd)) }); err != nil {
		return err
	}
	return doErr
}
