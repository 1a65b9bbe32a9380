package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// Progress shows how far a transfer is, at standard error: a bar that is drawn
// anew on a terminal, and elsewhere a line every few seconds, so that a log of
// a short transfer is not longer for it.
type Progress struct {
	w     io.Writer
	tty   *os.File // or nil
	label string
	start time.Time
	stop  chan struct{}
	ended chan struct{}

	mu      sync.Mutex
	done    int64
	total   int64    // bytes, or -1 when nobody knows
	samples []sample // of the last seconds, oldest first
	shown   bool
}

type sample struct {
	at   time.Time
	done int64
}

// How often progress is shown, and over which time the rate is measured.
const (
	drawEvery  = 100 * time.Millisecond
	lineEvery  = 5 * time.Second
	rateWindow = 5 * time.Second
)

// StartProgress begins to show the progress of a command's transfer. Stop must
// follow.
func StartProgress(c *cobra.Command, label string) *Progress {
	p := &Progress{w: c.ErrOrStderr(), label: label, total: -1, start: time.Now(), stop: make(chan struct{}), ended: make(chan struct{})}
	every := lineEvery
	if tty, ok := Terminal(p.w); ok {
		p.tty, every = tty, drawEvery
	}
	go func() {
		defer close(p.ended)
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				p.show(false)
			case <-p.stop:
				return
			}
		}
	}()
	return p
}

// Set tells how many bytes have moved, and how many there are, or -1.
func (p *Progress) Set(done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.total = done, total
}

// Stop ends the showing.
func (p *Progress) Stop() {
	close(p.stop)
	<-p.ended
	if p.shown || p.tty != nil {
		p.show(true)
	}
}

func (p *Progress) show(last bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shown = true
	line := p.line(time.Now(), last)
	if p.tty == nil {
		fmt.Fprintln(p.w, line)
		return
	}
	columns, _, err := term.GetSize(int(p.tty.Fd()))
	if err != nil || columns < 20 {
		columns = 80
	}
	if runes := []rune(line); len(runes) >= columns {
		line = string(runes[:columns-1])
	}
	end := ""
	if last {
		end = "\n"
	}
	fmt.Fprintf(p.w, "\r%s\x1b[K%s", line, end)
}

// line is the state in words: flash 45% [####    ] 12.3 MB/27.0 MB 4.1 MB/s 0:03 left.
func (p *Progress) line(now time.Time, last bool) string {
	p.samples = append(p.samples, sample{now, p.done})
	for len(p.samples) > 2 && now.Sub(p.samples[0].at) > rateWindow {
		p.samples = p.samples[1:]
	}
	since := p.samples[0]
	if last || len(p.samples) == 1 {
		since = sample{at: p.start}
	}
	rate := 0.0
	if d := now.Sub(since.at).Seconds(); d > 0 {
		rate = float64(p.done-since.done) / d
	}
	words := []string{p.label}
	if p.total > 0 {
		share := min(float64(p.done)/float64(p.total), 1)
		words = append(words, fmt.Sprintf("%3.0f%%", 100*share))
		if p.tty != nil {
			const cells = 20
			full := int(share * cells)
			words = append(words, "["+strings.Repeat("#", full)+strings.Repeat(" ", cells-full)+"]")
		}
		words = append(words, bytesText(float64(p.done))+"/"+bytesText(float64(p.total)))
	} else {
		words = append(words, bytesText(float64(p.done)))
	}
	words = append(words, bytesText(rate)+"/s")
	switch {
	case last:
		words = append(words, "in "+clock(now.Sub(p.start)))
	case p.total > 0 && p.done >= p.total: // the device may have yet to write it
		words = append(words, "finishing, "+clock(now.Sub(p.start)))
	case p.total > 0 && rate > 0:
		words = append(words, clock(time.Duration(float64(p.total-p.done)/rate*float64(time.Second)))+" left")
	}
	return strings.Join(words, " ")
}

func bytesText(n float64) string {
	for _, unit := range []string{"B", "kB", "MB", "GB"} {
		if n < 1000 {
			if unit == "B" {
				return fmt.Sprintf("%.0f B", n)
			}
			return fmt.Sprintf("%.1f %s", n, unit)
		}
		n /= 1000
	}
	return fmt.Sprintf("%.1f TB", n)
}

func clock(d time.Duration) string {
	s := int(d.Round(time.Second).Seconds())
	if s < 3600 {
		return fmt.Sprintf("%d:%02d", s/60, s%60)
	}
	return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
}
