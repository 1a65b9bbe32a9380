// Package gpio finds GPIO lines and keeps them, on any backend: the kernel's own in hw/gpio/cdev, a model in
// hw/gpio/gpiotest.
//
// # Chips and lines
//
// A GPIO chip is whatever has lines that software can drive and read: a block of an SoC, an expander on an I2C bus, a USB
// adapter. The kernel numbers chips in the order in which it finds them, and a line of a chip by its offset from 0. So
// /dev/gpiochip0, line 17 is one line today and perhaps another after an update of the kernel: the header of a Raspberry
// Pi 5 was on gpiochip4 before Linux 6.6.45, and is on gpiochip0 since. Two names last longer. A chip has a label, which
// its driver gives it (pinctrl-bcm2711), and a line may have a name, which the board's device tree gives it (GPIO17). A
// [hw.LineRef] takes any of these. Names are not unique by law: where two lines share one, [Bus] refuses to guess.
//
// # Active and inactive
//
// A line is high or low on the wire, and active or inactive to its user. Active is high, unless the line was requested
// with ActiveLow: many relay boards switch on a low level. All values here are of the second kind.
//
// # Who has a line
//
// A line belongs to one user at a time, and the kernel tells everybody who that is. When the user ends, however it does,
// kill -9 included, the kernel takes the line back. What the wire does then is the chip driver's affair: most leave an
// output as it is, the Raspberry Pi's before the 5 (pinctrl-bcm2835) makes it an input, unless its module parameter
// persist_gpio_outputs says otherwise, as it does by default in Raspberry Pi's own kernels.
//
// # No glitches
//
// A line is requested as an output together with its first value, in one system call, and the kernel sets the value before
// it switches the driver on. Nothing here ever makes an output an input to read it: a relay would fall.
//
// # Edges
//
// The kernel notes edges when they happen, with the time, and queues them for the user: as many as the request asks for,
// up to 1024. When the queue is full it drops the oldest. Each edge bears the line's count of edges so far (line_seqno in
// the kernel's words), so that what was dropped shows as a gap: [Event] tells how many are missing. What the interrupt
// controller itself did not tell apart, two edges in a few microseconds, nobody can count.
//
// # Chips that come and go
//
// A USB adapter may be unplugged, and a driver unbound. [Output] and [Input] hold a line for long: when the chip is gone
// they answer [hw.ErrAbsent], and request the line anew when they are next used.
//
// A request is a system call, which nothing can interrupt, and a driver that hangs never answers it. Linux 7 and its gpio-sim
// do so at times, when a line is requested with edges just while its chip goes. Then callers get [ErrStuck] after 5 seconds,
// the next ones at once, and the kernel is not asked again before it has answered. What it gives too late is let go, or, while
// the [Output] or [Input] is in use, begins as if nobody had asked for a value.
package gpio

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"

	"github.com/jumplead/jumplead/hw"
	"github.com/jumplead/jumplead/hw/devfile"
)

// Chips is a backend: the chips that there are, and the system's own errors.
type Chips interface {
	// List names the chips' devices, as "gpiochip0", in the order of their numbers.
	List() ([]string, error)

	// Open opens the chip with the device file at path. A missing one is [fs.ErrNotExist].
	Open(path string) (Chip, error)
}

// Chip is an open chip. Closing it leaves alone the lines that were requested of it.
type Chip interface {
	Name() string // of the device, "gpiochip0", also when it was opened by a link
	Label() string
	Lines() int // how many there are
	Line(offset int) (Status, error)

	// Request takes a line. Errors are the kernel's: [syscall.EBUSY], [syscall.EINVAL], [syscall.ENODEV] ...
	Request(offset int, o hw.LineOptions) (hw.Line, error)
	Close() error
}

// Status is what everybody may know of a line.
type Status struct {
	Name     string
	Used     bool
	Consumer string // who uses it, as that says
}

// Bus finds lines on the chips of a backend.
type Bus struct{ Chips Chips }

var (
	_ hw.GPIO       = Bus{}
	_ hw.LineProber = Bus{}
)

// RequestLine finds and takes a line. Errors are of the kinds [hw.ErrAbsent] (no such chip or line; the text says what
// there is), [hw.ErrBusy] (the text says who has it), [hw.ErrWrong] (it cannot be told which line is meant, or that cannot do
// what the options ask for, which is [errors.ErrUnsupported], too), [fs.ErrPermission], or ctx's own. It returns as soon as
// ctx is done; a system call that is still running then finishes on its own, if it ever does, and the line that it got is let
// go at once.
func (b Bus) RequestLine(ctx context.Context, at hw.LineRef, o hw.LineOptions) (hw.Line, error) {
	line, err := b.requestUntil(ctx, at, o)
	if err != nil {
		return nil, fmt.Errorf("request %v: %w", at, err)
	}
	return line, nil
}

func (b Bus) request(ctx context.Context, at hw.LineRef, o hw.LineOptions) (hw.Line, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	chip, offset, err := b.find(at)
	if err != nil {
		return nil, err
	}
	defer chip.Close()
	line, err := chip.Request(offset, o)
	if err != nil {
		return nil, explain(chip, offset, o, err)
	}
	return line, nil
}

// ProbeLine finds a line and looks who uses it, without taking it. It opens the line's chip, which concerns nobody. Errors
// are as those of RequestLine.
func (b Bus) ProbeLine(ctx context.Context, at hw.LineRef) (hw.LineInfo, error) {
	info, err := b.probe(ctx, at)
	if err != nil {
		return info, fmt.Errorf("request %v: %w", at, err)
	}
	return info, nil
}

func (b Bus) probe(ctx context.Context, at hw.LineRef) (info hw.LineInfo, err error) {
	if err := ctx.Err(); err != nil {
		return info, err
	}
	chip, offset, err := b.find(at)
	if err != nil {
		return info, err
	}
	defer chip.Close()
	s, err := chip.Line(offset)
	if err != nil {
		return info, explain(chip, offset, hw.LineOptions{}, err)
	}
	if s.Used {
		return info, explain(chip, offset, hw.LineOptions{}, syscall.EBUSY)
	}
	return hw.LineInfo{Chip: chip.Name(), Label: chip.Label(), Offset: offset, Name: s.Name}, nil
}

// find opens the chip that has a line.
func (b Bus) find(at hw.LineRef) (Chip, int, error) {
	candidates, err := b.candidates(at)
	if err != nil {
		return nil, 0, err
	}
	if at.Name == "" {
		chip := candidates[0]
		closeAll(candidates[1:])
		if at.Offset < 0 || at.Offset >= chip.Lines() {
			chip.Close()
			return nil, 0, absent("%s has the lines 0 to %d; is another chip meant? %s", describe(chip), chip.Lines()-1, b.inventory())
		}
		return chip, at.Offset, nil
	}
	defer func() { closeAll(candidates) }()
	type place struct {
		chip   int
		offset int
	}
	var found []place
	var names []string
	for i, chip := range candidates {
		for offset := range chip.Lines() {
			s, err := chip.Line(offset)
			if err != nil {
				break // the chip has just gone
			}
			if s.Name == at.Name {
				found = append(found, place{i, offset})
			}
			names = append(names, s.Name)
		}
	}
	switch len(found) {
	case 0:
		near := hw.Nearest(at.Name, names)
		if near != "" {
			near = fmt.Sprintf("; did you mean %q?", near)
		}
		return nil, 0, absent("no line has that name%s; %s", near, b.inventory())
	case 1:
		chip := candidates[found[0].chip]
		candidates = slices.Delete(candidates, found[0].chip, found[0].chip+1)
		return chip, found[0].offset, nil
	}
	var where []string
	for _, f := range found {
		where = append(where, fmt.Sprintf("line %d of %s", f.offset, describe(candidates[f.chip])))
	}
	return nil, 0, hw.Mark(hw.ErrWrong, fmt.Errorf("several lines have that name: %s; give the chip and the number", strings.Join(where, ", ")))
}

// candidates opens the chips that may be meant, at least one.
func (b Bus) candidates(at hw.LineRef) ([]Chip, error) {
	ref := at.Chip
	if ref == "" && at.Name == "" {
		ref = "gpiochip0"
	}
	if strings.HasPrefix(ref, "gpiochip") {
		ref = "/dev/" + ref
	}
	if strings.HasPrefix(ref, "/") {
		chip, err := b.Chips.Open(ref)
		switch {
		case errors.Is(err, fs.ErrNotExist), gone(err):
			return nil, absent("no %s; %s", ref, b.inventory())
		case errors.Is(err, syscall.ENOTTY), errors.Is(err, syscall.EINVAL):
			return nil, hw.Mark(hw.ErrWrong, fmt.Errorf("%w; %s", err, b.inventory()))
		case err != nil:
			return nil, forbidden(err)
		}
		return []Chip{chip}, nil
	}
	list, err := b.Chips.List()
	if err != nil {
		return nil, err
	}
	var open []Chip
	var refused error
	for _, name := range list {
		chip, err := b.Chips.Open("/dev/" + name)
		switch {
		case err != nil:
			if refused == nil && errors.Is(err, fs.ErrPermission) {
				refused = forbidden(err)
			}
		case ref != "" && chip.Label() != ref:
			chip.Close()
		default:
			open = append(open, chip)
		}
	}
	switch {
	case len(open) == 0 && refused != nil:
		return nil, refused
	case len(open) == 0 && ref != "":
		return nil, absent("no chip has the label %q; %s", ref, b.inventory())
	case len(open) == 0:
		return nil, absent("there are no GPIO chips")
	case len(open) > 1 && ref != "" && at.Name == "":
		defer closeAll(open)
		return nil, hw.Mark(hw.ErrWrong, fmt.Errorf("%d chips have the label %q; give the device: %s", len(open), ref, b.inventory()))
	}
	return open, nil
}

func closeAll(chips []Chip) {
	for _, c := range chips {
		c.Close()
	}
}

func absent(format string, args ...any) error {
	return hw.Mark(hw.ErrAbsent, fmt.Errorf(format, args...))
}

func describe(c Chip) string { return fmt.Sprintf("%s (%s)", c.Name(), c.Label()) }

// inventory says which chips there are.
func (b Bus) inventory() string {
	list, err := b.Chips.List()
	if err != nil {
		return err.Error()
	}
	var chips []string
	for _, name := range list {
		chip, err := b.Chips.Open("/dev/" + name)
		if err != nil {
			chips = append(chips, name)
			continue
		}
		chips = append(chips, fmt.Sprintf("%s (%s, %d lines)", name, chip.Label(), chip.Lines()))
		chip.Close()
	}
	if len(chips) == 0 {
		return "there are no GPIO chips"
	}
	return "there are " + strings.Join(chips, ", ")
}

// gone reports whether an error of the system says that a chip was removed.
func gone(err error) bool { return errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.ENXIO) }

func forbidden(err error) error {
	var at *fs.PathError
	if !errors.As(err, &at) {
		return err
	}
	return devfile.Explain(err, at.Path, `SUBSYSTEM=="gpio", KERNEL=="gpiochip*"`)
}

// explain says why a line that is there could not be had.
func explain(c Chip, offset int, o hw.LineOptions, err error) error {
	s, serr := c.Line(offset)
	info := hw.LineInfo{Chip: c.Name(), Label: c.Label(), Offset: offset, Name: s.Name}
	switch {
	case errors.Is(err, syscall.EBUSY):
		who := "somebody"
		if s.Consumer != "" {
			who = fmt.Sprintf("%q", s.Consumer)
		}
		return hw.Mark(hw.ErrBusy, fmt.Errorf("%v: %s uses it: %w", info, who, err))
	case gone(err) && serr != nil:
		return absent("%s has just gone: %w", describe(c), err)
	case o.Edges && (gone(err) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP)):
		return fmt.Errorf("%v: the chip cannot report edges of it, or not with this bias (%v): %w", info, err, errors.ErrUnsupported)
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOTSUP), gone(err):
		return hw.Mark(hw.ErrWrong, fmt.Errorf("%v: the chip cannot use it in this direction, or with this drive or bias (%v): %w", info, err, errors.ErrUnsupported))
	}
	return fmt.Errorf("%v: %w", info, err)
}
