// Package gpiotest has a model of GPIO chips, for tests without hardware.
//
// The model has two sides. The host requests lines through [Board], which is a backend of hw/gpio. The world is the wires:
// a test pulls or drives them with [Chip.Drive], asks what is on them with [Chip.Level], and what was on them with
// [Chip.History]. It behaves as the kernel does where that is documented: an output has its first value as soon as it is
// one, a line that is let go stays as it is, edges are numbered, and dropped from the front of a full queue.
package gpiotest

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/gpio"
)

// Board is a host with any number of chips. The zero Board has none.
type Board struct {
	mu     sync.Mutex
	chips  map[string]*Chip // by name
	links  map[string]string
	closed map[string]bool // to this user
}

var _ gpio.Chips = (*Board)(nil)

// Bus is the bus that finds lines on this board.
func (b *Board) Bus() gpio.Bus { return gpio.Bus{Chips: b} }

// Add makes a chip appear as /dev/NAME, with a number of lines. One of that name is removed first. Lines may be named, in
// order; "" is a line without a name.
func (b *Board) Add(name, label string, lines int, names ...string) *Chip {
	b.Remove(name)
	c := &Chip{name: name, label: label, lines: make([]*line, lines)}
	for i := range c.lines {
		c.lines[i] = &line{chip: c, offset: i}
		if i < len(names) {
			c.lines[i].name = names[i]
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.chips == nil {
		b.chips, b.links, b.closed = map[string]*Chip{}, map[string]string{}, map[string]bool{}
	}
	b.chips[name] = c
	return c
}

// Link makes the path lead to a chip.
func (b *Board) Link(path, chip string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.links[path] = chip
}

// Forbid takes away the right to open a chip.
func (b *Board) Forbid(chip string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed[chip] = true
}

// Allow gives it back.
func (b *Board) Allow(chip string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.closed, chip)
}

// Remove takes a chip away. Lines that were requested of it answer that it is gone.
func (b *Board) Remove(name string) {
	b.mu.Lock()
	c := b.chips[name]
	delete(b.chips, name)
	b.mu.Unlock()
	if c != nil {
		c.remove()
	}
}

// List names the chips.
func (b *Board) List() ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var names []string
	for name := range b.chips {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// Open opens the chip at path.
func (b *Board) Open(path string) (gpio.Chip, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	name := strings.TrimPrefix(path, "/dev/")
	if to := b.links[path]; to != "" {
		name = to
	}
	c := b.chips[name]
	switch {
	case c == nil:
		return nil, &fs.PathError{Op: "open", Path: path, Err: syscall.ENOENT}
	case b.closed[name]:
		return nil, &fs.PathError{Op: "open", Path: path, Err: syscall.EACCES}
	}
	return handle{c}, nil
}

// handle is an open chip.
type handle struct{ *Chip }

func (handle) Close() error { return nil }

// Chip is one chip.
type Chip struct {
	// NoEdges makes a chip without interrupts. Set it before lines are requested.
	NoEdges bool

	name, label string

	mu    sync.Mutex
	gone  bool
	lines []*line
}

// Name, Label and Lines are those of [gpio.Chip].
func (c *Chip) Name() string  { return c.name }
func (c *Chip) Label() string { return c.label }
func (c *Chip) Lines() int    { return len(c.lines) }

// Line tells who uses a line.
func (c *Chip) Line(offset int) (gpio.Status, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.gone:
		return gpio.Status{}, syscall.ENODEV
	case offset < 0 || offset >= len(c.lines):
		return gpio.Status{}, syscall.EINVAL
	}
	l := c.lines[offset]
	s := gpio.Status{Name: l.name, Used: l.user != nil}
	if l.user != nil {
		s.Consumer = l.user.opt.Consumer
	}
	return s, nil
}

// Request takes a line.
func (c *Chip) Request(offset int, o hw.LineOptions) (hw.Line, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.gone:
		return nil, syscall.ENODEV
	case offset < 0 || offset >= len(c.lines),
		o.Output && (o.Edges || o.Debounce > 0), !o.Output && o.Drive != hw.PushPull:
		return nil, syscall.EINVAL
	case c.lines[offset].user != nil:
		return nil, syscall.EBUSY
	case o.Edges && c.NoEdges:
		return nil, syscall.ENODEV
	}
	l := c.lines[offset]
	r := &request{line: l, opt: o, ready: make(chan struct{}, 1), done: make(chan struct{})}
	r.info = hw.LineInfo{Chip: c.name, Label: c.label, Offset: offset, Name: l.name}
	l.user = r
	l.output, l.drive, l.bias = o.Output, o.Drive, o.Bias
	if o.Output {
		l.value = o.Active != o.ActiveLow
	}
	l.settle()
	r.stable = l.level
	return r, nil
}

func (c *Chip) remove() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	for _, l := range c.lines {
		if l.user != nil {
			l.user.end(hw.Mark(hw.ErrAbsent, fmt.Errorf("%v: the chip is gone: %w", l.user.info, syscall.ENODEV)))
		}
	}
}

// Drive puts a level on a wire from outside, as a strong pull: an output of the host wins over it.
func (c *Chip) Drive(offset int, high bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lines[offset]
	l.outside = &high
	l.settle()
}

// Leave ends Drive.
func (c *Chip) Leave(offset int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines[offset].outside = nil
	c.lines[offset].settle()
}

// Join makes a wire follow another, as a piece of wire does.
func (c *Chip) Join(from, to int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines[from].joined = c.lines[to]
	c.lines[from].settle()
}

// Level is what is on a wire: high or not.
func (c *Chip) Level(offset int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lines[offset].level
}

// Output reports whether the line is an output.
func (c *Chip) Output(offset int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lines[offset].output
}

// Used reports whether somebody has the line.
func (c *Chip) Used(offset int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lines[offset].user != nil
}

// Change is a moment at which a wire or its direction changed.
type Change struct {
	Output bool // the host drives it
	High   bool
	At     time.Time
}

func (c Change) String() string {
	s := "in"
	if c.Output {
		s = "out"
	}
	if c.High {
		return s + "-high"
	}
	return s + "-low"
}

// History is all that happened to a wire since its chip was made.
func (c *Chip) History(offset int) []Change {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.lines[offset].history)
}

// line is a wire. Its chip's mutex guards it.
type line struct {
	chip    *Chip
	offset  int
	name    string
	outside *bool // what the world drives, or nil
	joined  *line // follows this one
	output  bool
	value   bool // that the host drives, electrical
	drive   hw.Drive
	bias    hw.Bias
	level   bool
	user    *request
	history []Change
}

// settle finds out what is on the wire.
func (l *line) settle() {
	level := l.bias == hw.PullUp
	if l.outside != nil {
		level = *l.outside
	}
	if l.output && (l.drive == hw.PushPull || l.drive == hw.OpenDrain && !l.value || l.drive == hw.OpenSource && l.value) {
		level = l.value
	}
	last := Change{}
	if len(l.history) > 0 {
		last = l.history[len(l.history)-1]
	}
	if last.Output != l.output || last.High != level {
		l.history = append(l.history, Change{l.output, level, time.Now()})
	}
	if l.joined != nil {
		l.joined.outside = &level
		l.joined.settle()
	}
	if l.level == level {
		return
	}
	l.level = level
	if l.user != nil {
		l.user.changed()
	}
}

// queueSize is how many edges wait for their reader: what a user may ask of the kernel at most.
const queueSize = 1024

// request is a line in use.
type request struct {
	line *line
	info hw.LineInfo
	opt  hw.LineOptions

	// The chip's mutex guards these.
	err    error // the end
	edges  []hw.Edge
	seqno  uint32
	stable bool // the level, debounced
	timer  *time.Timer

	ready chan struct{}
	done  chan struct{} // closed at the end
}

// changed notes an edge, at once or when the line has been stable for long enough.
func (r *request) changed() {
	if !r.opt.Edges {
		return
	}
	if r.opt.Debounce == 0 {
		r.edge()
		return
	}
	if r.timer != nil {
		r.timer.Stop()
	}
	r.timer = time.AfterFunc(r.opt.Debounce, func() {
		r.line.chip.mu.Lock()
		defer r.line.chip.mu.Unlock()
		if r.err == nil && r.stable != r.line.level {
			r.edge()
		}
	})
}

func (r *request) edge() {
	r.stable = r.line.level
	r.seqno++
	if len(r.edges) == queueSize {
		r.edges = r.edges[1:]
	}
	r.edges = append(r.edges, hw.Edge{Rising: r.stable != r.opt.ActiveLow, Time: time.Duration(time.Now().UnixNano()), Seqno: r.seqno})
	select {
	case r.ready <- struct{}{}:
	default:
	}
}

func (r *request) end(err error) {
	if r.err != nil {
		return
	}
	r.err = err
	r.line.user = nil
	if r.timer != nil {
		r.timer.Stop()
	}
	close(r.done)
}

func (r *request) Info() hw.LineInfo { return r.info }

func (r *request) Value() (bool, error) {
	r.line.chip.mu.Lock()
	defer r.line.chip.mu.Unlock()
	if r.err != nil {
		return false, r.err
	}
	level := r.line.level
	if r.opt.Debounce > 0 {
		level = r.stable
	}
	return level != r.opt.ActiveLow, nil
}

func (r *request) SetValue(active bool) error {
	r.line.chip.mu.Lock()
	defer r.line.chip.mu.Unlock()
	switch {
	case r.err != nil:
		return r.err
	case !r.opt.Output:
		return fmt.Errorf("%v: set: %w", r.info, syscall.EPERM)
	}
	r.line.value = active != r.opt.ActiveLow
	r.line.settle()
	return nil
}

func (r *request) ReadEdges(buf []hw.Edge) (int, error) {
	for {
		r.line.chip.mu.Lock()
		n := copy(buf, r.edges)
		r.edges = r.edges[n:]
		err := r.err
		r.line.chip.mu.Unlock()
		if err != nil {
			return 0, err
		}
		if n > 0 {
			return n, nil
		}
		select {
		case <-r.ready:
		case <-r.done:
		}
	}
}

func (r *request) Close() error {
	r.line.chip.mu.Lock()
	defer r.line.chip.mu.Unlock()
	r.end(fmt.Errorf("%v: %w", r.info, os.ErrClosed))
	return nil
}
