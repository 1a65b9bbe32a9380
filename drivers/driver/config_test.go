package driver_test

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
)

type port struct {
	URL      string             `yaml:"url" doc:"where it is"`
	Baud     int                `yaml:"baudrate" default:"115200" min:"1"`
	Check    bool               `yaml:"check_present" default:"true"`
	CPS      *float64           `yaml:"cps" min:"0"`
	Timeout  time.Duration      `yaml:"timeout" default:"1.5" max:"60"`
	Mode     string             `yaml:"mode" default:"off" oneof:"on off keep"`
	Lines    []uint8            `yaml:"lines,omitempty" max:"99"`
	Labels   map[string]string  `yaml:"labels,omitempty"`
	Auth     *auth              `yaml:"auth"`
	Net      netip.Prefix       `yaml:"net" default:"10.0.0.0/8"`
	Shell    []string           `yaml:"shell" default:"[bash, -c]"`
	Methods  map[string]command `yaml:"methods,omitempty"`
	Any      any                `yaml:"any,omitempty"`
	Small    int8               `yaml:"small,omitempty"`
	Size     uint64             `yaml:"size,omitempty"`
	Long     int64              `yaml:"long,omitempty"`
	Ratio    float32            `yaml:"ratio,omitempty" min:"0.5" max:"2"`
	Slot     int                `yaml:"slot" default:"1" oneof:"1 2 4"`
	Note     string             `yaml:"note,omitempty"`
	Unwanted func()             `yaml:"unwanted,omitempty"`
	More     nodes              `yaml:"more,omitempty"`
}

type nodes []nodes

type auth struct {
	User string `yaml:"user" doc:"who"`
	Port int    `yaml:"port,omitempty"`
}

func (a auth) Validate() error {
	switch a.User {
	case "root":
		return driver.BadKey("user", "root may not")
	case "both":
		return errors.Join(driver.BadKey("user", "is wrong"), driver.BadKey("port", "is wrong, too"))
	case "plain":
		return errors.New("that cannot be")
	case "wrapped":
		return fmt.Errorf("checked: %w", driver.BadKey("port", "is wrong"))
	}
	return nil
}

// command is a word, or a mapping that says more.
type command struct {
	Command string `yaml:"command"`
	Timeout int    `yaml:"timeout" default:"300"`
}

func (c *command) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		return errors.New("a command cannot be empty")
	}
	*c = command{string(text), 300}
	return nil
}

func defaults() port {
	return port{URL: "u", Baud: 115200, Check: true, Timeout: 1500 * time.Millisecond, Mode: "off",
		Net: netip.MustParsePrefix("10.0.0.0/8"), Shell: []string{"bash", "-c"}, Slot: 1}
}

func lines(ps driver.Problems) []string {
	var list []string
	for _, p := range ps {
		list = append(list, p.String())
	}
	return list
}

func TestDecodeConfig(t *testing.T) {
	with := func(change func(*port)) port {
		p := defaults()
		change(&p)
		return p
	}
	tests := []struct {
		name string
		text string
		want port     // unless problems has an error
		says []string // problems
	}{
		{"defaults", "url: u", defaults(), nil},
		{"required", "", port{}, []string{`f.yaml:7:3: key "url" is missing: where it is`}},
		{"required, elsewhere", "# c\nmode: on", port{}, []string{
			`f.yaml:2:7: warning: mode: on is read as text; quote it`, `f.yaml:2:1: key "url" is missing: where it is`}},
		{"no mapping", "[1]", port{}, []string{"f.yaml:1:1: config: wants a mapping, got a list"}},
		{"no mapping either", "hello", port{}, []string{`f.yaml:1:1: config: wants a mapping, got "hello"`}},
		{"null", "null", port{}, []string{`f.yaml:7:3: key "url" is missing: where it is`}},

		{"unknown", "url: u\nbautrate: 1", port{}, []string{`f.yaml:2:1: unknown key "bautrate"; did you mean "baudrate"?`}},
		{"unknown, nothing near", "url: u\n  # c\nx: 1", port{}, []string{`f.yaml:3:1: unknown key "x"`}},
		{"unknown, below", "url: u\nauth:\n  user: me\n  prot: 1", port{}, []string{`f.yaml:4:3: unknown key "auth.prot"; did you mean "port"?`}},
		{"unknown, in a list", "url: u\nmethods:\n  a: {command: x, tiemout: 1}", port{},
			[]string{`f.yaml:3:19: unknown key "methods.a.tiemout"; did you mean "timeout"?`}},

		{"integers", "url: u\nbaudrate: 0x10\nsmall: -0x80\nlines: [010, 1_0, 0b11]",
			with(func(p *port) { p.Baud, p.Small, p.Lines = 16, -128, []uint8{8, 10, 3} }),
			[]string{"f.yaml:4:9: warning: lines[0]: YAML takes 010 for 8; write that, or what is meant"}},
		{"in sixties", "url: u\nbaudrate: 1:30", with(func(p *port) { p.Baud = 90 }),
			[]string{"f.yaml:2:11: warning: baudrate: YAML takes 1:30 for 90; write that, or what is meant"}},
		{"exact integers", "url: u\nlong: 9007199254740993\nsize: 0x1fffffffffffff",
			with(func(p *port) { p.Long, p.Size = 9007199254740993, 0x1fffffffffffff }), nil},
		{"large integers", "url: u\nsize: 18446744073709549568", with(func(p *port) { p.Size = 18446744073709549568 }), nil},
		{"quoted number", `{url: u, baudrate: "9600"}`, with(func(p *port) { p.Baud = 9600 }),
			[]string{`f.yaml:1:20: warning: baudrate: the text "9600" is read as a number; write 9600`}},
		{"number that is text", "url: u\nbaudrate: 1e6", with(func(p *port) { p.Baud = 1e6 }),
			[]string{`f.yaml:2:11: warning: baudrate: the text "1e6" is read as a number; write 1000000`}},
		{"no integer", "url: u\nbaudrate: 1.5", port{}, []string{"f.yaml:2:11: baudrate: wants an integer, got 1.5"}},
		{"no number", "url: u\nbaudrate: fast", port{}, []string{`f.yaml:2:11: baudrate: wants an integer, got "fast"`}},
		{"bool for a number", "url: u\nbaudrate: on", port{}, []string{"f.yaml:2:11: baudrate: wants an integer, got on"}},
		{"list for a number", "url: u\nbaudrate: [1]", port{}, []string{"f.yaml:2:11: baudrate: wants an integer, got a list"}},
		{"out of int8", "url: u\nsmall: 128", port{}, []string{"f.yaml:2:8: small: 128 is out of range: -128 to 127"}},
		{"out of int64", "url: u\nlong: 9223372036854775808", port{}, []string{"f.yaml:2:7: long: 9223372036854775808 is out of range: -9223372036854775808 to 9223372036854775807"}},
		{"far out of int64", "url: u\nlong: 1.0e+300", port{}, []string{"f.yaml:2:7: long: 1.0e+300 is out of range: -9223372036854775808 to 9223372036854775807"}},
		{"out of uint64", "url: u\nsize: -1", port{}, []string{"f.yaml:2:7: size: -1 is out of range: 0 to 18446744073709551615"}},
		{"far out of uint64", "url: u\nsize: 18446744073709551616", port{}, []string{"f.yaml:2:7: size: 18446744073709551616 is out of range: 0 to 18446744073709551615"}},
		{"out of float32", "url: u\nratio: 1.0e+39", port{}, []string{"f.yaml:2:8: ratio: 1.0e+39 is out of range: 0.5 to 2"}},
		{"infinite", "url: u\ncps: .inf", port{}, []string{"f.yaml:2:6: cps: wants a number, got .inf"}},

		{"min", "url: u\nbaudrate: 0", port{}, []string{"f.yaml:2:11: baudrate: 0 is out of range: at least 1"}},
		{"max", "url: u\ntimeout: 61", port{}, []string{"f.yaml:2:10: timeout: 61 is out of range: at most 60"}},
		{"min and max", "url: u\nratio: 3", port{}, []string{"f.yaml:2:8: ratio: 3 is out of range: 0.5 to 2"}},
		{"max, in a list", "url: u\nlines: [1, 100]", port{}, []string{"f.yaml:2:12: lines[1]: 100 is out of range: at most 99"}},
		{"min, through a pointer", "url: u\ncps: -1", port{}, []string{"f.yaml:2:6: cps: -1 is out of range: at least 0"}},
		{"oneof", "url: u\nmode: kepe", port{}, []string{`f.yaml:2:7: mode: "kepe" is none of on, off, keep; did you mean "keep"?`}},
		{"oneof, of numbers", "url: u\nslot: 3", port{}, []string{"f.yaml:2:7: slot: 3 is none of 1, 2, 4"}},
		{"oneof, right", "url: u\nslot: 4\nmode: keep", with(func(p *port) { p.Slot, p.Mode = 4, "keep" }), nil},

		{"booleans", "url: u\ncheck_present: off", with(func(p *port) { p.Check = false }), nil},
		{"quoted boolean", "url: u\ncheck_present: 'off'", with(func(p *port) { p.Check = false }),
			[]string{`f.yaml:2:16: warning: check_present: "off" is read as false; write false`}},
		{"digit for a boolean", "url: u\ncheck_present: 0", with(func(p *port) { p.Check = false }),
			[]string{"f.yaml:2:16: warning: check_present: 0 is read as false; write false"}},
		{"letter for a boolean", "url: u\ncheck_present: n", with(func(p *port) { p.Check = false }),
			[]string{`f.yaml:2:16: warning: check_present: "n" is read as false; write false`}},
		{"no boolean", "url: u\ncheck_present: 2", port{}, []string{"f.yaml:2:16: check_present: wants true or false, got 2"}},
		{"no boolean either", "url: u\ncheck_present: maybe", port{}, []string{`f.yaml:2:16: check_present: wants true or false, got "maybe"`}},

		{"number for text", "url: 010", with(func(p *port) { p.URL = "010" }), []string{"f.yaml:1:6: warning: url: 010 is read as text; quote it"}},
		{"boolean for text", "url: yes", with(func(p *port) { p.URL = "yes" }), []string{"f.yaml:1:6: warning: url: yes is read as text; quote it"}},
		{"date for text", "url: 2024-01-01", with(func(p *port) { p.URL = "2024-01-01" }),
			[]string{"f.yaml:1:6: warning: url: 2024-01-01 is read as text; quote it"}},
		{"quoted text", "url: 'yes'", with(func(p *port) { p.URL = "yes" }), nil},
		{"null for text", "url:", port{}, []string{"f.yaml:1:5: url: wants text, got nothing"}},
		{"mapping for text", "url: {a: 1}", port{}, []string{"f.yaml:1:6: url: wants text, got a mapping"}},
		{"empty text", "url: ''", with(func(p *port) { p.URL = "" }), nil},

		{"seconds", "url: u\ntimeout: 0.29", with(func(p *port) { p.Timeout = 290 * time.Millisecond }), nil},
		{"sexagesimal", "url: u\ntimeout: 0:30\nslot: 1", port{}, []string{`f.yaml:2:10: timeout: wants a number of seconds, got "0:30"`}},
		{"no seconds", "url: u\ntimeout: 1s", port{}, []string{`f.yaml:2:10: timeout: wants a number of seconds, got "1s"`}},
		{"too many seconds", "url: u\ntimeout: 1.0e+10", port{}, []string{"f.yaml:2:10: timeout: 1.0e+10 is out of range: at most 60"}},

		{"null", "url: u\ncps:\nauth: ~\nlines: null\nlabels:\nsmall:\nnote: ~\nany:", defaults(), nil},
		{"null for a default", "url: u\nbaudrate:", defaults(),
			[]string{`f.yaml:2:1: warning: baudrate: nothing is given; the default "115200" counts`}},
		{"null in a list", "url: u\nlines: [~]", port{}, []string{"f.yaml:2:9: lines[0]: wants an integer, got nothing"}},
		{"pointer", "url: u\ncps: 2.5", with(func(p *port) { p.CPS = ptr(2.5) }), nil},

		{"text of its own", "url: u\nnet: 192.168.0.0/16", with(func(p *port) { p.Net = netip.MustParsePrefix("192.168.0.0/16") }), nil},
		{"bad text of its own", "url: u\nnet: here", port{}, []string{`f.yaml:2:6: net: netip.ParsePrefix("here"): no '/'`}},
		{"word or mapping", "url: u\nmethods:\n  ls: ls -l\n  rm: {command: rm, timeout: 5}",
			with(func(p *port) { p.Methods = map[string]command{"ls": {"ls -l", 300}, "rm": {"rm", 5}} }), nil},
		{"neither word nor mapping", "url: u\nmethods:\n  ls: []", port{}, []string{"f.yaml:3:7: methods.ls: wants a mapping, got a list"}},
		{"bad word", "url: u\nmethods:\n  ls: ''", port{}, []string{"f.yaml:3:7: methods.ls: a command cannot be empty"}},
		{"list", "url: u\nshell: [sh]", with(func(p *port) { p.Shell = []string{"sh"} }), nil},
		{"no list", "url: u\nshell: sh", port{}, []string{`f.yaml:2:8: shell: wants a list, got "sh"`}},
		{"no mapping below", "url: u\nlabels: [a]", port{}, []string{"f.yaml:2:9: labels: wants a mapping, got a list"}},
		{"no struct below", "url: u\nauth: me", port{}, []string{`f.yaml:2:7: auth: wants a mapping, got "me"`}},
		{"mapping", "url: u\nlabels: {a: b, c: 1}", with(func(p *port) { p.Labels = map[string]string{"a": "b", "c": "1"} }),
			[]string{"f.yaml:2:19: warning: labels.c: 1 is read as text; quote it"}},
		{"anything", "url: u\nany: {a: [1, 010, on, 'on', ~, .inf, 1.5, 2024-01-01], b: {c: d}}", with(func(p *port) {
			p.Any = map[string]any{"a": []any{1.0, 8.0, true, "on", nil, nil, 1.5, "2024-01-01"}, "b": map[string]any{"c": "d"}}
		}), nil},
		{"keys that are no text", "url: u\nlabels: {on: b, 7: c}", with(func(p *port) { p.Labels = map[string]string{"on": "b", "7": "c"} }),
			[]string{"f.yaml:2:10: warning: labels: the key on is read as text; quote it", "f.yaml:2:17: warning: labels: the key 7 is read as text; quote it"}},
		{"anything twice", "url: u\nany: {a: 1, a: 2}", with(func(p *port) { p.Any = map[string]any{"a": 2.0} }),
			[]string{`f.yaml:2:13: warning: key "a" stands twice; the last one counts`}},
		{"impossible", "url: u\nunwanted: 1", port{}, []string{"f.yaml:2:11: unwanted: a func() cannot be configured"}},

		{"twice", "url: u\nbaudrate: x\nbaudrate: 2", with(func(p *port) { p.Baud = 2 }),
			[]string{`f.yaml:3:1: warning: key "baudrate" stands twice; the last one counts`}},
		{"alias", "url: &u u\nmode: keep\nlabels: {a: *u}\nnote: *u", with(func(p *port) { p.Mode, p.Note, p.Labels = "keep", "u", map[string]string{"a": "u"} }), nil},
		{"merge", "any: &x {user: me, port: 1}\nurl: u\nauth:\n  <<: *x\n  port: 2", with(func(p *port) {
			p.Any, p.Auth = map[string]any{"user": "me", "port": 1.0}, &auth{"me", 2}
		}), nil},
		{"merge into itself", "url: u\nany: &x {a: 1, <<: *x}", port{}, []string{"f.yaml:2:20: <<: merges a mapping into itself"}},
		{"alias to itself", "url: u\nmore: &x [*x]", port{},
			[]string{"f.yaml:2:7: more" + strings.Repeat("[0]", 64) + ": nested deeper than 64, or aliases refer to themselves or to too much"}},
		{"anything in itself", "url: u\nany: &x {a: *x}", port{},
			[]string{"f.yaml:2:6: any" + strings.Repeat(".a", 64) + ": nested deeper than 64, or aliases refer to themselves or to too much"}},

		{"Validator", "url: u\nauth:\n  port: 1\n  user: root", port{}, []string{"f.yaml:4:3: auth.user: root may not"}},
		{"Validator, several", "url: u\nauth: {user: both}", port{}, []string{"f.yaml:2:8: auth.user: is wrong", "f.yaml:2:7: auth.port: is wrong, too"}},
		{"Validator, no key", "url: u\nauth: {user: plain}", port{}, []string{"f.yaml:2:7: auth: that cannot be"}},
		{"Validator, wrapped", "url: u\nauth: {user: wrapped, port: 1}", port{}, []string{"f.yaml:2:23: auth: checked: port: is wrong"}},
		{"Validator, not asked", "url: u\nauth: {user: root, port: x}", port{}, []string{`f.yaml:2:26: auth.port: wants an integer, got "x"`}},
		{"Validator, asked all the same", "url: []\nauth: {user: root}", port{},
			[]string{"f.yaml:1:6: url: wants text, got a list", "f.yaml:2:8: auth.user: root may not"}},

		{"all at once", "bautrate: 1\nmode: x\nsmall: 1000\ntimeout: 1", port{}, []string{
			`f.yaml:1:1: unknown key "bautrate"; did you mean "baudrate"?`,
			`f.yaml:1:1: key "url" is missing: where it is`,
			`f.yaml:2:7: mode: "x" is none of on, off, keep`,
			"f.yaml:3:8: small: 1000 is out of range: -128 to 127",
		}},
	}
	for _, test := range tests {
		var got port
		ps := driver.DecodeConfig(drivertest.YAML(t, test.text), &got, driver.Pos{File: "f.yaml", Line: 7, Column: 3}, false)
		if test.name == "all at once" {
			ps.Sort()
		}
		if says := lines(ps); !slices.Equal(says, test.says) {
			t.Errorf("%s: DecodeConfig(%q) says\n\t%s\nwant\n\t%s", test.name, test.text, strings.Join(says, "\n\t"), strings.Join(test.says, "\n\t"))
		}
		if ps.Err() == nil && !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: DecodeConfig(%q) = %+v; want %+v", test.name, test.text, got, test.want)
		}
		if (ps.Err() != nil) != reflect.DeepEqual(test.want, port{}) {
			t.Errorf("%s: DecodeConfig(%q) = %v; want an error: %t", test.name, test.text, ps.Err(), ps.Err() == nil)
		}
	}
}

func TestDecodeConfigLenient(t *testing.T) {
	var got auth
	ps := driver.DecodeConfig(drivertest.YAML(t, "user: me\nprot: 1"), &got, driver.Pos{File: "f"}, true)
	want := []string{`f:2:1: warning: unknown key "prot" is ignored; did you mean "port"?`}
	if says := lines(ps); !slices.Equal(says, want) || ps.Err() != nil || got.User != "me" {
		t.Errorf("DecodeConfig(lenient) = %+v, %q; want %q", got, says, want)
	}
}

// A file of a few lines must not keep the exporter busy.
func TestDecodeConfigBombs(t *testing.T) {
	laughs := func(open, close string) string {
		var b strings.Builder
		b.WriteString("l0: &l0 " + open + "1" + close + "\n")
		for i := 1; i < 30; i++ {
			item := fmt.Sprintf("*l%d", i-1)
			fmt.Fprintf(&b, "l%d: &l%d [%s, %s, %s]\n", i, i, item, item, item)
		}
		return b.String()
	}
	type typed struct {
		More nodes `yaml:"more"`
	}
	for _, test := range []struct {
		text string
		dst  any
	}{
		{laughs("[", "]") + "any: *l29\nurl: u\nmore: []", new(port)},
		{laughs("[", "]") + "more: *l29", new(typed)},
		{"more: &x [*x, *x, *x]", new(typed)},
		{"user: &x {<<: [*x, *x, *x, *x]}", new(auth)},
	} {
		ps := driver.DecodeConfig(drivertest.YAML(t, test.text), test.dst, driver.Pos{}, true)
		if ps.Err() == nil {
			t.Errorf("DecodeConfig(%.60q) = no error; want one", test.text)
		}
		if n := len(ps.Err().Error()); n > 20_000 {
			t.Errorf("DecodeConfig(%.60q) says %d bytes; want less", test.text, n)
		}
	}
}

// Much that is merely odd is no error.
func TestDecodeConfigManyWarnings(t *testing.T) {
	var got struct {
		List []int `yaml:"list"`
	}
	ps := driver.DecodeConfig(drivertest.YAML(t, "list: ["+strings.Repeat("'1', ", 1000)+"]"), &got, driver.Pos{}, false)
	if ps.Err() != nil || len(ps) != 1000 || len(got.List) != 1000 {
		t.Errorf("DecodeConfig(1000 quoted numbers) = %d numbers, %d problems, %v; want 1000, 1000, no error", len(got.List), len(ps), ps.Err())
	}
	ps = driver.DecodeConfig(drivertest.YAML(t, "list: ["+strings.Repeat("x, ", 1000)+"]"), &got, driver.Pos{}, false)
	if len(ps) != 101 || ps[100].Text != "too many errors; the rest is not read" {
		t.Errorf("DecodeConfig(1000 words) = %d problems, last %v; want 101, too many errors", len(ps), ps[len(ps)-1])
	}
}

func TestPlain(t *testing.T) {
	for text, want := range map[string]any{
		"": nil, "~": nil, "on": true, "0x10": 16.0, "18446744073709551616": 18446744073709551616.0, ".nan": nil,
		"[1, {a: b}]": []any{1.0, map[string]any{"a": "b"}}, "!!str yes": "yes",
	} {
		if got, err := driver.Plain(drivertest.YAML(t, text)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("Plain(%s) = %v, %v; want %v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"{[a]: b}":        "1:2: a key must be a plain word",
		"{<<: 1}":         "1:6: <<: wants a mapping, got 1",
		"&x {a: [*x, 1]}": "1:8: value" + strings.Repeat(".a[0]", 32) + ".a: nested deeper than 64, or aliases refer to themselves or to too much",
	} {
		if got, err := driver.Plain(drivertest.YAML(t, text)); got != nil || err == nil || err.Error() != want {
			t.Errorf("Plain(%s) = %v, %v; want %s", text, got, err, want)
		}
	}
}

func TestNearest(t *testing.T) {
	words := []string{"baudrate", "url", "timeout", "tcp", "cps"}
	for word, want := range map[string]string{
		"bautrate": "baudrate", "Baudrate": "baudrate", "baudarte": "baudrate", "baud": "", "ulr": "url", "uri": "url",
		"timeuot": "timeout", "time_out": "timeout", "tpc": "tcp", "udp": "", "x": "", "": "", "ur": "url", strings.Repeat("u", 300): "",
	} {
		if got := driver.Nearest(word, words); got != want {
			t.Errorf("Nearest(%q) = %q; want %q", word, got, want)
		}
	}
	if got, want := driver.Hint("ulr", words), `; did you mean "url"?`; got != want {
		t.Errorf("Hint(ulr) = %q; want %q", got, want)
	}
	if got := driver.Hint("nothing", nil); got != "" {
		t.Errorf("Hint(nothing) = %q; want none", got)
	}
}

func TestProblems(t *testing.T) {
	ps := driver.Problems{
		{Pos: driver.Pos{File: "b", Line: 1, Column: 1}, Text: "5"},
		{Pos: driver.Pos{File: "a", Line: 2, Column: 1}, Text: "4", Warning: true},
		{Pos: driver.Pos{File: "a", Line: 1, Column: 9}, Text: "2"},
		{Pos: driver.Pos{File: "a", Line: 1, Column: 9}, Text: "3"},
		{Pos: driver.Pos{Line: 3, Column: 4}, Text: "1"},
		{Text: "0"},
	}
	ps.Sort()
	if got, want := strings.Join(lines(ps), "; "), "0; 3:4: 1; a:1:9: 2; a:1:9: 3; a:2:1: warning: 4; b:1:1: 5"; got != want {
		t.Errorf("Sort() = %s; want %s", got, want)
	}
	if got, want := ps.Err().Error(), "0\n3:4: 1\na:1:9: 2\na:1:9: 3\nb:1:1: 5"; got != want {
		t.Errorf("Err() = %q; want %q", got, want)
	}
	if got := ps.Warnings(); len(got) != 1 || got[0].Text != "4" {
		t.Errorf("Warnings() = %v; want the one", got)
	}
	if got := ps.Warnings().Err(); got != nil {
		t.Errorf("Err() of warnings = %v; want nil", got)
	}
}
