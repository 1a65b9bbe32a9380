package hwtest

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/hw"
)

func TestBenchExample(t *testing.T) {
	text, err := os.ReadFile("bench.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadBench("bench.example.yaml", text)
	want := &Bench{
		GPIO:   []GPIOLoop{{Out: BenchLine{"pinctrl-bcm2711", "17"}, In: BenchLine{"pinctrl-bcm2711", "GPIO27"}}},
		Serial: []SerialLoop{{"/dev/serial/by-id/usb-FTDI_FT232R_USB_UART_A50285BI-if00-port0", 115200, 65536}},
		Meters: []Meter{
			{"INA226", 1, 0x40, 0.1, Range{4.75, 5.25}, Range{0.05, 0.5}},
			{"INA260", 1, 0x41, 0, Range{11, 13}, Range{-0.01, 2}},
		},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("ReadBench(the example) = %+v, %v; want %+v", got, err, want)
	}
	if got, want := want.GPIO[0].Out.Ref(), (hw.LineRef{Chip: "pinctrl-bcm2711", Offset: 17}); got != want {
		t.Errorf("Ref() = %v; want %v", got, want)
	}
	if got, want := want.GPIO[0].In.Ref(), (hw.LineRef{Chip: "pinctrl-bcm2711", Name: "GPIO27"}); got != want {
		t.Errorf("Ref() = %v; want %v", got, want)
	}
}

func TestReadBench(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", "<nil>"},
		{"# nothing yet\n", "<nil>"},
		{"gpio:\n  - {out: {line: 1}, in: {line: 2}}\nserial:\n  - port: /dev/ttyUSB0\n", "<nil>"},
		{"gpio:\n  - out: {line: 1}\n    inn: {line: 2}\n", `b:3: unknown key "inn"; did you mean "in"?`},
		{"gpoi: []\n", `b:1: unknown key "gpoi"; did you mean "gpio"?`},
		{"serial:\n  - {port: x, baudrate: 1}\n", `b:2: unknown key "baudrate"`},
		{"gpio:\n  - out: {line: 1}\n", "b:2: gpio: out and in each need a line"},
		{"gpio:\n  - {out: {line: 1}, in: {line: 2}}\n  - {out: {line: 1}, in: {line: 1}}\n", "b:3: gpio: out and in are one line"},
		{"serial:\n  - {baud: 9600}\n", "b:2: serial: port is missing"},
		{"serial:\n  - {port: x, baud: fast}\n", "b:2: cannot unmarshal !!str `fast` into int"},
		{"meters:\n  - {model: INA220, bus: 1, address: 0x40, shunt: 1, volts: [1, 2], amps: [1, 2]}\n",
			`b:2: meters: model is "INA220"; want one of INA219, INA226, INA260`},
		{"meters:\n  - {model: 226, bus: 1, address: 0x40, shunt: 1, volts: [1, 2], amps: [1, 2]}\n", `b:2: meters: model is "226"; want one of`},
		{"meters:\n  - {model: INA226, bus: 1, address: 0x40, shunt: 1, volts: [2, 1], amps: [1, 2]}\n", "b:2: meters: volts is [2 1]; want [least, most]"},
		{"meters:\n  - {model: INA226, bus: 1, address: 0x40, volts: [1, 2], amps: [1, 2]}\n", "the others need one"},
		{"meters:\n  - {model: INA260, bus: 1, address: 0x60, volts: [1, 2], amps: [1, 2]}\n", "b:2: meters: address is 0x60"},
		{"gpio: [\n", "b:1: did not find expected node content"},
	} {
		_, err := ReadBench("b", []byte(test.text))
		if got := fmt.Sprint(err); !strings.Contains(got, test.want) {
			t.Errorf("ReadBench(%q) = %v; want %q in it", test.text, got, test.want)
		}
	}
}

// A test asks for what it needs of the bench; a file that is not sound fails it.
func TestOnBench(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bench.yaml")
	t.Setenv(Promises, "")
	for _, test := range []struct{ env, text, want string }{
		{"", "", "skip: needs capability bench-gpio, which is missing: JUMPLEAD_BENCH names no file"},
		{file, "serial:\n  - port: x\n", "skip: needs capability bench-gpio, which is missing: " + file + " has nothing under gpio"},
		{file, "gpio:\n  - {out: {line: 1}, in: {line: 2}}\n", "run 1"},
		{file, "gpio:\n  - {out: {line: 1}}\n", "fail: JUMPLEAD_BENCH: " + file + ":2: gpio: out and in"},
		{file + "x", "", "fail: JUMPLEAD_BENCH: open "},
	} {
		if err := os.WriteFile(file, []byte(test.text), 0o666); err != nil {
			t.Fatal(err)
		}
		t.Setenv(BenchFile, test.env)
		v := &verdict{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			v.said = fmt.Sprint("run ", len(GPIOLoops(v)))
		}()
		<-done
		if !strings.HasPrefix(v.said, test.want) {
			t.Errorf("GPIOLoops() with %q says %q; want %q", test.text, v.said, test.want)
		}
	}
}
