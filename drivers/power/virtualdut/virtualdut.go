// Package virtualdut switches the supply rail of a virtual device under test,
// the command virtualdut, through its control socket. The device needs no bench:
// its console and its web page live and die with the rail, so that a harness
// can be tried out on any machine.
//
// Each call is a conversation of its own: a word goes out on a line, a JSON object
// with the state of the rail comes back. The command may be restarted at any
// time; the rail is off then. While it is not running, calls are unavailable.
//
// The rail is measured for real, and read yields one reading, of the moment of
// the call, then ends. So do upstream's supplies that can measure on demand;
// its command "power read" repeats the call for more.
package virtualdut

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/network"
	"github.com/jumplead/jumplead/drivers/power"
)

// Config says which device.
type Config struct {
	Socket string `yaml:"socket" doc:"the device's control.sock, in the directory that it was started with; a relative path is relative to the exporter's working directory"`
}

// maxPath is what the kernel's socket address holds, less the byte that ends it.
const maxPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// Validate implements [driver.Validator].
func (c Config) Validate() error {
	switch {
	case c.Socket == "":
		return driver.BadKey("socket", "is empty: wants the path of the device's control.sock")
	case len(c.Socket) > maxPath:
		return driver.BadKey("socket", "has %d bytes, and the kernel takes %d: use a shorter or a relative path", len(c.Socket), maxPath)
	}
	return nil
}

// Claims implements [driver.Claimer].
func (c Config) Claims() []driver.Claim {
	return []driver.Claim{{Kind: "virtual supply", Name: filepath.Clean(c.Socket)}}
}

// Spec is the virtual DUT's backend of the power contract.
var Spec = driver.Define(driver.Spec{
	Type:     "jumplead.power.VirtualDUT",
	Contract: power.Contract,
	Doc:      "the supply rail of a virtual device under test (the command virtualdut)",
}, func(_ context.Context, env *driver.Env, cfg Config) (driver.Driver, error) {
	return power.Driver(&supply{cfg.Socket, env.Log}), nil
})

type supply struct {
	socket string
	log    *slog.Logger
}

func (s *supply) On(ctx context.Context) error  { return s.turn(ctx, "on") }
func (s *supply) Off(ctx context.Context) error { return s.turn(ctx, "off") }

func (s *supply) turn(ctx context.Context, word string) error {
	if _, err := ask(ctx, s.socket, word); err != nil {
		return err
	}
	s.log.Info("power " + word)
	return nil
}

func (s *supply) Read(ctx context.Context) iter.Seq2[power.Reading, error] {
	return func(yield func(power.Reading, error) bool) {
		a, err := ask(ctx, s.socket, "read")
		yield(a.Reading, err)
	}
}

// answer is the device's, of which only what is used here is decoded.
type answer struct {
	Rail  string `json:"rail"`
	Error string `json:"error"`
	power.Reading
}

const (
	limit     = 10 * time.Second // the device answers within milliseconds
	answerMax = 4096             // bytes
)

// ask has a conversation of one word.
func ask(ctx context.Context, socket, word string) (answer, error) {
	a, err := converse(ctx, socket, word)
	if driver.Classify(err) == driver.Unavailable {
		err = fmt.Errorf("%w: start it with virtualdut --dir %s", err, filepath.Dir(socket))
	}
	if err != nil {
		return answer{}, fmt.Errorf("%s: virtual DUT: %w", word, err)
	}
	return a, nil
}

func converse(ctx context.Context, socket, word string) (a answer, err error) {
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
	if _, err = io.WriteString(conn, word+"\n"); err == nil {
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
