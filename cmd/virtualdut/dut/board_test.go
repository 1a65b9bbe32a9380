package dut

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// tape records what the UART sends, and when each byte was on the wire.
type tape struct {
	mu    sync.Mutex
	bytes []byte
	times []time.Time
}

func (t *tape) State() Cable { return Plugged }

func (t *tape) Send(p []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, c := range p {
		t.bytes = append(t.bytes, c)
		t.times = append(t.times, time.Now().Add(time.Duration(i)*byteTime))
	}
}

func (t *tape) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.bytes)
}

// take empties the tape.
func (t *tape) take() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := string(t.bytes)
	t.bytes, t.times = nil, nil
	return s
}

// at is when the first byte of text was sent, and whether it was.
func (t *tape) at(text string) (time.Time, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := bytes.Index(t.bytes, []byte(text))
	if i < 0 {
		return time.Time{}, false
	}
	return t.times[i], true
}

// fakeSite notes when it was started and stopped.
type fakeSite struct {
	err  error
	busy int

	mu     sync.Mutex
	events []string
	status func() string
}

func (s *fakeSite) Addr() string { return "127.0.0.1:8100" }
func (s *fakeSite) Busy() int    { return s.busy }

func (s *fakeSite) Start(status func() string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, "start")
	s.status = status
	return s.err
}

func (s *fakeSite) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, "stop")
}

func (s *fakeSite) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.events, " ")
}

// bench runs a test of a board in a bubble with a clock of its own.
func bench(t *testing.T, bootTime time.Duration, test func(b *board, out *tape, site *fakeSite)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		out, site := &tape{}, &fakeSite{}
		b := &board{bootTime: bootTime, wire: out, site: site, card: SideDUT, log: slog.New(slog.DiscardHandler)}
		b.load = func(context.Context) (image, error) { return image{}, nil }
		defer b.Off()
		test(b, out, site)
	})
}

// settle lets the clock run until the board has long come to rest.
func settle() {
	time.Sleep(10 * time.Second)
	synctest.Wait()
}

func TestBootTimeline(t *testing.T) {
	for _, boot := range []time.Duration{0, time.Second, 30 * time.Second} {
		t.Run(boot.String(), func(t *testing.T) {
			bench(t, boot, func(b *board, out *tape, site *fakeSite) {
				begin := time.Now()
				b.On()
				time.Sleep(boot)
				settle()

				// Text is queued at its time at the latest when all before has been sent; the whole script is short.
				text := out.text()
				slack := time.Duration(len(text)) * byteTime
				last := begin
				for _, s := range bootScript {
					word := strings.TrimSpace(strings.TrimPrefix(s.text, "%"))
					if word == "." || word == "" {
						continue
					}
					at, ok := out.at(word)
					want := begin.Add(time.Duration(s.at * float64(boot)))
					if !ok || at.Before(want) || at.Sub(want) > slack {
						t.Errorf("%q on the wire at %v, %t; want %v and at most %v later",
							word, at.Sub(begin), ok, want.Sub(begin), slack)
					}
					if at.Before(last) {
						t.Errorf("%q on the wire before what precedes it", word)
					}
					last = at
				}
				if !strings.HasSuffix(text, "done\r\nweb: serving http://127.0.0.1:8100/\r\n\r\n"+prompt) {
					t.Errorf("boot ends with %q; want the web page's address and a prompt", text[len(text)-60:])
				}
				if got := site.String(); got != "start" {
					t.Errorf("the web page saw %q; want start", got)
				}
			})
		})
	}
}

func TestKernelTimeStamps(t *testing.T) {
	bench(t, 100*time.Second, func(b *board, out *tape, _ *fakeSite) {
		b.On()
		time.Sleep(100 * time.Second)
		settle()
		if want := "[   50.000000] eth0: "; !strings.Contains(out.text(), want) {
			t.Errorf("boot = %q; want %q in it", out.text(), want)
		}
	})
}

// TestCut cuts the power at every byte of the boot messages.
func TestCut(t *testing.T) {
	bench(t, time.Second, func(b *board, out *tape, site *fakeSite) {
		b.On()
		settle()
		whole := out.take()
		b.Off()
		site.events = nil
		for i := range 1200 {
			b.On()
			time.Sleep(time.Duration(i) * time.Millisecond)
			b.Off()
			cut := out.take()
			if !strings.HasPrefix(whole, cut) {
				t.Fatalf("cut after %d ms: %q; want the beginning of %q", i, cut, whole)
			}
			settle()
			if late := out.take(); late != "" {
				t.Fatalf("cut after %d ms: %q came later; want silence", i, late)
			}
			if events := site.String(); events != "" && events != "start stop" {
				t.Fatalf("cut after %d ms: the web page saw %q; want nothing, or start stop", i, events)
			}
			site.events = nil
		}
	})
}

func TestPhasesAndMeter(t *testing.T) {
	bench(t, time.Second, func(b *board, out *tape, site *fakeSite) {
		check := func(when string, want State) {
			t.Helper()
			want.Card, want.UART = SideDUT, Plugged
			if got := b.State(); got != want {
				t.Errorf("%s: State() = %+v; want %+v", when, got, want)
			}
		}
		check("before", State{Rail: "off", Phase: PhaseOff})
		b.On()
		check("at power on", State{Rail: "on", Phase: PhaseBoot, Voltage: 4.736, Current: 3.3})
		time.Sleep(inrushTime)
		check("inrush", State{Rail: "on", Phase: PhaseBoot, Voltage: 4.857, Current: milli(0.9 + 2.4/math.E)})
		time.Sleep(500 * time.Millisecond)
		check("boot", State{Rail: "on", Phase: PhaseBoot, Voltage: 4.928, Current: 0.9})
		time.Sleep(time.Second)
		check("up", State{Rail: "on", Phase: PhaseUp, Voltage: 4.966, Current: 0.42})
		b.On()
		check("on again", State{Rail: "on", Phase: PhaseUp, Voltage: 4.966, Current: 0.42})
		site.busy = 2
		check("two requests", State{Rail: "on", Phase: PhaseUp, Voltage: 4.938, Current: 0.78})
		site.busy = 99
		check("many requests", State{Rail: "on", Phase: PhaseUp, Voltage: 4.909, Current: 1.14})
		want := "virtual device under test\nphase: up\nbooted: factory firmware 1.0\nuptime: 1.5 s\nrail: 4.909 V, 1.140 A\n"
		if got := site.status(); got != want {
			t.Errorf("status = %q; want %q", got, want)
		}
		b.Receive([]byte("poweroff\r"))
		settle()
		check("halted", State{Rail: "on", Phase: PhaseHalted, Voltage: 4.996, Current: 0.05})
		b.Off()
		check("off", State{Rail: "off", Phase: PhaseOff})
		b.Off()
		check("off again", State{Rail: "off", Phase: PhaseOff})
		out.take()
		b.On()
		settle()
		check("on after a halt", State{Rail: "on", Phase: PhaseUp, Voltage: 4.909, Current: 1.14})
	})
}

func TestShell(t *testing.T) {
	tests := []struct{ name, keys, want string }{
		{"CR", "echo hi\r", "echo hi\r\nhi\r\ndut# "},
		{"LF", "echo hi\n", "echo hi\r\nhi\r\ndut# "},
		{"CR LF", "echo a\r\necho b\r\n", "echo a\r\na\r\ndut# echo b\r\nb\r\ndut# "},
		{"two CR", "\r\r", "\r\ndut# \r\ndut# "},
		{"two LF", "\n\n", "\r\ndut# \r\ndut# "},
		{"backspace", "echx\bo hi\r", "echx\b \bo hi\r\nhi\r\ndut# "},
		{"delete", "echo hix\x7f\r", "echo hix\b \b\r\nhi\r\ndut# "},
		{"backspace at the prompt", "\b\x7fecho a\r", "echo a\r\na\r\ndut# "},
		{"backspace over UTF-8", "echo ä\b.\r", "echo ä\b \b.\r\n.\r\ndut# "},
		{"Ctrl-C", "reboo\x03echo a\r", "reboo^C\r\ndut# echo a\r\na\r\ndut# "},
		{"Ctrl-U", "no\x15echo a\r", "no\b \b\b \becho a\r\na\r\ndut# "},
		{"cursor keys", "ec\x1b[Dh\x1b[1;5Co\x1bOA x\x1b[\x1b[A\r", "echo x\r\nx\r\ndut# "},
		{"other controls", "\x00\x04e\tcho a\r", "echo a\r\na\r\ndut# "},
		{"unknown", "frob x\r", "frob x\r\nfrob: not found; try help\r\ndut# "},
		{"spaces", "  echo   a  b  \r", "  echo   a  b  \r\na  b\r\ndut# "},
		{"uname", "uname\r", "uname\r\nVkernel\r\ndut# "},
		{"uname -a", "uname -a\r", "uname -a\r\nVkernel dut 6.0-virtual virtual\r\ndut# "},
		{"uptime", "uptime\r", "uptime\r\nup 10.000 s\r\ndut# "},
		{"voltage", "voltage\r", "voltage\r\n4.966 V 0.420 A\r\ndut# "},
		{"ps", "ps\r", "ps\r\n  PID COMMAND\r\n    1 init\r\n    2 web\r\n    3 sh\r\n    4 ps\r\ndut# "},
		{"help", "help\r", "help\r\n" + strings.ReplaceAll(help, "\n", "\r\n") + "dut# "},
		{"sleep", "sleep 2.5\r", "sleep 2.5\r\ndut# "},
		{"sleep nothing", "sleep\r", "sleep\r\nsleep: want seconds\r\ndut# "},
		{"sleep backwards", "sleep -1\r", "sleep -1\r\nsleep: want seconds\r\ndut# "},
		{"sleep no number", "sleep nan\r", "sleep nan\r\nsleep: want seconds\r\ndut# "},
		{"longest line", "echo " + strings.Repeat("x", lineMax-5) + "yz\r",
			"echo " + strings.Repeat("x", lineMax-5) + "\a\a\r\n" + strings.Repeat("x", lineMax-5) + "\r\ndut# "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bench(t, time.Second, func(b *board, out *tape, _ *fakeSite) {
				b.On()
				settle()
				out.take()
				b.Receive([]byte(test.keys))
				settle()
				if got := out.take(); got != test.want {
					t.Errorf("keys %q: the console shows %q; want %q", test.keys, got, test.want)
				}
			})
		})
	}
}

func TestSleepCommand(t *testing.T) {
	bench(t, 0, func(b *board, out *tape, _ *fakeSite) {
		b.On()
		settle()
		out.take()
		b.Receive([]byte("sleep 60\r"))
		time.Sleep(59 * time.Second)
		b.Receive([]byte("typed meanwhile\r"))
		time.Sleep(time.Second / 2)
		if got, want := out.take(), "sleep 60\r\n"; got != want {
			t.Errorf("during sleep 60: the console shows %q; want %q", got, want)
		}
		time.Sleep(time.Second)
		if got := out.take(); got != prompt {
			t.Errorf("after sleep 60: the console shows %q; want %q", got, prompt)
		}
		b.Receive([]byte("sleep 60\r"))
		time.Sleep(time.Second)
		b.Receive([]byte{ctrlC})
		time.Sleep(time.Second)
		if got, want := out.take(), "sleep 60\r\n^C\r\n"+prompt; got != want {
			t.Errorf("sleep 60, Ctrl-C: the console shows %q; want %q", got, want)
		}
		b.Receive([]byte("sleep 60\r"))
		time.Sleep(time.Second)
		b.Off()
	})
}

func TestRebootAndPoweroff(t *testing.T) {
	bench(t, time.Second, func(b *board, out *tape, site *fakeSite) {
		b.On()
		settle()
		boot := out.take()
		b.Receive([]byte("reboot\recho lost\r"))
		settle()
		if got, want := out.take(), "reboot\r\ninit: stopping services ... done\r\nvkernel: restarting\r\n"+boot; got != want {
			t.Errorf("reboot: the console shows %q; want %q", got, want)
		}
		b.Receive([]byte("poweroff\r"))
		settle()
		b.Receive([]byte("echo lost\r"))
		settle()
		if got, want := out.take(), "poweroff\r\ninit: stopping services ... done\r\nvkernel: halted, power can be cut\r\n"; got != want {
			t.Errorf("poweroff: the console shows %q; want %q", got, want)
		}
		b.Off()
		b.On()
		settle()
		if got := out.take(); got != boot {
			t.Errorf("after a power cycle the console shows %q; want %q", got, boot)
		}
		if got, want := site.String(), "start stop start stop start"; got != want {
			t.Errorf("the web page saw %q; want %q", got, want)
		}
	})
}

// TestDeaf sends keys while nothing reads them.
func TestDeaf(t *testing.T) {
	bench(t, time.Second, func(b *board, out *tape, _ *fakeSite) {
		b.Receive([]byte("echo off\r"))
		b.On()
		time.Sleep(500 * time.Millisecond)
		b.Receive([]byte("echo booting\r"))
		settle()
		if got := out.text(); strings.Contains(got, "echo") || !strings.HasSuffix(got, prompt) {
			t.Errorf("the console shows %q; want nothing of what was typed before the prompt", got)
		}
	})
}

// TestOverrun types faster than the console is. What is too much is lost, nothing waits, and the shell lives on.
func TestOverrun(t *testing.T) {
	bench(t, 0, func(b *board, out *tape, _ *fakeSite) {
		b.On()
		settle()
		out.take()
		begin := time.Now()
		for range 1 << 10 {
			b.Receive(bytes.Repeat([]byte("help\r"), 200))
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("Receive() of a megabyte took %v; want no wait", took)
		}
		time.Sleep(10 * time.Minute)
		if got, want := len(out.take()), (rxSize+txSize)*len(help); got == 0 || got > want {
			t.Errorf("a megabyte of help shows %d bytes; want some, and at most %d", got, want)
		}
		b.Receive([]byte("\x03echo alive\r"))
		settle()
		if got := out.take(); !strings.HasSuffix(got, "\r\nalive\r\n"+prompt) {
			t.Errorf("after that the console shows %q; want alive", got)
		}
	})
}

// TestUARTSpeed measures the console's speed.
func TestUARTSpeed(t *testing.T) {
	bench(t, 0, func(b *board, out *tape, _ *fakeSite) {
		b.On()
		settle()
		out.take()
		begin := time.Now()
		for range 100 {
			b.Receive([]byte("help\r"))
		}
		settle()
		n := len(out.text())
		took := out.times[n-1].Add(byteTime).Sub(begin)
		if want := time.Duration(n) * byteTime; took < want || took > want+want/100 {
			t.Errorf("%d bytes took %v; want %v", n, took, want)
		}
	})
}

func TestWebPageFails(t *testing.T) {
	bench(t, 0, func(b *board, out *tape, site *fakeSite) {
		site.err = errors.New("port taken")
		b.On()
		settle()
		if got, want := out.take(), "done\r\nweb: port taken\r\n\r\n"+prompt; !strings.HasSuffix(got, want) {
			t.Errorf("the console shows %q; want %q at the end", got, want)
		}
	})
}

// TestSwitching switches from many sides at once.
func TestSwitching(t *testing.T) {
	bench(t, 0, func(b *board, _ *tape, site *fakeSite) {
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				for range 100 {
					b.On()
					time.Sleep(time.Duration(i) * time.Millisecond)
					b.State()
					b.Off()
				}
			})
		}
		all.Wait()
		if got := b.State(); got.Rail != "off" || got.Current != 0 {
			t.Errorf("State() = %+v; want off", got)
		}
		if got := site.String(); strings.Count(got, "start") != strings.Count(got, "stop") {
			t.Errorf("the web page saw %q; want a stop for each start", got)
		}
	})
}

// FuzzEditor holds the line editor against what a terminal would show.
func FuzzEditor(f *testing.F) {
	for _, s := range []string{"echo a\r\n", "ä\bx\x7f\r", "\x1b[1;2A\x1bOP\x1b\x1b[\x03", strings.Repeat("x", 300) + "\x15y"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, keys []byte) {
		var e editor
		columns := 0 // of the line, as the terminal shows it
		for _, c := range keys {
			echo, line, done := e.key(c)
			switch {
			case done:
				if echo != "\r\n" || runes([]byte(line)) != columns || len(line) > lineMax {
					t.Fatalf("keys %q: line %q, echo %q; want a line of %d columns", keys, line, echo, columns)
				}
				columns = 0
			case c == ctrlC:
				columns = 0
			case echo == "\a" || echo == "":
			case strings.HasPrefix(echo, "\b"):
				columns -= strings.Count(echo, "\b \b")
			case len(echo) == 1 && echo[0] >= ' ':
				columns += runes([]byte(echo))
			default:
				t.Fatalf("keys %q: echo %q; want one byte", keys, echo)
			}
			if len(e.line) > lineMax || !done && columns != runes(e.line) {
				t.Fatalf("keys %q: the terminal shows %d columns of the line %q", keys, columns, e.line)
			}
		}
	})
}

// flashed is a board whose card has an image of size bytes.
func flashed(b *board, name string, size int64) {
	b.load = func(context.Context) (image, error) {
		return image{name: name, size: size, sum: [32]byte{1, 2, 3}}, nil
	}
}

// shows tells what was sent since the last time, and wants some of it.
func shows(t *testing.T, when string, out *tape, want ...string) string {
	t.Helper()
	got := out.take()
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("%s the console shows %q; want %q in it", when, got, w)
		}
	}
	return got
}

func TestBootFromCard(t *testing.T) {
	bench(t, time.Second, func(b *board, out *tape, site *fakeSite) {
		b.On()
		settle()
		shows(t, "with an empty card", out, "vboot: card: empty\r\nvboot: starting, factory firmware 1.0\r\n")
		flashed(b, "my image", 12)
		b.Receive([]byte("image\r"))
		settle()
		shows(t, "before a reboot", out, "image\r\nfactory firmware 1.0\r\n"+prompt)
		b.Off()
		b.On()
		settle()
		const id = `image "my image", 12 bytes, sha256 010203000000`
		shows(t, "after a flash and a power cycle", out, "vboot: card: "+id+"\r\nvboot: starting, checksum good\r\n")
		if got := site.status(); !strings.Contains(got, "booted: "+id+"\n") {
			t.Errorf("status() = %q; want %s", got, id)
		}
		b.Receive([]byte("image\r"))
		settle()
		shows(t, "when asked", out, id)
		b.load = func(context.Context) (image, error) { return image{}, errors.New("worn out") }
		b.Receive([]byte("reboot\r"))
		settle()
		shows(t, "with a bad card", out, "vboot: card: cannot be read: worn out\r\nvboot: starting, factory firmware 1.0\r\n")
	})
}

// TestNoCard boots without a card, which comes later, or not before the power goes.
func TestNoCard(t *testing.T) {
	bench(t, time.Second, func(b *board, out *tape, _ *fakeSite) {
		flashed(b, "late", 5)
		for _, side := range []Side{SideHost, SideOff} {
			b.Turn(side)
			b.On()
			settle()
			got := shows(t, "without a card", out)
			if want := "vboot: card: none is in the slot, waiting for one ... "; !strings.HasSuffix(got, want) {
				t.Errorf("without a card the console shows %q; want %q at the end", got, want)
			}
			if s := b.State(); s.Phase != PhaseBoot || s.Card != side {
				t.Errorf("State() = %+v; want it to boot, and the card at %s", s, side)
			}
			b.Off()
			b.On()
			settle()
			out.take()
			b.Turn(SideHost)
			b.Turn(SideOff)
			settle()
			if got := out.take(); got != "" {
				t.Errorf("without a card the console goes on with %q; want it to wait", got)
			}
			begin := time.Now()
			b.Turn(SideDUT)
			synctest.Wait()
			for b.State().Phase != PhaseUp {
				time.Sleep(time.Millisecond)
			}
			if took := time.Since(begin); took > time.Second {
				t.Errorf("with the card it took %v to boot; want a boot time at most", took)
			}
			settle()
			shows(t, "with the card", out, `image "late", 5 bytes`, prompt)
			b.Off()
		}
	})
}

// TestHotCard takes the card away and puts it back while the device is up.
func TestHotCard(t *testing.T) {
	bench(t, 0, func(b *board, out *tape, _ *fakeSite) {
		b.On()
		settle()
		b.Receive([]byte("echo hal"))
		settle()
		out.take()
		b.Turn(SideHost)
		settle()
		b.Turn(SideOff) // it is away already
		settle()
		shows(t, "without the card", out, "\r\n[   20.0")
		b.Turn(SideDUT)
		settle()
		shows(t, "with the card", out, "card: inserted, the next boot is from it\r\n"+prompt+"echo hal")
		b.Turn(SideDUT)
		b.Receive([]byte("f\r"))
		settle()
		if got, want := out.take(), "f\r\nhalf\r\n"+prompt; got != want {
			t.Errorf("then the console shows %q; want %q", got, want)
		}
	})
}

// TestCutWhileLoading cuts the power while a card is read that takes its time.
func TestCutWhileLoading(t *testing.T) {
	bench(t, 0, func(b *board, out *tape, site *fakeSite) {
		b.load = func(ctx context.Context) (image, error) {
			<-ctx.Done()
			return image{}, ctx.Err()
		}
		b.On()
		settle()
		b.Off()
		if got := out.take(); !strings.HasSuffix(got, "vboot: card: ") || site.String() != "" {
			t.Errorf("the console shows %q, the web page saw %q; want the boot to end where the card is read", got, site)
		}
	})
}
