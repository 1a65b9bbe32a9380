// Package shell runs prepared scripts on the exporter's machine: what a harness
// needs and no driver offers, such as powering a DUT through a vendor's tool or
// fetching a log with scp.
//
// The contract is upstream's. The operator names methods and writes their
// scripts; a client sees the names, and calls one with arguments ($1, $2, ...)
// and environment variables. Output comes as the script writes it, in items of
// standard output and standard error; the last item has the exit status.
//
// # Exit status
//
// It is the script's own, or the negative number of the signal that ended the
// script's shell, or [TimeoutCode] when the script took too long.
//
// # Text
//
// Output travels as text. Bytes that are not UTF-8 become U+FFFD, so that a
// script with binary output has to encode it, for example with base64.
package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/jumplead/jumplead/drivers/driver"
)

// Contract is upstream's shell interface.
var Contract = driver.Contract{
	Name:   "shell",
	Client: "jumpstarter_driver_shell.client.ShellClient",
	Kind:   "shell",

	Exports: func() []driver.Export { return Exports((*Client)(nil)) },
}

// TimeoutCode is the exit status of a script that was ended for taking too long.
const TimeoutCode = 199

// Interface is a set of scripts.
type Interface interface {
	// Methods lists the names of the scripts.
	Methods(context.Context) ([]string, error)

	// Call runs a script, of which the processes end with the call: when the
	// caller stops listening, when the context is done, when the script's time
	// is over. A method, a variable or an argument that cannot be used is a
	// [driver.ArgError], and nothing was run. A sequence that ends without an
	// exit status ends with an error.
	Call(ctx context.Context, method string, env map[string]string, args ...string) iter.Seq2[Output, error]
}

// Output is a piece of what a script wrote.
type Output struct {
	Stdout, Stderr string
	Code           *int // exit status, in the last piece only
}

// Exports is the contract on the wire.
func Exports(s Interface) []driver.Export {
	call := func(ctx context.Context, method string, env map[string]string, args ...string) iter.Seq2[item, error] {
		return func(yield func(item, error) bool) {
			for o, err := range s.Call(ctx, method, env, args...) {
				if !yield(item{o.Stdout, o.Stderr, o.Code}, err) {
					return
				}
			}
		}
	}
	return []driver.Export{
		driver.Call("get_methods", s.Methods).Help("List the methods"),
		driver.FeedTail("call_method", call).Args("method", "env=null", "args").Help("Run a method"),
	}
}

// item is an [Output] on the wire.
type item [3]any

func (i item) output() (o Output, err error) {
	return o, errors.Join(
		driver.Decode(&o.Stdout, i[0], false),
		driver.Decode(&o.Stderr, i[1], false),
		driver.Decode(&o.Code, i[2], false),
	)
}

// Driver offers scripts to remote callers.
func Driver(s Interface) driver.Driver { return driver.Driver{Exports: Exports(s), Impl: s} }

// Client is a set of scripts behind a [driver.Caller].
type Client struct{ c driver.Caller }

var _ Interface = (*Client)(nil)

// NewClient makes a client of a shell node.
func NewClient(c driver.Caller) *Client { return &Client{c} }

func (c *Client) Methods(ctx context.Context) ([]string, error) {
	return driver.Invoke[[]string](ctx, c.c, "get_methods")
}

func (c *Client) Call(ctx context.Context, method string, env map[string]string, args ...string) iter.Seq2[Output, error] {
	values := []any{method, env}
	for _, a := range args {
		values = append(values, a)
	}
	return func(yield func(Output, error) bool) {
		ended := false
		for i, err := range driver.Iterate[item](ctx, c.c, "call_method", values...) {
			var o Output
			if err == nil {
				if o, err = i.output(); err != nil {
					err = fmt.Errorf("call_method: unexpected result: %v", err)
				}
			}
			ended = o.Code != nil
			if !yield(o, err) || err != nil {
				return
			}
		}
		if !ended {
			yield(Output{}, fmt.Errorf("%s: no exit status came: %w", method, io.ErrUnexpectedEOF))
		}
	}
}

// Run calls a method, writes its output to the writers, each of which may be
// nil, and returns its exit status. An error says that there is none.
func Run(ctx context.Context, s Interface, stdout, stderr io.Writer, method string, env map[string]string, args ...string) (int, error) {
	code := -1
	for o, err := range s.Call(ctx, method, env, args...) {
		if err == nil {
			err = errors.Join(write(stdout, o.Stdout), write(stderr, o.Stderr))
		}
		if err != nil {
			return -1, err
		}
		if o.Code != nil {
			code = *o.Code
		}
	}
	return code, nil
}

func write(w io.Writer, s string) error {
	if w == nil || s == "" {
		return nil
	}
	_, err := io.WriteString(w, s)
	return err
}
