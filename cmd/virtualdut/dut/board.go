package dut

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"time"
)

// Phase is what the device does.
type Phase string

const (
	PhaseOff    Phase = "off"    // the rail is off
	PhaseBoot   Phase = "boot"   // the rail is on, the shell not yet there
	PhaseUp     Phase = "up"     // console and page serve
	PhaseHalted Phase = "halted" // shut down; only a power cycle helps
)

// State is the rail and what hangs on it, as the meter and the board's lamps show it.
type State struct {
	Rail    string  `json:"rail"` // "on" or "off"
	Phase   Phase   `json:"phase"`
	Voltage float64 `json:"voltage"` // volts
	Current float64 `json:"current"` // amperes
	Card    Side    `json:"card"`
	UART    Cable   `json:"uart"`
}

// Side is where the mux has the SD card.
type Side string

const (
	SideDUT  Side = "dut"
	SideHost Side = "host"
	SideOff  Side = "off" // on neither side
)

// Cable is what the console's cable is.
type Cable string

const (
	Plugged   Cable = "plugged"
	Unplugged Cable = "unplugged"
)

// wire is the far end of the UART's transmit line. Send does not wait: what the wire cannot take is lost.
type wire interface {
	Send(p []byte)
	State() Cable
}

// site is the network service of the device.
type site interface {
	Addr() string
	Start(status func() string) error
	Stop()
	Busy() int // requests in progress
}

// board is the supply and the computer that it feeds. It does no input or output of its own and takes its time from
// package time only, so that a test may run it on a clock of its own.
type board struct {
	bootTime time.Duration
	wire     wire
	site     site
	load     func(context.Context) (image, error) // what is on the card
	log      *slog.Logger

	switching sync.Mutex // held while the rail is being switched

	mu   sync.Mutex
	run  *run // nil while the rail is off
	card Side
}

// run is the time from switching on to switching off. All that the computer remembers is here, so that nothing outlives
// a power cut.
type run struct {
	board *board
	start time.Time
	tx    chan byte     // the UART's send buffer: the firmware waits when it is full
	rx    chan byte     // the UART's receive buffer: input is lost when it is full
	slot  chan struct{} // the card's slot: there is something in it when the card has come or gone
	cut   context.CancelFunc
	ended sync.WaitGroup

	mu    sync.Mutex
	phase Phase
	image image // that was booted
}

// UART buffers, in bytes.
const (
	txSize   = 4096
	rxSize   = 4096
	fifoSize = 32 // what the transmitter takes at a time
)

// byteTime is how long the UART takes for a byte: ten bits at 115200 baud.
const byteTime = 10 * time.Second / 115200

// On switches the rail on.
func (b *board) On() {
	b.switching.Lock()
	defer b.switching.Unlock()
	if b.current() != nil {
		return
	}
	ctx, cut := context.WithCancel(context.Background())
	r := &run{
		board: b,
		start: time.Now(),
		tx:    make(chan byte, txSize),
		rx:    make(chan byte, rxSize),
		slot:  make(chan struct{}, 1),
		cut:   cut,
		phase: PhaseBoot,
	}
	b.mu.Lock()
	b.run = r
	b.mu.Unlock()
	b.log.Info("rail on")
	r.ended.Go(func() { r.transmit(ctx) })
	r.ended.Go(func() { r.firmware(ctx) })
}

// Off switches the rail off. When it returns, nothing of the computer runs any more.
func (b *board) Off() {
	b.switching.Lock()
	defer b.switching.Unlock()
	r := b.current()
	if r == nil {
		return
	}
	b.mu.Lock()
	b.run = nil
	b.mu.Unlock()
	r.cut()
	r.ended.Wait()
	b.log.Info("rail off")
}

func (b *board) current() *run {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.run
}

// Turn turns the mux of the card.
func (b *board) Turn(to Side) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.card == to {
		return
	}
	b.card = to
	b.log.Info("card turned", "to", to)
	if b.run != nil {
		select {
		case b.run.slot <- struct{}{}:
		default: // it will look at the card anyway
		}
	}
}

// inserted tells whether the device has the card.
func (b *board) inserted() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.card == SideDUT
}

// Receive is the far end of the UART's receive line. It does not wait.
func (b *board) Receive(p []byte) {
	r := b.current()
	if r == nil || r.now() != PhaseUp {
		return
	}
	for _, c := range p {
		select {
		case r.rx <- c:
		default:
			return
		}
	}
}

// The load, in amperes, and the supply.
const (
	inrush     = 2.4
	inrushTime = 6 * time.Millisecond // in which the inrush falls to 1/e
	loadBoot   = 0.9
	loadUp     = 0.42
	loadBusy   = 0.18 // for each request in progress
	busyMax    = 4
	loadHalted = 0.05

	supply = 5.0  // volts
	lead   = 0.08 // ohms
)

// State measures.
func (b *board) State() State {
	b.mu.Lock()
	r, s := b.run, State{Rail: "off", Phase: PhaseOff, Card: b.card}
	b.mu.Unlock()
	s.UART = b.wire.State()
	if r == nil {
		return s
	}
	s.Rail, s.Phase = "on", r.now()
	switch s.Phase {
	case PhaseBoot:
		s.Current = loadBoot
	case PhaseUp:
		s.Current = loadUp + loadBusy*float64(min(b.site.Busy(), busyMax))
	case PhaseHalted:
		s.Current = loadHalted
	}
	s.Current += inrush * math.Exp(-float64(time.Since(r.start))/float64(inrushTime))
	s.Voltage = milli(supply - s.Current*lead)
	s.Current = milli(s.Current)
	return s
}

// milli rounds to the meter's resolution.
func milli(x float64) float64 { return math.Round(x*1000) / 1000 }

func (r *run) now() Phase {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.phase
}

func (r *run) enter(p Phase) {
	r.mu.Lock()
	r.phase = p
	r.mu.Unlock()
	r.board.log.Debug("phase", "phase", p)
}

// transmit shifts out what the firmware prints, at the UART's speed.
func (r *run) transmit(ctx context.Context) {
	// A timer is late by a fraction of a FIFO's time, which the next FIFO makes up for.
	const late = 20 * time.Millisecond
	var fifo [fifoSize]byte
	idle := r.start // since or until when the line is idle
	for {
		n := 1
		select {
		case fifo[0] = <-r.tx:
		case <-ctx.Done():
			return
		}
	fill:
		for n < fifoSize {
			select {
			case fifo[n] = <-r.tx:
				n++
			default:
				break fill
			}
		}
		r.board.wire.Send(fifo[:n])
		if time.Since(idle) > late {
			idle = time.Now()
		}
		idle = idle.Add(time.Duration(n) * byteTime)
		if !sleep(ctx, time.Until(idle)) {
			return
		}
	}
}

// sleep waits for d and reports whether there was still power then.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
