package app

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/jumplead/jumplead/drivers/driver"
)

// checkSpecs finds mistakes in a program's list of drivers. It runs at every
// start, whatever the command is, so that a program which was put together wrongly
// does not get as far as a harness.
//
// Two drivers of one type are one of these: which of them runs a config that names
// the type must not depend on their order.
func checkSpecs(specs []driver.Spec) error {
	var errs []error
	said := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("drivers of this program: "+format, args...))
	}
	first := make(map[string]driver.Spec, len(specs))
	for i, s := range specs {
		switch other, twice := first[s.Type]; {
		case s.Package() == "":
			said("number %d, type %q: it was not made with driver.Define", i+1, s.Type)
		case !dotted(s.Type):
			said("number %d, type %q, of %s: a type is a dotted name, such as lab.power.Relay", i+1, s.Type, s.Package())
		case twice:
			said("type %q is there twice, of %s and of %s; who means to replace a driver leaves the other one out", s.Type, other.Package(), s.Package())
		case !dotted(s.Contract.Client):
			said("type %q, of %s: client class %q of its contract: it is the path of a Python class, such as lab_client.Relay", s.Type, s.Package(), s.Contract.Client)
		}
		first[s.Type] = s
	}
	return errors.Join(errs...)
}

// dotted reports whether a text is words with dots between them.
func dotted(s string) bool {
	words := strings.Split(s, ".")
	for _, w := range words {
		if w == "" || strings.ContainsFunc(w, func(c rune) bool {
			return c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
		}) {
			return false
		}
	}
	return len(words) > 1
}

// modulePath is the module that this package is part of, whatever program it is
// built into.
const modulePath = "github.com/jumplead/jumplead"

// ownDrivers lists the types of the drivers that are not jumplead's.
func ownDrivers(specs []driver.Spec, main string) []string {
	own := []string{}
	for _, s := range specs {
		from := s.Package()
		if from == "main" { // the only package whose path does not tell its module
			from = main
		}
		if from != modulePath && !strings.HasPrefix(from, modulePath+"/") {
			own = append(own, s.Type)
		}
	}
	return own
}

// versions tells jumplead's version, and the module of the program if it is not
// jumplead's own.
func versions(info *debug.BuildInfo) (jumplead string, program *module) {
	if info.Main.Path == modulePath || info.Main.Path == "" {
		return info.Main.Version, nil
	}
	for _, m := range info.Deps {
		if m.Path != modulePath {
			continue
		}
		jumplead = m.Version
		if m.Replace != nil {
			jumplead = strings.TrimSpace(m.Replace.Path + " " + m.Replace.Version)
		}
	}
	return jumplead, &module{info.Main.Path, info.Main.Version}
}

// module is a Go module of which a program was built.
type module struct {
	Path    string `json:"path"`
	Version string `json:"version"`
}
