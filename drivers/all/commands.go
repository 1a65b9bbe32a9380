package all

import (
	"github.com/jumplead/jumplead/drivers/cli"
	"github.com/jumplead/jumplead/drivers/composite"
	"github.com/jumplead/jumplead/drivers/gpio"
	"github.com/jumplead/jumplead/drivers/network"
	"github.com/jumplead/jumplead/drivers/power"
	"github.com/jumplead/jumplead/drivers/serial"
	"github.com/jumplead/jumplead/drivers/shell"
	"github.com/jumplead/jumplead/drivers/ssh"
	"github.com/jumplead/jumplead/drivers/storage"
	"github.com/jumplead/jumplead/drivers/tmt"
	"github.com/jumplead/jumplead/drivers/vnc"
)

// Commands lists the commands of every client class that has any.
func Commands() cli.Table {
	t := cli.Table{
		gpio.InputContract.Client:         gpio.InputCommand,
		gpio.OutputContract.Client:        gpio.OutputCommand,
		network.Contract.Client:           network.Command,
		network.DbusClient:                network.Command,
		power.Contract.Client:             power.Command,
		power.VirtualClient:               power.VirtualCommand,
		serial.Contract.Client:            serial.Command,
		shell.Contract.Client:             shell.Command,
		ssh.Contract.Client:               ssh.Command,
		storage.CoreFlasherClient:         storage.FlasherCommand,
		storage.FlasherContract.Client:    storage.FlasherCommand,
		storage.MuxContract.Client:        storage.MuxCommand,
		storage.MuxFlasherContract.Client: storage.MuxFlasherCommand,
		storage.OpendalContract.Client:    storage.OpendalCommand,
		tmt.Contract.Client:               tmt.Command,
		vnc.Contract.Client:               vnc.Command,
	}
	t[composite.Contract.Client] = composite.Command(t)
	return t
}
