// Package local runs the scripts of the shell contract as processes of the
// exporter's machine.
//
//	shell:
//	  type: jumpstarter_driver_shell.driver.Shell
//	  config:
//	    methods:
//	      reboot: "ssh root@192.168.7.2 reboot"
//	      flash:
//	        command: "openocd -f board.cfg -c \"program $1 verify reset exit\""
//	        description: flash an image that is on the exporter
//	        timeout: 1800
//
// # How a script runs
//
// The command line is the shell's, then the script, the method's name and the
// caller's arguments: with bash -c the script sees them as $0 and $1, $2, ... It
// has the exporter's environment and the caller's variables, save those that
// would make it run something else. Its standard input is empty.
//
// # Output
//
// Output is passed on when it comes, and no more is read than the caller takes:
// the script of a slow reader waits, as it would in a pipe. Of two pieces on
// standard output and standard error that are written within a moment, either
// may come first.
//
// The call ends with the script's shell. What background processes of the script
// write is passed on for another second, if they have not been redirected; it is
// dropped from then on.
//
// # How it ends
//
// A script whose time is over, or whose caller went away, gets SIGTERM and, when
// that has not ended all of its processes after five seconds, SIGKILL. At the
// end of the session, SIGKILL comes at once.
//
// All of its processes are those in the script's session (every script starts
// one), and those that have the variable in their environment which every script
// is given. So nohup, timeout, setsid and double forks do not hide a process.
// What has left the session and dropped its environment is out of reach, such as
// after setsid env -i; so is what runs as another user, unless the exporter is
// root, and what a service was asked to run: systemd-run, docker, at.
//
// Processes that a script leaves in the background when it ends by itself live
// on until the end of the session. A service that is to outlive the session
// belongs to the service manager.
//
// An exporter that is killed itself has no time for any of this. The script's
// shell ends with it all the same; its children do not, except under a service
// manager that ends all processes of a unit, as systemd does.
//
// # Limits
//
// Scripts may have limits (see hw/process), each call its own. Where most files
// are out of their reach, they have a folder of their own, TMPDIR, which all calls share
// until the end of the session, and may read the working directory, if one is
// configured. When the kernel ends a script for a limit, the last piece of its
// standard error says so.
package local

import (
	"errors"
	"strings"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/shell"
	"gopkg.in/yaml.v3"
)

// Config is upstream's.
type Config struct {
	Methods map[string]Method `yaml:"methods" doc:"scripts by the names of the methods: a script, or a mapping of command, description and timeout"`
	Shell   []string          `yaml:"shell" default:"[bash, -c]" doc:"command line that the script is appended to"`
	Timeout time.Duration     `yaml:"timeout" default:"300" min:"0" doc:"seconds that a script may take"`
	Cwd     string            `yaml:"cwd,omitempty" doc:"working directory of the scripts; the exporter's own when it is left out"`

	names []string // of the methods, in the order of the file
}

// Method is one script. In a file it may be the bare text of its command.
type Method struct {
	Command     string         `yaml:"command" default:"echo Hello" doc:"the script"`
	Description *string        `yaml:"description" doc:"help text of the method"`
	Timeout     *time.Duration `yaml:"timeout" min:"0" doc:"seconds that the script may take, instead of the driver's timeout"`
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (m *Method) UnmarshalText(text []byte) error {
	m.Command = string(text)
	return m.check()
}

// Validate implements [driver.Validator].
func (m *Method) Validate() error {
	if err := m.check(); err != nil {
		return driver.BadKey("command", "%v", err)
	}
	return nil
}

func (m *Method) check() error {
	if strings.TrimSpace(m.Command) == "" {
		return errors.New("the script is empty")
	}
	return nil
}

// DescribeMethods implements [driver.MethodDescriber].
func (c *Config) DescribeMethods() map[string]string {
	all := map[string]string{}
	for name, m := range c.Methods {
		if m.Description != nil {
			all[name] = *m.Description
		}
	}
	return all
}

// ReadNode implements [driver.NodeReader].
func (c *Config) ReadNode(n *yaml.Node) {
	keys, _ := driver.Pairs(n, "")
	for _, k := range keys {
		if k.Name == "methods" {
			methods, _ := driver.Pairs(k.Value, "")
			for _, m := range methods {
				c.names = append(c.names, m.Name)
			}
		}
	}
}

// Shell is upstream's driver.
var Shell = driver.Define(driver.Spec{
	Type:     "jumpstarter_driver_shell.driver.Shell",
	Contract: shell.Contract,
	Doc:      "prepared scripts on the exporter's machine",
	Limited:  true,
}, open)
