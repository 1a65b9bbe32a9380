package dbus

import (
	"fmt"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"unix:path=/run/dbus/system_bus_socket":              "unix /run/dbus/system_bus_socket",
		"unix:path=/tmp/a%20b%2c%3B%25,guid=0123":            "unix /tmp/a b,;%",
		"unix:path=/tmp/ü+\\*._-":                            "unix /tmp/ü+\\*._-",
		"unix:path=@x":                                       "unix ./@x",
		"unix:path=relative":                                 "unix relative",
		"unix:guid=1,abstract=/tmp/dbus-x":                   "unix @/tmp/dbus-x",
		"tcp:host=127.0.0.1,port=55556":                      "tcp 127.0.0.1:55556",
		"tcp:host=bus%2elab,port=1,family=ipv4,bind=*":       "tcp4 bus.lab:1",
		"tcp:host=%3a%3a1,port=65535,family=ipv6":            "tcp6 [::1]:65535",
		"unix:path=/a;unix:abstract=b;tcp:host=c,port=4;":    "unix /a, unix @b, tcp c:4",
		"autolaunch:;unixexec:path=ssh,argv1=x;unix:path=/a": "unix /a",
	} {
		list, err := parse(text)
		var got []string
		for _, a := range list {
			got = append(got, a.network+" "+a.name)
		}
		if strings.Join(got, ", ") != want || err != nil {
			t.Errorf("parse(%s) = %s, %v; want %s", text, strings.Join(got, ", "), err, want)
		}
	}
	for text, want := range map[string]string{
		"":                               "no address is given",
		";;":                             "no address is given",
		"/run/bus":                       `"/run/bus" has no transport: wants unix:path=... or tcp:host=...,port=`,
		"unix:path=/a;/run/bus":          `"/run/bus" has no transport: wants unix:path=... or tcp:host=...,port=`,
		"autolaunch:":                    "transport autolaunch cannot be used, only unix and tcp can",
		"launchd:env=X;unixexec:path=/x": "transport launchd, unixexec cannot be used, only unix and tcp can",
		"unix:":                          `"unix:": path (or abstract) is not the name of a socket`,
		"unix:path=":                     `"unix:path=": path (or abstract) is not the name of a socket`,
		"unix:abstract=":                 `"unix:abstract=": path (or abstract) is not the name of a socket`,
		"unix:path=/a%00b":               `"unix:path=/a%00b": path (or abstract) is not the name of a socket`,
		"unix:tmpdir=/tmp":               `"unix:tmpdir=/tmp": path (or abstract) is not the name of a socket`,
		"unix:path=/a,abstract=b":        `"unix:path=/a,abstract=b": path and abstract cannot both be given`,
		"unix:path":                      `"unix:path": "path" is no key=value`,
		"unix:path=/a,":                  `"unix:path=/a,": "" is no key=value`,
		"unix:=/a":                       `"unix:=/a": "=/a" is no key=value`,
		"unix:path=/a,path=/b":           `"unix:path=/a,path=/b": key path stands twice`,
		"unix:path=/a%2":                 `"unix:path=/a%2": key path: invalid URL escape "%2"`,
		"autolaunch:scope=%zz":           `"autolaunch:scope=%zz": key scope: invalid URL escape "%zz"`,
		"tcp:host=a":                     `"tcp:host=a": port is "": wants a number from 1 to 65535`,
		"tcp:host=a,port=0":              `"tcp:host=a,port=0": port is "0": wants a number from 1 to 65535`,
		"tcp:host=a,port=65536":          `"tcp:host=a,port=65536": port is "65536": wants a number from 1 to 65535`,
		"tcp:host=a,port=ssh":            `"tcp:host=a,port=ssh": port is "ssh": wants a number from 1 to 65535`,
		"tcp:port=1":                     `"tcp:port=1": host is missing`,
		"tcp:host=a,port=1,family=ipx":   `"tcp:host=a,port=1,family=ipx": family is "ipx": wants ipv4 or ipv6`,
		"unix:path=" + strings.Repeat("x", 108): fmt.Sprintf(`"unix:path=%s": the socket's name has 108 bytes, and the kernel takes 107`,
			strings.Repeat("x", 108)),
	} {
		if list, err := parse(text); err == nil || err.Error() != want {
			t.Errorf("parse(%s) = %v, %v; want %s", text, list, err, want)
		}
	}
}

// Whatever stands in the environment, parse makes of it either an error or
// places that can be connected to.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"unix:path=/a%20b;tcp:host=::1,port=2,family=ipv6", "autolaunch:;unix:abstract=x,guid=1", "tcp:port=%31,host=%00"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parse(text)
		if (len(list) == 0) == (err == nil) {
			t.Errorf("parse(%q) = %v, %v; want addresses or an error", text, list, err)
		}
		for _, a := range list {
			if a.name == "" || a.network == "" || a.network == "unix" && strings.ContainsRune(a.name, 0) {
				t.Errorf("parse(%q) = %q; want places", text, list)
			}
		}
	})
}
