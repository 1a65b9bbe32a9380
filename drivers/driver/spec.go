package driver

import (
	"context"
	"log/slog"
	"reflect"
	"runtime"
	"strings"
	"time"

	"github.com/jumplead/jumplead/hw"
	"gopkg.in/yaml.v3"
)

// Contract is an interface on the wire.
type Contract struct {
	Name   string // as the folder is called: "power"
	Client string // the Python class that stock clients make for it
	Kind   string // upstream's driver_type, which log records carry

	// Forwarded says that clients forward local connections into its streams
	// and watch only for their end: a stream that fails must end as well.
	Forwarded bool

	// Exports is the table of a node of the contract without a node: for who
	// only reads it, as the functions behind its rows have nothing to work with.
	// The contract's own client, a pointer to nothing, makes one:
	//
	//	Exports: func() []driver.Export { return Exports((*Client)(nil)) },
	//
	// It is nil where there are no rows.
	Exports func() []Export
}

// Role says what a node of a spec is to the tree.
type Role uint8

const (
	Leaf     Role = iota // a driver of its own; it may have children all the same
	Group                // what a node without a type becomes
	Ref                  // stands for another node; its config has a RefPath method
	Mounting             // its drivers are elsewhere, see [Mounted]; what is below it is known only once it is open
)

// Spec registers a backend under the type string that configurations name.
type Spec struct {
	Type     string // upstream's import path where upstream has the driver
	Contract Contract
	Doc      string // one line
	Role     Role
	Lenient  bool     // unknown config keys are ignored, with a warning, as upstream ignores them
	Children []string // names of the children that a node must have, each of its own or a ref

	// Grace is how long its driver may take to close, where that is more than
	// letting go of a device.
	Grace time.Duration

	// Limited says that its nodes start programs, and keep the Limits of their Env.
	Limited bool

	// Exports is what the contract's Exports is, for a backend whose table is not
	// quite the contract's: one that lacks a row, or has one more.
	Exports func() []Export

	config reflect.Type
	open   func(context.Context, *Env, any) (Driver, error)
	code   uintptr // of the function that was given to open it
}

// Define completes a spec with its config struct and the function that opens
// the hardware. The context bounds the opening; the driver lives until it is
// closed. An error that is [ErrUnavailable] or hw.ErrAbsent says that the device
// is not there now: the node stays, and opening is tried again when it is used.
//
// What a config can do beyond its tags is found by assertion: [Validator],
// [Claimer] or [Locator], [Labeler], [MethodDescriber], [NodeReader], [Prober],
// [Starter].
func Define[C any](s Spec, open func(context.Context, *Env, C) (Driver, error)) Spec {
	s.config = reflect.TypeFor[C]()
	s.code = reflect.ValueOf(open).Pointer()
	s.open = func(ctx context.Context, env *Env, cfg any) (Driver, error) {
		return open(ctx, env, *cfg.(*C))
	}
	return s
}

// Package is the import path of the package whose function opens the spec's
// nodes, or "main" where that is the program itself. It is "" for a spec that
// [Define] has not completed.
func (s Spec) Package() string {
	f := runtime.FuncForPC(s.code)
	if f == nil {
		return ""
	}
	name, _, _ := strings.Cut(f.Name(), "[") // what is generic names its types behind that
	i := strings.LastIndexByte(name, '/') + 1
	last, _, _ := strings.Cut(name[i:], ".")
	return name[:i] + strings.ReplaceAll(last, "%2e", ".") // as the linker spells a dot there
}

// Claim is something that only one node can have at a time.
type Claim struct {
	Kind string // "serial port", "line"
	Name string
}

func (c Claim) String() string { return c.Kind + " " + c.Name }

// Claimer is a config that knows what its node will take.
type Claimer interface {
	Claims() []Claim
}

// Locator is a config that names things as the board does. It says what its node
// will take on a host, by the host's names alone: nothing is looked for. The error
// becomes a warning, as hardware may know more names than the host; BadKey places
// it.
type Locator interface {
	Locate(hw.Host) ([]Claim, error)
}

// Starter is a config that knows whether its node starts programs, of a spec that is
// Limited. Without it, all of its nodes do.
type Starter interface {
	Starts() bool
}

// Labeler is a config that adds labels to its node's report.
type Labeler interface {
	Labels() map[string]string
}

// MethodDescriber is a config that describes methods in its node's report, by
// their names on the client's command line. What it says comes before what the
// declaration says.
type MethodDescriber interface {
	DescribeMethods() map[string]string
}

// NodeReader is a config that needs to know more of its YAML than its fields
// hold, such as the order of a mapping. It is shown the mapping without the keys
// that all drivers have, once it was decoded without an error.
type NodeReader interface {
	ReadNode(*yaml.Node)
}

// Table lists the rows that a node of the spec has, for who only reads them: the
// functions behind them must not be called.
func (s Spec) Table() []Export {
	switch {
	case s.Exports != nil:
		return s.Exports()
	case s.Contract.Exports != nil:
		return s.Contract.Exports()
	}
	return nil
}

// Key describes one key of a spec's config.
type Key struct {
	Name     string
	Type     string
	Default  string
	Min, Max string   // of a number, or ""
	OneOf    []string // the words that it may hold, if only some
	Required bool
	Doc      string
	Keys     []Key // of the mapping that it holds, or the mappings
}

// Keys lists the config keys of a spec, without those that all drivers have.
func (s Spec) Keys() []Key {
	if s.config == nil {
		return nil
	}
	return keysOf(s.config, 0)
}

// CommonKeys lists the config keys that all drivers have.
func CommonKeys() []Key { return keysOf(reflect.TypeFor[common](), 0) }

// describedDepth bounds descriptions of types, as a type may contain itself.
const describedDepth = 4

// innermost is what pointers, lists and maps of a type lead to.
func innermost(t reflect.Type) reflect.Type {
	for range describedDepth {
		switch t.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
			t = t.Elem()
		}
	}
	return t
}

func keysOf(t reflect.Type, depth int) []Key {
	var keys []Key
	for _, f := range fieldsOf(t, "yaml") {
		k := Key{Name: f.name, Type: typeName(f.typ), Default: f.def, Min: f.min, Max: f.max, Doc: f.doc, Required: f.required()}
		if len(f.oneof) > 0 {
			k.OneOf = f.oneof
		}
		if t := innermost(f.typ); t.Kind() == reflect.Struct && depth < describedDepth {
			k.Keys = keysOf(t, depth+1)
		}
		keys = append(keys, k)
	}
	return keys
}

// Env is what a backend is given when it is opened.
type Env struct {
	Host hw.Host      // what the board has
	Log  *slog.Logger // goes to the exporter's log and to the clients
	Path string       // where the node is: "dut.power"

	Limits *Limits // of the programs that it starts, if its Spec is Limited; nil is none

	node *Node
	tree *Tree
}

// Child reaches a child of the node by name.
func (e *Env) Child(name string) (Caller, bool) {
	if e.node == nil {
		return nil, false
	}
	if c := e.node.child(name); c != nil {
		return c.Caller(), true
	}
	return nil, false
}
