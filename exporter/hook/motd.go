package hook

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/jumplead/jumplead/hw/process"
)

// motdFile is the variable that names the file in which a beforeLease hook leaves
// what users are to know.
const motdFile = "JMP_MOTD_FILE"

// maxMOTD is how much of that file is read, in bytes.
const maxMOTD = 64 << 10

// readMOTD reads what a hook has left there, which need not be the file that was
// put there.
func readMOTD(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe would block
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a regular file any more", path)
	}
	p, err := io.ReadAll(io.LimitReader(f, maxMOTD))
	if err != nil {
		return "", err
	}
	return strings.TrimFunc(strings.ToValidUTF8(string(p), "\uFFFD"), process.IsSpace), nil
}
