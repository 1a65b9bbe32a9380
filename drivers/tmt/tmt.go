// Package tmt tells clients how to run tests on a device under test with tmt,
// the Test Management Tool.
//
// The contract is upstream's. The client runs its own tmt, whose guest is the
// DUT, and the exporter says what tmt has to know of it: the login, and the
// command with which the client reboots a DUT that hangs. The connection goes
// through a child of the node, which is called ssh and is the DUT's SSH service
// as the exporter reaches it.
//
// The password is handed to every client that holds the harness. It appears in
// no log and in no error.
package tmt

import (
	"context"

	"github.com/jumplead/jumplead/drivers/driver"
)

// Contract is upstream's TMT node.
var Contract = driver.Contract{
	Name:   "tmt",
	Client: "jumpstarter_driver_tmt.client.TMTClient",
	Kind:   "testing",

	Exports: func() []driver.Export { return Exports((*Client)(nil)) },
}

// Service is the child that every node of the contract has: where the DUT's SSH
// service is.
const Service = "ssh"

// Interface is a guest of tmt.
type Interface interface {
	// RebootCommand is what the client's tmt runs, on the client's machine, to
	// reboot the DUT the hard way: "j power cycle". "" is none.
	RebootCommand(context.Context) (string, error)

	// Login is a user's name and password, each of which may be "".
	Login(context.Context) (user, password string, err error)
}

// Exports is the contract on the wire.
func Exports(t Interface) []driver.Export {
	login := func(ctx context.Context) (pair [2]string, err error) {
		pair[0], pair[1], err = t.Login(ctx)
		return pair, err
	}
	return []driver.Export{
		driver.Call("get_reboot_cmd", t.RebootCommand).Help("The command that reboots the DUT"),
		driver.Call("get_default_user_pass", login).Help("The user's name and password"),
	}
}

// Driver offers a guest to remote callers.
func Driver(t Interface) driver.Driver { return driver.Driver{Exports: Exports(t), Impl: t} }

// Client is a guest behind a [driver.Caller].
type Client struct{ c driver.Caller }

var _ Interface = (*Client)(nil)

// NewClient makes a client of a TMT node.
func NewClient(c driver.Caller) *Client { return &Client{c} }

func (c *Client) RebootCommand(ctx context.Context) (string, error) {
	return driver.Invoke[string](ctx, c.c, "get_reboot_cmd")
}

func (c *Client) Login(ctx context.Context) (user, password string, err error) {
	pair, err := driver.Invoke[[2]string](ctx, c.c, "get_default_user_pass")
	return pair[0], pair[1], err
}

// Config is the config of a node of the contract.
type Config struct {
	Reboot   string        `yaml:"reboot_cmd" default:"" doc:"command on the client's machine that reboots the DUT the hard way, such as: j power cycle"`
	Username string        `yaml:"default_username" default:"" doc:"who tmt logs in as, unless the client's user says otherwise"`
	Password driver.Secret `yaml:"default_password" default:"" doc:"password of that user; every client gets it"`
}

// TMT is the contract's driver.
var TMT = driver.Define(driver.Spec{
	Type:     "jumpstarter_driver_tmt.driver.TMT",
	Contract: Contract,
	Doc:      "the DUT as a guest of tmt, for clients that run tests with it",
	Children: []string{Service},
}, func(_ context.Context, _ *driver.Env, cfg Config) (driver.Driver, error) {
	return Driver(guest(cfg)), nil
})

type guest Config

func (g guest) RebootCommand(context.Context) (string, error) { return g.Reboot, nil }

func (g guest) Login(context.Context) (user, password string, err error) {
	return g.Username, string(g.Password), nil
}
