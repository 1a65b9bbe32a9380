package hw

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// Names is what a board calls what it has, as data: nothing of it was looked for. The zero Names is that of a board which
// nobody knows.
type Names struct {
	Board string             // "rpi4"; "" is no known board
	Chips map[string]string  // labels of GPIO chips by the device names that they go by: "gpiochip0": "pinctrl-bcm2711"
	Lines map[string]LineRef // by name: "GPIO17"; their Chip is a label
	Pins  map[int]string     // of the header: the names of lines, or what else is there: "5V"
	I2C   map[string]int     // bus numbers by name: "I2C1"
}

// Line finds a line by the board's own name for it.
func (n Names) Line(name string) (LineRef, bool) {
	for _, name := range []string{name, strings.ToUpper(name)} {
		if l, ok := n.Lines[name]; ok {
			return l, true
		}
	}
	return LineRef{}, false
}

// Pin finds the line at a position of the board's header. The error says what is there instead.
func (n Names) Pin(pin int) (LineRef, error) {
	if len(n.Pins) == 0 {
		board := "this board, which is no known one,"
		if n.Board != "" {
			board = "the board " + n.Board
		}
		return LineRef{}, fmt.Errorf("%s has no header that is known here; give the line's number or name", board)
	}
	what, ok := n.Pins[pin]
	if !ok {
		pins := slices.Sorted(maps.Keys(n.Pins))
		return LineRef{}, fmt.Errorf("the header of the %s has no pin %d, but %d to %d", n.Board, pin, pins[0], pins[len(pins)-1])
	}
	at, ok := n.Line(what)
	if !ok {
		return LineRef{}, fmt.Errorf("pin %d of the %s is %s, not a line", pin, n.Board, what)
	}
	return at, nil
}

// Canonical is a name for a line that two refs share if they certainly mean the same line. It needs no hardware.
func (n Names) Canonical(at LineRef) string {
	chip := at.Chip
	if chip == "" && at.Name == "" {
		chip = "gpiochip0"
	}
	if strings.HasPrefix(chip, "/") {
		chip = strings.TrimPrefix(filepath.Clean(chip), "/dev/")
	}
	if label := n.Chips[chip]; label != "" {
		chip = label
	}
	if known, ok := n.Lines[at.Name]; ok && known.Chip == chip {
		at = known
	}
	return LineRef{Chip: chip, Name: at.Name, Offset: at.Offset}.String()
}

// Nearest finds the candidate that a mistyped word most likely meant, or "". At least half of the word has to be right.
func Nearest(word string, candidates []string) string {
	best, least := "", min(max(2, len(word)/3), len(word)/2)+1
	for _, c := range candidates {
		if d := Distance(strings.ToLower(word), strings.ToLower(c), least); d < least {
			best, least = c, d
		}
	}
	return best
}

// Distance is the number of single-character edits, swaps of neighbours included, between two words, or limit when it is not
// below it.
func Distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit || len(a) > 256 {
		return limit
	}
	before, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev, cur = prev, cur, before
	}
	return min(prev[len(b)], limit)
}
