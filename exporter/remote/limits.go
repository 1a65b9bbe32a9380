package remote

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/jumplead/jumplead/drivers/driver"
	keep "github.com/jumplead/jumplead/hw/process"
)

// bounds are the limits of the process, if it has any. Its own folder and all that
// is Python's is within its reach.
func (c *child) bounds(dir string) (*driver.Limits, error) {
	if c.limits == nil {
		return nil, nil
	}
	how, err := keep.Keeps(*c.limits, c.user)
	if err != nil {
		return nil, fmt.Errorf("limits: %w", err)
	}
	c.log().Info("hosted drivers have limits", "driver", "python", "limits", how)
	return c.limits.With(pythonFiles(c.python), []string{dir}), nil
}

// limitsText tells the limits of a node's programs from all others, "" is none. What
// people read would not do: a path may hold spaces.
func limitsText(d *driver.Decl) string {
	if d.Limits == nil || d.Limits.String() == "" {
		return ""
	}
	text, _ := json.Marshal(d.Limits) // numbers and texts
	return string(text)
}

// pythonFiles are the folders that an interpreter needs besides the system's: those
// of its environment, and of the installation that the environment was made from.
func pythonFiles(python string) (folders []string) {
	add := func(path string) {
		if abs, err := filepath.Abs(path); err == nil && abs != "/" {
			if _, err := os.Stat(abs); err == nil {
				folders = append(folders, abs)
			}
		}
	}
	real, err := filepath.EvalSymlinks(python)
	if err != nil {
		real = python
	}
	for _, path := range []string{python, real} {
		if filepath.Base(filepath.Dir(path)) == "bin" {
			add(filepath.Join(filepath.Dir(path), ".."))
		}
	}
	for _, path := range filepath.SplitList(os.Getenv("PYTHONPATH")) {
		if path != "" {
			add(path)
		}
	}
	return folders
}
