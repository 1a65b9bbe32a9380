// Package hook runs the scripts that an exporter's config has for the beginning
// and the end of a lease: beforeLease makes the harness ready for its next user,
// afterLease leaves it tidy behind the last one.
//
//	hooks:
//	  beforeLease:
//	    script: |
//	      j power cycle
//	      echo "kernel: $(j ssh -- uname -r)" > "$JMP_MOTD_FILE"
//	    timeout: 60
//	    onFailure: endLease
//	  afterLease:
//	    script: /usr/local/lib/lab/tidy.py
//
// # What a script gets
//
// A script of one line that is the path of a file runs from that file, any other
// is handed to its interpreter with -c. The interpreter is exec, or Python for a
// file that ends in .py, or /bin/sh. It runs in the exporter's working directory,
// with a terminal for its three standard streams, so that programs write line by
// line, and with the exporter's environment, and in it
//
//	JUMPSTARTER_HOST    a Unix socket on which j, jmp and Python clients reach the
//	                    harness; it asks for no passphrase
//	JMP_DRIVERS_ALLOW   UNSAFE: these clients may use every driver
//	LEASE_NAME, CLIENT_NAME
//	JMP_MOTD_FILE       beforeLease only: what the script writes into this file is
//	                    told to every user who comes in, at most 64 KiB
//
// and what makes programs behave for nobody in front of the terminal: TERM is
// dumb, DEBIAN_FRONTEND is noninteractive, and so on.
//
// # How it ends
//
// A script whose time is over gets SIGTERM and, when that has not ended all of
// its processes after five seconds, SIGKILL. It is all of its processes that are
// ended: how they are found is in [process.Mark]. What a script that went well
// leaves in the background lives on until the end of the lease, [Runner.Close];
// its output is dropped. Bash makes the terminal its own, so that the kernel sends
// its background jobs SIGHUP when it ends, as at a logout: there, nohup and setsid
// keep them.
//
// # Limits
//
// Hooks may have limits, see [process.StartLimited], each script its own. Where most files are
// out of its reach, it has those of its lease all the same, and a file that it
// is run from.
//
// [process.StartLimited]: https://pkg.go.dev/github.com/jumplead/jumplead/hw/process#StartLimited
// [process.Mark]: https://pkg.go.dev/github.com/jumplead/jumplead/hw/process#Mark
package hook

import (
	"log/slog"
	"strings"
	"time"

	"github.com/jumplead/jumplead/hw/process"
)

// Hooks are an exporter's; nil is none.
type Hooks struct {
	BeforeLease, AfterLease *Hook
}

// Any reports whether there are hooks.
func (h Hooks) Any() bool { return h.BeforeLease != nil || h.AfterLease != nil }

// Hook is one script.
type Hook struct {
	Script    string // a blank one is not run
	Exec      string // interpreter; "" leaves it to the script
	Timeout   time.Duration
	OnFailure Policy

	Limits *process.Limits // of what the machine gives it; nil is none
}

// DefaultTimeout is how long a hook may take that does not say.
const DefaultTimeout = 120 * time.Second

// Policy says what becomes of a lease whose hook failed.
type Policy string

// The policies, as a config spells them.
const (
	Warn     Policy = "warn"     // the lease goes on, and its user is told
	EndLease Policy = "endLease" // the lease ends
	Exit     Policy = "exit"     // the exporter ends
)

// Blank reports whether there is nothing to run.
func (h Hook) Blank() bool { return strings.TrimSpace(h.Script) == "" }

// Kind is which of the hooks one is.
type Kind string

// The kinds of hooks, as a config spells them.
const (
	BeforeLease Kind = "beforeLease"
	AfterLease  Kind = "afterLease"
)

// Options are a lease's.
type Options struct {
	Socket        string // path of the Unix socket on which scripts reach the harness
	Lease, Client string // names
	Bin           string // a directory that comes first on the scripts' PATH; "" is none
	Dir           string // for files of the runner's own

	// Log gets the scripts' output, one line in a record with an attribute hook,
	// the [Kind], and what there is to tell of it.
	Log *slog.Logger

	// Now is closed when there is no time for anything: a script that runs is
	// killed.
	Now <-chan struct{}
}

// Failure is a hook that failed.
type Failure struct {
	Text      string // in upstream's words, which clients show
	OnFailure Policy
}

func (f *Failure) Error() string { return f.Text }
