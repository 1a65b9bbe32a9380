// Package ssh tells clients how to log in to a device under test.
//
// The contract is upstream's. The client runs its own ssh program and the
// exporter only says with which arguments: the command, the user's name, the
// private key. The connection goes through a child of the node, which is called
// tcp and is the DUT's SSH service as the exporter reaches it: the client
// forwards a port to it, or connects to its address if asked to.
//
// # The private key
//
// A key that is configured is handed to every client that holds the harness.
// That is its purpose, and it must open nothing else than DUTs. It appears in
// no log and in no error. A key in a file is read when it is first asked for,
// once: the exporter starts before the file is there, and a session never sees
// two keys.
package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/jumplead/jumplead/drivers/driver"
)

// Contract is upstream's SSH wrapper.
var Contract = driver.Contract{
	Name:   "ssh",
	Client: "jumpstarter_driver_ssh.client.SSHWrapperClient",
	Kind:   "network",

	Exports: func() []driver.Export { return Exports((*Client)(nil)) },
}

// Service is the child that every node of the contract has: where the DUT's SSH
// service is.
const Service = "tcp"

// Interface is a way to log in.
type Interface interface {
	// Username is who to log in as, or "" for whomever the command would.
	Username(context.Context) (string, error)

	// Command is the ssh program and the arguments that it always gets, as a
	// shell would split them.
	Command(context.Context) (string, error)

	// Identity is the text of a private key, or "" to use the client's own.
	Identity(context.Context) (string, error)
}

// Exports is the contract on the wire.
func Exports(s Interface) []driver.Export {
	identity := func(ctx context.Context) (*string, error) {
		key, err := s.Identity(ctx)
		if key == "" {
			return nil, err
		}
		return &key, err
	}
	return []driver.Export{
		driver.Call("get_default_username", s.Username).Help("Who to log in as"),
		driver.Call("get_ssh_command", s.Command).Help("The ssh program and its arguments"),
		driver.Call("get_ssh_identity", identity).Help("The private key to log in with"),
	}
}

// Driver offers a way to log in to remote callers.
func Driver(s Interface) driver.Driver { return driver.Driver{Exports: Exports(s), Impl: s} }

// Client is a way to log in behind a [driver.Caller].
type Client struct{ c driver.Caller }

var _ Interface = (*Client)(nil)

// NewClient makes a client of an SSH node.
func NewClient(c driver.Caller) *Client { return &Client{c} }

func (c *Client) Username(ctx context.Context) (string, error) {
	return driver.Invoke[string](ctx, c.c, "get_default_username")
}

func (c *Client) Command(ctx context.Context) (string, error) {
	return driver.Invoke[string](ctx, c.c, "get_ssh_command")
}

func (c *Client) Identity(ctx context.Context) (string, error) {
	key, err := driver.Invoke[*string](ctx, c.c, "get_ssh_identity")
	if err != nil || key == nil {
		return "", err
	}
	return *key, nil
}

// Config is the config of a node of the contract.
type Config struct {
	DefaultUsername string        `yaml:"default_username" default:"" doc:"who to log in as, unless the client's user says otherwise"`
	Command         string        `yaml:"ssh_command" default:"ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR" doc:"the ssh program on the client's machine and its arguments; a DUT that is flashed has a new host key each time, which the default accepts"`
	Identity        driver.Secret `yaml:"ssh_identity,omitempty" doc:"text of the private key that clients log in with; every client gets it"`
	IdentityFile    string        `yaml:"ssh_identity_file,omitempty" doc:"file on the exporter's machine that holds the private key, instead of ssh_identity"`
}

// Validate implements [driver.Validator].
func (c Config) Validate() error {
	if c.Identity != "" && c.IdentityFile != "" {
		return driver.BadKey("ssh_identity_file", "Cannot specify both ssh_identity and ssh_identity_file") // upstream's words
	}
	return nil
}

// Wrapper is the contract's driver. It needs nothing of the machine but a file.
var Wrapper = driver.Define(driver.Spec{
	Type:     "jumpstarter_driver_ssh.driver.SSHWrapper",
	Contract: Contract,
	Doc:      "how to log in to the DUT, for clients that run ssh",
	Children: []string{Service},
}, func(_ context.Context, _ *driver.Env, cfg Config) (driver.Driver, error) {
	return Driver(&wrapper{cfg: cfg}), nil
})

type wrapper struct {
	cfg Config

	mu   sync.Mutex
	read bool   // the file was
	key  string // what was in it
}

func (w *wrapper) Username(context.Context) (string, error) { return w.cfg.DefaultUsername, nil }
func (w *wrapper) Command(context.Context) (string, error)  { return w.cfg.Command, nil }

func (w *wrapper) Identity(context.Context) (string, error) {
	if w.cfg.IdentityFile == "" {
		return string(w.cfg.Identity), nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.read {
		return w.key, nil
	}
	key, err := readKey(w.cfg.IdentityFile)
	if err != nil {
		var path *fs.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		// Upstream's words and, as it is not wrapped, upstream's class: the
		// configuration is wrong, and not a device of the harness.
		return "", fmt.Errorf("Failed to read ssh_identity_file '%s': %v", w.cfg.IdentityFile, err)
	}
	w.read, w.key = true, key
	return key, nil
}

// maxKey is many times the size of the largest key.
const maxKey = 1 << 20

func readKey(name string) (string, error) {
	// One that waits for somebody to write (a named pipe) would never open.
	info, err := os.Stat(name)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("it is no regular file")
	}
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	key, err := io.ReadAll(io.LimitReader(f, maxKey+1))
	switch {
	case err != nil:
		return "", err
	case len(key) > maxKey:
		return "", fmt.Errorf("more than %d bytes are no key", maxKey)
	case !utf8.Valid(key):
		return "", errors.New("it is not text (UTF-8)")
	}
	return newlines.Replace(string(key)), nil
}

// newlines makes text of what other systems save, as upstream's reader does: ssh
// wants the lines of a key to end in a line feed.
var newlines = strings.NewReplacer("\r\n", "\n", "\r", "\n")
