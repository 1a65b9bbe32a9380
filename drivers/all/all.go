// Package all is the list of the drivers that jumplead comes with.
package all

import (
	"github.com/jumplead/jumplead/drivers/composite"
	"github.com/jumplead/jumplead/drivers/device/virtualdut"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/gpio/gpiod"
	"github.com/jumplead/jumplead/drivers/network/dbus"
	"github.com/jumplead/jumplead/drivers/network/echo"
	"github.com/jumplead/jumplead/drivers/network/tcp"
	"github.com/jumplead/jumplead/drivers/network/udp"
	"github.com/jumplead/jumplead/drivers/network/unix"
	"github.com/jumplead/jumplead/drivers/network/vsock"
	"github.com/jumplead/jumplead/drivers/network/websocket"
	"github.com/jumplead/jumplead/drivers/power/fakepower"
	"github.com/jumplead/jumplead/drivers/power/ina"
	"github.com/jumplead/jumplead/drivers/serial/pyserial"
	"github.com/jumplead/jumplead/drivers/shell/local"
	"github.com/jumplead/jumplead/drivers/ssh"
	"github.com/jumplead/jumplead/drivers/storage/fakestorage"
	"github.com/jumplead/jumplead/drivers/storage/localfs"
	"github.com/jumplead/jumplead/drivers/tmt"
	"github.com/jumplead/jumplead/drivers/vnc"
)

// Specs lists every driver, one a line.
func Specs() []driver.Spec {
	return []driver.Spec{
		composite.Composite,
		composite.Proxy,
		dbus.Network,
		echo.Network,
		fakepower.Mock,
		fakepower.SyncMock,
		fakestorage.Flasher,
		fakestorage.Mux,
		fakestorage.MuxFlasher,
		gpiod.Input,
		gpiod.Output,
		gpiod.Switch,
		ina.INA219,
		ina.INA226,
		ina.INA260,
		local.Shell,
		localfs.Spec,
		pyserial.Spec,
		ssh.Wrapper,
		tcp.Network,
		tmt.TMT,
		udp.Network,
		unix.Network,
		virtualdut.Power,
		virtualdut.Storage,
		vnc.VNC,
		vsock.Network,
		websocket.Network,
	}
}
