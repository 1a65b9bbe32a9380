package driver

import (
	"math"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

func parse(t *testing.T, text string) *yaml.Node {
	t.Helper()
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(text), &n); err != nil {
		t.Fatalf("Unmarshal(%q): %v", text, err)
	}
	return n.Content[0]
}

// What PyYAML 6 makes of these, as its safe_load says.
func TestScalar(t *testing.T) {
	for text, want := range map[string]any{
		"~": nil, "null": nil, "Null": nil, "NULL": nil, "nULL": "nULL", "''": "",
		"yes": true, "On": true, "TRUE": true, "off": false, "No": false, "false": false,
		"oFF": "oFF", "y": "y", "n": "n", "t": "t", "'yes'": "yes", `"5"`: "5",
		"5": int64(5), "+5": int64(5), "-5": int64(-5), "1_000": int64(1000), "0": int64(0), "-0": int64(0), "0_": int64(0),
		"0755": int64(493), "-010": int64(-8), "0x1F": int64(31), "-0x10": int64(-16), "0b11": int64(3), "09": "09", "0o17": "0o17",
		"9223372036854775807": int64(math.MaxInt64), "18446744073709551616": math.Pow(2, 64), "-0x10000000000000000": -math.Pow(2, 64),
		"1:30": int64(90), "190:20:30": int64(685230), "-1:30": int64(-90), "1:60": "1:60", "0:30": "0:30", "10.0.0.1": "10.0.0.1",
		"1.": 1.0, ".5": 0.5, "-1.5": -1.5, "-.5": "-.5", "1.0e+3": 1000.0, "1.0e3": "1.0e3", "1e3": "1e3", "12e5": "12e5",
		"1_0.2_5": 10.25, "1:30.5": 90.5, ".inf": math.Inf(1), "-.Inf": math.Inf(-1), ".iNF": ".iNF", "1.0e+999": math.Inf(1),
		"!!str 5": "5", "!!int '5'": int64(5), "!!bool on": true, "!!float 1.5": 1.5, "!!null ''": nil, "!!str yes": "yes",
		"2024-1-1": "2024-1-1", "2024-01": "2024-01", "+": "+", ".": ".", "-x": "-x", "|\n  5": "5", ">\n  on": "on",
	} {
		if got := Scalar(parse(t, text)); got != want {
			t.Errorf("Scalar(%s) = %#v; want %#v", text, got, want)
		}
	}
	if got, ok := Scalar(parse(t, ".nan")).(float64); !ok || !math.IsNaN(got) {
		t.Errorf("Scalar(.nan) = %v; want NaN", got)
	}
	for text, want := range map[string]string{
		"2024-01-01": "the date 2024-01-01", "2024-01-01T00:00:00Z": "the date 2024-01-01T00:00:00Z",
		"2001-12-14 21:59:43.10 -5:30": "the date 2001-12-14 21:59:43.10 -5:30", "!!binary aGk=": "!!binary", "[1]": "a list", "{a: 1}": "a mapping",
	} {
		n := parse(t, text)
		switch x := Scalar(n).(type) {
		case nil, bool, int64, float64, string:
			t.Errorf("Scalar(%s) = %#v; want a value of no such type", text, x)
		}
		if got := Found(n); got != want {
			t.Errorf("Found(%s) = %q; want %q", text, got, want)
		}
	}
}

func TestPairs(t *testing.T) {
	const base = "x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz: &z {<<: *x, a: 5}\n"
	for _, c := range []struct {
		name, mapping, want, problems string
	}{
		{"own keys win and stay behind", "{d: 9, <<: *x, a: 7}", "a=7 b=2 d=9", ""},
		{"the first of a list wins", "{<<: [*x, *y]}", "b=2 c=4 a=1", ""},
		{"the last of two merge keys wins", "{<<: *x, <<: *y}", "a=1 b=3 c=4", ""},
		{"a merged mapping's own keys win over what it merged", "{<<: *z}", "a=5 b=2", ""},
		{"an alias as key", "{<<: {&k e: 1}, *k : 2}", "e=2", ""},
		{"an alias as merged key", "{e: &f g, <<: {*f : 3}}", "g=3 e=g", ""},
		{"quoted, it is a key like others", "{'<<': 1}", "<<=1", ""},
		{"twice", "{a: 1, b: 2, a: 3}", "a=3 b=2", `f:4:17: warning: key "a" stands twice; the last one counts`},
		{"twice in a merged one", "{<<: {a: 1, a: 2}}", "a=2", ""},
		{"not a mapping", "{<<: 5, a: 1}", "a=1", "f:4:9: <<: wants a mapping, got 5"},
		{"a list of lists", "{<<: [[*x]]}", "", "f:4:10: <<: wants a list of mappings, got a list of lists"},
		{"a mapping as key", "{{a: b}: 1}", "", "f:4:5: a key must be a plain word"},
		{"into itself", "&q {<<: *q, a: 1}", "a=1", "f:4:12: <<: merges a mapping into itself"},
		{"into itself by a list", "&q {a: 1, <<: {<<: [*x, *q]}}", "a=1 b=2", "f:4:28: <<: merges a mapping into itself"},
	} {
		t.Run(c.name, func(t *testing.T) {
			doc := parse(t, base+"m: "+c.mapping)
			pairs, problems := Pairs(doc.Content[len(doc.Content)-1], "f")
			var got []string
			for _, p := range pairs {
				got = append(got, p.Name+"="+Resolve(p.Value).Value)
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("Pairs(%s) = %s; want %s", c.mapping, s, c.want)
			}
			var ps []string
			for _, p := range problems {
				ps = append(ps, p.String())
			}
			if s := strings.Join(ps, "\n"); s != c.problems {
				t.Errorf("Pairs(%s) found %q; want %q", c.mapping, s, c.problems)
			}
		})
	}
}

// Eight mappings, each of which merges the one before many times over, would be
// merged for years.
func TestPairsBomb(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 {")
	for i := range 2000 {
		b.WriteString("k" + strings.Repeat("x", i%50) + string(rune('a'+i%26)) + strings.Repeat("y", i/100) + ": 1, ")
	}
	b.WriteString("}\n")
	for i := range 8 {
		d := string(rune('0' + i))
		e := string(rune('1' + i))
		b.WriteString("a" + e + ": &a" + e + " {<<: [" + strings.Repeat("*a"+d+", ", 200) + "]}\n")
	}
	doc := parse(t, b.String())
	_, problems := Pairs(doc.Content[len(doc.Content)-1], "f")
	if len(problems) != 1 || problems[0].Text != "<<: merges too much" {
		t.Errorf("Pairs(bomb) found %v; want once that it merges too much", problems)
	}
}
