package app

import (
	"log/slog"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/remote"
)

// hosts makes what runs the drivers that only Python has. Close must follow.
func (p *program) hosts(log *slog.Logger) *remote.Hosts {
	return &remote.Hosts{Getenv: p.getenv, Log: log}
}

// hostedNodes finds out which nodes would be hosted, and which of them Python was
// not asked about, or would not tell of.
type hostedNodes struct {
	*remote.Hosts
	specs map[*driver.Decl]driver.Spec
}

// Mounts is for a plan.
func (h *hostedNodes) Mounts(root *driver.Decl, known map[string]*driver.Spec) (map[*driver.Decl]driver.Spec, driver.Problems) {
	var problems driver.Problems
	h.specs, problems = h.Hosts.Mounts(root, known)
	return h.specs, problems
}

// status is what check says of a node without mistakes.
func (h *hostedNodes) status(d *driver.Decl) string {
	spec, ok := h.specs[d]
	switch {
	case !ok:
		return "ok"
	case spec.Contract.Client == remote.UnknownClient:
		return "unchecked"
	}
	return "hosted"
}
