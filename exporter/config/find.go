package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/jumplead/jumplead/drivers/driver"
)

// system is where the files of a machine's services are.
const system = "/etc/jumpstarter/exporters"

// Find is the path of the file that an alias stands for: ALIAS.yaml in the
// user's folder of exporters, or else in /etc/jumpstarter/exporters. The user's
// is the folder exporters in JMP_CLIENT_CONFIG_HOME, in the folder jumpstarter
// of XDG_CONFIG_HOME, or in ~/.config/jumpstarter.
func Find(alias string, getenv func(string) string) (string, error) {
	return find(alias, userDir(getenv), system)
}

func userDir(getenv func(string) string) string {
	if dir := getenv("JMP_CLIENT_CONFIG_HOME"); dir != "" {
		return filepath.Join(dir, "exporters")
	}
	dir := getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) { // must be, says the XDG specification
		home := getenv("HOME")
		if home == "" { // as for a unit of the system
			if u, err := user.Current(); err == nil {
				home = u.HomeDir
			}
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "jumpstarter", "exporters")
}

func find(alias string, dirs ...string) (string, error) {
	if alias == "" || alias == "." || alias == ".." || strings.ContainsAny(alias, `/\`) {
		return "", fmt.Errorf("exporter alias %q: must be the name of a file without .yaml; for a path there is --exporter-config", alias)
	}
	var tried, aliases []string
	for _, dir := range dirs {
		path := filepath.Join(dir, alias+".yaml")
		_, err := os.Stat(path)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return "", fmt.Errorf("exporter %q: %w", alias, advise(err))
		}
		tried = append(tried, path)
		entries, _ := os.ReadDir(dir) // only for the message
		for _, e := range entries {
			if name, ok := strings.CutSuffix(e.Name(), ".yaml"); ok {
				aliases = append(aliases, name)
			}
		}
	}
	slices.Sort(aliases)
	there := "there are no others"
	if aliases = slices.Compact(aliases); len(aliases) > 0 {
		there = "there is " + strings.Join(aliases, ", ") + driver.Hint(alias, aliases)
	}
	return "", fmt.Errorf("exporter %q: %w: looked for %s; %s", alias, fs.ErrNotExist, strings.Join(tried, " and "), there)
}
