package board_test

import (
	"maps"
	"regexp"
	"slices"
	"testing"

	"github.com/jumplead/jumplead/board"
)

func TestDetect(t *testing.T) {
	for compatible, want := range map[string]string{
		"raspberrypi,3-model-b\x00brcm,bcm2837\x00":                    "rpi3",
		"raspberrypi,3-model-b-plus\x00brcm,bcm2837\x00":               "rpi3",
		"raspberrypi,3-model-a-plus\x00brcm,bcm2837\x00":               "rpi3",
		"raspberrypi,4-model-b\x00brcm,bcm2711\x00":                    "rpi4",
		"raspberrypi,400\x00raspberrypi,4-model-b\x00brcm,bcm2711\x00": "rpi4",
		"raspberrypi,4-compute-module\x00brcm,bcm2711\x00":             "rpi4",
		"raspberrypi,5-model-b\x00brcm,bcm2712\x00":                    "rpi5",
		"raspberrypi,model-zero-2-w\x00brcm,bcm2837\x00":               "rpi-zero-2w",
		"linux,dummy-virt\x00":                                         "qemu-virt",
		"hardkernel,odroid-c4\x00amlogic,sm1\x00":                      "generic",
		"raspberrypi,model-b\x00brcm,bcm2835\x00":                      "generic",
		"brcm,bcm2711\x00":                                             "generic",
		"":                                                             "generic",
		"\x00\x00":                                                     "generic",
		"raspberrypi,4-model-b":                                        "rpi4",
	} {
		if got := board.Detect(compatible).Name; got != want {
			t.Errorf("Detect(%q) = %s; want %s", compatible, got, want)
		}
	}
}

// The chip of the header, and where its ends and some known places are.
func TestHeader(t *testing.T) {
	for name, chip := range map[string]string{
		"rpi3": "pinctrl-bcm2835", "rpi4": "pinctrl-bcm2711", "rpi5": "pinctrl-rp1", "rpi-zero-2w": "pinctrl-bcm2835",
	} {
		b, ok := board.ByName(name)
		if !ok {
			t.Fatalf("ByName(%s) = false; want a board", name)
		}
		if b.Chips["gpiochip0"] != chip {
			t.Errorf("%s: gpiochip0 is %s; want %s", name, b.Chips["gpiochip0"], chip)
		}
		for pin, want := range map[int]string{1: "3V3", 2: "5V", 3: "GPIO2", 8: "GPIO14", 11: "GPIO17", 12: "GPIO18", 27: "GPIO0", 39: "GND", 40: "GPIO21"} {
			if b.Pins[pin] != want {
				t.Errorf("%s: pin %d is %s; want %s", name, pin, b.Pins[pin], want)
			}
		}
		if l := b.Lines["GPIO17"]; l != (board.Line{Chip: chip, Offset: 17}) {
			t.Errorf("%s: GPIO17 is %v; want line 17 of %s", name, l, chip)
		}
	}
}

// What all tables have to be.
func TestTables(t *testing.T) {
	names := board.Names()
	if sorted := slices.Sorted(slices.Values(names)); len(slices.Compact(sorted)) != len(names) {
		t.Errorf("Names() = %q; want each once", names)
	}
	if len(names) == 0 || names[len(names)-1] != board.Generic {
		t.Errorf("Names() = %q; want the generic board last", names)
	}
	seen := map[string]string{}
	for _, b := range board.All() {
		for _, c := range b.Compatible {
			if other := seen[c]; other != "" {
				t.Errorf("%s and %s are both compatible with %q", other, b.Name, c)
			}
			seen[c] = b.Name
			if got := board.Detect(c + "\x00").Name; got != b.Name {
				t.Errorf("Detect(%q) = %s; want %s", c, got, b.Name)
			}
		}
		labels := slices.Collect(maps.Values(b.Chips))
		places := map[board.Line]string{}
		for name, l := range b.Lines {
			if !slices.Contains(labels, l.Chip) {
				t.Errorf("%s: %s is on %s, which is no chip of it", b.Name, name, l.Chip)
			}
			if other := places[l]; other != "" {
				t.Errorf("%s: %s and %s are one line", b.Name, name, other)
			}
			places[l] = name
		}
		used := map[string]int{}
		for pin, what := range b.Pins {
			switch _, line := b.Lines[what]; {
			case pin < 1 || pin > 40:
				t.Errorf("%s: pin %d", b.Name, pin)
			case line:
				used[what]++
			case !regexp.MustCompile(`^(3V3|5V|GND)$`).MatchString(what):
				t.Errorf("%s: pin %d is %q, which is neither a line nor a supply", b.Name, pin, what)
			}
		}
		if len(b.Pins) > 0 && (len(b.Pins) != 40 || len(used) != 28 || len(used) != len(b.Lines)) {
			t.Errorf("%s: %d pins, %d of them lines, of %d; want 40, 28, 28", b.Name, len(b.Pins), len(used), len(b.Lines))
		}
	}
	if b, ok := board.ByName("rpi9"); ok {
		t.Errorf("ByName(rpi9) = %v, true; want false", b)
	}
}
