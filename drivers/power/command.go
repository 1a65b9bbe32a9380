package power

import (
	"context"
	"fmt"
	"time"

	"github.com/jumplead/jumplead/drivers/cli"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/spf13/cobra"
)

// VirtualClient is the client class of supplies of virtual machines, whose off
// may also destroy the machine.
const VirtualClient = "jumpstarter_driver_power.client.VirtualPowerClient"

// Command makes the commands of a supply.
func Command(n *cli.Node) *cobra.Command {
	p := NewClient(n.Caller)
	off := &cobra.Command{Use: "off", Long: "Power off", RunE: func(c *cobra.Command, _ []string) error { return p.Off(c.Context()) }}
	return command(n, p, off)
}

// VirtualCommand makes the commands of a virtual machine's supply.
func VirtualCommand(n *cli.Node) *cobra.Command {
	destroy := false
	off := &cobra.Command{Use: "off", Long: "Power off", RunE: func(c *cobra.Command, _ []string) error {
		return driver.Run(c.Context(), n.Caller, "off", destroy)
	}}
	off.Flags().BoolVar(&destroy, "destroy", false, "Destroy the machine after that")
	return command(n, NewClient(n.Caller), off)
}

func command(n *cli.Node, p Interface, off *cobra.Command) *cobra.Command {
	var wait, count int
	var interval float64
	cycle := &cobra.Command{Use: "cycle", Long: "Power cycle", RunE: func(c *cobra.Command, _ []string) error {
		if wait < 0 { // said before the supply is off
			return cli.Usage(c, "Invalid value for '--wait' / '-w': %d is below 0.", wait)
		}
		// A message and no result, yet where scripts may look for it.
		if !n.Session.JSON {
			fmt.Fprintf(c.OutOrStdout(), "Power cycling with %d seconds wait time...\n", wait)
		}
		return Cycle(c.Context(), p, time.Duration(wait)*time.Second)
	}}
	cycle.Flags().IntVarP(&wait, "wait", "w", int(CycleWait/time.Second), "Seconds to leave the supply off")
	read := &cobra.Command{Use: "read", Long: "Read power measurements", RunE: func(c *cobra.Command, _ []string) error {
		for i := 0; count == 0 || i < count; i++ {
			if i > 0 {
				if err := pause(c.Context(), time.Duration(interval*float64(time.Second))); err != nil {
					return err
				}
			}
			for r, err := range p.Read(c.Context()) {
				if err == nil {
					err = n.Session.Print(c, r, "voltage=%s V  current=%s A  apparent_power=%s VA",
						cli.Float(r.Voltage), cli.Float(r.Current), cli.Float(r.Voltage*r.Current))
				}
				if err != nil {
					return err
				}
			}
		}
		return nil
	}}
	read.Flags().IntVarP(&count, "count", "n", 1, "Number of measurements, 0 for no end")
	read.Flags().Float64VarP(&interval, "interval", "i", 1, "Seconds from one measurement to the next")
	return n.Group("Generic power",
		&cobra.Command{Use: "on", Long: "Power on", RunE: func(c *cobra.Command, _ []string) error { return p.On(c.Context()) }},
		off, cycle, read,
	)
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
