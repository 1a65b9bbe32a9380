package virtualdut

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/storage"
)

// StorageConfig says which device, and how fast its card is.
type StorageConfig struct {
	Device
	Speed float64 `yaml:"speed" default:"40" min:"0" doc:"of the card, in megabytes per second; 0 for no limit"`
}

// Claims implements [driver.Claimer].
func (c StorageConfig) Claims() []driver.Claim {
	return []driver.Claim{{Kind: "virtual card", Name: filepath.Clean(c.Socket)}}
}

// Storage is the backend of the storage mux's contract.
var Storage = driver.Define(driver.Spec{
	Type:     "jumplead.storage.VirtualDUT",
	Contract: storage.MuxFlasherContract,
	Doc:      "the SD card of a virtual device under test (the command virtualdut), in its mux",
}, func(_ context.Context, env *driver.Env, cfg StorageConfig) (driver.Driver, error) {
	c := &card{socket: cfg.Socket, rate: cfg.Speed * 1e6, turn: storage.NewTurn(), log: env.Log}
	return driver.Driver{Exports: storage.MuxExports(env, c), Impl: c}, nil
})

type card struct {
	socket string
	rate   float64 // bytes per second; 0 for no limit
	turn   storage.Turn
	log    *slog.Logger
}

// cardFile is the card's name in the device's directory.
const cardFile = "card"

func (c *card) Host(ctx context.Context) error { return c.turnTo(ctx, "host") }
func (c *card) DUT(ctx context.Context) error  { return c.turnTo(ctx, "dut") }
func (c *card) Off(ctx context.Context) error  { return c.turnTo(ctx, "off") }

func (c *card) turnTo(ctx context.Context, side string) error {
	letGo, err := c.turn.Hold(ctx)
	if err != nil {
		return err
	}
	defer letGo()
	if _, err := ask(ctx, c.socket, "card "+side); err != nil {
		return err
	}
	c.log.Info("card at " + side)
	return nil
}

func (c *card) Write(ctx context.Context, src io.Reader) error {
	return c.transfer(ctx, "write", func(root *os.Root) (int64, error) {
		p, err := storage.NewPartial(root, cardFile)
		if err != nil {
			return 0, err
		}
		defer p.Discard()
		n, err := driver.Copy(ctx, p, &paced{ctx: ctx, rate: c.rate, r: src})
		if err == nil {
			err = c.atHost(ctx) // still: the mux has other users than this node
		}
		if err == nil {
			err = p.Commit(ctx)
		}
		if err != nil {
			err = fmt.Errorf("%w; the card has its old content", err)
		}
		return n, err
	})
}

func (c *card) Read(ctx context.Context, dst io.Writer) error {
	return c.transfer(ctx, "read", func(root *os.Root) (int64, error) {
		f, err := storage.OpenRegular(root, cardFile)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		return storage.SendFile(ctx, &paced{ctx: ctx, rate: c.rate, w: dst}, f)
	})
}

func (c *card) transfer(ctx context.Context, what string, move func(*os.Root) (int64, error)) error {
	letGo, err := c.turn.Hold(ctx)
	if err != nil {
		return err
	}
	defer letGo()
	if err := c.atHost(ctx); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	root, err := os.OpenRoot(filepath.Dir(c.socket))
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer root.Close()
	begin := time.Now()
	n, err := move(root)
	if err != nil {
		return fmt.Errorf("%s the card: %w", what, err)
	}
	c.log.Info("card: "+what+" done", "bytes", n, "seconds", time.Since(begin).Seconds())
	return nil
}

// atHost fails unless the host has the card.
func (c *card) atHost(ctx context.Context) error {
	a, err := ask(ctx, c.socket, "read")
	switch {
	case err != nil:
		return err
	case a.Card == "dut":
		return fmt.Errorf("the card is on the DUT's side: call host first")
	case a.Card != "host":
		return fmt.Errorf("the card is on neither side: call host first")
	}
	return nil
}

// paced is a reader or a writer of so many bytes per second.
type paced struct {
	ctx  context.Context
	rate float64
	r    io.Reader
	w    io.Writer
	due  time.Time // when what has passed so far should have
}

func (p *paced) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if late := p.pace(n); err == nil {
		err = late
	}
	return n, err
}

func (p *paced) Write(b []byte) (int, error) {
	if err := p.pace(len(b)); err != nil {
		return 0, err
	}
	return p.w.Write(b)
}

// lag is how much of a timer's or the peer's being late is made up for.
const lag = 20 * time.Millisecond

// pace waits as long as n bytes take.
func (p *paced) pace(n int) error {
	if !(p.rate > 0) || n == 0 {
		return nil
	}
	if now := time.Now(); now.Sub(p.due) > lag {
		p.due = now
	}
	const ages = 24 * time.Hour
	p.due = p.due.Add(time.Duration(min(float64(n)/p.rate*float64(time.Second), float64(ages))))
	t := time.NewTimer(time.Until(p.due))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
}
