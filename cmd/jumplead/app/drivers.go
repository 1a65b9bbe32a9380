package app

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/jumplead/jumplead/drivers/driver"
)

const driversHelp = `List the drivers that are built in, or tell all about some: their config keys,
methods and clients. A TYPE is the type of a config, or its last word.

--schema prints a JSON Schema of the ExporterConfig, with the keys of every
driver, for editors.`

// drivers tells what there is to configure and to call. It all comes from the
// code that runs it.
func drivers(_ context.Context, p *program, args []string) error {
	var asJSON, schema bool
	fs := p.flags("drivers")
	fs.BoolVar(&asJSON, "json", false, "print JSON, for programs")
	fs.BoolVar(&schema, "schema", false, "print a JSON Schema of the ExporterConfig")
	if err := p.parse(fs, args, commandHelp(fs, "drivers [OPTIONS] [TYPE]...", driversHelp)); err != nil {
		return err
	}
	if schema {
		if fs.NArg() > 0 {
			return usage("drivers: --schema is of all drivers: it takes no TYPE")
		}
		return printJSON(p.Stdout, configSchema(p.specs))
	}
	specs := p.specs
	if fs.NArg() > 0 {
		specs = nil
		for _, name := range fs.Args() {
			found, err := findSpecs(p.specs, name)
			if err != nil {
				return err
			}
			specs = append(specs, found...)
		}
	}
	switch {
	case asJSON:
		list := []driverInfo{}
		for _, s := range specs {
			list = append(list, describe(s))
		}
		return printJSON(p.Stdout, map[string]any{"drivers": list, "commonConfig": keyInfos(driver.CommonKeys()),
			"limits": keyInfos(driver.LimitKeys())})
	case fs.NArg() > 0:
		for i, s := range specs {
			if i > 0 {
				fmt.Fprintln(p.Stdout)
			}
			describe(s).print(p.Stdout)
		}
		return nil
	}
	specs = slices.Clone(specs)
	slices.SortStableFunc(specs, func(a, b driver.Spec) int {
		return cmp.Or(strings.Compare(a.Contract.Name, b.Contract.Name), strings.Compare(a.Type, b.Type))
	})
	table := tabwriter.NewWriter(p.Stdout, 0, 0, 2, ' ', 0)
	for _, s := range specs {
		fmt.Fprintf(table, "%s\t%s\t%s\n", s.Contract.Name, s.Type, s.Doc)
	}
	return table.Flush()
}

// findSpecs finds drivers by type, or by the last word of their types.
func findSpecs(specs []driver.Spec, name string) ([]driver.Spec, error) {
	var types []string
	var found []driver.Spec
	for _, s := range specs {
		if s.Type == name {
			return []driver.Spec{s}, nil
		}
		last := s.Type[strings.LastIndexByte(s.Type, '.')+1:]
		if strings.EqualFold(last, name) {
			found = append(found, s)
		}
		types = append(types, s.Type, last)
	}
	if found == nil {
		return nil, usage("drivers: no driver of type %q%s", name, driver.Hint(name, types))
	}
	return found, nil
}

// driverInfo is all that there is to know of a driver, as --json prints it.
type driverInfo struct {
	Type     string       `json:"type"`
	Doc      string       `json:"doc"`
	Contract string       `json:"contract"`
	Kind     string       `json:"driverType"` // as log records carry it
	Client   string       `json:"client"`
	Children []string     `json:"children,omitempty"` // that it needs
	Lenient  bool         `json:"ignoresUnknownKeys"`
	Limited  bool         `json:"limited"` // starts programs that keep limits
	Config   []keyInfo    `json:"config"`
	Methods  []methodInfo `json:"methods"`
}

type keyInfo struct {
	Name     string    `json:"name"`
	Type     string    `json:"type"`
	Required bool      `json:"required"`
	Default  string    `json:"default,omitempty"` // in YAML
	Min      string    `json:"min,omitempty"`
	Max      string    `json:"max,omitempty"`
	OneOf    []string  `json:"oneOf,omitempty"`
	Doc      string    `json:"doc"`
	Keys     []keyInfo `json:"keys,omitempty"`
}

type methodInfo struct {
	Name   string      `json:"name"`
	Usage  string      `json:"usage"`
	Doc    string      `json:"doc"`
	Kind   string      `json:"kind"` // call, feed (a sequence of results), stream
	Params []paramInfo `json:"params"`
	Result string      `json:"result,omitempty"`
}

type paramInfo struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Optional bool   `json:"optional"`
	Default  any    `json:"default,omitempty"`
	Tail     bool   `json:"tail,omitempty"` // takes all that are left
}

func describe(s driver.Spec) driverInfo {
	d := driverInfo{Type: s.Type, Doc: s.Doc, Contract: s.Contract.Name, Kind: s.Contract.Kind, Client: s.Contract.Client,
		Children: s.Children, Lenient: s.Lenient, Limited: s.Limited, Config: keyInfos(s.Keys()), Methods: []methodInfo{}}
	for _, e := range s.Table() {
		m := methodInfo{Name: e.Name(), Usage: e.Usage(), Doc: e.Doc(), Kind: e.Kind().String(), Params: []paramInfo{}}
		for _, p := range e.Params() {
			m.Params = append(m.Params, paramInfo{p.Name, driver.TypeName(p.Type), p.Optional, p.Default, p.Tail})
		}
		if r := e.Result(); r != nil {
			m.Result = driver.TypeName(r)
		}
		d.Methods = append(d.Methods, m)
	}
	return d
}

func keyInfos(keys []driver.Key) []keyInfo {
	list := []keyInfo{}
	for _, k := range keys {
		i := keyInfo{Name: k.Name, Type: k.Type, Required: k.Required, Default: k.Default, Min: k.Min, Max: k.Max, OneOf: k.OneOf, Doc: k.Doc}
		if len(k.Keys) > 0 {
			i.Keys = keyInfos(k.Keys)
		}
		list = append(list, i)
	}
	return list
}

func (d driverInfo) print(w io.Writer) {
	fmt.Fprintf(w, "%s\n    %s\n\n", d.Type, d.Doc)
	fmt.Fprintf(w, "contract  %s\nclient    %s\n", d.Contract, d.Client)
	if len(d.Children) > 0 {
		fmt.Fprintf(w, "children  %s\n", strings.Join(d.Children, ", "))
	}
	fmt.Fprint(w, "\nConfig:\n")
	printKeys(w, "  ", d.Config)
	var common []string
	for _, k := range driver.CommonKeys() {
		common = append(common, k.Name)
	}
	fmt.Fprintf(w, "  %s: as for every driver\n", strings.Join(common, ", "))
	if d.Lenient {
		fmt.Fprint(w, "  other keys are ignored\n")
	}
	if d.Limited {
		fmt.Fprint(w, "\nLimits (below x-jumplead):\n")
		printKeys(w, "  ", keyInfos(driver.LimitKeys()))
	}
	if len(d.Methods) == 0 {
		return
	}
	fmt.Fprint(w, "\nMethods:\n")
	for _, m := range d.Methods {
		result := m.Result
		switch {
		case m.Kind == driver.KindStream.String():
			result = "stream"
		case m.Kind == driver.KindFeed.String():
			result += " ..."
		}
		if result != "" {
			result = " -> " + result
		}
		fmt.Fprintf(w, "  %s%s\n      %s\n", m.Usage, result, m.Doc)
		for _, p := range m.Params {
			fmt.Fprintf(w, "      %s: %s%s\n", p.Name, p.Type, paramNote(p))
		}
	}
}

func paramNote(p paramInfo) string {
	switch {
	case p.Tail:
		return ", any number of them"
	case p.Default != nil:
		text, _ := json.Marshal(p.Default)
		return ", " + string(text) + " if left out"
	case p.Optional:
		return ", may be left out"
	}
	return ""
}

func printKeys(w io.Writer, indent string, keys []keyInfo) {
	for _, k := range keys {
		about := []string{k.Type}
		switch {
		case len(k.OneOf) > 0:
			about[0] = "one of " + strings.Join(k.OneOf, ", ")
		case k.Min != "" && k.Max != "":
			about = append(about, k.Min+" to "+k.Max)
		case k.Min != "":
			about = append(about, "at least "+k.Min)
		case k.Max != "":
			about = append(about, "at most "+k.Max)
		}
		switch {
		case k.Required:
			about = append(about, "required")
		case k.Default != "":
			about = append(about, "default "+k.Default)
		}
		fmt.Fprintf(w, "%s%s: %s\n%s    %s\n", indent, k.Name, strings.Join(about, "; "), indent, k.Doc)
		printKeys(w, indent+"    ", k.Keys)
	}
}
