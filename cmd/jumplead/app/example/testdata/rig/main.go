// Rig is a jumplead with a driver that has one of everything that drivers can
// have, for the tests: they build it outside of this module.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"sync"

	"github.com/jumplead/jumplead/cmd/jumplead/app"
	"github.com/jumplead/jumplead/drivers/all"
	"github.com/jumplead/jumplead/drivers/cli"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/power"
	"github.com/spf13/cobra"
)

func main() {
	proc := app.OS()
	proc.Commands = all.Commands()
	proc.Commands[Contract.Client] = Command
	os.Exit(app.Main(context.Background(), proc, append(all.Specs(), Rig)...))
}

// Contract is the lab's own. Python clients need no class of the lab's for it: they
// call its methods by name.
var Contract = driver.Contract{Name: "rig", Client: "jumpstarter.client.DriverClient", Kind: "rig", Exports: func() []driver.Export { return rows((*rig)(nil)) }}

// Command makes j's commands.
func Command(n *cli.Node) *cobra.Command {
	return n.Group("A rig", &cobra.Command{Use: "state", Long: "What state it is in", RunE: func(c *cobra.Command, _ []string) error {
		s, err := driver.Invoke[string](c.Context(), n.Caller, "state")
		if err == nil {
			err = n.Session.Print(c, s, "%s", s)
		}
		return err
	}})
}

// Rig is the driver.
var Rig = driver.Define(driver.Spec{
	Type: "lab.rig.Rig", Contract: Contract, Doc: "one of everything", Children: []string{"supply"},
}, func(_ context.Context, env *driver.Env, c config) (driver.Driver, error) {
	supply, ok := env.Child("supply")
	if !ok {
		return driver.Driver{}, errors.New("no supply")
	}
	ctx, end := context.WithCancel(context.Background())
	r := &rig{env: env, log: env.Log, supply: power.NewClient(supply), end: end}
	r.running.Go(func() { <-ctx.Done() }) // what watches a device, say
	return driver.Driver{Exports: rows(r), Impl: r}, nil
})

type config struct {
	Port string `yaml:"port" doc:"where it is"`
}

func (c *config) Claims() []driver.Claim    { return []driver.Claim{{Kind: "port", Name: c.Port}} }
func (c *config) Labels() map[string]string { return map[string]string{"lab.example.com/port": c.Port} }

type rig struct {
	env     *driver.Env
	log     *slog.Logger
	supply  *power.Client
	end     func()
	running sync.WaitGroup

	mu    sync.Mutex
	image []byte
}

func rows(r *rig) []driver.Export {
	return []driver.Export{
		driver.Call("state", r.State).Help("What state it is in"),
		driver.Feed1("count", r.Count).Args("to=3").Help("Count"),
		driver.Do1("load", r.Load).Args("image").Help("Load an image"),
		driver.Do1("save", r.Save).Args("image").Help("Save the image"),
		driver.Stream("connect", r.Connect).Help("An echo"),
	}
}

func (r *rig) State(ctx context.Context) (string, error) {
	r.log.Warn("somebody looks")
	for v, err := range r.supply.Read(ctx) {
		if err != nil {
			return "", err
		}
		if v.Voltage > 0 {
			return fmt.Sprintf("supplied with %g V", v.Voltage), nil
		}
	}
	return "dark", nil
}

func (r *rig) Count(_ context.Context, to int) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		for i := 1; i <= to && yield(i, nil); i++ {
		}
	}
}

func (r *rig) Load(ctx context.Context, h driver.Handle) error {
	var image bytes.Buffer
	err := r.env.Take(ctx, h, func(from io.Reader) error {
		_, err := driver.Copy(ctx, &image, from)
		return err
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.image = image.Bytes()
	return err
}

func (r *rig) Save(ctx context.Context, h driver.Handle) error {
	r.mu.Lock()
	image := r.image
	r.mu.Unlock()
	return r.env.Give(ctx, h, func(to io.Writer) error {
		_, err := driver.Copy(ctx, to, bytes.NewReader(image))
		return err
	})
}

// Connect hands out a pipe of which what is written is read again.
func (r *rig) Connect(context.Context) (io.ReadWriteCloser, error) {
	from, to := io.Pipe()
	return struct {
		io.Reader
		io.Writer
		io.Closer
	}{from, to, to}, nil
}

func (r *rig) Close() error {
	r.end()
	r.running.Wait()
	r.log.Info("the rig is let go")
	return nil
}
