package app

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/jumplead/jumplead/drivers/driver"
)

// configSchema is a JSON Schema of the ExporterConfig for the drivers at hand. It
// says what check says, as far as a schema can: not that references lead
// somewhere, nor what a driver's own code looks at. What check only warns of is
// valid, a mistyped key is not.
func configSchema(specs []driver.Spec) driver.Schema {
	specs = slices.SortedFunc(slices.Values(specs), func(a, b driver.Spec) int { return cmp.Compare(a.Type, b.Type) })
	var types, docs, modules []string
	defs := driver.Schema{}
	rules := []driver.Schema{}
	for _, s := range specs {
		types, docs = append(types, s.Type), append(docs, s.Doc)
		if module := regexp.QuoteMeta(s.Type[:max(0, strings.LastIndexByte(s.Type, '.'))]); !slices.Contains(modules, module) {
			modules = append(modules, module)
		}
		config := s.Schema()
		config["title"], config["description"] = s.Type, s.Doc
		defs[s.Type] = config
		then := driver.Schema{"properties": driver.Schema{"config": driver.Schema{"$ref": "#/$defs/" + s.Type}}}
		var required []string
		if _, must := config["required"]; must {
			required = append(required, "config")
		}
		if len(s.Children) > 0 {
			required = append(required, "children")
			then["properties"].(driver.Schema)["children"] = driver.Schema{"required": s.Children}
		}
		if required != nil {
			then["required"] = required
		}
		rules = append(rules, driver.Schema{
			"if":   driver.Schema{"properties": driver.Schema{"type": driver.Schema{"const": s.Type}}, "required": []string{"type"}},
			"then": then,
		})
	}
	text := driver.Schema{"type": "string"}
	optional := driver.Schema{"type": []string{"string", "null"}}
	says := func(x driver.Schema, doc string) driver.Schema {
		y := driver.Schema{"description": doc}
		for k, v := range x {
			y[k] = v
		}
		return y
	}
	instances := driver.Schema{"type": "object", "additionalProperties": driver.Schema{"$ref": "#/$defs/instance"}, "propertyNames": driver.Schema{"minLength": 1}}
	// As the reader does: type comes first, then children, then ref. What has no
	// effect beside them may be anything.
	defs["instance"] = driver.Schema{
		"type": "object",
		"properties": driver.Schema{
			"type":                driver.Schema{"description": "the driver that runs this node"},
			"description":         driver.Schema{"description": "what the node is, for the people who use it"},
			"methods_description": driver.Schema{"description": "what the node's commands do, by their names"},
			"config":              driver.Schema{"description": "the driver's own keys"},
			"children":            says(instances, "nodes below this one, by their names"),
			"ref":                 driver.Schema{"description": "names from the top of the export down to the node that this one stands for, joined by dots"},
		},
		"additionalProperties": false,
		"if":                   driver.Schema{"required": []string{"type"}},
		"then": driver.Schema{
			"properties": driver.Schema{
				// Python may have others, but in other modules than ours.
				"type": driver.Schema{"anyOf": []driver.Schema{
					{"enum": types, "enumDescriptions": docs},
					{"type": "string", "pattern": `^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+$`,
						"not": driver.Schema{"pattern": "^(" + strings.Join(modules, "|") + `)(\.|$)`}},
				}},
				"description":         optional,
				"methods_description": driver.Schema{"type": "object", "additionalProperties": text},
				"config":              driver.Schema{"type": "object"},
			},
			"allOf": rules,
		},
		"else": driver.Schema{
			"if": driver.Schema{"not": driver.Schema{"required": []string{"children"}}},
			"then": driver.Schema{
				"properties": driver.Schema{"ref": driver.Schema{"type": "string", "minLength": 1}},
				"required":   []string{"ref"},
			},
		},
	}
	number := func(doc string) driver.Schema {
		return driver.Schema{"description": doc, "anyOf": []driver.Schema{{"type": "integer"}, {"type": "boolean"}, {"type": "string", "pattern": `^\s*[-+]?[0-9]`}}}
	}
	truth := func(doc string) driver.Schema {
		return driver.Schema{"description": doc, "anyOf": []driver.Schema{{"enum": []any{true, false, 0, 1}},
			{"type": "string", "pattern": "^(?:" + anyCase("true", "false", "on", "off", "yes", "no", "y", "n", "t", "f", "1", "0") + ")$"}}}
	}
	defs["hook"] = driver.Schema{
		"type": []string{"object", "null"},
		"properties": driver.Schema{
			"script":    says(text, "what to run: a script, or the path of one"),
			"exec":      says(optional, "the program that runs the script"),
			"timeout":   number("seconds that the hook may take; 120 if left out"),
			"onFailure": driver.Schema{"enum": []string{"warn", "endLease", "exit"}, "description": "what follows a failure; warn if left out"},
		},
		"patternProperties":    driver.Schema{"^exec_$": optional, "^on_failure$": text},
		"required":             []string{"script"},
		"additionalProperties": false,
	}
	hook := func(doc string) driver.Schema {
		return driver.Schema{"$ref": "#/$defs/hook", "description": doc}
	}
	closed := func(properties driver.Schema) driver.Schema {
		return driver.Schema{"type": "object", "properties": properties, "additionalProperties": false}
	}
	failures := closed(driver.Schema{
		"maxRapidFailures":   number("how many rapid failures in a row end the exporter; 5 if left out"),
		"rapidFailureWindow": number("seconds; who fails earlier failed rapidly; 60 if left out"),
	})
	// Other names of the same keys, which nobody should be offered.
	failures["patternProperties"] = driver.Schema{"^(max_rapid_failures|rapid_failure_window)$": true}
	hooks := closed(driver.Schema{"beforeLease": hook("runs when a lease begins"), "afterLease": hook("runs when a lease ends")})
	hooks["patternProperties"] = driver.Schema{"^(before|after)_lease$": hook("another spelling")}
	// Namespace and name may come from the environment, and upstream takes them in
	// any case.
	metadata := closed(driver.Schema{"namespace": says(optional, "the exporter's namespace"), "name": says(text, "the exporter's name")})
	metadata["patternProperties"] = driver.Schema{"^" + anyCase("namespace") + "$": optional, "^" + anyCase("name") + "$": text}

	limits := says(driver.Schema{"anyOf": []driver.Schema{driver.LimitSchema(), {"type": "null"}}},
		"what the programs may take of the machine that nodes start: hosted drivers and scripts; null lifts what is said above")
	hosting := func(more driver.Schema) driver.Schema {
		keys := driver.Schema{
			"python": says(text, "the interpreter of hosted drivers"),
			"user":   says(text, "whom hosted drivers run as"),
			"limits": limits,
		}
		maps.Copy(keys, more)
		return closed(keys)
	}
	ours := hosting(driver.Schema{
		"hosted": driver.Schema{"description": "paths of nodes to run in Python although there is a driver here; true: all of them",
			"anyOf": []driver.Schema{{"const": true}, {"type": "array", "items": text}}},
		"hooks": says(closed(driver.Schema{"limits": limits}), "how hooks are run"),
		"nodes": driver.Schema{"type": "object", "description": "the same for some nodes and what is below them, by their paths",
			"additionalProperties": hosting(driver.Schema{"hosted": truth("run it in Python although there is a driver here")})},
	})

	return driver.Schema{
		"$schema":     "https://json-schema.org/draft/2020-12/schema",
		"title":       "ExporterConfig",
		"description": "who an exporter is, and what it exports",
		"type":        "object",
		"properties": driver.Schema{
			"apiVersion":       driver.Schema{"const": "jumpstarter.dev/v1alpha1"},
			"kind":             driver.Schema{"const": "ExporterConfig"},
			"metadata":         says(metadata, "who the exporter is"),
			"description":      says(optional, "what the harness is, for the people who use it"),
			"motd":             says(optional, "a greeting for those who enter a shell"),
			"export":           says(instances, "the nodes of the harness, by their names"),
			"hooks":            says(hooks, "scripts that run when a lease begins and ends"),
			"endpoint":         says(optional, "host and port of the controller"),
			"token":            says(optional, "what the exporter proves with who it is to the controller"),
			"tls":              says(closed(driver.Schema{"ca": says(text, "certificate authority of the controller: PEM in base64"), "insecure": truth("do not verify the controller")}), "how to verify the controller"),
			"grpcOptions":      driver.Schema{"type": []string{"object", "null"}, "additionalProperties": driver.Schema{"type": []string{"string", "integer", "boolean"}}, "description": "options of gRPC channels"},
			"failureDetection": says(failures, "when an exporter gives up that keeps failing"),
			"exitOnLeaseEnd":   truth("end after a lease instead of waiting for the next one"),
			"alias":            text,
			"path":             optional,
			"x-jumplead":       says(ours, "how this exporter runs nodes; Jumpstarter's passes over it"),
		},
		"patternProperties":    driver.Schema{"^x-": true}, // anchors
		"required":             []string{"metadata"},
		"additionalProperties": false,
		"$defs":                defs,
	}
}

// anyCase is a pattern of words in any mix of cases; schemas have no flag for it.
func anyCase(words ...string) string {
	var b strings.Builder
	b.WriteString("(")
	for i, w := range words {
		if i > 0 {
			b.WriteString("|")
		}
		for _, c := range w {
			if lower, upper := strings.ToLower(string(c)), strings.ToUpper(string(c)); lower != upper {
				b.WriteString("[" + lower + upper + "]")
				continue
			}
			b.WriteRune(c)
		}
	}
	return b.String() + ")"
}
