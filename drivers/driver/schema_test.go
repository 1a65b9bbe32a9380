package driver_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
)

// TestSchema looks at the parts of a schema; that they take what DecodeConfig
// takes is held against whole configs where the program prints it.
func TestSchema(t *testing.T) {
	type inner struct {
		X int `yaml:"x" min:"1" max:"9"`
	}
	type self struct {
		Below []self `yaml:"below,omitempty"`
	}
	spec := driver.Define(driver.Spec{}, func(context.Context, *driver.Env, struct {
		Text   string           `yaml:"text" doc:"a word"`
		Word   string           `yaml:"word" default:"off" oneof:"on off 3"`
		Flag   bool             `yaml:"flag" default:"true"`
		Wait   time.Duration    `yaml:"wait" default:"1.5" min:"0"`
		Rate   *float64         `yaml:"rate"`
		List   []int            `yaml:"list,omitempty" max:"7"`
		Map    map[string]inner `yaml:"map,omitempty"`
		Any    any              `yaml:"any,omitempty"`
		Secret driver.Secret    `yaml:"secret"`
		Self   self             `yaml:"self,omitempty"`
	}) (driver.Driver, error) {
		return driver.Driver{}, nil
	})
	s := spec.Schema()
	const (
		text   = `{"type":["string","number","boolean"]}`
		quoted = `{"pattern":"^\\s*[-+]?([0-9]+\\.?[0-9]*|\\.[0-9]+)([eE][-+]?[0-9]+)?\\s*$","type":"string"},` +
			`{"pattern":"^[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*(:[0-5]?[0-9])*(\\.[0-9_]*)?)$","type":"string"}`
		null = `{"type":"null"}`
	)
	for key, want := range map[string]string{
		"text":   `{"description":"a word","type":["string","number","boolean"]}`,
		"word":   `{"anyOf":[{"enum":["on",true,"off",false,"3",3]},` + null + `],"default":"off"}`,
		"wait":   `{"anyOf":[{"anyOf":[{"minimum":0,"type":"number"},` + quoted + `]},` + null + `],"default":1.5}`,
		"rate":   `{"anyOf":[{"anyOf":[{"type":"number"},` + quoted + `]},` + null + `]}`,
		"list":   `{"anyOf":[{"items":{"anyOf":[{"maximum":7,"type":"integer"},` + quoted + `]},"type":"array"},` + null + `]}`,
		"any":    `{"anyOf":[{},` + null + `]}`,
		"secret": text,
		"map": `{"anyOf":[{"additionalProperties":{"additionalProperties":false,"properties":{"x":{"anyOf":[{"maximum":9,"minimum":1,"type":"integer"},` +
			quoted + `]}},"required":["x"],"type":"object"},"type":"object"},` + null + `]}`,
	} {
		got, err := json.Marshal(s["properties"].(driver.Schema)[key])
		if err != nil || !sameJSON(t, string(got), want) {
			t.Errorf("Schema() of %s = %s, %v; want %s", key, got, err, want)
		}
	}
	if got, _ := json.Marshal(s["required"]); string(got) != `["text","secret"]` {
		t.Errorf("Schema() requires %s; want text and secret", got)
	}
	for _, common := range []string{"uuid", "labels", "log_level"} {
		if s["properties"].(driver.Schema)[common] == nil {
			t.Errorf("Schema() lacks %s; want what every driver has", common)
		}
	}
	if s["additionalProperties"] != false {
		t.Errorf("Schema() takes other keys; want them refused")
	}
	lenient := driver.Define(driver.Spec{Lenient: true}, func(context.Context, *driver.Env, struct{}) (driver.Driver, error) { return driver.Driver{}, nil })
	if _, there := lenient.Schema()["additionalProperties"]; there {
		t.Errorf("Schema() of a lenient spec refuses other keys; want them taken")
	}
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	if err := json.Unmarshal([]byte(b), &y); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(a), &x); err != nil {
		return false
	}
	p, _ := json.Marshal(x)
	q, _ := json.Marshal(y)
	return string(p) == string(q)
}
