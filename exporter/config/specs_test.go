package config

import (
	"context"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
)

// specs are small drivers for these tests.
var specs = []driver.Spec{
	driver.Define(driver.Spec{Type: "lab.Group", Role: driver.Group, Lenient: true}, open[struct{}]),
	driver.Define(driver.Spec{Type: "lab.Proxy", Role: driver.Ref, Lenient: true}, open[proxy]),
	driver.Define(driver.Spec{Type: "lab.Yawl", Lenient: true}, open[struct{}]),
	driver.Define(driver.Spec{Type: "lab.Boat"}, open[boat]),
}

func open[C any](context.Context, *driver.Env, C) (driver.Driver, error) { return driver.Driver{}, nil }

type proxy struct {
	Ref string `yaml:"ref" doc:"what it stands for"`
}

func (p proxy) RefPath() string { return p.Ref }

// boat has a key of every kind.
type boat struct {
	Speed  int              `yaml:"speed" min:"-5" max:"60" doc:"knots"`
	Name   string           `yaml:"name" default:"Erna"`
	Rig    string           `yaml:"rig" default:"sloop" oneof:"sloop ketch cutter"`
	Engine bool             `yaml:"engine" default:"false"`
	Watch  time.Duration    `yaml:"watch" default:"14400"`
	Draft  *float64         `yaml:"draft"`
	Crew   []string         `yaml:"crew,omitempty"`
	Lights map[string]uint8 `yaml:"lights,omitempty"`
	Log    any              `yaml:"log,omitempty"`
	Sails  []struct {
		Area float64 `yaml:"area" doc:"square metres"`
	} `yaml:"sails,omitempty"`
	Flags map[string]string `yaml:"flags,omitempty"`
}

func (b *boat) Claims() []driver.Claim { return []driver.Claim{{Kind: "berth", Name: b.Name}} }
