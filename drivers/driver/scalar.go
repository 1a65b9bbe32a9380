package driver

import (
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"gopkg.in/yaml.v3"
)

// Scalar is what the Python exporter's YAML 1.1 reader makes of a scalar: nil,
// a bool, an int64, a float64 or a string. Dates, binaries and nodes that are
// no scalars are values of another type. The readers differ where it hurts: to
// YAML 1.1 on and off are booleans, 0755 is octal and 1:30 is ninety, while 1e3
// and 0o17 are text.
func Scalar(n *yaml.Node) any {
	n = Resolve(n)
	if n == nil || n.Kind != yaml.ScalarNode {
		return other(Found(n))
	}
	if n.Style&yaml.TaggedStyle == 0 {
		if quoted(n) {
			return n.Value
		}
		return plainScalar(n.Value)
	}
	switch n.Tag {
	case "!!null":
		return nil
	case "!!bool":
		if b, ok := word(n.Value); ok {
			return b
		}
	case "!!int", "!!float":
		switch x := plainScalar(n.Value).(type) {
		case int64, float64:
			return x
		}
	case "!!timestamp", "!!binary":
		return other(n.Tag)
	}
	return n.Value
}

// other is a value that no config can want; it says what it is.
type other string

func plainScalar(s string) any {
	switch s {
	case "", "~", "null", "Null", "NULL":
		return nil
	case "yes", "Yes", "YES", "on", "On", "ON", "true", "True", "TRUE":
		return true
	case "no", "No", "NO", "off", "Off", "OFF", "false", "False", "FALSE":
		return false
	}
	if !strings.ContainsRune("+-.0123456789", rune(s[0])) {
		return s
	}
	re := numbers()
	switch {
	case re.whole.MatchString(s):
		return wholeScalar(s)
	case re.real.MatchString(s):
		return realScalar(s)
	case re.date.MatchString(s):
		return other("the date " + s)
	}
	return s
}

// numbers are the shapes of YAML 1.1's types int, float and timestamp. A
// configuration without numbers never compiles them.
var numbers = sync.OnceValue(func() (re struct{ whole, real, date *regexp.Regexp }) {
	re.whole = regexp.MustCompile(`^[-+]?(0b[01_]+|0[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*(:[0-5]?[0-9])*)$`)
	re.real = regexp.MustCompile(`^([-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+][0-9]+)?|\.[0-9][0-9_]*([eE][-+][0-9]+)?` +
		`|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$`)
	re.date = regexp.MustCompile(`^[0-9]{4}-([0-9]{2}-[0-9]{2}|[0-9]{1,2}-[0-9]{1,2}([Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}` +
		`(\.[0-9]*)?([ \t]*(Z|[-+][0-9]{1,2}(:[0-9]{2})?))?)$`)
	return re
})

// wholeScalar is the value of an integer; one beyond 64 bits becomes a double.
func wholeScalar(s string) any {
	digits := strings.ReplaceAll(strings.TrimLeft(s, "+-"), "_", "")
	var f float64
	if strings.Contains(digits, ":") {
		f = sexagesimal(digits)
	} else {
		base := 10
		if digits != "0" && digits[0] == '0' {
			base, digits = 8, digits[1:]
			switch digits[:min(1, len(digits))] {
			case "x":
				base, digits = 16, digits[1:]
			case "b":
				base, digits = 2, digits[1:]
			case "": // "0_"
				digits = "0"
			}
		}
		u, err := strconv.ParseUint(digits, base, 63)
		switch {
		case err == nil && s[0] == '-':
			return -int64(u)
		case err == nil:
			return int64(u)
		case digits == "": // "0x_"
			return s
		}
		i, _ := new(big.Int).SetString(digits, base)
		f, _ = new(big.Float).SetInt(i).Float64()
	}
	if s[0] == '-' {
		f = -f
	}
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return int64(f)
	}
	return f
}

func realScalar(s string) any {
	digits := strings.ToLower(strings.ReplaceAll(strings.TrimLeft(s, "+-"), "_", ""))
	var f float64
	switch {
	case digits == ".nan":
		return math.NaN()
	case digits == ".inf":
		f = math.Inf(1)
	case strings.Contains(digits, ":"):
		f = sexagesimal(digits)
	default:
		f, _ = strconv.ParseFloat(digits, 64) // infinite when out of range
	}
	if s[0] == '-' {
		f = -f
	}
	return f
}

// sexagesimal adds up hours, minutes and seconds.
func sexagesimal(s string) (f float64) {
	for part := range strings.SplitSeq(s, ":") {
		x, _ := strconv.ParseFloat(part, 64)
		f = f*60 + x
	}
	return f
}
