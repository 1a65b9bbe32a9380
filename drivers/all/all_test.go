package all_test

import (
	"reflect"
	"slices"
	"testing"

	"github.com/jumplead/jumplead/drivers/all"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/network/echo"
	"github.com/jumplead/jumplead/hw/hwtest"
	"github.com/jumplead/jumplead/hw/i2c/i2ctest"
)

// configs are what it takes to open a driver on any machine, by type. A driver
// that is not listed is opened without a config.
func configs(t *testing.T) map[string]string {
	return map[string]string{
		"jumplead.power.INA219":                              "address: 0x40",
		"jumplead.power.INA226":                              "address: 0x41",
		"jumplead.power.INA260":                              "address: 0x42",
		"jumplead.power.VirtualDUT":                          "socket: control.sock",
		"jumplead.storage.VirtualDUT":                        "socket: control.sock",
		"jumpstarter_driver_gpiod.driver.DigitalInput":       "line: 0",
		"jumpstarter_driver_gpiod.driver.DigitalOutput":      "line: 0",
		"jumpstarter_driver_gpiod.driver.PowerSwitch":        "line: 0",
		"jumpstarter_driver_network.driver.DbusNetwork":      "kind: system",
		"jumpstarter_driver_network.driver.TcpNetwork":       "{host: localhost, port: 1}",
		"jumpstarter_driver_network.driver.UdpNetwork":       "{host: localhost, port: 1}",
		"jumpstarter_driver_network.driver.UnixNetwork":      "path: s",
		"jumpstarter_driver_network.driver.VsockNetwork":     "{cid: 2, port: 1}",
		"jumpstarter_driver_network.driver.WebsocketNetwork": "url: ws://localhost",
		"jumpstarter_driver_opendal.driver.Opendal":          "{scheme: fs, kwargs: {root: " + t.TempDir() + "}}",
		"jumpstarter_driver_pyserial.driver.PySerial":        "url: loop://",
		"jumpstarter_driver_shell.driver.Shell":              "methods: {ls: ls}",
	}
}

// TestTables holds what specs say of their rows without opening anything against
// the rows of the opened drivers.
func TestTables(t *testing.T) {
	configs := configs(t)
	for _, spec := range all.Specs() {
		if spec.Role == driver.Ref {
			continue // stands for a node that has rows of its own
		}
		host, board := hwtest.Host()
		board.GPIO.Add("gpiochip0", "model", 1)
		board.I2C.Add(1)
		for i, model := range []int{219, 226, 260} {
			board.I2C.Plug(1, uint16(0x40+i), i2ctest.NewINA(model, 0.1))
		}
		b := drivertest.Bench{Host: host, Specs: []driver.Spec{echo.Network}, Resources: new(drivertest.Offers)}
		for _, name := range spec.Children {
			b.Children = append(b.Children, driver.Decl{Name: name, Type: echo.Network.Type})
		}
		d, err := b.Tree(t, configs[spec.Type], spec).Root.Driver(t.Context())
		if err != nil {
			t.Errorf("%s: Driver() = %v; want nil", spec.Type, err)
			continue
		}
		got, want := rows(spec.Table()), rows(d.Exports)
		if !slices.EqualFunc(got, want, func(a, b row) bool { return reflect.DeepEqual(a, b) }) {
			t.Errorf("%s: Table() = %+v; want the opened driver's %+v", spec.Type, got, want)
		}
		if n := len(want); n == 0 && spec.Role != driver.Group {
			t.Errorf("%s exports %d rows; want some", spec.Type, n)
		}
	}
}

// row is all that a row says of itself.
type row struct {
	usage, doc string
	kind       driver.Kind
	params     []driver.Param
	result     reflect.Type
}

func rows(table []driver.Export) (list []row) {
	for _, e := range table {
		list = append(list, row{e.Usage(), e.Doc(), e.Kind(), e.Params(), e.Result()})
	}
	return list
}
