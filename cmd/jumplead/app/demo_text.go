package app

import (
	"fmt"
	"io"
	"net"
	"strings"
)

// tries are what a newcomer may type, and what comes of it.
var tries = []struct{ command, what string }{
	{"j", "everything that there is to call"},
	{"j power on", "switch the DUT on; j power read measures it"},
	{"j serial start-console", "its console; Enter brings a prompt, Ctrl-B three times leaves it"},
	{"j power cycle", "boot it again; a console in a third terminal shows how"},
	{"j storage flash FILE", "put any file on its SD card; the next boot tells what that is"},
	{"j tcp forward-tcp 8080", "its web page is http://localhost:8080 while this runs"},
	{"j bench unplug 10", "pull the console's cable for 10 seconds; j serial pipe says so"},
}

// introduce tells what can be done with a demo that is served.
func (p *program) introduce(w io.Writer, addr net.Addr, passphrase, config string) {
	target := addr.String()
	if a, ok := addr.(*net.TCPAddr); ok && a.IP.IsUnspecified() {
		target = fmt.Sprintf("localhost:%d", a.Port)
	}
	how := "shell --tls-grpc " + target + " --tls-grpc-insecure"
	if passphrase != "" {
		how += " --passphrase ..."
	}
	var list strings.Builder
	for _, t := range tries {
		fmt.Fprintf(&list, "  %-24s %s\n", t.command, t.what)
	}
	fmt.Fprintf(w, `
A virtual device under test is on the bench. Go there in another terminal:

  %s %s

and try, in the shell that this opens and that exit leaves:

%s
Jumpstarter's own client does the same:

  jmp %s -- j power on

The harness is %s.
Ctrl-C ends the demo. %[1]s demo --tour shows everything by itself.

`, p.Args[0], how, &list, how, config)
}
