// Package composite groups nodes. A composite has children and nothing else; a
// proxy stands for a node elsewhere in the tree, so that one device can appear
// under several names. In a configuration a node with only children is a
// composite, and a node with only a ref is a proxy:
//
//	export:
//	  dut:
//	    children:
//	      power: {type: jumpstarter_driver_power.driver.MockPower}
//	  supply: {ref: dut.power}
package composite

import (
	"context"

	"github.com/jumplead/jumplead/drivers/driver"
)

// Contract has no methods. Its client finds the children by name.
var Contract = driver.Contract{
	Name:   "composite",
	Client: "jumpstarter_driver_composite.client.CompositeClient",
	Kind:   "composite",
}

// Composite is the group node.
var Composite = driver.Define(driver.Spec{
	Type:     "jumpstarter_driver_composite.driver.Composite",
	Contract: Contract,
	Doc:      "a group of nodes",
	Role:     driver.Group,
	Lenient:  true,
}, func(context.Context, *driver.Env, struct{}) (driver.Driver, error) {
	return driver.Driver{}, nil
})

// ProxyConfig is the config of a proxy that is spelled with its type.
type ProxyConfig struct {
	Ref string `yaml:"ref" doc:"names from the top of the export down to the node, joined by dots"`
}

// RefPath tells the tree which node the proxy stands for.
func (c ProxyConfig) RefPath() string { return c.Ref }

// Proxy stands for another node. It reports that node's identity and is never
// opened itself.
var Proxy = driver.Define(driver.Spec{
	Type:     "jumpstarter_driver_composite.driver.Proxy",
	Contract: Contract,
	Doc:      "a second name for a node elsewhere in the tree",
	Role:     driver.Ref,
	Lenient:  true,
}, func(context.Context, *driver.Env, ProxyConfig) (driver.Driver, error) {
	return driver.Driver{}, nil
})
