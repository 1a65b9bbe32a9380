package dut

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// fakeRail remembers how it was switched.
type fakeRail struct {
	on     bool
	events []string
}

func (r *fakeRail) On()  { r.on = true; r.events = append(r.events, "on") }
func (r *fakeRail) Off() { r.on = false; r.events = append(r.events, "off") }

func (r *fakeRail) State() State {
	if r.on {
		return State{"on", PhaseUp, 4.966, 0.42}
	}
	return State{"off", PhaseOff, 0, 0}
}

type stream struct {
	io.Reader
	io.Writer
}

const (
	isOn  = `{"rail":"on","phase":"up","voltage":4.966,"current":0.42}`
	isOff = `{"rail":"off","phase":"off","voltage":0,"current":0}`
)

func refused(word string) string {
	text, _ := json.Marshal(refusal{`unknown request ` + word + `: want on, off or read`})
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
		{"not text", "\x00\xff\n", []string{refused(`"\x00\xff"`)}, nil},
		{"longest", strings.Repeat(" ", 253) + "on\n", []string{isOn}, []string{"on"}},
		{"one too long", strings.Repeat(" ", 254) + "on\nread\n", []string{long, isOff}, nil},
		{"much too long", strings.Repeat("on ", 10000) + "\nread\n", []string{long, isOff}, nil},
		{"much too long, unfinished", strings.Repeat("on ", 10000), nil, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var r fakeRail
			var out bytes.Buffer
			if err := converse(stream{strings.NewReader(test.in), &out}, &r); err != nil {
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

// TestStuckClient asks and does not take the answer.
func TestStuckClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer there.Close()
		begin := time.Now()
		ended := make(chan error)
		go func() { ended <- converse(client{here}, &fakeRail{}) }()
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
	for _, s := range []string{"on\nread\noff\n", " on \r\n\n", "o\x00n\n{}\n", strings.Repeat("x", 600) + "\non\n", "on"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var r fakeRail
		var out bytes.Buffer
		if err := converse(stream{bytes.NewReader(in), &out}, &r); err != nil {
			t.Fatalf("converse() = %v; want nil", err)
		}
		answers := bytes.SplitAfter(out.Bytes(), []byte("\n"))
		requests := bytes.SplitAfter(in, []byte("\n"))
		if len(answers) != len(requests) || len(answers[len(answers)-1]) != 0 {
			t.Fatalf("%d lines had the answers %q; want one for each", len(requests)-1, answers)
		}
		var model fakeRail
		for i, req := range requests[:len(requests)-1] {
			word, ok := string(bytes.TrimSpace(req)), len(req) <= requestMax
			switch {
			case ok && word == "on":
				model.On()
			case ok && word == "off":
				model.Off()
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
