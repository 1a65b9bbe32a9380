package dut

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const prompt = "dut# "

// bootScript is what the console shows while the device starts. A text that begins with % is the kernel's, and gets its
// time stamp; an empty one is where the card is read. Some lines come in pieces: a supply that is cut in between leaves
// half a line.
var bootScript = []struct {
	at   float64 // fraction of the boot time
	text string
}{
	{0, "\r\n\r\nVDUT boot ROM 1.2: straps 0x5, console 115200 8N1\r\n"},
	{0.02, "vboot: training memory ... "},
	{0.10, "64 MiB\r\n"},
	{0.12, "vboot: card: "},
	{0.20, ""},
	{0.25, "%Vkernel 6.0-virtual (one core, no hardware was harmed)\r\n"},
	{0.28, "%clock: taken from the host\r\n"},
	{0.34, "%uart0: you are looking at it\r\n"},
	{0.40, "%rail: 5.0 V nominal, within limits\r\n"},
	{0.50, "%eth0: link up on loopback\r\n"},
	{0.62, "%rootfs: mounted read-only\r\n"},
	{0.70, "init: starting services "},
	{0.78, "."},
	{0.86, "."},
	{0.94, ". "},
	{1, "done\r\n"},
}

// firmware is what the computer executes until its power is cut.
func (r *run) firmware(ctx context.Context) {
	for r.boot(ctx) {
		again := r.work(ctx)
		if ctx.Err() != nil {
			return
		}
		if !again {
			r.enter(PhaseHalted)
			return
		}
	}
}

// work is the time that the device is up. It reports whether to boot again afterwards.
func (r *run) work(ctx context.Context) bool {
	web := "web: serving http://" + r.board.site.Addr() + "/\r\n"
	if err := r.board.site.Start(r.status); err != nil {
		r.board.log.Error("web page", "error", err)
		web = fmt.Sprintf("web: %v\r\n", err)
	}
	defer r.board.site.Stop()
	for len(r.rx) > 0 { // typed before a reboot
		<-r.rx
	}
	r.enter(PhaseUp)
	return r.print(ctx, web) && r.shell(ctx)
}

// boot starts the device. It reports whether there was power to the end.
func (r *run) boot(ctx context.Context) bool {
	r.enter(PhaseBoot)
	begin := time.Now()
	for _, s := range bootScript {
		at := time.Duration(s.at * float64(r.board.bootTime))
		if !sleep(ctx, time.Until(begin.Add(at))) {
			return false
		}
		if s.text == "" {
			before := time.Now()
			if !r.load(ctx) {
				return false
			}
			begin = begin.Add(time.Since(before))
			continue
		}
		text := s.text
		if kernel, ok := strings.CutPrefix(text, "%"); ok {
			text = fmt.Sprintf("[%12.6f] %s", time.Since(begin).Seconds(), kernel)
		}
		if !r.print(ctx, text) {
			return false
		}
	}
	return true
}

// load finds out what is to be booted. It reports whether there was power to the end.
func (r *run) load(ctx context.Context) bool {
	if !r.board.inserted() {
		if !r.print(ctx, "none is in the slot, waiting for one ... ") {
			return false
		}
		for !r.board.inserted() {
			select {
			case <-r.slot:
			case <-ctx.Done():
				return false
			}
		}
	}
	select { // it is the card as it is now that is booted
	case <-r.slot:
	default:
	}
	img, err := r.board.load(ctx)
	if ctx.Err() != nil {
		return false
	}
	r.mu.Lock()
	r.image = img
	r.mu.Unlock()
	text := img.String()
	switch {
	case err != nil:
		text = fmt.Sprintf("cannot be read: %v", err)
	case img == image{}:
		text = "empty"
	}
	next := "checksum good"
	if (img == image{}) {
		next = img.String()
	}
	return r.print(ctx, text+"\r\nvboot: starting, "+next+"\r\n\r\n")
}

// print queues text for the UART, and reports whether there was power to the end.
func (r *run) print(ctx context.Context, text string) bool {
	for i := range len(text) {
		select {
		case r.tx <- text[i]:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

func (r *run) uptime() time.Duration { return time.Since(r.start) }

// status is what the web page shows.
func (r *run) status() string {
	s := r.board.State()
	return fmt.Sprintf("virtual device under test\nphase: %s\nbooted: %v\nuptime: %.1f s\nrail: %.3f V, %.3f A\n",
		s.Phase, r.booted(), r.uptime().Seconds(), s.Voltage, s.Current)
}

func (r *run) booted() image {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.image
}

// shell talks to whoever is at the console. It ends when the power is cut, with false when the device is to halt, with
// true when it is to boot again.
func (r *run) shell(ctx context.Context) (again bool) {
	if !r.print(ctx, "\r\n"+prompt) {
		return false
	}
	var ed editor
	inserted := true
	for {
		var c byte
		select {
		case c = <-r.rx:
		case <-r.slot:
			if now := r.board.inserted(); now != inserted {
				inserted = now
				text := "card: removed"
				if inserted {
					text = "card: inserted, the next boot is from it"
				}
				if !r.print(ctx, fmt.Sprintf("\r\n[%12.6f] %s\r\n%s%s", r.uptime().Seconds(), text, prompt, ed.line)) {
					return false
				}
			}
			continue
		case <-ctx.Done():
			return false
		}
		echo, line, done := ed.key(c)
		if !r.print(ctx, echo) {
			return false
		}
		if !done {
			continue
		}
		switch name, rest, _ := strings.Cut(strings.TrimSpace(line), " "); name {
		case "reboot":
			r.print(ctx, "init: stopping services ... done\r\nvkernel: restarting\r\n")
			return true
		case "poweroff":
			r.print(ctx, "init: stopping services ... done\r\nvkernel: halted, power can be cut\r\n")
			return false
		case "sleep":
			r.print(ctx, r.sleepCommand(ctx, rest))
		default:
			r.print(ctx, r.command(name, strings.TrimSpace(rest)))
		}
		if !r.print(ctx, prompt) {
			return false
		}
	}
}

const help = `commands:
  echo TEXT    print TEXT
  help         print this
  image        tell what was booted
  poweroff     shut down; the rail stays on
  ps           list processes
  reboot       start again
  sleep S      wait S seconds; Ctrl-C ends it
  uname [-a]   name the system
  uptime       time since power came
  voltage      measure the rail
`

// command executes a shell command that answers at once.
func (r *run) command(name, rest string) string {
	var out string
	switch name {
	case "":
		return ""
	case "help":
		out = help
	case "uname":
		out = "Vkernel\n"
		if rest == "-a" {
			out = "Vkernel dut 6.0-virtual virtual\n"
		}
	case "image":
		out = r.booted().String() + "\n"
	case "uptime":
		out = fmt.Sprintf("up %.3f s\n", r.uptime().Seconds())
	case "echo":
		out = rest + "\n"
	case "ps":
		out = "  PID COMMAND\n    1 init\n    2 web\n    3 sh\n    4 ps\n"
	case "voltage":
		s := r.board.State()
		out = fmt.Sprintf("%.3f V %.3f A\n", s.Voltage, s.Current)
	default:
		out = fmt.Sprintf("%s: not found; try help\n", name)
	}
	return strings.ReplaceAll(out, "\n", "\r\n")
}

// sleepCommand waits as told. Keys that are typed meanwhile are lost, but Ctrl-C.
func (r *run) sleepCommand(ctx context.Context, arg string) string {
	secs, err := strconv.ParseFloat(strings.TrimSpace(arg), 64)
	if err != nil || !(0 <= secs && secs <= 1e6) {
		return "sleep: want seconds\r\n"
	}
	t := time.NewTimer(time.Duration(secs * float64(time.Second)))
	defer t.Stop()
	for {
		select {
		case <-t.C:
			return ""
		case c := <-r.rx:
			if c == ctrlC {
				return "^C\r\n"
			}
		case <-ctx.Done():
			return ""
		}
	}
}

const (
	ctrlC     = 0x03
	ctrlU     = 0x15
	backspace = 0x08
	escape    = 0x1b
	del       = 0x7f
)

// lineMax is how many bytes a shell line may have.
const lineMax = 256

// editor is the terminal driver of the device: it makes lines of keys.
type editor struct {
	line []byte
	last byte
	esc  int // 1: after an escape, 2: in a control sequence
}

// key takes a key. It answers with what to echo and, when the key ended a line, with the line.
func (e *editor) key(c byte) (echo, line string, done bool) {
	last := e.last
	e.last = c
	if e.esc > 0 { // a cursor or function key; there is nothing that it could do here
		if c >= ' ' {
			switch {
			case e.esc == 1 && (c == '[' || c == 'O'):
				e.esc = 2
			case e.esc == 1, c >= '@':
				e.esc = 0
			}
			return "", "", false
		}
		e.esc = 0
	}
	switch {
	case c == '\n' && last == '\r':
		return "", "", false // the second half of one line end
	case c == '\r', c == '\n':
		line = string(e.line)
		e.line = e.line[:0]
		return "\r\n", line, true
	case c == ctrlC:
		e.line = e.line[:0]
		return "^C\r\n" + prompt, "", false
	case c == ctrlU:
		echo = strings.Repeat("\b \b", runes(e.line))
		e.line = e.line[:0]
		return echo, "", false
	case c == backspace, c == del:
		n := len(e.line)
		for n > 0 && e.line[n-1]&0xc0 == 0x80 { // the tail of a UTF-8 sequence
			n--
		}
		if n == 0 {
			e.line = e.line[:0]
			return "", "", false
		}
		e.line = e.line[:n-1]
		return "\b \b", "", false
	case c == escape:
		e.esc = 1
		return "", "", false
	case c < ' ':
		return "", "", false
	case len(e.line) == lineMax:
		return "\a", "", false
	}
	e.line = append(e.line, c)
	return string([]byte{c}), "", false
}

// runes counts the columns that a line takes.
func runes(line []byte) int {
	n := 0
	for _, c := range line {
		if c&0xc0 != 0x80 {
			n++
		}
	}
	return n
}
