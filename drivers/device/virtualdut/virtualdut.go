// Package virtualdut drives a virtual device under test, the command virtualdut,
// through its control socket: its supply rail and its SD card. The device needs
// no bench: its console and its web page live and die with the rail, and it boots
// what is on the card, so that a harness can be tried out on any machine.
//
// Each call is a conversation of its own: a request goes out on a line, a JSON
// object with the state of the device comes back. The command may be restarted at
// any time; the rail is off then. While it is not running, calls are unavailable.
//
// # The rail
//
// The rail is measured for real, and read yields one reading, of the moment of
// the call, then ends. So do upstream's supplies that can measure on demand;
// its command "power read" repeats the call for more.
//
// # The card
//
// The card is a file beside the socket, of any size, and the mux that it sits in
// is the device's. As on hardware, the card can be written and read while the mux
// has it on the host's side, and an image takes as long as it does on a card: 40
// MB/s, unless the config says otherwise. A write that fails leaves the old
// content.
package virtualdut

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/network"
	"github.com/jumplead/jumplead/drivers/power"
)

// Device is the part of a config that says which device.
type Device struct {
	Socket string `yaml:"socket" doc:"the device's control.sock, in the directory that it was started with; a relative path is relative to the exporter's working directory"`
}

// maxPath is what the kernel's socket address holds, less the byte that ends it.
const maxPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// Validate implements [driver.Validator].
func (c Device) Validate() error {
	switch {
	case c.Socket == "":
		return driver.BadKey("socket", "is empty: wants the path of the device's control.sock")
	case len(c.Socket) > maxPath:
		return driver.BadKey("socket", "has %d bytes, and the kernel takes %d: use a shorter or a relative path", len(c.Socket), maxPath)
	}
	return nil
}

// answer is the device's, of which only what is used here is decoded.
type answer struct {
	Rail  string `json:"rail"`
	Card  string `json:"card"`
	Error string `json:"error"`
	power.Reading
}

const (
	limit     = 10 * time.Second // the device answers within milliseconds
	answerMax = 4096             // bytes
)

// ask has a conversation of one request.
func ask(ctx context.Context, socket, request string) (answer, error) {
	a, err := converse(ctx, socket, request)
	if driver.Classify(err) == driver.Unavailable {
		err = fmt.Errorf("%w: start it with virtualdut --dir %s", err, filepath.Dir(socket))
	}
	if err != nil {
		return answer{}, fmt.Errorf("%s: virtual DUT: %w", request, err)
	}
	return a, nil
}

func converse(ctx context.Context, socket, request string) (a answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, err := network.Dial(ctx, "unix", socket)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var line string
	if _, err = io.WriteString(conn, request+"\n"); err == nil {
		line, err = bufio.NewReader(io.LimitReader(conn, answerMax)).ReadString('\n')
	}
	switch {
	case ctx.Err() != nil:
		return answer{}, fmt.Errorf("no answer at %s: %w", socket, ctx.Err())
	case err != nil && len(line) < answerMax:
		// It was stopped between the question and the answer.
		return answer{}, fmt.Errorf("%w: %s hung up", driver.ErrUnavailable, socket)
	}
	if err := json.Unmarshal([]byte(line), &a); err != nil || a.Error == "" && a.Rail != "on" && a.Rail != "off" {
		return answer{}, fmt.Errorf("%s answers %.80q: is it the control socket of a virtual DUT?", socket, line)
	}
	if a.Error != "" {
		return answer{}, fmt.Errorf("%s: %s", socket, a.Error)
	}
	return a, nil
}
