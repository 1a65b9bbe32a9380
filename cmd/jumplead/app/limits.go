package app

import (
	"fmt"
	"log/slog"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/config"
	"github.com/jumplead/jumplead/exporter/hook"
	"github.com/jumplead/jumplead/hw/process"
)

// logLimits tells how limits of hooks are kept; nodes tell of theirs.
func logLimits(log *slog.Logger, cfg *config.Config) {
	for _, h := range []*hook.Hook{cfg.Hooks.BeforeLease, cfg.Hooks.AfterLease} {
		if h != nil && h.Limits != nil {
			how, _ := process.Keeps(*h.Limits, "") // or it would not be run
			log.Info("hooks have limits", "limits", how)
			return
		}
	}
}

// unkept finds the limits that this machine cannot keep. What has them would not be
// started here.
func unkept(tree *driver.Tree, cfg *config.Config) (problems driver.Problems) {
	for _, h := range []*hook.Hook{cfg.Hooks.BeforeLease, cfg.Hooks.AfterLease} {
		if h != nil && h.Limits != nil {
			if _, err := process.Keeps(*h.Limits, ""); err != nil {
				problems = append(problems, driver.Problem{Pos: cfg.HookLimitsPos, Text: fmt.Sprintf("hooks: limits: %v", err)})
				break
			}
		}
	}
	if tree == nil {
		return problems
	}
	for _, n := range tree.Nodes() {
		l, user := n.Limits()
		if l == nil {
			continue
		}
		if _, err := process.Keeps(*l, user); err != nil {
			problems = append(problems, driver.Problem{Pos: n.LimitsPos(), Node: n.Path, Text: fmt.Sprintf("%s: limits: %v", n.Path, err)})
		}
	}
	return problems
}
