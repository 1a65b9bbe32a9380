package dut

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// fakeDevice remembers how it was switched.
type fakeDevice struct {
	on     bool
	card   Side
	cable  Cable
	broken error
	events []string
}

func (r *fakeDevice) On()  { r.on = true; r.events = append(r.events, "on") }
func (r *fakeDevice) Off() { r.on = false; r.events = append(r.events, "off") }

func (r *fakeDevice) State() State {
	if r.on {
		return State{"on", PhaseUp, 4.966, 0.42, r.card, r.cable}
	}
	return State{"off", PhaseOff, 0, 0, r.card, r.cable}
}

func (r *fakeDevice) Turn(to Side) {
	r.card = to
	r.events = append(r.events, "card "+string(to))
}

func (r *fakeDevice) Unplug(d time.Duration) {
	r.cable = Unplugged
	r.events = append(r.events, fmt.Sprintf("unplug %v", d))
}

func (r *fakeDevice) Plug() error {
	r.events = append(r.events, "plug")
	if r.broken == nil {
		r.cable = Plugged
	}
	return r.broken
}

func newFakeDevice() *fakeDevice { return &fakeDevice{card: SideDUT, cable: Plugged} }

type stream struct {
	io.Reader
	io.Writer
}

const (
	isOn       = `{"rail":"on","phase":"up","voltage":4.966,"current":0.42,"card":"dut","uart":"plugged"}`
	isOff      = `{"rail":"off","phase":"off","voltage":0,"current":0,"card":"dut","uart":"plugged"}`
	isAtHost   = `{"rail":"off","phase":"off","voltage":0,"current":0,"card":"host","uart":"plugged"}`
	isUnplug   = `{"rail":"off","phase":"off","voltage":0,"current":0,"card":"dut","uart":"unplugged"}`
	badSeconds = `: want 0.001 to 86400 seconds"}`
)

func refused(word string) string {
	text, _ := json.Marshal(refusal{`unknown request ` + word + `: want on, off, read, card dut|host|off, unplug uart [SECONDS] or plug uart`})
	return string(text)
}

func TestConverse(t *testing.T) {
	long := `{"error":"request of more than 256 bytes"}`
	tests := []struct {
		name, in string
		want     []string
		events   []string
	}{
		{"nothing", "", nil, nil},
		{"read", "read\n", []string{isOff}, nil},
		{"switch", "on\noff\n", []string{isOn, isOff}, []string{"on", "off"}},
		{"twice", "on\non\n", []string{isOn, isOn}, []string{"on", "on"}},
		{"CR LF and spaces", "on\r\n \tread \r\n", []string{isOn, isOn}, []string{"on"}},
		{"half a request", "on\nof", []string{isOn}, []string{"on"}},
		{"unfinished", "on", nil, nil},
		{"empty line", "\n", []string{refused(`""`)}, nil},
		{"unknown", "ON\non off\nread\n", []string{refused(`"ON"`), refused(`"on off"`), isOff}, nil},
		{"card", "card host\ncard   dut \ncard top\ncard\n", []string{isAtHost, isOff, refused(`"card top"`), refused(`"card"`)},
			[]string{"card host", "card dut"}},
		{"cable", "unplug uart\nplug uart\nunplug uart 2.5\nplug uart 1\nunplug\n",
			[]string{isUnplug, isOff, isUnplug, refused(`"plug uart 1"`), refused(`"unplug"`)},
			[]string{"unplug 0s", "plug", "unplug 2.5s"}},
		{"cable for no time", "unplug uart 0\nunplug uart x\nunplug uart NaN\nunplug uart 1e9\n",
			[]string{`{"error":"unplug uart \"0\"` + badSeconds, `{"error":"unplug uart \"x\"` + badSeconds,
				`{"error":"unplug uart \"NaN\"` + badSeconds, `{"error":"unplug uart \"1e9\"` + badSeconds}, nil},
		{"not text", "\x00\xff\n", []string{refused(`"\x00\xff"`)}, nil},
		{"longest", strings.Repeat(" ", 253) + "on\n", []string{isOn}, []string{"on"}},
		{"one too long", strings.Repeat(" ", 254) + "on\nread\n", []string{long, isOff}, nil},
		{"much too long", strings.Repeat("on ", 10000) + "\nread\n", []string{long, isOff}, nil},
		{"much too long, unfinished", strings.Repeat("on ", 10000), nil, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newFakeDevice()
			var out bytes.Buffer
			if err := converse(stream{strings.NewReader(test.in), &out}, r); err != nil {
				t.Errorf("converse(%q) = %v; want nil", test.in, err)
			}
			if got := slices.Collect(strings.Lines(out.String())); strings.Join(got, "") != lines(test.want) {
				t.Errorf("converse(%q) answers %q; want %q", test.in, got, test.want)
			}
			if !slices.Equal(r.events, test.events) {
				t.Errorf("converse(%q) does %q; want %q", test.in, r.events, test.events)
			}
		})
	}
}

func lines(s []string) string {
	var b strings.Builder
	for _, l := range s {
		b.WriteString(l + "\n")
	}
	return b.String()
}

func TestCannotPlug(t *testing.T) {
	r := newFakeDevice()
	r.broken = errors.New("no more terminals")
	var out bytes.Buffer
	if err := converse(stream{strings.NewReader("plug uart\n"), &out}, r); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), `{"error":"no more terminals"}`+"\n"; got != want {
		t.Errorf("plug uart answers %q; want %q", got, want)
	}
}

// TestStuckClient asks and does not take the answer.
func TestStuckClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer there.Close()
		begin := time.Now()
		ended := make(chan error)
		go func() { ended <- converse(client{here}, newFakeDevice()) }()
		if _, err := there.Write([]byte("read\n")); err != nil {
			t.Fatal(err)
		}
		err := <-ended
		if took := time.Since(begin); !errors.Is(err, os.ErrDeadlineExceeded) || took != answerTimeout {
			t.Errorf("converse() = %v after %v; want a deadline error after %v", err, took, answerTimeout)
		}
	})
}

// FuzzConverse sends anything. Every line has an answer, the answer tells the truth, and the rail does what the lines
// that are requests say.
func FuzzConverse(f *testing.F) {
	for _, s := range []string{"on\nread\noff\n", " on \r\n\n", "o\x00n\n{}\n", "card host\nunplug uart 1.5\nplug uart\nunplug uart\n", strings.Repeat("x", 600) + "\non\n", "on"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := newFakeDevice()
		var out bytes.Buffer
		if err := converse(stream{bytes.NewReader(in), &out}, r); err != nil {
			t.Fatalf("converse() = %v; want nil", err)
		}
		answers := bytes.SplitAfter(out.Bytes(), []byte("\n"))
		requests := bytes.SplitAfter(in, []byte("\n"))
		if len(answers) != len(requests) || len(answers[len(answers)-1]) != 0 {
			t.Fatalf("%d lines had the answers %q; want one for each", len(requests)-1, answers)
		}
		model := newFakeDevice()
		for i, req := range requests[:len(requests)-1] {
			word, ok := strings.Join(strings.Fields(string(req)), " "), len(req) <= requestMax
			side, card := strings.CutPrefix(word, "card ")
			seconds, unplug := strings.CutPrefix(word, "unplug uart ")
			d, err := strconv.ParseFloat(seconds, 64)
			switch {
			case ok && word == "on":
				model.On()
			case ok && word == "off":
				model.Off()
			case ok && card && (side == "dut" || side == "host" || side == "off"):
				model.Turn(Side(side))
			case ok && word == "plug uart":
				model.Plug()
			case ok && word == "unplug uart":
				model.Unplug(0)
			case ok && unplug && err == nil && d >= 0.001 && d <= 86400:
				model.Unplug(time.Duration(d * 1e9))
			case !ok || word != "read":
				var refusal refusal
				if err := json.Unmarshal(answers[i], &refusal); err != nil || refusal.Error == "" {
					t.Errorf("request %q had the answer %q, %v; want an error", req, answers[i], err)
				}
				continue
			}
			var got State
			if err := json.Unmarshal(answers[i], &got); err != nil || got != model.State() {
				t.Errorf("request %q had the answer %q, %v; want %+v", req, answers[i], err, model.State())
			}
		}
		if !slices.Equal(r.events, model.events) {
			t.Errorf("converse(%q) does %q; want %q", in, r.events, model.events)
		}
	})
}
