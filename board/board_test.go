package board_test

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
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

// The header as Raspberry Pi documents it, pin by pin: a table of its own, so that a slip in the other shows.
func TestPins(t *testing.T) {
	header := strings.Fields(`
		3V3    5V
		GPIO2  5V
		GPIO3  GND
		GPIO4  GPIO14
		GND    GPIO15
		GPIO17 GPIO18
		GPIO27 GND
		GPIO22 GPIO23
		3V3    GPIO24
		GPIO10 GND
		GPIO9  GPIO25
		GPIO11 GPIO8
		GND    GPIO7
		GPIO0  GPIO1
		GPIO5  GND
		GPIO6  GPIO12
		GPIO13 GND
		GPIO19 GPIO16
		GPIO26 GPIO20
		GND    GPIO21`)
	if len(header) != 40 {
		t.Fatalf("the header has %d pins; want 40", len(header))
	}
	for _, name := range []string{"rpi3", "rpi4", "rpi5", "rpi-zero-2w"} {
		b, _ := board.ByName(name)
		for i, want := range header {
			if got := b.Pins[i+1]; got != want {
				t.Errorf("%s: pin %d is %s; want %s", name, i+1, got, want)
			}
			line, ok := b.Lines[want]
			if number, isLine := strings.CutPrefix(want, "GPIO"); ok != isLine || ok && strconv.Itoa(line.Offset) != number {
				t.Errorf("%s: %s is line %v, %t; want the line of its number, or none", name, want, line, ok)
			}
		}
		for id, gpio := range map[string]string{"ID_SDA": "GPIO0", "ID_SCL": "GPIO1"} {
			if b.Lines[id] != b.Lines[gpio] {
				t.Errorf("%s: %s is %v; want %s, %v", name, id, b.Lines[id], gpio, b.Lines[gpio])
			}
		}
	}
}

// What the device trees' aliases say.
func TestBuses(t *testing.T) {
	for name, want := range map[string][]int{
		"rpi3": {0, 1}, "rpi-zero-2w": {0, 1}, "rpi4": {0, 1, 3, 4, 5, 6}, "rpi5": {0, 1, 2, 3}, "qemu-virt": nil, board.Generic: nil,
	} {
		b, _ := board.ByName(name)
		if got := slices.Sorted(maps.Values(b.I2C)); !slices.Equal(got, want) {
			t.Errorf("%s: the I2C buses are %v; want %v", name, got, want)
		}
		for bus, n := range b.I2C {
			if bus != "I2C"+strconv.Itoa(n) {
				t.Errorf("%s: bus %d is called %s", name, n, bus)
			}
		}
		for port, path := range b.Serial {
			if !strings.HasPrefix(path, "/dev/") {
				t.Errorf("%s: port %s is %s; want a device file", name, port, path)
			}
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
			if strings.HasPrefix(name, "ID_") {
				continue // another name for one of the others
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
		if len(b.Pins) > 0 && (len(b.Pins) != 40 || len(used) != 28 || len(used) != len(places)) {
			t.Errorf("%s: %d pins, %d of them lines, of %d; want 40, 28, 28", b.Name, len(b.Pins), len(used), len(places))
		}
	}
	if b, ok := board.ByName("rpi9"); ok {
		t.Errorf("ByName(rpi9) = %v, true; want false", b)
	}
}
