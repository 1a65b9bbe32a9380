// Package board is what single-board computers call their lines, ports and buses: data, and how to tell from a device tree
// which board it is.
//
// # What a name is worth
//
// A pin of the header is a place: pin 11 of a Raspberry Pi is where it was in 2014. What is connected to it is a line of a
// GPIO chip, which differs by model: GPIO17 is line 17 of pinctrl-bcm2711 on a Pi 4 and of pinctrl-rp1 on a Pi 5, where an
// extra chip has the header. The tables go by chips' labels, which their drivers set, and not by /dev/gpiochipN, whose
// numbers come and go with kernels.
//
// # Sources
//
// The Linux of Raspberry Pi, branch rpi-6.12.y, in arch/arm/boot/dts/broadcom and arch/arm64/boot/dts/broadcom:
// compatible and gpio-line-names of bcm2710-rpi-3-b.dts, -3-b-plus.dts, -zero-2-w.dts and -cm0.dts, of bcm2711-rpi-4-b.dts and
// of bcm2712-rpi-5-b.dts; the aliases for serial ports and I2C buses of bcm2708-rpi.dtsi, bcm2711-rpi-ds.dtsi and
// bcm2712-rpi.dtsi. The compatibles that mainline has are in Documentation/devicetree/bindings/arm/bcm/bcm2835.yaml. Labels of
// chips: pinctrl-bcm2835.c, pinctrl-rp1.c, gpio-raspberrypi-exp.c. The header: Raspberry Pi's documentation of its 40 pins.
// QEMU's machine: hw/arm/virt.c, and the kernel's gpio-pl061.c, whose label is the device's name.
package board

import (
	"slices"
	"strings"
)

// Board is what a model has.
type Board struct {
	Name       string   // "rpi4": short, for flags and logs
	Model      string   // for people
	Compatible []string // what the device tree says; any of these

	// Chips are the labels of GPIO chips, by the names of the devices that they are known to have had.
	Chips map[string]string
	Lines map[string]Line
	Pins  map[int]string // of the header: the name of a line, or else what is there

	Serial map[string]string // device files by name; "console" is where a login is expected
	I2C    map[string]int    // numbers of buses by name: 1 is /dev/i2c-1
	CAN    []string          // network interfaces that the board has, or gets with its usual extension
}

// Line is a GPIO line.
type Line struct {
	Chip   string // its label
	Offset int
}

// Generic is a board of which nothing is known.
const Generic = "generic"

// All lists the boards, the generic one last.
func All() []Board {
	return []Board{rpi3(), rpi4(), rpi5(), rpiZero2W(), qemuVirt(), {Name: Generic, Model: "any other machine"}}
}

// ByName finds a board by its short name.
func ByName(name string) (Board, bool) {
	all := All()
	i := slices.IndexFunc(all, func(b Board) bool { return b.Name == name })
	if i < 0 {
		return Board{}, false
	}
	return all[i], true
}

// Names lists the boards' short names.
func Names() []string {
	var names []string
	for _, b := range All() {
		names = append(names, b.Name)
	}
	return names
}

// CompatibleFile is where the kernel tells which board it runs on. A machine without a device tree has no such file.
const CompatibleFile = "/proc/device-tree/compatible"

// Detect finds the board by the contents of CompatibleFile: a list of strings, the most specific first, each ended by a
// zero byte. What nobody knows is the generic board.
func Detect(compatible string) Board {
	all := All()
	for _, c := range strings.Split(compatible, "\x00") {
		for _, b := range all {
			if c != "" && slices.Contains(b.Compatible, c) {
				return b
			}
		}
	}
	return all[len(all)-1]
}

// header40 is the 40-pin header of all Raspberry Pis since 2014.
func header40() map[int]string {
	pins := map[int]string{
		1: "3V3", 2: "5V", 4: "5V", 17: "3V3",
		6: "GND", 9: "GND", 14: "GND", 20: "GND", 25: "GND", 30: "GND", 34: "GND", 39: "GND",
	}
	for pin, gpio := range map[int]string{
		3: "GPIO2", 5: "GPIO3", 7: "GPIO4", 8: "GPIO14", 10: "GPIO15", 11: "GPIO17", 12: "GPIO18", 13: "GPIO27",
		15: "GPIO22", 16: "GPIO23", 18: "GPIO24", 19: "GPIO10", 21: "GPIO9", 22: "GPIO25", 23: "GPIO11", 24: "GPIO8",
		26: "GPIO7", 27: "GPIO0", 28: "GPIO1", 29: "GPIO5", 31: "GPIO6", 32: "GPIO12", 33: "GPIO13", 35: "GPIO19",
		36: "GPIO16", 37: "GPIO26", 38: "GPIO20", 40: "GPIO21",
	} {
		pins[pin] = gpio
	}
	return pins
}

// headerLines are the lines GPIO0 to GPIO27 that the header has. On all Raspberry Pis their offsets are these numbers. The
// kernel calls the first two, which are for the EEPROM of an extension, ID_SDA and ID_SCL.
func headerLines(chip string) map[string]Line {
	lines := map[string]Line{"ID_SDA": {chip, 0}, "ID_SCL": {chip, 1}}
	for _, name := range header40() {
		if n, ok := number(name); ok {
			lines[name] = Line{chip, n}
		}
	}
	return lines
}

// number is N of "GPIO" followed by N.
func number(name string) (n int, ok bool) {
	digits, ok := strings.CutPrefix(name, "GPIO")
	for _, d := range digits {
		n = n*10 + int(d-'0')
	}
	return n, ok
}

// The first UART of a Pi with Bluetooth is Bluetooth's, whose driver keeps it to itself; the header's is the small one, ttyS0.
// Both change places with the overlays disable-bt and miniuart-bt. /dev/serial0 is the header's in any case.
func rpi3() Board {
	return Board{
		Name:  "rpi3",
		Model: "Raspberry Pi 3 Model A+, B, B+",
		Compatible: []string{"raspberrypi,3-model-b", "raspberrypi,3-model-b-plus", "raspberrypi,3-model-a-plus",
			"raspberrypi,3-compute-module", "raspberrypi,3-compute-module-lite"},
		Chips:  map[string]string{"gpiochip0": "pinctrl-bcm2835"},
		Lines:  headerLines("pinctrl-bcm2835"),
		Pins:   header40(),
		Serial: map[string]string{"serial0": "/dev/serial0", "console": "/dev/serial0"},
		I2C:    map[string]int{"I2C1": 1, "I2C0": 0},
		CAN:    []string{"can0"},
	}
}

// The UARTs 2 to 5 go by their numbers since Linux 6.0; before, by how many of them there were.
func rpi4() Board {
	return Board{
		Name:       "rpi4",
		Model:      "Raspberry Pi 4 Model B, 400, Compute Module 4",
		Compatible: []string{"raspberrypi,4-model-b", "raspberrypi,400", "raspberrypi,4-compute-module", "raspberrypi,4-compute-module-s"},
		Chips:      map[string]string{"gpiochip0": "pinctrl-bcm2711", "gpiochip1": "raspberrypi-exp-gpio"},
		Lines:      headerLines("pinctrl-bcm2711"),
		Pins:       header40(),
		Serial: map[string]string{"serial0": "/dev/serial0", "console": "/dev/serial0",
			"uart2": "/dev/ttyAMA2", "uart3": "/dev/ttyAMA3", "uart4": "/dev/ttyAMA4", "uart5": "/dev/ttyAMA5"},
		I2C: map[string]int{"I2C1": 1, "I2C0": 0, "I2C3": 3, "I2C4": 4, "I2C5": 5, "I2C6": 6},
		CAN: []string{"can0"},
	}
}

// The header of the Pi 5 is on RP1. Its chip was gpiochip4 up to Linux 6.6.44 and is gpiochip0 since (raspberrypi/linux, pull
// request 6144); Raspberry Pi OS keeps /dev/gpiochip4 as a link. Newer kernels are reported to have moved it again: the label
// is what lasts. A login is expected at the small connector between the HDMI
// ports, which is uart10.
func rpi5() Board {
	return Board{
		Name:       "rpi5",
		Model:      "Raspberry Pi 5 Model B, 500, Compute Module 5",
		Compatible: []string{"raspberrypi,5-model-b", "raspberrypi,500", "raspberrypi,5-compute-module"},
		Chips:      map[string]string{"gpiochip0": "pinctrl-rp1", "gpiochip4": "pinctrl-rp1"},
		Lines:      headerLines("pinctrl-rp1"),
		Pins:       header40(),
		Serial: map[string]string{"serial0": "/dev/ttyAMA0", "console": "/dev/ttyAMA10", "uart1": "/dev/ttyAMA1",
			"uart2": "/dev/ttyAMA2", "uart3": "/dev/ttyAMA3", "uart4": "/dev/ttyAMA4"},
		I2C: map[string]int{"I2C1": 1, "I2C0": 0, "I2C2": 2, "I2C3": 3},
		CAN: []string{"can0"},
	}
}

func rpiZero2W() Board {
	b := rpi3()
	b.Name, b.Model = "rpi-zero-2w", "Raspberry Pi Zero 2 W, Compute Module 0"
	b.Compatible = []string{"raspberrypi,model-zero-2-w", "raspberrypi,0-compute-module"}
	return b
}

// QEMU's virt machine for ARM has one chip of eight lines, of which GPIO3 is its power button.
func qemuVirt() Board {
	const chip = "9030000.pl061"
	lines := map[string]Line{}
	for n, name := range []string{"GPIO0", "GPIO1", "GPIO2", "GPIO3", "GPIO4", "GPIO5", "GPIO6", "GPIO7"} {
		lines[name] = Line{chip, n}
	}
	return Board{
		Name:       "qemu-virt",
		Model:      "QEMU's virt machine (ARM)",
		Compatible: []string{"linux,dummy-virt"},
		Chips:      map[string]string{"gpiochip0": chip},
		Lines:      lines,
		Serial:     map[string]string{"serial0": "/dev/ttyAMA0", "console": "/dev/ttyAMA0"},
	}
}
